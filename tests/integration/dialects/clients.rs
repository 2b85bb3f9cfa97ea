//! The official clients, unchanged.

use std::time::Duration;

use anyhow::{Context, ensure};
use nexus_tests::programs::{Program, Runtime};
use nexus_tests::upstream::content;
use nexus_tests::{Result, Script};
use serde_json::{Value, json};

use crate::recorded::Recorded;
use crate::stage::{MODEL, Stage};

/// A client starts in about a second; Python compiles its packages at the first run.
const PROGRAM_BOUND: Duration = Duration::from_mins(2);

async fn run(stage: &Stage, runtime: Runtime, file: &str) -> Result<Value> {
    let program = Program::client(runtime, file)?;
    program
        .hub(&stage.hub.api_base()?, stage.hub.admin_key(), MODEL)
        .env("TAG", "tag")
        .run(PROGRAM_BOUND)
        .await?
        .json()
        .with_context(|| file.to_owned())
}

fn arguments() -> Value {
    json!({"city": "Genève", "unit": "°C"})
}

/// Calls a tool twice when asked about tools and before it was called.
fn script_with_tools(stage: &Stage) {
    stage.upstream.choose(|request| {
        let asked = request.json();
        let was_called = request.prompt().ends_with("21");
        if !asked["tools"].is_array() || was_called {
            return Script::answer();
        }
        if request.wants_stream() {
            let answer = Script::status(200, interleaved());
            return answer.header("content-type", "text/event-stream");
        }
        let call = |id: &str| {
            let function = json!({"name": "forecast", "arguments": arguments().to_string()});
            json!({"id": id, "type": "function", "function": function})
        };
        let message =
            json!({"role": "assistant", "content": null, "tool_calls": [call("a"), call("b")]});
        let choice = json!({"index": 0, "message": message, "finish_reason": "tool_calls"});
        Script::json(
            200,
            &json!({"id": "c-1", "object": "chat.completion", "choices": [choice]}),
        )
    });
}

/// Two calls whose arguments come by turns, with text in between.
fn interleaved() -> String {
    let arguments = arguments().to_string();
    let (half, rest) = arguments.split_at(10);
    let begin = |index: u64, id: &str| {
        let function = json!({"name": "forecast", "arguments": ""});
        json!({"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]})
    };
    let more = |index: u64, json: &str| json!({"tool_calls": [{"index": index, "function": {"arguments": json}}]});
    let deltas = [
        begin(0, "a"),
        begin(1, "b"),
        more(0, half),
        more(1, half),
        json!({"content": "meanwhile"}),
        more(1, rest),
        more(0, rest),
    ];
    let chunk = |delta: &Value, reason: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": reason});
        let chunk = json!({"id": "c-1", "object": "chat.completion.chunk", "choices": [choice]});
        format!("data: {chunk}\n\n")
    };
    let said: String = deltas
        .iter()
        .map(|delta| chunk(delta, Value::Null))
        .collect();
    said + &chunk(&json!({}), json!("tool_calls")) + "data: [DONE]\n\n"
}

#[tokio::test]
async fn anthropics_client_for_python_gets_its_messages() -> Result<()> {
    let stage = Stage::set().await?;
    script_with_tools(&stage);
    let got = run(&stage, Runtime::Python, "messages.py").await?;
    let told = || format!("{got:#}");
    ensure!(got["models"] == json!(["echo", MODEL]), "{}", told());
    ensure!(
        got["whole"]["text"] == content::text("tag-whole", 0, 5),
        "{}",
        told()
    );
    ensure!(got["whole"]["stop_reason"] == "end_turn", "{}", told());
    let stream = &got["stream"];
    ensure!(stream["error"].is_null(), "{}", told());
    ensure!(
        stream["text"] == content::text("tag-stream", 0, 5),
        "{}",
        told()
    );
    ensure!(stream["message"]["text"] == stream["text"], "{}", told());
    let events = [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    ensure!(stream["events"] == json!(events), "{}", told());
    for (request_id, usage) in [
        (&got["whole"]["request_id"], &got["whole"]["usage"]),
        (&stream["request_id"], &stream["message"]["usage"]),
    ] {
        let id = request_id.as_str().with_context(told)?;
        let recorded = Recorded::wait(&stage.log, id).await?;
        let (input, output) = recorded.tokens();
        ensure!(
            usage["input"] == json!(input) && usage["output"] == json!(output),
            "{recorded:#?}"
        );
        ensure!(recorded.received.data()["http.route"] == "/v1/messages");
    }
    for mode in ["tools", "tools_streamed"] {
        let called = &got[mode];
        for place in 0..2 {
            let call = &called["calls"][place];
            ensure!(call["input"] == arguments(), "{}", told());
            ensure!(call["id"] == ["a", "b"][place], "{}", told());
        }
        ensure!(called["stop_reason"] == "tool_use", "{}", told());
        ensure!(called["then"]["stop_reason"] == "end_turn", "{}", told());
    }
    knows_errors(&got)?;
    stage.strike().await
}

fn knows_errors(got: &Value) -> Result<()> {
    let told = || format!("{got:#}");
    for (what, class, status) in [
        ("unknown_model", "NotFoundError", 404),
        ("bad_request", "BadRequestError", 400),
        ("wrong_key", "AuthenticationError", 401),
    ] {
        let error = &got[what];
        ensure!(
            error["class"] == class && error["status"] == status,
            "{}",
            told()
        );
        ensure!(error["body"]["type"] == "error", "{}", told());
        ensure!(
            error["request_id"] == error["body"]["request_id"],
            "{}",
            told()
        );
    }
    ensure!(
        got["bad_request"]["body"]["error"]["param"] == "container",
        "{}",
        told()
    );
    Ok(())
}

#[tokio::test]
async fn a_message_that_breaks_raises_in_anthropics_client() -> Result<()> {
    let stage = Stage::set().await?;
    stage.upstream.choose(|request| {
        if request.wants_stream() {
            Script::answer().cut_after(2)
        } else {
            Script::too_many_requests(1)
        }
    });
    let got = run(&stage, Runtime::Python, "messages.py").await?;
    let told = || format!("{got:#}");
    ensure!(
        got["stream"]["text"] == content::text("tag-stream", 0, 2),
        "{}",
        told()
    );
    ensure!(
        got["stream"]["message"].is_null(),
        "the cut went by in silence: {}",
        told()
    );
    ensure!(
        got["stream"]["error"]["body"]["error"]["type"] == "api_error",
        "{}",
        told()
    );
    ensure!(
        got["whole"]["error"]["class"] == "RateLimitError",
        "{}",
        told()
    );
    stage.strike().await
}

#[tokio::test]
async fn openais_clients_get_their_responses() -> Result<()> {
    let stage = Stage::set().await?;
    script_with_tools(&stage);
    for (runtime, file) in [
        (Runtime::Python, "responses.py"),
        (Runtime::Node, "responses.mjs"),
    ] {
        let got = run(&stage, runtime, file).await?;
        let told = || format!("{runtime:?}: {got:#}");
        for mode in ["whole", "stream"] {
            let said = content::text(&format!("tag-{mode}"), 0, 5);
            ensure!(got[mode]["text"] == said, "{}", told());
            ensure!(got[mode]["status"] == "completed", "{}", told());
            ensure!(got[mode]["usage"]["output"] == 5, "{}", told());
            let id = got[mode]["id"].as_str().with_context(told)?;
            let id = id.strip_prefix("resp_").with_context(told)?;
            let recorded = Recorded::wait(&stage.log, id).await?;
            ensure!(recorded.received.data()["http.route"] == "/v1/responses");
            ensure!(recorded.text(0) == said, "{recorded:#?}");
        }
        ensure!(
            got["stream"]["deltas"] == got["stream"]["text"],
            "{}",
            told()
        );
        for place in 0..2 {
            let call = &got["tools"]["calls"][place];
            ensure!(call["name"] == "forecast", "{}", told());
            let text = arguments().to_string();
            ensure!(call["arguments"] == text, "{}", told());
        }
        ensure!(
            got["tools"]["streamed"] == got["tools"]["calls"],
            "{}",
            told()
        );
        ensure!(got["tools"]["then"]["status"] == "completed", "{}", told());
        ensure!(got["refused"]["status"] == 400, "{}", told());
        ensure!(
            got["refused"]["param"] == "previous_response_id",
            "{}",
            told()
        );
    }
    stage.strike().await
}

#[tokio::test]
async fn openais_clients_get_their_completions() -> Result<()> {
    let stage = Stage::set().await?;
    stage.upstream.always(Script::answer());
    for (runtime, file) in [
        (Runtime::Python, "completions.py"),
        (Runtime::Python028, "completions_028.py"),
    ] {
        let got = run(&stage, runtime, file).await?;
        let told = || format!("{runtime:?}: {got:#}");
        for mode in ["whole", "stream"] {
            let said = content::text(&format!("tag-{mode}"), 0, 5);
            ensure!(got[mode]["text"] == said, "{}", told());
            ensure!(got[mode]["finish_reason"] == "stop", "{}", told());
        }
        ensure!(got["whole"]["object"] == "text_completion", "{}", told());
        ensure!(got["refused"] == "suffix", "{}", told());
    }
    stage.strike().await
}
