//! The broker is away, dies at the worst moment, or stands still.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use nexus_tests::account::BOUND;
use nexus_tests::seed::Seed;
use nexus_tests::{Broker, broker, until};
use tokio::time::{Instant, sleep};

use crate::deployment::Deployment;

/// The streams' duplicate window, made short so that an outage can be longer than it.
const WINDOW: Duration = Duration::from_secs(2);

/// As the issue of a frozen broker has it: longer than any time-out of client and hub.
const FREEZE: Duration = Duration::from_secs(30);

/// The streams that traffic goes to.
const STREAMS: [&str; 3] = ["NEXUS_EXCHANGES", "NEXUS_CHUNKS", "NEXUS_AUDIT"];

/// Shortens the window in which the broker would recognise a repetition by itself.
async fn shorten_duplicate_window(url: &str) -> Result<()> {
    let context = jetstream::new(broker::connect(url).await?);
    for name in STREAMS {
        let stream = context.get_stream(name).await?;
        let mut config = stream.cached_info().config.clone();
        config.duplicate_window = WINDOW;
        context.update_stream(config).await?;
    }
    Ok(())
}

/// An outage longer than the duplicate window, with traffic going on, loses and doubles nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_longer_than_the_duplicate_window() -> Result<()> {
    let mut seed = Seed::of("long outage")?;
    let mut broker = Broker::start().await?;
    let deployment = Deployment::start(&broker.url()).await?;
    shorten_duplicate_window(&broker.url()).await?;
    let load = deployment.load(&mut seed)?;
    for _ in 0..2 {
        load.goes_on(30).await?;
        broker.kill().await?;
        let began = Instant::now();
        load.goes_on(60).await?;
        sleep((WINDOW * 2).saturating_sub(began.elapsed())).await;
        broker.restart().await?;
    }
    let memory = load.stop().await;
    ensure!(
        memory.refused.is_empty(),
        "a client noticed: {:?}",
        memory.refused
    );
    deployment.settle_and_check(&memory).await?;
    Ok(())
}

/// A broker that dies in the middle of batches has stored each of them whole or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_in_the_middle_of_batches() -> Result<()> {
    let mut seed = Seed::of("killed broker")?;
    let mut broker = Broker::start().await?;
    let deployment = Deployment::start(&broker.url()).await?;
    let load = deployment.load(&mut seed)?;
    for _ in 0..10 {
        // Long enough for the outboxes to have caught up, or not.
        sleep(seed.between(Duration::from_millis(20), Duration::from_millis(900))).await;
        broker.kill().await?;
        sleep(seed.between(Duration::ZERO, Duration::from_millis(300))).await;
        broker.restart().await?;
    }
    let memory = load.stop().await;
    ensure!(
        memory.refused.is_empty(),
        "a client noticed: {:?}",
        memory.refused
    );
    deployment.settle_and_check(&memory).await?;
    Ok(())
}

/// A broker that stands still for half a minute, its connections open, is waited for by nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_frozen_for_half_a_minute() -> Result<()> {
    let mut seed = Seed::of("frozen broker")?;
    let mut broker = Broker::start().await?;
    let deployment = Deployment::start(&broker.url()).await?;
    let load = deployment.load(&mut seed)?;
    load.goes_on(30).await?;
    broker.pause()?;
    let began = Instant::now();
    load.goes_on(100).await?;
    let took = began.elapsed();
    sleep(FREEZE.saturating_sub(took)).await;
    broker.resume()?;
    let memory = load.stop().await;
    ensure!(
        memory.refused.is_empty(),
        "a client noticed: {:?}",
        memory.refused
    );
    deployment.settle_and_check(&memory).await?;
    Ok(())
}

/// Configuration that nobody acknowledged is in the log once or not at all, and everybody agrees.
#[tokio::test(flavor = "multi_thread")]
async fn configuration_changed_while_the_broker_dies() -> Result<()> {
    let mut seed = Seed::of("configuration")?;
    let mut broker = Broker::start().await?;
    let deployment = Deployment::start(&broker.url()).await?;
    let mut acknowledged = Vec::new();
    for number in 0..6 {
        let name = format!("provider-{number}");
        let body = serde_json::json!({"name": name, "server_url": "http://127.0.0.1:9"});
        let client = deployment.client(number % 2)?;
        let asking = async {
            sleep(seed.between(Duration::ZERO, Duration::from_millis(15))).await;
            client.post("/providers", &body).await
        };
        let (killed, answer) = tokio::join!(broker.kill(), asking);
        killed?;
        broker.restart().await?;
        let answer = answer?;
        match answer.status {
            201 => acknowledged.push(name),
            503 => {}
            other => anyhow::bail!("answered {other}: {}", answer.text()),
        }
    }
    let context = jetstream::new(broker::connect(&broker.url()).await?);
    let last = context.get_stream("NEXUS_CONFIG").await?;
    let last = last.cached_info().state.last_sequence;
    for number in 0..2 {
        let client = deployment.client(number)?;
        let known = until("every gateway knows every change", BOUND, async || {
            let metric = "nexus_config_sequence";
            let gateway = deployment.gateways.get(number).context("a gateway")?;
            let sequence = gateway.metric(metric).await?;
            let known = sequence.map(|sequence| sequence.to_string());
            ensure!(known == Some(last.to_string()), "{known:?} of {last}");
            client.get("/providers").await?.expect(200)
        })
        .await?;
        for name in &acknowledged {
            let times = known.text().matches(&format!("\"{name}\"")).count();
            ensure!(
                times == 1,
                "{name} is there {times} times: {}",
                known.text()
            );
        }
    }
    Ok(())
}
