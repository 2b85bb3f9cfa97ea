//! Clients that write a tool call anew when they repeat the answer.

use anyhow::{Context, ensure};
use nexus_tests::{Result, Script};
use serde_json::{Value, json};

use super::{Turn, carried};
use crate::recorded::Recorded;
use crate::stage::{MODEL, Stage};

/// As a model writes it: no client that reads it as an object writes the same.
const ARGUMENTS: &str = r#"{ "unit": "\u00b0C", "days": 2, "city": "Gen\u00e8ve" }"#;

fn tools() -> Value {
    json!([{"name": "forecast", "input_schema": {"type": "object"}}])
}

fn call() -> Value {
    let function = json!({"name": "forecast", "arguments": ARGUMENTS});
    json!({"index": 0, "id": "call_1", "type": "function", "function": function})
}

/// A provider's answer with a tool call, whole or as a stream.
fn answer(stream: bool) -> Script {
    answer_with(&call(), stream)
}

fn answer_with(call: &Value, stream: bool) -> Script {
    let said = json!({"role": "assistant", "content": "I look.", "tool_calls": [call]});
    let mut chat = json!({
        "id": "chatcmpl-1", "created": 1, "model": MODEL, "object": "chat.completion",
        "choices": [{"index": 0, "finish_reason": "tool_calls"}],
    });
    if !stream {
        chat["choices"][0]["message"] = said;
        return Script::json(200, &chat);
    }
    chat["object"] = json!("chat.completion.chunk");
    chat["choices"][0]["delta"] = said;
    let body = format!("data: {chat}\n\ndata: [DONE]\n\n");
    Script::status(200, body).header("content-type", "text/event-stream")
}

/// The input of a stream's tool call, as Anthropic's clients put it together.
fn streamed_input(events: &str) -> Result<Value> {
    let mut json = String::new();
    for event in events
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
    {
        let event: Value = serde_json::from_str(event)?;
        json.push_str(event["delta"]["partial_json"].as_str().unwrap_or_default());
    }
    serde_json::from_str(&json).with_context(|| format!("no input in {events}"))
}

#[tokio::test]
async fn a_turn_with_a_tool_goes_on_over_messages() -> Result<()> {
    let stage = Stage::set().await?;
    for stream in [false, true] {
        let question = json!({"role": "user", "content": format!("the weather? {stream}")});
        let mut body = json!({
            "model": MODEL, "max_tokens": 64, "stream": stream, "tools": tools(),
            "messages": [question],
        });
        stage.upstream.once(answer(stream));
        let first = stage
            .client
            .post("/v1/messages", &body)
            .await?
            .expect(200)?;
        let input = if stream {
            streamed_input(&first.text())?
        } else {
            first.json["content"][1]["input"].clone()
        };
        ensure!(input["city"] == "Genève", "{}", first.text());
        let written_anew = input.to_string();
        ensure!(written_anew != ARGUMENTS, "it is the very text");
        let first = Turn::of(&first, body.clone())?;

        body["messages"] = json!([
            question,
            {"role": "assistant", "content": [
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "call_1", "name": "forecast", "input": input}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": "21"}]},
        ]);
        let second = stage
            .client
            .post("/v1/messages", &body)
            .await?
            .expect(200)?;
        let second = Turn::of(&second, body)?;
        goes_on(&stage, &first, &second)
            .await
            .with_context(|| format!("stream {stream}"))?;
    }
    stage.strike().await
}

/// The turn that brings the tool's result follows the one that called it, and brings nothing else.
async fn goes_on(stage: &Stage, first: &Turn, second: &Turn) -> Result<()> {
    ensure!(
        second.conversation == first.conversation,
        "the turn with the tool is apart"
    );
    let recorded = Recorded::wait(&stage.log, &second.request_id).await?;
    ensure!(
        carried(&recorded) == (1, true),
        "only the tool's result is new: {}",
        recorded.received.json
    );
    Ok(())
}

#[tokio::test]
async fn arguments_written_anew_are_the_same_call_in_chat() -> Result<()> {
    let stage = Stage::set().await?;
    stage.upstream.once(answer(false));
    let question = json!({"role": "user", "content": "the weather?"});
    let mut body = json!({"model": MODEL, "messages": [question]});
    let first = Turn::of(&stage.client.chat(&body).await?.expect(200)?, body.clone())?;
    let repeated = |arguments: &Value| {
        let mut call = call();
        call["function"]["arguments"] = json!(arguments.to_string());
        json!([
            question,
            {"role": "assistant", "content": "I look.", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "21"},
        ])
    };
    let mut arguments: Value = serde_json::from_str(ARGUMENTS)?;
    body["messages"] = repeated(&arguments);
    let same = Turn::of(&stage.client.chat(&body).await?.expect(200)?, body.clone())?;
    ensure!(same.conversation == first.conversation, "it is apart");
    arguments["days"] = json!(3);
    body["messages"] = repeated(&arguments);
    let other = Turn::of(&stage.client.chat(&body).await?.expect(200)?, body)?;
    ensure!(
        other.conversation != first.conversation,
        "another call was taken for it"
    );
    stage.strike().await
}

#[tokio::test]
async fn arguments_that_a_provider_gives_as_an_object_are_the_same_call() -> Result<()> {
    let stage = Stage::set().await?;
    let arguments = json!({"city": "Genève", "days": 1.0, "unit": null, "tags": [], "more": {}});
    let mut given = call();
    given["function"]["arguments"] = arguments.clone();
    for stream in [false, true] {
        let question = json!({"role": "user", "content": format!("the weather? {stream}")});
        let mut body = json!({"model": MODEL, "stream": stream, "messages": [question]});
        stage.upstream.once(answer_with(&given, stream));
        let first = stage.client.post("/v1/chat/completions", &body).await?;
        let first = Turn::of(&first.expect(200)?, body.clone())?;
        let mut repeated = call();
        repeated["function"]["arguments"] = json!(arguments.to_string());
        body["messages"] = json!([
            question,
            {"role": "assistant", "content": "I look.", "tool_calls": [repeated]},
            {"role": "tool", "tool_call_id": "call_1", "content": "21"},
        ]);
        let second = stage.client.post("/v1/chat/completions", &body).await?;
        let second = Turn::of(&second.expect(200)?, body)?;
        goes_on(&stage, &first, &second)
            .await
            .with_context(|| format!("stream {stream}"))?;
    }
    stage.strike().await
}
