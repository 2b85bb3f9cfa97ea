//! Streams that begin with status 200 and fail before they have said anything.

use std::time::Duration;

use anyhow::{Context, ensure};
use nexus_tests::client::Ending;
use nexus_tests::upstream::content;
use nexus_tests::{Client, Gate, Result, Script};
use serde_json::{Value, json};

use crate::recorded::Recorded;
use crate::stage::{MODEL, Stage, ask, ensure_error, request_id};

/// A stream of Anthropic's that ends with an error, `after` which events.
fn anthropic(after: &[Value], kind: &str) -> Script {
    let error = json!({"type": "error", "error": {"type": kind, "message": "busy"}});
    let events = after.iter().chain([&error]);
    let frames: Vec<String> = events.map(|event| format!("data: {event}\n\n")).collect();
    Script::status(200, frames.concat()).header("content-type", "text/event-stream")
}

fn message_start() -> Value {
    json!({"type": "message_start", "message": {"id": "msg_1", "type": "message",
        "role": "assistant", "model": "claude", "content": [],
        "usage": {"input_tokens": 3, "output_tokens": 1}}})
}

async fn serve_claude(stage: &Stage) -> Result<()> {
    let url = format!("http://{}", stage.upstream.host_port());
    let provider = json!({"name": "anthropic", "kind": "anthropic", "server_url": url,
        "server_key": "upstream-secret"});
    let model = json!({"model_name": "claude"});
    stage.client.serve(&provider, model).await.map(drop)
}

async fn health(client: &Client, provider: &str) -> Result<Value> {
    let shown = client.get(&format!("/providers/{provider}")).await?;
    Ok(shown.expect(200)?.json["health"].clone())
}

#[tokio::test]
async fn an_error_after_the_beginning_of_a_message_is_a_status() -> Result<()> {
    let stage = Stage::set().await?;
    serve_claude(&stage).await?;
    let ping = json!({"type": "ping"});
    let beginnings = [vec![], vec![message_start()], vec![message_start(), ping]];
    for (kind, status, tries) in [
        ("overloaded_error", 529, 3),
        ("rate_limit_error", 429, 3),
        ("invalid_request_error", 400, 1),
    ] {
        for (number, beginning) in beginnings.iter().enumerate() {
            let script = anthropic(beginning, kind);
            stage
                .upstream
                .route("/v1/messages", move |_| script.clone());
            let mut body = ask(&format!("{kind}-{number}"));
            body["model"] = json!("claude");
            body["stream"] = json!(true);
            let answer = stage.client.chat(&body).await?;
            ensure_error(&answer, status).context(format!("{kind} {number}"))?;
            let recorded = Recorded::wait(&stage.log, &request_id(&answer)?).await?;
            ensure!(recorded.attempts.len() == tries, "{recorded:#?}");
            ensure!(recorded.chunks.is_empty(), "{recorded:#?}");
            for attempt in &recorded.attempts {
                ensure!(attempt.status() == Some(200), "{recorded:#?}");
                ensure!(attempt.failure() == "upstream_error", "{recorded:#?}");
            }
        }
        let health = health(&stage.client, "anthropic").await?;
        // Five in a row open a breaker; whoever refuses lives.
        let expected = if status == 529 { "open" } else { "closed" };
        ensure!(health["state"] == expected, "{kind}: {health}");
    }
    stage.strike().await
}

/// A model that thinks before its first word is not to look dead.
#[tokio::test]
async fn a_stream_that_says_nothing_for_long_begins_all_the_same() -> Result<()> {
    let stage = Stage::set().await?;
    let gate = Gate::closed();
    let script = Script::answer().wait_after(0, &gate);
    stage.upstream.once(script);
    let mut stream = tokio::time::timeout(
        Duration::from_secs(20),
        stage.client.chat_stream(&ask("thinks")),
    )
    .await
    .context("the stream does not begin")??;
    let begun = stream.chunks(1).await?;
    ensure!(begun[0]["choices"][0]["delta"]["role"] == "assistant");
    gate.open();
    let seen = stream.end().await?;
    ensure!(seen.ending() == Ending::Done, "{seen:?}");
    ensure!(seen.text(0) == content::text("thinks", 0, 5), "{seen:?}");
    let request = stream.header("x-request-id").context("no X-Request-Id")?;
    let recorded = Recorded::wait(&stage.log, request).await?;
    recorded.ensure_given(&seen, false)?;
    ensure!(recorded.terminal.data()["gen_ai.request.model"] == MODEL);
    stage.strike().await
}
