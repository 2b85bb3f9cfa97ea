//! Members that only some providers understand decide who is asked; and who is refused for a limit
//! is refused before the body is translated.

use anyhow::{Context, ensure};
use nexus_tests::client::Answer;
use nexus_tests::{Client, Result, Script, Upstream};
use serde_json::{Value, json};

use crate::stage::{MODEL, Stage};

/// A provider of that kind, which offers a model of the same name.
async fn provider(client: &Client, kind: &str) -> Result<Upstream> {
    let upstream = Upstream::start().await?;
    let provider = json!({"name": kind, "kind": kind, "server_url": upstream.url()});
    client.post("/providers", &provider).await?.expect(201)?;
    let model = json!({"provider_id": kind, "model_name": kind});
    client.post("/provider_models", &model).await?.expect(201)?;
    Ok(upstream)
}

/// What Anthropic answers, in the mode that was asked for.
fn message(stream: bool) -> Script {
    let message = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-real",
        "content": [{"type": "text", "text": "one two"}],
        "stop_reason": "stop_sequence", "stop_sequence": "END",
        "usage": {"input_tokens": 10, "cache_creation_input_tokens": 4, "output_tokens": 3},
    });
    if !stream {
        return Script::json(200, &message);
    }
    let mut begun = message.clone();
    begun["content"] = json!([]);
    let events = [
        json!({"type": "message_start", "message": begun}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "one two"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "stop_sequence", "stop_sequence": "END"}, "usage": message["usage"]}),
        json!({"type": "message_stop"}),
    ];
    let events = events.map(|event| {
        let kind = event["type"].as_str().unwrap_or_default();
        format!("event: {kind}\ndata: {event}\n\n")
    });
    Script::status(200, events.concat()).header("content-type", "text/event-stream")
}

/// Where Anthropic is asked.
const MESSAGES: &str = "/v1/messages";

/// What Anthropic was asked so far.
fn asked(anthropic: &Upstream) -> Vec<Value> {
    let posted = anthropic.others().into_iter();
    let posted = posted.filter(|request| request.path == MESSAGES);
    posted.map(|request| request.json()).collect()
}

fn ask(model: &str) -> Value {
    json!({
        "model": model, "max_tokens": 64, "stop_sequences": ["END"],
        "messages": [{"role": "user", "content": "tell me about rivers tag"}],
    })
}

/// The same with a member.
fn with(model: &str, name: &str, value: Value) -> Value {
    let mut body = ask(model);
    body[name] = value;
    body
}

/// The same after a turn with a block of reasoning.
fn after(model: &str, block: &Value) -> Value {
    let mut body = ask(model);
    body["messages"] = json!([
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": [block, {"type": "text", "text": "hi"}]},
        {"role": "user", "content": "tell me about rivers tag"},
    ]);
    body
}

async fn post(stage: &Stage, body: &Value) -> Result<Answer> {
    stage.client.post("/v1/messages", body).await
}

/// Reasoning as Anthropic signs it.
fn signed() -> Value {
    json!({"type": "thinking", "thinking": "hm", "signature": "c2ln"})
}

/// Requests that only some can carry, each with the member that others are refused for; a mark for
/// the cache is left out for them.
fn cases(model: &str) -> Vec<(Value, &'static str)> {
    let redacted = json!({"type": "redacted_thinking", "data": "c2ln"});
    let mark =
        json!([{"type": "text", "text": "Be terse.", "cache_control": {"type": "ephemeral"}}]);
    let thinking = json!({"type": "enabled", "budget_tokens": 1024});
    let edits = json!({"edits": [{"type": "clear_tool_uses_20250919"}]});
    vec![
        (after(model, &signed()), "messages[1].content[0].signature"),
        (after(model, &redacted), "messages[1].content[0].data"),
        (with(model, "thinking", thinking.clone()), "thinking"),
        (with(model, "top_k", json!(4)), "top_k"),
        (
            with(model, "service_tier", json!("standard_only")),
            "service_tier",
        ),
        (
            with(model, "context_management", edits.clone()),
            "context_management",
        ),
        (
            with(model, "cache_control", json!({"type": "ephemeral"})),
            "",
        ),
        (with(model, "system", mark.clone()), ""),
    ]
}

#[tokio::test]
async fn a_request_goes_only_to_those_who_can_carry_it() -> Result<()> {
    let stage = Stage::set().await?;
    let azure = provider(&stage.client, "azure").await?;
    let anthropic = provider(&stage.client, "anthropic").await?;
    azure.always(Script::answer());
    anthropic.route(MESSAGES, |request| message(request.wants_stream()));
    let targets = json!([
        {"model": "azure", "priority": 0}, {"model": "anthropic", "priority": 1},
    ]);
    let route = json!({"name": "both", "targets": targets});
    stage.client.post("/routes", &route).await?.expect(201)?;

    post(&stage, &ask("both")).await?.expect(200)?;
    ensure!((azure.exchanges().len(), asked(&anthropic).len()) == (1, 0));

    for (place, (body, _)) in cases("both").into_iter().enumerate() {
        post(&stage, &body).await?.expect(200)?;
        let asked = asked(&anthropic);
        ensure!(azure.exchanges().len() == 1, "{body}");
        ensure!(asked.len() == place + 1, "{body}");
        let sent = &asked[place];
        for member in [
            "thinking",
            "top_k",
            "service_tier",
            "context_management",
            "cache_control",
        ] {
            ensure!(sent[member] == body[member], "{sent}");
        }
        if body["system"].is_array() {
            ensure!(sent["system"] == body["system"], "{sent}");
        }
        if let Some(block) = body["messages"][1]["content"].get(0) {
            ensure!(sent["messages"][1]["content"][0] == *block, "{sent}");
        }
    }
    for (body, param) in cases("azure") {
        let answer = post(&stage, &body).await?;
        // A mark means nothing where nobody has such a cache.
        let status = if param.is_empty() { 200 } else { 400 };
        ensure!(answer.status == status, "{body}: {}", answer.text());
        if !param.is_empty() {
            ensure!(answer.json["error"]["param"] == param, "{}", answer.text());
        }
    }
    ensure!(azure.exchanges().len() == 3);

    // Nobody who cannot carry it comes in for one that fails.
    anthropic.route(MESSAGES, |_| Script::failure(500, "broken"));
    let failed = post(&stage, &after("both", &signed())).await?;
    ensure!(failed.status == 500, "{}", failed.text());
    ensure!(azure.exchanges().len() == 3);
    let plain = post(&stage, &ask("both")).await?.expect(200)?;
    ensure!(plain.json["stop_reason"] == "end_turn", "{}", plain.text());
    ensure!(plain.json["stop_sequence"].is_null(), "{}", plain.text());
    stage.strike().await
}

#[tokio::test]
async fn each_provider_gets_the_bound_by_the_name_that_it_knows() -> Result<()> {
    let stage = Stage::set().await?;
    let azure = provider(&stage.client, "azure").await?;
    azure.always(Script::failure(500, "broken"));
    stage.upstream.always(Script::answer());
    let targets = json!([
        {"model": "azure", "priority": 0}, {"model": MODEL, "priority": 1},
    ]);
    let route = json!({"name": "mixed", "targets": targets});
    stage.client.post("/routes", &route).await?.expect(201)?;
    post(&stage, &ask("mixed")).await?.expect(200)?;
    for (upstream, known, other) in [
        (&azure, "max_completion_tokens", "max_tokens"),
        (&stage.upstream, "max_tokens", "max_completion_tokens"),
    ] {
        let sent = upstream.exchanges()[0].request.json();
        ensure!(sent[known] == 64 && sent[other].is_null(), "{sent}");
    }
    stage.strike().await
}

#[tokio::test]
async fn a_client_learns_the_stop_sequence_that_anthropic_tells() -> Result<()> {
    let stage = Stage::set().await?;
    let anthropic = provider(&stage.client, "anthropic").await?;
    anthropic.route(MESSAGES, |request| message(request.wants_stream()));
    let whole = post(&stage, &ask("anthropic")).await?.expect(200)?;
    ensure!(
        whole.json["stop_reason"] == "stop_sequence",
        "{}",
        whole.text()
    );
    ensure!(whole.json["stop_sequence"] == "END", "{}", whole.text());
    ensure!(
        whole.json["usage"]["input_tokens"] == 10,
        "{}",
        whole.text()
    );
    ensure!(
        whole.json["usage"]["cache_creation_input_tokens"] == 4,
        "{}",
        whole.text()
    );
    let streamed = post(&stage, &with("anthropic", "stream", json!(true))).await?;
    let told = r#"{"stop_reason":"stop_sequence","stop_sequence":"END"}"#;
    ensure!(streamed.text().contains(told), "{}", streamed.text());
    let chat = json!({"model": "anthropic", "messages": [{"role": "user", "content": "hi tag"}]});
    let chat = stage.client.chat(&chat).await?.expect(200)?;
    ensure!(
        chat.json["choices"][0]["stop_reason"] == "END",
        "{}",
        chat.text()
    );
    stage.strike().await
}

#[tokio::test]
async fn a_limit_refuses_before_a_body_is_translated() -> Result<()> {
    let stage = Stage::set().await?;
    stage.upstream.always(Script::answer());
    let key = json!({"name": "limited", "requests_per_minute": 1});
    let key = stage.client.post("/keys", &key).await?.expect(201)?;
    let secret = key.json["key"].as_str().unwrap_or_default();
    let client = stage.client.with_key(secret)?;
    let bad = with(MODEL, "container", json!("c"));
    for _ in 0..3 {
        // What is refused for its body costs nothing of the limit.
        let refused = client.post("/v1/messages", &bad).await?;
        ensure!(refused.status == 400, "{}", refused.text());
        ensure!(refused.header("x-ratelimit-remaining-requests") == Some("0"));
    }
    client
        .post("/v1/messages", &ask(MODEL))
        .await?
        .expect(200)?;
    for (path, body) in [
        ("/v1/messages", bad),
        ("/v1/responses", json!({"model": MODEL, "input": 7})),
        ("/v1/completions", json!({"model": MODEL, "prompt": 7})),
    ] {
        let refused = client.post(path, &body).await?;
        ensure!(refused.status == 429, "{path}: {}", refused.text());
    }
    ensure!(stage.upstream.exchanges().len() == 1);
    stage.strike().await
}

#[tokio::test]
async fn failed_tools_documents_and_betas_reach_anthropic_and_no_other() -> Result<()> {
    let stage = Stage::set().await?;
    let azure = provider(&stage.client, "azure").await?;
    let anthropic = provider(&stage.client, "anthropic").await?;
    azure.always(Script::answer());
    anthropic.route(MESSAGES, |request| message(request.wants_stream()));
    let document = json!({
        "type": "document", "source": {"type": "url", "url": "https://files.test/a.pdf"},
        "title": "Letter",
    });
    let result = json!({
        "type": "tool_result", "tool_use_id": "toolu_1", "is_error": true,
        "content": [{"type": "text", "text": "no clock"}],
    });
    let after_a_tool = |model: &str, blocks: &Value| {
        let call = json!({"type": "tool_use", "id": "toolu_1", "name": "now", "input": {}});
        let messages = json!([
            {"role": "user", "content": "the time?"},
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": blocks},
        ]);
        let mut body = with(model, "messages", messages);
        body["tools"] = json!([{"name": "now", "input_schema": {"type": "object"}}]);
        body
    };
    let blocks = json!([result, document]);
    let beta = stage
        .client
        .with_header("anthropic-beta", "context-1m-2025-08-07, x-1")?;
    let body = after_a_tool("anthropic", &blocks);
    beta.post("/v1/messages", &body).await?.expect(200)?;
    let sent = anthropic.others();
    let sent = sent.iter().find(|request| request.path == MESSAGES);
    let sent = sent.context("Anthropic was not asked")?;
    ensure!(sent.header("anthropic-beta") == Some("context-1m-2025-08-07,x-1"));
    ensure!(
        sent.json()["messages"][2]["content"] == blocks,
        "{}",
        sent.json()
    );

    let refused = post(&stage, &after_a_tool("azure", &blocks)).await?;
    ensure!(refused.status == 400, "{}", refused.text());
    ensure!(refused.json["error"]["param"] == "messages[2].content[1].source.type");
    let body = after_a_tool("azure", &json!([result]));
    beta.post("/v1/messages", &body).await?.expect(200)?;
    let sent = azure.the_exchange()?.request.json();
    let said = &sent["messages"][2];
    ensure!(said["content"] == "Error:\nno clock", "{sent}");
    ensure!(said.get("is_error").is_none() && sent.get("anthropic_beta").is_none());
    stage.strike().await
}

/// What Anthropic answers: signed reasoning and a call, then text.
fn reasoning(called: bool) -> Script {
    let content = if called {
        json!([{"type": "text", "text": "Sunny."}])
    } else {
        json!([
            {"type": "thinking", "thinking": "I look.", "signature": "c2ln"},
            {"type": "redacted_thinking", "data": "eA=="},
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}},
        ])
    };
    Script::json(
        200,
        &json!({
            "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-real",
            "content": content, "stop_reason": if called { "end_turn" } else { "tool_use" },
            "usage": {"input_tokens": 10, "output_tokens": 3},
        }),
    )
}

#[tokio::test]
async fn signed_reasoning_comes_back_through_responses() -> Result<()> {
    let stage = Stage::set().await?;
    let anthropic = provider(&stage.client, "anthropic").await?;
    provider(&stage.client, "azure").await?;
    anthropic.route(MESSAGES, |request| {
        let turns = request.json()["messages"].as_array().map_or(0, Vec::len);
        reasoning(turns > 1)
    });
    let question = json!({"role": "user", "content": "the weather?"});
    let mut body = json!({
        "model": "anthropic", "input": [question],
        "tools": [{"type": "function", "name": "weather", "parameters": {"type": "object"}}],
    });
    let first = stage
        .client
        .post("/v1/responses", &body)
        .await?
        .expect(200)?;
    // As clients do that keep no responses at the server: what came out goes in again.
    let output = first.json["output"].as_array().context("no output")?;
    let result = json!({"type": "function_call_output", "call_id": "toolu_1", "output": "21"});
    let input: Vec<Value> = [vec![question], output.clone(), vec![result]].concat();
    body["input"] = json!(input);
    let second = stage
        .client
        .post("/v1/responses", &body)
        .await?
        .expect(200)?;
    ensure!(
        second.header("x-conversation-id") == first.header("x-conversation-id"),
        "the turn is apart"
    );
    let turns = &asked(&anthropic)[1]["messages"];
    ensure!(
        turns[1]["content"]
            == json!([
                {"type": "thinking", "thinking": "I look.", "signature": "c2ln"},
                {"type": "redacted_thinking", "data": "eA=="},
                {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}},
            ]),
        "{turns}"
    );
    body["model"] = json!("azure");
    let refused = stage.client.post("/v1/responses", &body).await?;
    ensure!(refused.status == 400, "{}", refused.text());
    ensure!(refused.json["error"]["param"] == "input[1].encrypted_content");
    stage.strike().await
}
