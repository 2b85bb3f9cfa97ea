//! Embeddings: what clients get, what is recorded, and that they are no conversation.

use std::time::Duration;

use anyhow::{Context, ensure};
use nexus_tests::account::{projected, shipped};
use nexus_tests::programs::{Program, Runtime};
use nexus_tests::{Hub, Result};
use serde_json::{Value, json};

use crate::recorded::Recorded;
use crate::stage::{MODEL, Stage, ensure_error, request_id, shown_request};

/// A client starts in about a second; Python compiles its packages at the first run.
const PROGRAM_BOUND: Duration = Duration::from_mins(2);

async fn run(hub: &Hub, runtime: Runtime, file: &str) -> Result<Value> {
    let program = Program::client(runtime, file)?;
    let program = program.hub(&hub.api_base()?, hub.admin_key(), "echo");
    program.run(PROGRAM_BOUND).await?.json()
}

#[tokio::test]
async fn the_official_clients_get_their_vectors() -> Result<()> {
    let stage = Stage::set().await?;
    for (runtime, file) in [
        (Runtime::Python, "embeddings.py"),
        (Runtime::Node, "embeddings.mjs"),
    ] {
        let got = run(&stage.hub, runtime, file).await?;
        let told = || format!("{runtime:?}: {got:#}");
        let lengths = |what: &str| -> Vec<usize> {
            let vectors = got[what]["vectors"].as_array().into_iter().flatten();
            vectors.filter_map(Value::as_array).map(Vec::len).collect()
        };
        ensure!(lengths("one") == [256], "{}", told());
        ensure!(lengths("several") == [8, 8], "{}", told());
        ensure!(lengths("tokens") == [8], "{}", told());
        // Base64 holds the very numbers, so both forms are one vector but for the spelling.
        let number = |what: &str| got[what]["vectors"][0][0].as_f64();
        let (one, float) = number("one").zip(number("float")).with_context(told)?;
        ensure!((one - float).abs() < 1e-6, "{}", told());
        ensure!(got["several"]["usage"] == json!([3, 3]), "{}", told());
        ensure!(got["tokens"]["usage"] == json!([3, 3]), "{}", told());
        ensure!(got["refused"] == "input", "{}", told());
    }
    stage.strike().await
}

#[tokio::test]
async fn embeddings_are_recorded_and_are_no_conversation() -> Result<()> {
    let stage = Stage::set().await?;
    let before = stage.client.get("/stats").await?.expect(200)?.json;
    let body = json!({"model": "echo", "input": ["tell me", "more"], "dimensions": 2});
    for path in ["/v1/embeddings", "/embeddings"] {
        let answer = stage.client.post(path, &body).await?.expect(200)?;
        ensure!(answer.header("x-conversation-id").is_none());
        ensure!(answer.json["data"][1]["embedding"].as_array().map(Vec::len) == Some(2));
        let id = request_id(&answer)?;
        let recorded = Recorded::wait(&stage.log, &id).await?;
        ensure!(recorded.tokens() == (Some(3), Some(0)), "{recorded:#?}");
        let shown = shown_request(&stage.client, &id).await?;
        ensure!(shown["operation"] == "embeddings", "{shown:#}");
        ensure!(shown["conversation_id"].is_null(), "{shown:#}");
        ensure!(shown["route"] == "/v1/embeddings", "{shown:#}");
        ensure!(shown["request"] == body, "{shown:#}");
        ensure!(shown["body_bytes"] == body.to_string().len(), "{shown:#}");
    }
    shipped(&stage.hub).await?;
    projected(&stage.hub).await?;
    let after = stage.client.get("/stats").await?.expect(200)?.json;
    let grown = |name: &str| after[name].as_i64().zip(before[name].as_i64());
    let grown = |name: &str| grown(name).map(|(after, before)| after - before);
    ensure!(grown("requests") == Some(2), "{after:#}");
    ensure!(grown("total_conversations") == Some(0), "{after:#}");
    ensure!(after["tokens_usage"]["prompt"] == 6, "{after:#}");
    let conversations = stage.client.get("/conversations").await?.expect(200)?.json;
    ensure!(conversations["data"] == json!([]), "{conversations:#}");
    stage.strike().await
}

#[tokio::test]
async fn what_cannot_be_embedded_is_refused_by_name() -> Result<()> {
    let stage = Stage::set().await?;
    for (body, param) in [
        (json!({"model": "echo"}), "input"),
        (json!({"model": "echo", "input": []}), "input"),
        (json!({"model": "echo", "input": [1, "a"]}), "input"),
        (
            json!({"model": "echo", "input": "a", "dimensions": 0}),
            "dimensions",
        ),
        (
            json!({"model": "echo", "input": "a", "dimensions": 9999}),
            "dimensions",
        ),
        (
            json!({"model": "echo", "input": "a", "encoding_format": "x"}),
            "encoding_format",
        ),
        (json!({"input": "a"}), "model"),
    ] {
        let answer = stage.client.post("/v1/embeddings", &body).await?;
        ensure_error(&answer, 400)?;
        ensure!(
            answer.json["error"]["param"] == param,
            "{body}: {}",
            answer.text()
        );
    }
    let unknown = json!({"model": "no-such-model", "input": "a"});
    ensure_error(&stage.client.post("/v1/embeddings", &unknown).await?, 404)?;
    // The upstream of the stage knows no embeddings: its refusal is the client's to know.
    let elsewhere = json!({"model": MODEL, "input": "a"});
    let answer = stage.client.post("/v1/embeddings", &elsewhere).await?;
    ensure!((400..500).contains(&answer.status), "{}", answer.text());
    let recorded = Recorded::wait(&stage.log, &request_id(&answer)?).await?;
    ensure!(recorded.failure() == "upstream_status", "{recorded:#?}");
    stage.strike().await
}
