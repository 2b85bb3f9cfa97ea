//! Bodies that no NATS message can hold, up to the 32 MiB that a request may have.

use std::fmt::Write;

use anyhow::{Context, ensure};
use nexus_tests::log::Event;
use nexus_tests::{Hub, Result, Script, broker};
use serde_json::{Value, json};

use super::{Talk, Turn, carried, ensure_put_together};
use crate::recorded::Recorded;
use crate::stage::{MODEL, Stage, ensure_error};

/// The largest body that is taken.
const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Text of so many bytes that no run of it repeats soon, as base64 of an image has it.
fn text(bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 20);
    let mut number: u64 = 0x9e37_79b9_7f4a_7c15;
    while text.len() < bytes {
        number = number
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        write!(text, "{number:016x}").unwrap();
    }
    text.truncate(bytes);
    text
}

/// A request whose body has exactly so many bytes.
fn request_of(bytes: usize) -> Value {
    let body = |content: &str| {
        json!({
            "model": MODEL,
            "messages": [{"role": "user", "content": content}],
        })
    };
    // The last word is the upstream's name for the request, and stands in its answer.
    let around = body(" large").to_string().len();
    body(&format!("{} large", text(bytes - around)))
}

#[tokio::test]
async fn a_body_of_any_size_is_carried_out_recorded_and_read_back() -> Result<()> {
    let stage = Stage::set().await?;
    for bytes in [500 * 1024, 600 * 1024, 3 * 1024 * 1024, BODY_BYTES_MAX] {
        let sent = request_of(bytes);
        ensure!(sent.to_string().len() == bytes);
        let answer = stage.client.chat(&sent).await?;
        let turn = Turn::of(&answer.expect(200)?, sent)?;
        let asked = stage.upstream.exchanges().pop().context("not asked")?;
        ensure!(
            asked.request.json() == turn.sent,
            "{bytes} bytes arrived otherwise"
        );
        let recorded = Recorded::wait(&stage.log, &turn.request_id).await?;
        let outside = recorded.received.json.get("dataref").is_some();
        ensure!(outside == (bytes > 512 * 1024), "{bytes} bytes");
        ensure!(
            recorded.received.data()["http.request.body.size"] == bytes,
            "{bytes} bytes"
        );
        if outside {
            let content = content(&stage.hub, &recorded.received).await?;
            let message = &content["messages"][0];
            ensure!(*message == turn.sent["messages"][0], "{bytes} bytes");
        }
        ensure_put_together(&stage, &turn)
            .await
            .with_context(|| format!("{bytes} bytes"))?;
    }
    let answer = stage.client.chat(&request_of(BODY_BYTES_MAX + 1)).await?;
    ensure_error(&answer, 413)?;
    stage.strike().await
}

/// The content of an event that lies in the object store, read with the plain client.
async fn content(hub: &Hub, event: &Event) -> Result<Value> {
    use tokio::io::AsyncReadExt;
    let reference = event.json["dataref"].as_str().context("no dataref")?;
    let (bucket, name) = reference
        .strip_prefix("nats-object://")
        .and_then(|rest| rest.split_once('/'))
        .with_context(|| format!("a strange dataref {reference}"))?;
    ensure!(name == event.id(), "{reference} is not of {}", event.id());
    let jetstream = async_nats::jetstream::new(broker::connect(&hub.nats_url()?).await?);
    let mut object = jetstream.get_object_store(bucket).await?.get(name).await?;
    let mut bytes = Vec::new();
    object.read_to_end(&mut bytes).await?;
    serde_json::from_slice(&bytes).context("the object is not JSON")
}

#[tokio::test]
async fn a_large_answer_is_recorded_and_its_conversation_goes_on() -> Result<()> {
    let stage = Stage::set().await?;
    let long = text(2 * 1024 * 1024);
    let pieces: Vec<&str> = (0..4)
        .filter_map(|piece| long.get(piece * 524_288..(piece + 1) * 524_288))
        .collect();
    for stream in [false, true] {
        stage.upstream.once(Script::answer().saying(pieces.clone()));
        let mut talk = Talk::new(&stage.client);
        let first = if stream {
            talk.say_streamed("long, streamed").await?
        } else {
            talk.say("long").await?
        };
        ensure!(talk.messages[1]["content"] == long, "stream {stream}");
        let recorded = Recorded::wait(&stage.log, &first.request_id).await?;
        ensure!(recorded.terminal.json.get("dataref").is_some());
        let content = content(&stage.hub, &recorded.terminal).await?;
        ensure!(
            content["choices"][0]["message"]["content"] == long,
            "stream {stream}"
        );
        // The answer comes back as history and is not stored again.
        let second = talk.say("and now?").await?;
        ensure!(second.conversation == first.conversation);
        let recorded = Recorded::wait(&stage.log, &second.request_id).await?;
        ensure!(carried(&recorded) == (1, true), "stream {stream}");
        ensure!(recorded.received.json.get("dataref").is_none());
        ensure_put_together(&stage, &first).await?;
        ensure_put_together(&stage, &second).await?;
    }
    stage.strike().await
}
