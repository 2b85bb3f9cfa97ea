//! Redis goes away, comes back and forgets, under the traffic of two gateways.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use nexus_tests::account::BOUND;
use nexus_tests::seed::Seed;
use nexus_tests::{Broker, until};
use tokio::time::sleep;

use crate::deployment::Deployment;

/// Clients notice nothing of it, and what Redis is told afterwards is right.
#[tokio::test(flavor = "multi_thread")]
async fn redis_away_and_back_and_flushed() -> Result<()> {
    let mut seed = Seed::of("redis")?;
    let broker = Broker::start().await?;
    let mut deployment = Deployment::start(&broker.url()).await?;
    let load = deployment.load(&mut seed)?;
    for _ in 0..3 {
        load.goes_on(20).await?;
        deployment.redis.flush().await?;
        load.goes_on(20).await?;
        deployment.redis.kill().await?;
        load.goes_on(20).await?;
        sleep(seed.between(Duration::ZERO, Duration::from_millis(800))).await;
        deployment.redis.restart().await?;
        load.goes_on(10).await?;
        deployment.redis.pause()?;
        load.goes_on(10).await?;
        deployment.redis.resume()?;
    }
    let memory = load.stop().await;
    ensure!(
        memory.refused.is_empty(),
        "a client noticed: {:?}",
        memory.refused
    );
    let figures = deployment.settle_and_check(&memory).await?;
    let mut connection = deployment.redis.connection().await?;
    until("the live totals are those of the log", BOUND, async || {
        let live: HashMap<String, String> = redis::cmd("HGETALL")
            .arg(nexus_projector::live::KEY)
            .query_async(&mut connection)
            .await?;
        let is = |field: &str, value: String| live.get(field) == Some(&value);
        ensure!(
            is("requests", figures.requests.to_string())
                && is("prompt_tokens", figures.tokens.0.to_string())
                && is("completion_tokens", figures.tokens.1.to_string()),
            "{live:?} instead of {figures:?}"
        );
        anyhow::Ok(())
    })
    .await
}
