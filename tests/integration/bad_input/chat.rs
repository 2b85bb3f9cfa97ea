//! Chat requests that cannot be carried out.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::Method;
use nexus_tests::client::Answer;
use nexus_tests::log::Stream;
use nexus_tests::{Client, Result};
use serde_json::{Value, json};

use crate::stage::{MODEL, Stage, ask, ensure_error, request_id, shown_request};

const CHAT: &str = "/v1/chat/completions";

/// A body, and the member that its error names.
type BadBody = (Bytes, Option<&'static str>);

/// A good request with one member replaced.
fn with(member: &str, value: Value) -> Bytes {
    let mut body = ask("bad");
    body[member] = value;
    body.to_string().into()
}

/// A good request without one member.
fn without(member: &str) -> Bytes {
    let mut body = ask("bad");
    if let Some(members) = body.as_object_mut() {
        members.remove(member);
    }
    body.to_string().into()
}

fn bad_bodies() -> Vec<BadBody> {
    let no_object = [
        "", " ", "{", "}", "nonsense", "[]", "null", "7", "\"text\"", "{}{}", "{\"a\":}",
    ];
    let mut bodies: Vec<BadBody> = no_object
        .into_iter()
        .map(|text| (Bytes::from_static(text.as_bytes()), None))
        .collect();
    // Invalid UTF-8: in a text, in a name, and cut inside a character.
    for bytes in [
        &b"{\"model\":\"gpt-test\",\"messages\":[{\"role\":\"user\",\"content\":\"\xff\xfe\"}]}"[..],
        b"{\"mod\xc3el\":\"gpt-test\"}",
        b"{\"model\":\"gpt-test\xe2\x82",
    ] {
        bodies.push((Bytes::from_static(bytes), None));
    }
    let wrong = |member: &'static str, values: Vec<Value>| {
        values
            .into_iter()
            .map(move |value| (with(member, value), Some(member)))
    };
    bodies.push((without("model"), Some("model")));
    bodies.extend(wrong(
        "model",
        vec![
            json!(7),
            json!(""),
            json!(null),
            json!(["m"]),
            json!("x".repeat(300)),
        ],
    ));
    bodies.push((without("messages"), Some("messages")));
    bodies.extend(wrong(
        "messages",
        vec![json!([]), json!(null), json!({}), json!("hi"), json!(7)],
    ));
    bodies.extend([
        (with("messages", json!([7])), Some("messages[0]")),
        (
            with("messages", json!([{"role": "user", "content": "x"}, "hi"])),
            Some("messages[1]"),
        ),
        (
            with("messages", json!([{"content": "x"}])),
            Some("messages[0].role"),
        ),
        (
            with("messages", json!([{"role": 7, "content": "x"}])),
            Some("messages[0].role"),
        ),
        (
            with("messages", json!([{"role": "", "content": "x"}])),
            Some("messages[0].role"),
        ),
    ]);
    bodies.extend(wrong("stream", vec![json!("yes"), json!(1), json!([])]));
    bodies.extend(wrong(
        "stream_options",
        vec![json!(7), json!([]), json!({"include_usage": "yes"})],
    ));
    bodies.extend(wrong(
        "user",
        vec![json!(7), json!({}), json!("u".repeat(300))],
    ));
    let twice = format!(r#"{{"model":"a","model":"{MODEL}","messages":[]}}"#);
    bodies.push((twice.into(), Some("model")));
    bodies
}

#[tokio::test]
async fn what_cannot_be_carried_out_is_refused_and_recorded_where_a_key_was_recognised()
-> Result<()> {
    let stage = Stage::set().await?;
    let mut recognised = Recognised::default();
    for (body, param) in bad_bodies() {
        let answer = stage.client.post_bytes(CHAT, body.clone()).await?;
        ensure_param(&answer, 400, param)
            .with_context(|| String::from_utf8_lossy(&body).into_owned())?;
        recognised.add(&answer)?;
    }

    let mut body = ask("unknown");
    body["model"] = json!("no-such-model");
    let answer = stage.client.chat(&body).await?;
    ensure_param(&answer, 404, Some("model"))?;
    ensure!(
        answer.error_code() == "model_not_found",
        "{}",
        answer.text()
    );
    recognised.add(&answer)?;

    for given in ["nonsense", "", "0193-7"] {
        let named = stage.client.with_header("x-conversation-id", given)?;
        let answer = named.chat(&ask("conversation")).await?;
        ensure_error(&answer, 400).with_context(|| format!("conversation {given:?}"))?;
        recognised.add(&answer)?;
    }

    for answer in too_large(&stage.client).await? {
        ensure_error(&answer, 413)?;
        recognised.add(&answer)?;
    }
    strangers(&stage).await?;
    recognised.check(&stage).await?;
    ensure!(
        stage.upstream.exchanges().len() == 1,
        "a refused request reached the provider"
    );
    stage.strike().await
}

fn ensure_param(answer: &Answer, status: u16, param: Option<&str>) -> Result<()> {
    ensure_error(answer, status)?;
    let named = answer.json["error"]["param"].as_str();
    ensure!(
        named == param,
        "the error names {named:?} instead of {param:?}: {}",
        answer.text()
    );
    Ok(())
}

/// A body of 33 MiB, announced and not.
async fn too_large(client: &Client) -> Result<[Answer; 2]> {
    let body = Bytes::from(vec![b' '; 33 * 1024 * 1024]);
    let announced = client.post_bytes(CHAT, body.clone()).await?;
    let pieces: Vec<std::io::Result<Bytes>> = (0..33)
        .map(|piece| Ok(body.slice(piece * 1024 * 1024..(piece + 1) * 1024 * 1024)))
        .collect();
    let unannounced = client
        .request(Method::POST, CHAT)
        .header("content-type", "application/json")
        .body(reqwest::Body::wrap_stream(futures_util::stream::iter(
            pieces,
        )))
        .send()
        .await
        .context("no answer to a body without a length")?;
    Ok([announced, Answer::read(unannounced).await?])
}

/// Whoever has no key, a wrong one, or one that was deleted.
async fn strangers(stage: &Stage) -> Result<()> {
    let nobody = stage.hub.anonymous()?;
    let deleted = stage.client.with_new_key("deleted", "member").await?;
    deleted.get("/v1/models").await?.expect(200)?;
    stage.client.delete("/keys/deleted").await?.expect(200)?;
    let cases = [
        (nobody.clone(), "missing_api_key"),
        (nobody.with_key("")?, "missing_api_key"),
        (nobody.with_key("nx-wrong")?, "invalid_api_key"),
        (deleted, "invalid_api_key"),
        (
            nobody.with_header("authorization", "Basic dXNlcjpwYXNz")?,
            "missing_api_key",
        ),
    ];
    for (stranger, code) in cases {
        for answer in [
            stranger.chat(&ask("stranger")).await?,
            // The key comes first: a stranger learns nothing about what is wrong beside it.
            stranger.post_bytes(CHAT, "{").await?,
            stranger.get("/v1/models").await?,
            stranger.get("/stats").await?,
            stranger.post("/providers", &json!({"name": "x"})).await?,
        ] {
            ensure_error(&answer, 401).with_context(|| format!("{stranger:?}"))?;
            ensure!(answer.error_code() == code, "{}", answer.text());
        }
    }
    Ok(())
}

/// The requests that a key was recognised of.
#[derive(Debug, Default)]
struct Recognised(BTreeSet<String>);

impl Recognised {
    fn add(&mut self, answer: &Answer) -> Result<()> {
        let is_new = self.0.insert(request_id(answer)?);
        ensure!(is_new, "two requests have one id: {}", answer.text());
        Ok(())
    }

    /// Fails unless exactly these have a `rejected` event and no other one.
    async fn check(&self, stage: &Stage) -> Result<()> {
        // The lane ships in order: what was appended before this request ended is there with it.
        let last = stage.client.chat(&ask("last")).await?.expect(200)?;
        let last = request_id(&last)?;
        let events = stage.log.until_terminal([last.as_str()]).await?;
        let of_others = events.iter().filter(|event| event.request_id() != last);
        let rejected: Vec<_> = of_others.collect();
        for event in &rejected {
            ensure!(event.name() == "rejected", "{}", event.json);
            ensure!(event.data()["http.route"] == CHAT, "{}", event.json);
            let status = event.data()["http.response.status_code"].as_u64();
            ensure!(matches!(status, Some(400 | 404 | 413)), "{}", event.json);
        }
        let ids: BTreeSet<String> = rejected
            .iter()
            .map(|event| event.request_id().to_owned())
            .collect();
        ensure!(
            ids == self.0 && rejected.len() == ids.len(),
            "rejected {ids:?} and recognised {:?}",
            self.0
        );
        let chunks = stage.log.events(Stream::Chunks).await?;
        ensure!(chunks.is_empty(), "{chunks:?}");
        Ok(())
    }
}

#[tokio::test]
async fn what_some_reader_could_not_read_is_refused_and_the_rest_carried_out() -> Result<()> {
    let stage = Stage::set().await?;
    let saying = |content: &str| {
        format!(r#"{{"model":"{MODEL}","messages":[{{"role":"user","content":{content}}}]}}"#)
    };
    let nested = |depth: usize| saying(&("[".repeat(depth) + &"]".repeat(depth)));
    let with_top_p = |number: &str| {
        format!(r#"{{"model":"{MODEL}","top_p":{number},"messages":[{{"role":"user"}}]}}"#)
    };

    let mut recognised = Recognised::default();
    for (body, param) in [
        (nested(200), "messages"),
        (nested(1_000_000), "messages"),
        (nested(1_000_000).replace(']', ""), ""),
        (saying(r#""half a pair: \ud800""#), "messages"),
        (with_top_p("1e999"), "top_p"),
        // Which of the two counts is different from reader to reader.
        (
            format!(r#"{{"model":"{MODEL}","messages":[{{"role":"a","role":"user"}}]}}"#),
            "messages[0].role",
        ),
    ] {
        let shown: String = body.chars().take(120).collect();
        let answer = stage.client.post_bytes(CHAT, body).await?;
        let param = Some(param).filter(|param| !param.is_empty());
        ensure_param(&answer, 400, param).with_context(|| shown.clone())?;
        recognised.add(&answer)?;
    }
    recognised.check(&stage).await?;

    for body in [
        nested(90),
        saying(r#""\u0000 \ud83c\udf0a""#),
        with_top_p("1e300"),
        with_top_p("0.100000000000000000000000000000000000001"),
    ] {
        let answer = stage.client.post_bytes(CHAT, body.clone()).await?;
        let answer = answer.expect(200).with_context(|| body.clone())?;
        let shown = shown_request(&stage.client, &request_id(&answer)?).await?;
        ensure!(shown["state"] == "completed", "{body}: {shown}");
    }
    let read_model = stage.hub.read_model();
    let dead = read_model
        .number("SELECT count(*) FROM dead_letter")
        .await?;
    ensure!(dead == 0, "{dead} events could not be applied");
    stage.strike().await
}
