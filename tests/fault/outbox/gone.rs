//! Outboxes that come back from the past: an older copy, or one that was away for too long.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use nexus_tests::account::BOUND;
use nexus_tests::log::Stream;
use nexus_tests::seed::Seed;
use nexus_tests::{Broker, broker, until};
use tokio::time::sleep;

use crate::deployment::Deployment;

/// Copies a directory of files, in no particular order, while they are written.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        match fs::copy(entry.path(), to.join(entry.file_name())) {
            // A segment that was freed meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            copied => drop(copied?),
        }
    }
    Ok(())
}

/// Waits until an outbox is settled and gone.
async fn is_removed(outbox: &Path) -> Result<()> {
    until("the outbox is settled and removed", BOUND, async || {
        ensure!(!outbox.exists(), "it is there");
        Ok(())
    })
    .await
}

/// An outbox that was put back from an older copy adds nothing, overwrites nothing, and is told.
#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_put_back_from_an_older_copy_adds_nothing() -> Result<()> {
    let mut seed = Seed::of("older copy")?;
    let broker = Broker::start().await?;
    let mut deployment = Deployment::start(&broker.url()).await?;
    let load = deployment.load(&mut seed)?;
    load.is_answered(10).await?;
    sleep(seed.between(Duration::ZERO, Duration::from_millis(700))).await;
    let victim = seed.index(deployment.gateways.len());
    let gateway = deployment.gateways.get(victim).context("no such gateway")?;
    let outbox = gateway.outboxes()?.pop().context("no outbox")?;
    let shelf = tempfile::tempdir()?;
    let kept = shelf.path().join("kept");
    copy(&outbox, &kept)?;
    load.is_answered(30).await?;

    deployment.kill(victim, &load).await?;
    deployment.launch(victim, &load).await?;
    deployment.ready().await?;
    is_removed(&outbox).await?;
    load.is_answered(10).await?;
    deployment.kill(victim, &load).await?;
    copy(&kept, &outbox)?;
    deployment.launch(victim, &load).await?;
    deployment.ready().await?;

    let gateway = deployment.gateways.get(victim).context("no such gateway")?;
    until("the older copy is told", BOUND, async || {
        let part = gateway.part("lost_gateways").await?.to_string();
        ensure!(part.contains("restored from an older copy"), "{part}");
        Ok(())
    })
    .await?;
    is_removed(&outbox).await?;
    load.is_answered(20).await?;
    let memory = load.stop().await;
    deployment.settle_and_check(&memory).await?;
    Ok(())
}

/// Removes the cursors of an outbox from every stream, as their age limit does in the end; gives
/// how many there were.
async fn expire_cursors(url: &str, outbox: &Path) -> Result<u64> {
    let outbox = outbox.file_name().context("a name")?.display();
    let context = jetstream::new(broker::connect(url).await?);
    let mut expired = 0;
    for stream in Stream::SHIPPED {
        let stream = context.get_stream(stream.name()).await?;
        let purge = stream.purge().filter(format!("nexus.outbox.*.{outbox}"));
        expired += purge.await?.purged;
    }
    Ok(expired)
}

/// An outbox that was away until its cursors had expired sends what was not stored yet, and nothing
/// that was.
#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_that_outlived_its_cursors_doubles_nothing() -> Result<()> {
    let mut seed = Seed::of("expired cursors")?;
    let mut broker = Broker::start().await?;
    let mut deployment = Deployment::start(&broker.url()).await?;
    let load = deployment.load(&mut seed)?;
    for _ in 0..2 {
        load.is_answered(20).await?;
        let victim = seed.index(deployment.gateways.len());
        let gateway = deployment.gateways.get(victim).context("no such gateway")?;
        let outbox = gateway.outboxes()?.pop().context("no outbox")?;
        broker.kill().await?;
        load.goes_on(20 + usize::try_from(seed.below(20))?).await?;
        deployment.kill(victim, &load).await?;
        broker.restart().await?;
        let expired = expire_cursors(&broker.url(), &outbox).await?;
        ensure!(expired >= 2, "{expired} lanes had a cursor");
        deployment.launch(victim, &load).await?;
        deployment.ready().await?;
    }
    load.is_answered(20).await?;
    let memory = load.stop().await;
    deployment.settle_and_check(&memory).await?;
    Ok(())
}
