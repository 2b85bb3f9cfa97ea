//! A broker that is there and does not take what it is sent: messages too large for it, a stream at
//! its limit, no storage left.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use nexus_tests::account::{Account, BOUND, assert_verified, projected, shipped};
use nexus_tests::seed::Seed;
use nexus_tests::{Broker, Hub, broker, until};
use serde_json::{Value, json};

use crate::deployment::Deployment;
use crate::load::MODEL;

/// A broker that takes no message of more than 32 KiB.
const SMALL_MESSAGES: &str = "max_payload: 32KB\n";

/// A message that such a broker does not take.
const LARGE: usize = 60_000;

/// A broker with room for 300 KB: some hundred requests of the load.
const LITTLE_STORAGE: &str = r#"jetstream {
  store_dir: "{store}"
  sync_interval: always
  max_file_store: 300KB
}"#;

/// Waits until a gateway has so many events that the broker did not take yet.
async fn lags(gateway: &Hub, events: f64) -> Result<()> {
    until("the outbox grows", BOUND, async || {
        for lane in ["exchanges", "chunks"] {
            let name = format!("nexus_outbox_lag_events{{lane=\"{lane}\"}}");
            let lag = gateway.metric(&name).await?.context("no such lane")?;
            ensure!(lag >= events, "{lag} events of {lane} are not shipped");
        }
        Ok(())
    })
    .await
}

/// The ids of the events that a gateway has set aside.
fn set_aside(data_dir: &Path) -> Result<BTreeSet<String>> {
    let folder = data_dir.join("outbox/unshippable");
    let mut ids = BTreeSet::new();
    for entry in fs::read_dir(folder).context("nothing was set aside")? {
        let event: Value = serde_json::from_slice(&fs::read(entry?.path())?)?;
        let id = event.get("id").and_then(Value::as_str);
        ids.insert(id.context("an event without an id")?.to_owned());
    }
    Ok(ids)
}

/// An event that the broker refuses for its size is set aside whole, a note stands in its place,
/// and everything else arrives.
#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_too_large_for_the_broker_hold_up_nothing() -> Result<()> {
    let mut seed = Seed::of("small messages")?;
    let mut broker = Broker::start().await?;
    let deployment = Deployment::start(&broker.url()).await?;
    let load = deployment.load(&mut seed)?;
    load.is_answered(10).await?;
    broker.kill().await?;
    let large = 1 + usize::try_from(seed.below(4))?;
    let mut requests = BTreeSet::new();
    for number in 0..large {
        load.goes_on(5).await?;
        let content = format!("{} large{number}-c3-p0-u1", "x".repeat(LARGE));
        let body = json!({"model": MODEL, "messages": [{"role": "user", "content": content}]});
        let answer = deployment.client(0)?.chat(&body).await?.expect(200)?;
        let request = answer.header("x-request-id").context("no id")?;
        requests.insert(request.to_owned());
    }
    broker.restart_with(SMALL_MESSAGES).await?;
    load.is_answered(20).await?;
    let memory = load.stop().await;
    ensure!(memory.refused.is_empty(), "{:?}", memory.refused);

    for gateway in &deployment.gateways {
        shipped(gateway).await?;
    }
    let gateway = deployment.gateways.first().context("no gateway")?;
    projected(gateway).await?;
    let account = Account::take(&gateway.log().await?).await?;
    account.assert_one_end_each()?;
    let mut noted = BTreeSet::new();
    for event in &account.exchanges {
        if event.kind() == "ai.nexus.log.unshippable.v1" {
            let refused = event.data().get("nexus.event.id").and_then(Value::as_str);
            noted.insert(refused.context("a note names no event")?.to_owned());
        }
    }
    ensure!(noted.len() == large, "{noted:?} instead of {large}");
    ensure!(set_aside(gateway.data_dir())? == noted, "{noted:?}");
    for request in &requests {
        let events = account.events_of(request);
        let names: Vec<&str> = events.iter().map(|event| event.name()).collect();
        ensure!(
            names == ["attempt_started", "attempt_ended", "completed"],
            "{request}: {names:?}"
        );
    }
    for stream in &memory.streams {
        account.assert_holds(stream)?;
    }
    assert_verified(gateway).await
}

/// Limits the streams of traffic to what they hold and a little more, or lifts the limit.
async fn limit_streams(url: &str, room: Option<u64>) -> Result<()> {
    let context = jetstream::new(broker::connect(url).await?);
    for name in ["NEXUS_EXCHANGES", "NEXUS_CHUNKS"] {
        let stream = context.get_stream(name).await?;
        let info = stream.cached_info();
        let limit = match room {
            Some(room) => i64::try_from(info.state.bytes + room)?,
            None => -1,
        };
        let mut config = info.config.clone();
        config.max_bytes = limit;
        context.update_stream(config).await?;
    }
    Ok(())
}

/// Streams that are at their limit make outboxes grow, and no client notices.
#[tokio::test(flavor = "multi_thread")]
async fn streams_at_their_limit_are_waited_for() -> Result<()> {
    let mut seed = Seed::of("streams at their limit")?;
    let broker = Broker::start().await?;
    let deployment = Deployment::start(&broker.url()).await?;
    let load = deployment.load(&mut seed)?;
    for _ in 0..2 {
        load.is_answered(20).await?;
        limit_streams(&broker.url(), Some(seed.below(50_000))).await?;
        for gateway in &deployment.gateways {
            lags(gateway, 50.0).await?;
        }
        load.is_answered(20).await?;
        limit_streams(&broker.url(), None).await?;
    }
    let memory = load.stop().await;
    ensure!(memory.refused.is_empty(), "{:?}", memory.refused);
    deployment.settle_and_check(&memory).await?;
    Ok(())
}

/// A broker without storage makes outboxes grow, and no client notices.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_storage_is_waited_for() -> Result<()> {
    let mut seed = Seed::of("no storage")?;
    let mut broker = Broker::start_with(LITTLE_STORAGE).await?;
    let deployment = Deployment::start(&broker.url()).await?;
    let load = deployment.load(&mut seed)?;
    for gateway in &deployment.gateways {
        lags(gateway, 50.0).await?;
    }
    load.is_answered(20).await?;
    broker.restart_with("").await?;
    load.is_answered(20).await?;
    let memory = load.stop().await;
    ensure!(memory.refused.is_empty(), "{:?}", memory.refused);
    deployment.settle_and_check(&memory).await?;
    Ok(())
}
