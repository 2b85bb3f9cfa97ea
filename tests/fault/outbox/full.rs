//! No room for more events: the outbox at its bound, the disk full beneath it.

use std::time::Duration;

use anyhow::{Result, ensure};
use nexus_tests::seed::Seed;
use nexus_tests::{Broker, Hub};
use tokio::time::sleep;

use super::{outbox_is_ready, proper_ends, segments};
use crate::deployment::{Deployment, Plan};

/// 1 MiB: some hundred requests of the load.
const SMALL: &str = "1MiB";

/// At its bound an outbox refuses what is new, ends what is open, and drops nothing, even when its
/// gateway dies.
#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_at_its_bound_refuses_what_is_new_and_keeps_what_it_holds() -> Result<()> {
    let mut seed = Seed::of("full outbox")?;
    let mut broker = Broker::start().await?;
    let plan = Plan::direct(&broker.url()).await?;
    let plan = plan.set("NEXUS_OUTBOX_MAX_BYTES", SMALL);
    let mut deployment = Deployment::of(plan).await?;
    let load = deployment.load(&mut seed)?;
    load.is_answered(20).await?;
    broker.kill().await?;
    load.is_refused(20).await?;
    for gateway in &deployment.gateways {
        outbox_is_ready(gateway, false).await?;
    }
    load.look(proper_ends)?;

    let victim = seed.index(deployment.gateways.len());
    sleep(seed.between(Duration::ZERO, Duration::from_millis(500))).await;
    deployment.kill(victim, &load).await?;
    deployment.launch(victim, &load).await?;
    load.is_refused(20).await?;
    for gateway in &deployment.gateways {
        outbox_is_ready(gateway, false).await?;
    }

    broker.restart().await?;
    deployment.ready().await?;
    load.is_answered(50).await?;
    let memory = load.stop().await;
    let refused = memory.refused.iter();
    ensure!(
        refused
            .map(|(_, status)| *status)
            .all(|status| status == 503)
    );
    deployment.settle_and_check(&memory).await?;
    Ok(())
}

/// A disk that takes nothing more costs refused requests and nothing else: with room again the same
/// processes go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_room_is_waited_for() -> Result<()> {
    let mut seed = Seed::of("full disk")?;
    let broker = Broker::start().await?;
    let mut deployment = Deployment::start(&broker.url()).await?;
    let load = deployment.load(&mut seed)?;
    for round in 0..3 {
        load.is_answered(20).await?;
        for gateway in &deployment.gateways {
            // At last not even a log line can be written.
            let room = if round == 2 {
                1
            } else {
                largest_file(gateway)? + seed.below(20_000)
            };
            gateway.limit_files(Some(room))?;
        }
        load.is_refused(30).await?;
        sleep(seed.between(Duration::ZERO, Duration::from_secs(1))).await;
        for gateway in &deployment.gateways {
            gateway.limit_files(None)?;
        }
    }
    load.is_answered(50).await?;
    let memory = load.stop().await;
    proper_ends(&memory)?;
    for gateway in &mut deployment.gateways {
        gateway.ensure_running()?;
        let said = gateway.stderr();
        ensure!(!said.contains("panicked"), "{said}");
    }
    deployment.settle_and_check(&memory).await?;
    Ok(())
}

/// The size of the largest segment that a gateway writes to.
fn largest_file(gateway: &Hub) -> Result<u64> {
    let mut largest = 0;
    for outbox in gateway.outboxes()? {
        for segment in segments(&outbox)? {
            largest = segment.metadata()?.len().max(largest);
        }
    }
    Ok(largest)
}
