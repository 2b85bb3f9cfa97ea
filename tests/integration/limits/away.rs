//! Without Redis each gateway counts its share; with it again they count together.

use std::time::Duration;

use anyhow::ensure;
use nexus_tests::{Client, Hub, Result, Script, until};
use serde_json::json;
use tokio::time::Instant;

use super::pair::{Pair, at_once, count};

/// A gateway gives a word every 10 s.
const WORD_BOUND: Duration = Duration::from_mins(1);

async fn until_metric(hub: &Hub, name: &str, expected: f64) -> Result<()> {
    until(name, WORD_BOUND, async || {
        let value = hub.metric(name).await?;
        ensure!(value == Some(expected), "{value:?}");
        Ok(())
    })
    .await
}

/// Fails unless the limit alone decides, whoever counts it.
async fn ensure_share(clients: &[Client], limit: u64) -> Result<()> {
    let began = Instant::now();
    let answers = at_once(clients, 30).await?;
    let good = u128::try_from(count(&answers, 200))?;
    let inflow = began.elapsed().as_millis() * u128::from(limit) / 60_000;
    let range = u128::from(limit)..=u128::from(limit) + inflow;
    ensure!(range.contains(&good), "{good} went through, of {range:?}");
    ensure!(count(&answers, 429) + count(&answers, 200) == answers.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_gateway_counts_its_share_while_redis_is_away() -> Result<()> {
    let mut pair = Pair::set().await?;
    pair.upstream.always(Script::answer());
    let clients = pair
        .key(&json!({"name": "limited", "requests_per_minute": 10}))
        .await?;
    let later = pair
        .key(&json!({"name": "later", "requests_per_minute": 10}))
        .await?;
    for hub in &pair.hubs {
        until_metric(hub, "nexus_gateways", 2.0).await?;
    }
    pair.redis.kill().await?;
    for client in &clients {
        ensure_share(std::slice::from_ref(client), 5).await?;
    }
    pair.redis.restart().await?;
    for hub in &pair.hubs {
        until_metric(hub, "nexus_redis_up", 1.0).await?;
    }
    let began = pair.begin().await?;
    let answers = at_once(&later, 30).await?;
    pair.ensure_exact(&answers, (10, 1), &began).await
}
