//! Providers that go silent, with time-outs of one second.

use anyhow::{Context, ensure};
use nexus_tests::client::Ending;
use nexus_tests::upstream::{End, content};
use nexus_tests::{Result, Script};
use serde_json::Value;

use crate::recorded::Recorded;
use crate::stage::{Stage, ask, ensure_error, ensure_error_object, request_id};

async fn impatient() -> Result<Stage> {
    Stage::set_with(|hub| {
        hub.env("NEXUS_UPSTREAM_FIRST_BYTE_SECONDS", 1)
            .env("NEXUS_UPSTREAM_IDLE_SECONDS", 1)
    })
    .await
}

#[tokio::test]
async fn silence_before_the_first_byte_is_a_gateway_timeout() -> Result<()> {
    let stage = impatient().await?;
    let cases = [
        (
            "no-head",
            Script::answer().stall_before_headers(),
            "upstream_timeout",
        ),
        (
            "no-body",
            Script::answer().stall_after_headers(),
            "upstream_timeout",
        ),
    ];
    for stream in [false, true] {
        for (name, script, reason) in &cases {
            let tag = format!("{name}-{stream}");
            stage.upstream.once(script.clone());
            let mut body = ask(&tag);
            body["stream"] = Value::Bool(stream);
            let answer = stage.client.chat(&body).await?;
            ensure_error(&answer, 504).context(tag.clone())?;
            ensure!(answer.error_code() == *reason, "{tag}: {}", answer.text());
            let recorded = Recorded::wait(&stage.log, &request_id(&answer)?).await?;
            ensure!(recorded.failure() == *reason, "{tag}: {recorded:#?}");
            ensure!(recorded.attempts.len() == 1, "{tag}: {recorded:#?}");
        }
    }
    // The hub has hung up on them; it keeps nothing open that nobody will use.
    for exchange in stage.upstream.idle().await? {
        ensure!(exchange.end == Some(End::ClientLeft), "{exchange:?}");
    }
    stage.strike().await
}

#[tokio::test]
async fn silence_in_mid_stream_ends_with_an_error_event() -> Result<()> {
    let stage = impatient().await?;
    stage.upstream.once(Script::answer().stall_after(3));
    let mut stream = stage.client.chat_stream(&ask("stall")).await?;
    let seen = stream.end().await?;
    let request = stream.header("x-request-id").context("no X-Request-Id")?;
    let Ending::ErrorEvent(error) = seen.ending() else {
        anyhow::bail!("no error event: {seen:?}");
    };
    ensure_error_object(&error, request)?;
    ensure!(error["code"] == "upstream_stalled", "{error}");
    let recorded = Recorded::wait(&stage.log, request).await?;
    ensure!(recorded.failure() == "upstream_stalled", "{recorded:#?}");
    ensure!(recorded.text(0) == content::text("stall", 0, 3));
    recorded.ensure_given(&seen, false)?;
    stage.strike().await
}
