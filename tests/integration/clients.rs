//! The official OpenAI clients, unchanged, against the hub.
//!
//! Each program prints what the client handed to its caller; the tests compare that with what the
//! upstream said and with what the log recorded.

use std::time::Duration;

use anyhow::{Context, ensure};
use nexus_tests::programs::{Program, Runtime};
use nexus_tests::upstream::content;
use nexus_tests::{Result, Script};
use serde_json::{Value, json};

use crate::recorded::Recorded;
use crate::stage::{MODEL, Stage, ask, ensure_error};

/// A client starts in about a second; Python compiles its packages at the first run.
const PROGRAM_BOUND: Duration = Duration::from_mins(2);

/// An official client: its environment, and the ending of its programs.
#[derive(Clone, Copy, Debug)]
struct Official {
    runtime: Runtime,
    ending: &'static str,
}

const PYTHON: Official = Official {
    runtime: Runtime::Python,
    ending: ".py",
};
const PYTHON_028: Official = Official {
    runtime: Runtime::Python028,
    ending: "_028.py",
};
const NODE: Official = Official {
    runtime: Runtime::Node,
    ending: ".mjs",
};
const ALL: [Official; 3] = [PYTHON, PYTHON_028, NODE];

impl Official {
    /// What the program printed; `file` is its name without the ending.
    async fn run(self, stage: &Stage, file: &str, model: &str, tag: &str) -> Result<Value> {
        let program = Program::client(self.runtime, &format!("{file}{}", self.ending))?;
        program
            .hub(&stage.hub.api_base()?, stage.hub.admin_key(), model)
            .env("TAG", tag)
            .run(PROGRAM_BOUND)
            .await?
            .json()
            .with_context(|| format!("{self:?}"))
    }

    /// The old client knows no ids of requests.
    fn tells_ids(self) -> bool {
        self.runtime != Runtime::Python028
    }
}

#[tokio::test]
async fn chats_in_both_modes_lists_models_and_knows_its_errors() -> Result<()> {
    let stage = Stage::set().await?;
    for client in ALL {
        let tag = format!("{:?}", client.runtime);
        let got = client.run(&stage, "chat", MODEL, &tag).await?;
        let told = || format!("{client:?}: {got:#}");
        ensure!(got["models"] == json!(["echo", MODEL]), "{}", told());
        for mode in ["chat", "stream"] {
            let text = content::text(&format!("{tag}-{mode}"), 0, 5);
            ensure!(got[mode]["text"] == text, "{}", told());
            ensure!(got[mode]["finish_reason"] == "stop", "{}", told());
            ensure!(got[mode]["error"].is_null(), "{}", told());
        }
        ensure!(!got["chat"]["usage"].is_null(), "{}", told());
        let unknown = &got["unknown_model"];
        ensure!(unknown["status"] == 404, "{}", told());
        ensure!(got["wrong_key"]["status"] == 401, "{}", told());
        ensure!(
            got["wrong_key"]["class"] == "AuthenticationError",
            "{}",
            told()
        );
        if client.tells_ids() {
            ensure!(unknown["class"] == "NotFoundError", "{}", told());
            ensure!(unknown["code"] == "model_not_found", "{}", told());
            ensure!(got["stream"]["usage"]["completion"] == 5, "{}", told());
            recorded_as_got(&stage, &got).await.with_context(told)?;
        } else {
            // The old client words a 404 as an invalid request.
            ensure!(unknown["class"] == "InvalidRequestError", "{}", told());
        }
    }
    stage.strike().await
}

async fn recorded_as_got(stage: &Stage, got: &Value) -> Result<()> {
    for mode in ["chat", "stream"] {
        let id = got[mode]["request_id"].as_str().context("no request id")?;
        let recorded = Recorded::wait(&stage.log, id).await?;
        ensure!(recorded.text(0) == got[mode]["text"], "{recorded:#?}");
        let (input, output) = recorded.tokens();
        let usage = &got[mode]["usage"];
        ensure!(
            usage["prompt"] == json!(input) && usage["completion"] == json!(output),
            "{recorded:#?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_stream_that_breaks_raises_in_every_client() -> Result<()> {
    let stage = Stage::set().await?;
    stage.upstream.choose(|request| {
        if request.wants_stream() {
            Script::answer().cut_after(2)
        } else {
            Script::too_many_requests(1)
        }
    });
    for client in ALL {
        let tag = format!("{:?}", client.runtime);
        let got = client.run(&stage, "chat", MODEL, &tag).await?;
        let told = || format!("{client:?}: {got:#}");
        let broken = &got["stream"];
        ensure!(
            broken["text"] == content::text(&format!("{tag}-stream"), 0, 2),
            "{}",
            told()
        );
        ensure!(
            broken["error"]["class"] == "APIError",
            "the cut went by in silence: {}",
            told()
        );
        ensure!(broken["finish_reason"].is_null(), "{}", told());
        let limited = &got["chat"]["error"];
        ensure!(
            limited["class"] == "RateLimitError" && limited["status"] == 429,
            "{}",
            told()
        );
    }
    stage.strike().await
}

#[tokio::test]
async fn an_answer_without_usage_is_none_to_the_client_and_counted_by_the_hub() -> Result<()> {
    let stage = Stage::set().await?;
    stage.upstream.always(Script::answer().without_usage());
    for client in [PYTHON, NODE] {
        let tag = format!("{:?}", client.runtime);
        let got = client.run(&stage, "chat", MODEL, &tag).await?;
        for mode in ["chat", "stream"] {
            ensure!(got[mode]["usage"].is_null(), "{client:?}: {got:#}");
            ensure!(got[mode]["error"].is_null(), "{client:?}: {got:#}");
            let id = got[mode]["request_id"].as_str().context("no request id")?;
            let recorded = Recorded::wait(&stage.log, id).await?;
            ensure!(recorded.counted.is_some(), "{recorded:#?}");
        }
    }
    stage.strike().await
}

#[tokio::test]
async fn tool_calls_arrive_whole_and_the_agent_goes_on() -> Result<()> {
    let stage = Stage::set().await?;
    let arguments = json!({"city": "Genève", "unit": "°C"});
    let calls_tool = Script::answer().tool_call("forecast", &arguments);
    stage.upstream.always(calls_tool);
    for client in ALL {
        let tag = format!("{:?}", client.runtime);
        let got = client.run(&stage, "tools", MODEL, &tag).await?;
        let told = || format!("{client:?}: {got:#}");
        let expected = json!([{
            "id": format!("call_{tag}"), "name": "forecast", "arguments": arguments.to_string(),
        }]);
        for mode in ["whole", "stream"] {
            ensure!(got[mode]["calls"] == expected, "{}", told());
        }
        ensure!(got["whole"]["finish_reason"] == "tool_calls", "{}", told());
        if client.tells_ids() {
            let whole = &got["whole"];
            ensure!(whole["then_calls"] == expected, "{}", told());
            ensure!(
                whole["conversation"] == whole["then_conversation"],
                "the agent's second turn is another conversation: {}",
                told()
            );
            let id = whole["then_request"].as_str().context("no request id")?;
            let recorded = Recorded::wait(&stage.log, id).await?;
            let carried = &recorded.received.data()["content"]["messages"];
            ensure!(
                carried.as_array().map(Vec::len) == Some(1),
                "the client's own history was stored again: {carried}"
            );
        }
    }
    stage.strike().await
}

#[tokio::test]
async fn the_built_in_model_answers_every_client() -> Result<()> {
    let stage = Stage::set().await?;
    for client in ALL {
        let got = client.run(&stage, "chat", "echo", "echoed").await?;
        let told = || format!("{client:?}: {got:#}");
        for mode in ["chat", "stream"] {
            let text = format!("Say something about echoed-{mode}");
            let said = got[mode]["text"].as_str().unwrap_or_default();
            ensure!(said.trim_end() == text, "{}", told());
            ensure!(got[mode]["error"].is_null(), "{}", told());
        }
        ensure!(!got["chat"]["usage"].is_null(), "{}", told());
        ensure!(got["stream"]["chunks"].as_u64() > Some(4), "{}", told());
    }
    ensure!(stage.upstream.exchanges().is_empty());
    stage.strike().await
}

#[tokio::test]
async fn a_provider_is_reached_however_its_address_is_written() -> Result<()> {
    let stage = Stage::set().await?;
    let host = format!("http://{}", stage.upstream.host_port());
    let forms = [
        ("bare", host.clone(), "/v1/chat/completions"),
        ("slash", format!("{host}/"), "/v1/chat/completions"),
        ("version", format!("{host}/v1"), "/v1/chat/completions"),
        ("both", format!("{host}/v1/"), "/v1/chat/completions"),
        (
            "below",
            format!("{host}/openai"),
            "/openai/v1/chat/completions",
        ),
        (
            "whole",
            format!("{host}/v1/chat/completions"),
            "/v1/chat/completions",
        ),
        (
            "mark",
            format!("{host}/my/chat/completions#"),
            "/my/chat/completions",
        ),
        (
            "query",
            format!("{host}/v1?api-version=2"),
            "/v1/chat/completions?api-version=2",
        ),
    ];
    for (model, url, path) in forms {
        stage.client.serve_model(model, &url).await?;
        for stream in [false, true] {
            let mut body = ask("address");
            body["model"] = json!(model);
            body["stream"] = json!(stream);
            let answer = stage.client.post("/v1/chat/completions", &body).await?;
            answer.expect(200).context(url.clone())?;
            let asked = stage.upstream.exchanges().pop().context("not asked")?;
            ensure!(asked.request.path == path, "{url}: {}", asked.request.path);
            ensure!(asked.request.model() == model, "{url}");
        }
    }
    // Used as it is: what it points to is no endpoint of this upstream, and so refuses.
    let as_it_is = format!("{host}/my/own/path#");
    stage.client.serve_model("as-it-is", &as_it_is).await?;
    let mut body = ask("address");
    body["model"] = json!("as-it-is");
    ensure_error(&stage.client.chat(&body).await?, 404)?;
    let asked = stage.upstream.others().pop().context("not asked")?;
    ensure!(
        (asked.method.as_str(), asked.path.as_str()) == ("POST", "/my/own/path"),
        "{asked:?}"
    );
    stage.strike().await
}

#[tokio::test]
async fn models_are_listed_with_and_without_the_version() -> Result<()> {
    let stage = Stage::set().await?;
    stage
        .client
        .serve_model("org/deep-model:7b", &stage.upstream.url())
        .await?;
    for base in ["", "/v1"] {
        let list = stage.client.get(&format!("{base}/models")).await?;
        let list = list.expect(200)?.json;
        ensure!(list["object"] == "list", "{list}");
        let ids: Vec<_> = list["data"]
            .as_array()
            .context("no data")?
            .iter()
            .map(|model| model["id"].clone())
            .collect();
        ensure!(ids == ["echo", MODEL, "org/deep-model:7b"], "{list}");
        for id in ids.iter().filter_map(Value::as_str) {
            let one = stage.client.get(&format!("{base}/models/{id}")).await?;
            let one = one.expect(200)?.json;
            ensure!(one["id"] == id && one["object"] == "model", "{one}");
            ensure!(
                one["created"].is_i64() && one["owned_by"].is_string(),
                "{one}"
            );
        }
    }
    // The data plane answers without the version as well.
    let answer = stage.client.post("/chat/completions", &ask("bare")).await?;
    ensure!(answer.expect(200)?.content() == content::text("bare", 0, 5));
    stage.strike().await
}

#[tokio::test]
async fn the_python_websocket_library_gets_its_answers() -> Result<()> {
    let stage = Stage::set().await?;
    stage.upstream.always(Script::answer());
    let printed = PYTHON.run(&stage, "web_socket", MODEL, "sockets").await?;
    let said = content::text("sockets", 0, 5);
    ensure!(printed["protocol"] == "nexus.v1", "{printed}");
    ensure!(printed["streamed"] == said, "{printed}");
    ensure!(printed["whole"] == said, "{printed}");
    ensure!(printed["last"] == "done", "{printed}");
    // The second request repeats the first and its answer: one conversation.
    let id = printed["conversation_id"].as_str().context("no id")?;
    nexus_tests::account::shipped(&stage.hub).await?;
    nexus_tests::account::projected(&stage.hub).await?;
    let path = format!("/stats/conversations/{id}");
    let stats = stage.client.get(&path).await?.expect(200)?.json;
    ensure!(stats["requests"] == 2, "{stats}");
    stage.strike().await
}

#[tokio::test]
async fn the_runtime_of_node_reads_the_refusal_of_a_large_body() -> Result<()> {
    let stage = Stage::set().await?;
    let program = Program::client(Runtime::Node, "refused.mjs")?;
    let got = program
        .hub(&stage.hub.api_base()?, "nobody", MODEL)
        .run(PROGRAM_BOUND)
        .await?
        .json()?;
    ensure!(got["answers"] == json!(vec![401; 10]), "{got:#}");
    stage.strike().await
}
