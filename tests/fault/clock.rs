//! The wall clock of the gateways jumps, forwards and back, while traffic runs and they die.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nexus_tests::seed::Seed;
use nexus_tests::{Broker, MovedClock};

use crate::deployment::{Deployment, Plan};

/// Jumps in seconds: an hour, half a day, more than a month, both ways; and no jump at the end.
const JUMPS: [i64; 7] = [3_600, -3_600, 43_200, -43_200, 4_000_000, -4_000_000, 0];

/// Whatever a gateway's clock says: each request is recorded and ends once, and the sums are right.
#[tokio::test(flavor = "multi_thread")]
async fn the_clock_jumps_under_traffic() -> Result<()> {
    if !cfg!(target_os = "linux") {
        println!("NOT RUN: only Linux preloads a library in this way");
        return Ok(());
    }
    let mut seed = Seed::of("clock")?;
    let clock = MovedClock::by(0).await?;
    let broker = Broker::start().await?;
    let plan = Plan::direct(&broker.url()).await?;
    let plan = clock
        .env()
        .into_iter()
        .fold(plan, |plan, (name, value)| plan.set(name, &value));
    let mut deployment = Deployment::of(plan).await?;
    let load = deployment.load(&mut seed)?;
    load.goes_on(10).await?;
    for (round, jump) in JUMPS.into_iter().enumerate() {
        clock.set(jump)?;
        load.goes_on(15).await?;
        // One of them dies with its clock ahead or behind, and comes back with another one.
        let victim = round % 2;
        load.door(victim, None);
        let gateway = deployment.gateways.get_mut(victim).context("a gateway")?;
        gateway.kill().await?;
        let next = JUMPS.get(seed.index(JUMPS.len())).copied().unwrap_or(0);
        clock.set(next)?;
        gateway.start_again().await?;
        load.door(victim, Some(gateway.client()?));
    }
    clock.set(0)?;
    load.goes_on(15).await?;
    let memory = load.stop().await;
    let figures = deployment.settle_and_check(&memory).await?;
    ensure!(
        figures.gateway_lost > 0,
        "nobody died in the middle of anything"
    );
    // The clocks did jump: requests were drawn in the far future and in the past.
    let span = "SELECT max(drawn_ms) - min(drawn_ms) FROM exchanges";
    let span = deployment.projector.read_model().number(span).await?;
    let expected = i64::try_from(Duration::from_secs(7_000_000).as_millis())?;
    ensure!(span > expected, "the clocks jumped by {span} ms only");
    Ok(())
}
