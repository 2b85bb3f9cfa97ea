//! What the metrics address says: alive, ready, and the figures.

use anyhow::{Context, ensure};
use nexus_tests::client::{Answer, Ending};
use nexus_tests::{Broker, Hub, Result, until};
use serde_json::Value;

use super::ask;
use nexus_tests::account::{BOUND, shipped};

/// What one part says of itself.
fn part<'a>(ready: &'a Answer, name: &str) -> Result<&'a Value> {
    let parts = ready.json.get("parts").and_then(Value::as_array);
    parts
        .into_iter()
        .flatten()
        .find(|part| part["part"] == name)
        .with_context(|| format!("no part {name} in {}", ready.text()))
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_follow_what_was_done() -> Result<()> {
    let hub = Hub::standalone().start().await?;
    let client = hub.client()?;
    client
        .chat(&ask("echo", "one two three"))
        .await?
        .expect(200)?;
    let mut stream = client.chat_stream(&ask("echo", "one two three")).await?;
    let seen = stream.end().await?;
    ensure!(seen.ending == Some(Ending::Done), "{seen:?}");
    client.chat(&ask("no-such", "one")).await?.expect(404)?;
    shipped(&hub).await?;

    let metrics = hub.metrics()?.get("/metrics").await?.expect(200)?;
    let kind = metrics
        .header("content-type")
        .unwrap_or_default()
        .to_owned();
    ensure!(kind.starts_with("text/plain"), "{kind}");
    let log = hub.log().await?;
    let chunks = log.events(nexus_tests::log::Stream::Chunks).await?.len();
    ensure!(chunks > 0, "the stream had chunks");
    for (series, value) in [
        ("nexus_exchanges_total{outcome=\"completed\"}", 2),
        ("nexus_rejected_total{code=\"model_not_found\"}", 1),
        ("nexus_chunks_total", chunks),
        ("nexus_open_exchanges", 0),
        ("nexus_http_answers_total{class=\"2xx\"}", 2),
        ("nexus_http_answers_total{class=\"4xx\"}", 1),
        ("nexus_upstream_seconds_count", 2),
        ("nexus_first_token_seconds_count", 2),
        ("nexus_shipped_events{lane=\"chunks\"}", chunks),
        ("nexus_ready{part=\"broker\"}", 1),
    ] {
        let is = metrics.metric(series);
        let value = u32::try_from(value).map(f64::from)?;
        ensure!(
            is == Some(value),
            "{series} is {is:?}, not {value}: {}",
            metrics.text()
        );
    }
    until("the projector has caught up", BOUND, async || {
        let lag = hub.metric("nexus_projector_lag_events").await?;
        ensure!(lag == Some(0.0), "its lag is {lag:?}");
        anyhow::Ok(())
    })
    .await?;
    let unknown = hub.metrics()?.get("/nothing").await?;
    assert_eq!(unknown.status, 404);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_tells_which_part_is_not_ready_and_why() -> Result<()> {
    let mut broker = Broker::start().await?;
    let hub = Hub::standalone().nats(&broker).start().await?;
    let metrics = hub.metrics()?;
    let ready = metrics.get("/readyz").await?.expect(200)?;
    for name in ["broker", "configuration", "outbox", "read_model"] {
        ensure!(part(&ready, name)?["ready"] == true, "{}", ready.text());
    }
    metrics.get("/healthz").await?.expect(200)?;

    broker.kill().await?;
    until("it misses the broker", BOUND, async || {
        // Not 503: a load balancer must not take every gateway away because the broker is.
        let ready = metrics.get("/readyz").await?.expect(200)?;
        let broker = part(&ready, "broker")?;
        let why = broker["reason"].as_str().unwrap_or_default();
        ensure!(
            broker["ready"] == false && !why.is_empty(),
            "{}",
            ready.text()
        );
        anyhow::Ok(())
    })
    .await?;
    metrics.get("/healthz").await?.expect(200)?;
    hub.client()?
        .chat(&ask("echo", "all the same"))
        .await?
        .expect(200)?;

    broker.restart().await?;
    until("it is ready again", BOUND, async || {
        let ready = metrics.get("/readyz").await?.expect(200)?;
        ensure!(part(&ready, "broker")?["ready"] == true, "{}", ready.text());
        anyhow::Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_replica_that_may_not_be_synced_is_told() -> Result<()> {
    let (unknown, told) = (Broker::start().await?, Broker::start().await?);
    // Whose settings nobody knows; whose settings were told; and the one that it sets up itself.
    for (hub, may_lose) in [
        (Hub::standalone().nats(&unknown), true),
        (
            Hub::standalone()
                .nats(&told)
                .env("NEXUS_NATS_SYNC", "always"),
            false,
        ),
        (Hub::standalone(), false),
    ] {
        let hub = hub.start().await?;
        until("the broker is told of", BOUND, async || {
            let ready = hub.metrics()?.get("/readyz").await?.expect(200)?;
            let broker = part(&ready, "broker")?;
            let reason = broker["reason"].as_str().unwrap_or_default();
            ensure!(
                broker["ready"] == true && reason.contains("power loss") == may_lose,
                "{}",
                ready.text()
            );
            anyhow::Ok(())
        })
        .await?;
        ensure!(
            hub.stderr().contains("may lose the last two minutes") == may_lose,
            "{}",
            hub.stderr()
        );
    }
    Ok(())
}
