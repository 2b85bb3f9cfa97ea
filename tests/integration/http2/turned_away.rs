//! Requests that a provider's server did nothing with: asked again, and each try is in the log.

use anyhow::ensure;
use nexus_tests::{Result, Script, Upstream};

use crate::recorded::Recorded;
use crate::stage::{Stage, ask, request_id};

async fn stage() -> Result<Stage> {
    let upstream = Upstream::start_http2(100).await?;
    let ca_file = upstream.ca_file()?;
    Stage::set_before(upstream, |hub| {
        // A look would use up the connection that is to be ended.
        hub.env("NEXUS_HEALTH_INTERVAL_SECONDS", 0)
            .env("NEXUS_UPSTREAM_CA_FILE", ca_file.display())
    })
    .await
}

/// Asks once; the client sees nothing of it, the log holds both tries and why there were two, and
/// the provider has seen so many of them.
async fn is_tried_twice(stage: &Stage, tag: &str, seen: usize) -> Result<()> {
    let answer = stage.client.chat(&ask(tag)).await?.expect(200)?;
    let recorded = Recorded::wait(&stage.log, &request_id(&answer)?).await?;
    let [first, second] = recorded.attempts.as_slice() else {
        anyhow::bail!("{} tries are in the log", recorded.attempts.len());
    };
    ensure!(first.failure() == "upstream_cut", "{}", first.ended.json);
    ensure!(second.failure().is_empty(), "{}", second.ended.json);
    let message = first.ended.data()["nexus.failure"]["message"]
        .as_str()
        .unwrap_or_default();
    ensure!(message.contains("turned the request away"), "{message}");
    ensure!(
        recorded.terminal.name() == "completed",
        "{}",
        recorded.terminal.json
    );
    let exchanges = stage.upstream.exchanges_of(tag);
    ensure!(exchanges.len() == seen, "seen {} times", exchanges.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ends_before_the_request_costs_another_try() -> Result<()> {
    let stage = stage().await?;
    stage.upstream.turn_away(1);
    is_tried_twice(&stage, "goaway", 1).await?;
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_refused_is_asked_again_and_no_try_is_missing() -> Result<()> {
    let stage = stage().await?;
    stage.upstream.once(Script::refuse());
    is_tried_twice(&stage, "refused", 2).await?;
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_before_its_head_is_tried_again() -> Result<()> {
    let stage = stage().await?;
    stage.upstream.once(Script::hang_up());
    let answer = stage.client.chat(&ask("broken")).await?.expect(200)?;
    let recorded = Recorded::wait(&stage.log, &request_id(&answer)?).await?;
    ensure!(recorded.attempts.len() == 2, "{}", recorded.attempts.len());
    let first = &recorded.attempts[0];
    ensure!(first.failure() == "upstream_cut", "{}", first.ended.json);
    stage.strike().await
}
