//! A streamed answer in a dialect is resumed in the dialect, whatever of it was received.

use anyhow::{Context, ensure};
use http::Method;
use nexus_tests::client::Answer;
use nexus_tests::sse::{Decoder, Event};
use nexus_tests::{Gate, Result, Script};
use serde_json::{Value, json};

use super::{CHUNKS, Pair};
use crate::stage::{MODEL, Stage};

/// A body of each dialect that asks for a stream.
fn asked() -> [(&'static str, Value); 4] {
    let messages = json!([{"role": "user", "content": "tell me about rivers"}]);
    let tool = json!({"name": "forecast", "input_schema": {"type": "object"}});
    [
        (
            "/v1/messages",
            json!({"model": MODEL, "max_tokens": 64, "messages": messages, "tools": [tool], "stream": true}),
        ),
        (
            "/v1/responses",
            json!({"model": MODEL, "input": "tell me about rivers", "temperature": 0.5, "stream": true}),
        ),
        (
            "/v1/completions",
            json!({"model": MODEL, "prompt": "tell me about rivers", "stream": true}),
        ),
        (
            "/v1/completions",
            json!({"model": MODEL, "prompt": "tell me about rivers", "stream": true,
                "stream_options": {"include_usage": true}}),
        ),
    ]
}

/// Two calls by turns, text between them, and the usage last: of some chunks nothing is told
/// before a later one, of others several frames are made.
fn interleaved() -> Script {
    let call = |index: u64, members: Value| {
        let mut call = json!({"index": index, "function": members});
        if members_begin(&call) {
            call["id"] = json!(format!("call-{index}"));
            call["type"] = json!("function");
        }
        json!({"tool_calls": [call]})
    };
    let deltas = [
        json!({"role": "assistant", "content": ""}),
        json!({"content": "first"}),
        call(0, json!({"name": "forecast", "arguments": ""})),
        call(1, json!({"name": "forecast", "arguments": ""})),
        call(0, json!({"arguments": "{\"a\":"})),
        call(1, json!({"arguments": "{\"b\":"})),
        json!({"content": "meanwhile"}),
        call(1, json!({"arguments": "2}"})),
        call(0, json!({"arguments": "1}"})),
    ];
    let mut said = String::new();
    let mut chunk = |choices: Value, usage: Value| {
        let chunk = json!({"id": "c-1", "object": "chat.completion.chunk", "choices": choices, "usage": usage});
        said.extend(["data: ", &chunk.to_string(), "\n\n"]);
    };
    for delta in &deltas {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": null});
        chunk(json!([choice]), Value::Null);
    }
    let last = json!({"index": 0, "delta": {}, "finish_reason": "tool_calls"});
    chunk(json!([last]), Value::Null);
    chunk(
        json!([]),
        json!({"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16}),
    );
    said += "data: [DONE]\n\n";
    Script::status(200, said).header("content-type", "text/event-stream")
}

/// Whether a call has its name here, which is where it begins.
fn members_begin(call: &Value) -> bool {
    call.pointer("/function/name").is_some()
}

fn events(answer: &Answer) -> Vec<Event> {
    Decoder::decode_all(answer.text().as_bytes())
}

/// Where the answer can be read again.
fn path_of(answer: &Answer) -> Result<String> {
    let id = answer.header("x-request-id").context("no X-Request-Id")?;
    Ok(format!("/v1/chat/completions/{id}/events"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_of_a_dialects_stream_comes_in_that_dialect() -> Result<()> {
    let stage = Stage::set().await?;
    for script in [interleaved, || Script::answer().chunks(CHUNKS)] {
        for (path, body) in asked() {
            stage.upstream.once(script());
            let answer = stage.client.post(path, &body).await?.expect(200)?;
            let live = events(&answer);
            let numbered: Vec<(usize, &str)> = (live.iter().enumerate())
                .filter(|(_, event)| !event.id.is_empty())
                .map(|(at, event)| (at, event.id.as_str()))
                .collect();
            ensure!(numbered.len() >= 3, "{path}: {live:#?}");
            let numbers: Result<Vec<u32>, _> = numbered.iter().map(|(_, id)| id.parse()).collect();
            ensure!(
                numbers?.is_sorted_by(|one, next| one < next),
                "{path}: {live:#?}"
            );
            let again = path_of(&answer)?;
            let whole = stage.client.get(&again).await?.expect(200)?;
            ensure!(
                events(&whole) == live,
                "{path}: {live:#?} became {:#?}",
                events(&whole)
            );
            for (at, id) in numbered {
                let client = stage.client.with_header("last-event-id", id)?;
                let rest = events(&client.get(&again).await?.expect(200)?);
                let missed = live.get(at + 1..).unwrap_or_default();
                ensure!(
                    rest == missed,
                    "{path} after {id}: {rest:#?} for {missed:#?}"
                );
            }
        }
    }
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialects_stream_goes_on_at_another_gateway_and_ends_in_its_words() -> Result<()> {
    let pair = Pair::start().await?;
    for ((path, body), end) in asked().into_iter().zip([
        "event: error",
        "event: response.failed",
        "data: {\"error\"",
        "data: {\"error\"",
    ]) {
        let gate = Gate::closed();
        let script = Script::answer().chunks(CHUNKS).wait_after(4, &gate);
        pair.upstream.once(script.cut_after(6));
        let live = pair.one.client()?.request(Method::POST, path);
        let live = live
            .header("content-type", "application/json")
            .body(body.to_string());
        let mut live = live.send().await?;
        let id = live.headers().get("x-request-id").context("no id")?;
        let id = id.to_str()?.to_owned();
        // One after the other while it is under way: both get all of it.
        let there = pair.two.client()?;
        let rest = format!("/v1/chat/completions/{id}/events?starting_after=2&pace=original");
        let resumed = there.request(Method::GET, &rest).send().await?;
        gate.open();
        let mut whole = String::new();
        while let Some(part) = live.chunk().await? {
            whole.push_str(std::str::from_utf8(&part)?);
        }
        ensure!(whole.contains(end), "{path}: {whole}");
        let rest = resumed.text().await?;
        ensure!(
            whole.ends_with(&rest) && rest.contains(end),
            "{path}: {rest} of {whole}"
        );
        ensure!(
            rest.contains("id: 3\n") && !rest.contains("id: 2\n"),
            "{path}: {rest}"
        );
    }
    Ok(())
}
