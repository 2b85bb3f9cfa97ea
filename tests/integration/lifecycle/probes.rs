//! What the metrics address says: alive, ready, and the figures.

use anyhow::{Context, ensure};
use nexus_tests::client::{Answer, Ending};
use nexus_tests::{Broker, Chaos, Hub, Result, until};
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

/// A figure that counts.
fn whole(figure: f64) -> Result<u64> {
    Ok(format!("{figure:.0}").parse()?)
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

/// A lag that is known from before says nothing while nobody can look.
#[tokio::test(flavor = "multi_thread")]
async fn the_age_of_the_projectors_lag_is_told() -> Result<()> {
    const CONTACT: &str = "nexus_projector_last_contact_timestamp_seconds";
    let mut broker = Broker::start().await?;
    let hub = Hub::standalone().nats(&broker).start().await?;
    let contact = async || hub.metric(CONTACT).await?.context("no such metric");
    let goes_on = async |since: f64| {
        until("the last contact is a later one", BOUND, async || {
            let contact = contact().await?;
            ensure!(contact > since, "it is still {contact}");
            anyhow::Ok(contact)
        })
        .await
    };
    let remark = async || -> Result<Option<String>> {
        let part = hub.part("read_model").await?;
        ensure!(part["ready"] == true, "{part}");
        Ok(part["reason"].as_str().map(str::to_owned))
    };
    // Without any event.
    let first = goes_on(0.0).await?;
    goes_on(first).await?;
    ensure!(remark().await?.is_none(), "{:?}", remark().await?);

    broker.kill().await?;
    until("the silence is told", BOUND, async || {
        let remark = remark().await?.unwrap_or_default();
        let is_told = remark.starts_with("nothing was heard of the broker for ");
        // Two seconds, so that a contact that went on would show below.
        ensure!(
            is_told && !remark.contains(" for 0 s") && !remark.contains(" for 1 s"),
            "{remark}"
        );
        anyhow::Ok(())
    })
    .await?;
    let stood = contact().await?;
    until("it is known for longer", BOUND, async || {
        let remark = remark().await?.unwrap_or_default();
        let seconds = remark
            .split(' ')
            .nth(7)
            .and_then(|seconds| seconds.parse().ok());
        ensure!(seconds > Some(3_u64), "{remark}");
        anyhow::Ok(())
    })
    .await?;
    ensure!(contact().await? <= stood, "somebody was heard");

    broker.restart().await?;
    goes_on(stood).await?;
    until("the remark is gone", BOUND, async || {
        let remark = remark().await?;
        ensure!(remark.is_none(), "{remark:?}");
        anyhow::Ok(())
    })
    .await
}

/// The figures of the outbox grow while nothing is shipped, and go back when it is.
#[tokio::test(flavor = "multi_thread")]
async fn the_outboxes_figures_follow_a_broker_that_stands_still() -> Result<()> {
    const REQUESTS: u64 = 3;
    const PROMPT_BYTES: usize = 60_000;
    let broker = Broker::start().await?;
    let wire = Chaos::start(&broker.host_port())?;
    let hub = Hub::standalone()
        .env("NEXUS_NATS_URL", format!("nats://{}", wire.url_host_port()))
        .env("NEXUS_OUTBOX_MAX_BYTES", "1MiB")
        .env("NEXUS_TOKEN_AUDIT_PERCENT", 0);
    let hub = hub.start().await?;
    let client = hub.client()?;
    shipped(&hub).await?;
    let metrics = async || hub.metrics()?.get("/metrics").await?.expect(200);
    let figure = |metrics: &Answer, name: &str, lane: &str| {
        let series = format!("{name}{{lane=\"{lane}\"}}");
        whole(metrics.metric(&series).context(series)?)
    };
    let bytes = |metrics: &Answer| whole(metrics.metric("nexus_outbox_bytes").context("no bytes")?);
    let before = metrics().await?;

    wire.stall();
    for _ in 0..REQUESTS {
        let body = ask("echo", &"x".repeat(PROMPT_BYTES));
        client.chat(&body).await?.expect(200)?;
    }
    let mut stream = client.chat_stream(&ask("echo", "one two three")).await?;
    ensure!(stream.end().await?.ending == Some(Ending::Done));
    let stalled = metrics().await?;
    // Received, the attempt's two, completed: of each.
    let exchanges = 4 * (REQUESTS + 1);
    ensure!(
        figure(&stalled, "nexus_outbox_lag_events", "exchanges")? == exchanges,
        "{}",
        stalled.text()
    );
    let chunks = figure(&stalled, "nexus_outbox_lag_events", "chunks")?;
    ensure!(chunks >= 3, "{}", stalled.text());
    for lane in ["exchanges", "chunks"] {
        let shipped = |metrics| figure(metrics, "nexus_shipped_events", lane);
        ensure!(
            shipped(&stalled)? == shipped(&before)?,
            "{}",
            stalled.text()
        );
    }
    let grown = bytes(&stalled)? - bytes(&before)?;
    // The prompts and their echoes.
    ensure!(grown > 2 * REQUESTS * 60_000, "it grew by {grown} bytes");

    wire.flow();
    shipped(&hub).await?;
    let after = metrics().await?;
    for (lane, count) in [("exchanges", exchanges), ("chunks", chunks)] {
        let shipped = |metrics| figure(metrics, "nexus_shipped_events", lane);
        ensure!(
            shipped(&after)? - shipped(&before)? == count,
            "{}",
            after.text()
        );
    }
    // All but the segment that is being written is freed.
    ensure!(
        bytes(&after)? < bytes(&stalled)? - grown / 2,
        "{}",
        after.text()
    );
    Ok(())
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
