//! Requests of every shape that clients send, read back.

use anyhow::{Context, ensure};
use nexus_tests::Result;
use nexus_tests::Script;
use serde_json::{Value, json};

use super::{Turn, ensure_put_together};
use crate::recorded::Recorded;
use crate::stage::{MODEL, Stage};

/// Histories as agents and programs send them, with what is empty and what is rare.
fn requests() -> Vec<Value> {
    let tool_call = json!({
        "id": "call_1", "type": "function",
        "function": {"name": "forecast", "arguments": "{\"city\": \"Genève\"}"},
    });
    let messages = [
        json!([{"role": "user", "content": "plain", "name": "ada"}]),
        json!([
            {"role": "system", "content": "terse"},
            {"role": "developer", "content": [{"type": "text", "text": "be exact"}]},
            {"role": "user", "content": [
                {"type": "text", "text": "what is this? 河流 🌊", "cache_control": {"type": "ephemeral"}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": null}},
            ]},
        ]),
        json!([
            {"role": "user", "content": "weather?"},
            {"role": "assistant", "content": null, "refusal": null, "tool_calls": [tool_call],
             "reasoning_content": "let me look", "annotations": []},
            {"role": "tool", "tool_call_id": "call_1", "content": "12 °C"},
            {"role": "system", "content": "a system message in the middle"},
            {"role": "assistant", "content": "", "audio": {"id": "audio_1"}},
            {"role": "user", "content": ""},
        ]),
        json!([
            {"role": "assistant", "content": "an answer that nobody asked for"},
            {"role": "assistant", "content": "and another", "name": null},
        ]),
        json!([{"role": "user", "content": "new members", "from_next_year": {"a": [1.0, 1e3, {}]}}]),
    ];
    let parameters = json!({
        "temperature": 0.7, "top_p": null, "max_tokens": 1_000, "stop": ["\n", ""], "logit_bias": {},
        "seed": 9_007_199_254_740_993_u64, "user": "end-user", "metadata": {"a": {"b": [null, 1]}},
        "tools": [{"type": "function", "function": {"name": "forecast", "parameters": {}}}],
        "response_format": {"type": "json_object"}, "from_next_year": [{}, [], ""],
        "stream_options": {"include_usage": false},
    });
    messages
        .into_iter()
        .map(|messages| {
            let mut body = parameters.clone();
            body["model"] = json!(MODEL);
            body["messages"] = messages;
            body
        })
        .collect()
}

#[tokio::test]
async fn every_request_is_read_back_as_it_was_sent() -> Result<()> {
    let stage = Stage::set().await?;
    for (number, sent) in requests().into_iter().enumerate() {
        for stream in [false, true] {
            let mut sent = sent.clone();
            sent["stream"] = json!(stream);
            let answer = stage.client.post("/v1/chat/completions", &sent).await?;
            let turn = Turn::of(&answer.expect(200)?, sent.clone())?;
            ensure_put_together(&stage, &turn)
                .await
                .with_context(|| format!("request {number}, stream {stream}"))?;
            // What the hub does not know reaches the provider untouched.
            let asked = stage.upstream.exchanges().pop().context("not asked")?;
            let mut asked = asked.request.json();
            if stream {
                ensure!(asked["stream_options"]["include_usage"] == true, "{asked}");
                asked["stream_options"] = sent["stream_options"].clone();
            }
            ensure!(asked == sent, "sent {sent} and the provider got {asked}");
        }
    }
    stage.strike().await
}

#[tokio::test]
async fn a_turn_with_tools_carries_only_what_is_new() -> Result<()> {
    let stage = Stage::set().await?;
    let arguments = json!({"city": "Genève"});
    let mut messages = vec![json!({"role": "user", "content": "what will the weather be? tools"})];
    for stream in [false, true] {
        stage
            .upstream
            .once(Script::answer().tool_call("forecast", &arguments));
        let first = json!({"model": MODEL, "messages": messages, "stream": stream});
        let answer = stage.client.post("/v1/chat/completions", &first).await?;
        let first = Turn::of(&answer.expect(200)?, first)?;
        // As the official clients put a call together, whichever way it came.
        messages.push(json!({
            "role": "assistant", "content": null,
            "tool_calls": [{
                "id": "call_tools", "type": "function",
                "function": {"name": "forecast", "arguments": arguments.to_string()},
            }],
        }));
        messages.push(json!({"role": "tool", "tool_call_id": "call_tools", "content": "12 °C"}));
        let second = json!({"model": MODEL, "messages": messages});
        let answer = stage.client.chat(&second).await?.expect(200)?;
        messages.push(answer.json["choices"][0]["message"].clone());
        let second = Turn::of(&answer, second)?;
        ensure!(second.conversation == first.conversation, "stream {stream}");
        let recorded = Recorded::wait(&stage.log, &second.request_id).await?;
        ensure!(
            super::carried(&recorded) == (1, true),
            "stream {stream}: {}",
            recorded.received.json
        );
        ensure_put_together(&stage, &first).await?;
        ensure_put_together(&stage, &second).await?;
        messages.push(json!({"role": "user", "content": "and tomorrow? tools"}));
    }
    stage.strike().await
}
