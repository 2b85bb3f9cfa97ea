//! A connection whose other end is gone, and nobody said so.

use std::time::Duration;

use anyhow::{Context, ensure};
use nexus_events::exchange_event::FailureReason;
use nexus_gateway::provider::Retry;
use nexus_gateway::provider::transport::TransportSettings;
use nexus_tests::chaos::Chaos;
use nexus_tests::gate::Gate;
use nexus_tests::{Result, Script, Upstream};
use tokio::time::timeout;

use super::{send, transport, whole};

/// Pings that a test can wait for; the other bounds are minutes.
fn settings() -> TransportSettings {
    TransportSettings {
        ping_after: Duration::from_millis(300),
        ping_timeout: Duration::from_millis(300),
        ..TransportSettings::default()
    }
}

/// A fraction of the first byte's bound, and many times that of a ping.
const BOUND: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn silence_under_a_request_is_noticed_and_the_next_one_gets_another_connection() -> Result<()>
{
    let upstream = Upstream::start_http2(100).await?;
    let chaos = Chaos::start(&upstream.host_port())?;
    let url = upstream.url_through(&chaos.url_host_port());
    let transport = transport(&upstream, settings())?;
    let gate = Gate::closed();
    upstream.once(Script::answer().wait_before_headers(&gate));
    let waiting = send(&transport, &url, "waiting");
    let silent = async {
        gate.reached_by(1).await?;
        chaos.stall();
        anyhow::Ok(())
    };
    let (waited, silent) = tokio::join!(timeout(BOUND, waiting), silent);
    silent?;
    let error = waited
        .context("nobody noticed")?
        .err()
        .context("it was answered")?;
    ensure!(
        (error.reason, error.retry) == (FailureReason::UpstreamCut, Retry::Now),
        "{error:?}"
    );

    chaos.flow();
    whole(&transport, &url, "after").await?;
    let [before, after] = ["waiting", "after"].map(|tag| upstream.exchanges_of(tag));
    ensure!(before[0].connection != after[0].connection, "the same one");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_of_an_idle_connection_costs_the_next_request_no_time_out() -> Result<()> {
    let upstream = Upstream::start_http2(100).await?;
    let chaos = Chaos::start(&upstream.host_port())?;
    let url = upstream.url_through(&chaos.url_host_port());
    let transport = transport(&upstream, settings())?;
    whole(&transport, &url, "before").await?;
    chaos.stall();
    let waited = timeout(BOUND, send(&transport, &url, "waiting")).await;
    let error = waited
        .context("nobody noticed")?
        .err()
        .context("it was answered")?;
    ensure!(error.reason == FailureReason::UpstreamCut, "{error:?}");

    chaos.flow();
    whole(&transport, &url, "after").await?;
    let [before, after] = ["before", "after"].map(|tag| upstream.exchanges_of(tag));
    ensure!(before[0].connection != after[0].connection, "the same one");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_thinks_is_not_taken_for_dead() -> Result<()> {
    let upstream = Upstream::start_http2(100).await?;
    // A busy machine may take its time to answer, so the model thinks longer than that.
    let settings = TransportSettings {
        ping_timeout: Duration::from_secs(2),
        ..settings()
    };
    let transport = transport(&upstream, settings)?;
    let thinking = Duration::from_secs(3);
    upstream.always(Script::answer().pause_before_headers(thinking));
    whole(&transport, &upstream.url(), "thinking").await?;
    Ok(())
}
