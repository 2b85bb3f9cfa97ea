//! Outboxes that were away for so long that the stream holds no cursor of theirs any more.

use std::path::Path;

use anyhow::ensure;
use nexus_events::{
    id::{EventId, OutboxId},
    log::Log,
    outbox::Outbox,
    subject::{self, Lane, Stream},
};
use nexus_tests::{Broker, Result};
use tempfile::TempDir;

use super::{BOUND, log, numbered, open, record, shipped, shipper, stored};

/// Events appended each time.
const SOME: usize = 30;

pub(super) fn append(outbox: &Outbox, ids: &mut Vec<EventId>) -> Result<()> {
    for _ in 0..SOME {
        let record = record(Lane::Exchanges, "x")?;
        outbox.append(&record)?;
        ids.push(record.id);
    }
    Ok(())
}

/// Ships what an outbox holds, as a gateway that is stopped then.
pub(super) async fn ship(log: &Log, outbox: &Outbox) -> Result<()> {
    let shipper = shipper(log);
    shipper.ship(outbox);
    shipped(outbox).await?;
    shipper.stop.cancel();
    shipper.tracker.close();
    shipper.tracker.wait().await;
    Ok(())
}

/// Removes the lane's cursor, as the stream's age limit does.
async fn expire_cursor(log: &Log, outbox: OutboxId) -> Result<()> {
    let last = log.stream_state(Stream::Exchanges).await?.last_sequence;
    let cursor = subject::cursor(Lane::Exchanges, outbox);
    let purged = log.purge(Stream::Exchanges, &cursor, last + 1).await?;
    ensure!(purged == 1, "{purged} cursors were there");
    Ok(())
}

/// Adopts what is in the folder and waits until it is drained.
async fn drain(log: &Log, dir: &Path) -> Result<()> {
    let (_next, adopted) = open(dir)?;
    let [adopted] = &adopted[..] else {
        anyhow::bail!("{} were abandoned", adopted.len());
    };
    let shipper = shipper(log);
    shipper.drain(adopted);
    tokio::time::timeout(BOUND, adopted.drained()).await??;
    ensure!(adopted.alarms().is_empty(), "{:?}", adopted.alarms());
    shipper.stop.cancel();
    Ok(())
}

/// Ships some events, leaves some, and comes back without a cursor; `meanwhile` is done to the
/// lane's note, given what it said half way.
async fn comes_back_without_cursor(meanwhile: impl Fn(&Path, &[u8]) -> Result<()>) -> Result<()> {
    let broker = Broker::start().await?;
    let log = log(&broker.url()).await?;
    let dir = TempDir::new()?;
    let (outbox, _) = open(dir.path())?;
    let (id, mut ids) = (outbox.id(), Vec::new());
    let note = dir.path().join(format!("{id}/shipped-exchanges"));
    append(&outbox, &mut ids)?;
    ship(&log, &outbox).await?;
    let half_way = std::fs::read(&note)?;
    append(&outbox, &mut ids)?;
    ship(&log, &outbox).await?;
    append(&outbox, &mut ids)?;
    drop(outbox);
    expire_cursor(&log, id).await?;
    meanwhile(&note, &half_way)?;
    drain(&log, dir.path()).await?;
    let stored = stored(&log, Stream::Exchanges, id).await?;
    assert_eq!(stored, numbered(&ids));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_note_knows_to_be_stored_is_not_sent_again() -> Result<()> {
    comes_back_without_cursor(|_, _| Ok(())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_note_does_not_know_is_looked_up_in_the_stream() -> Result<()> {
    // A kill between an acknowledgement and its note.
    comes_back_without_cursor(|note, half_way| Ok(std::fs::write(note, half_way)?)).await?;
    // A power loss that tore it.
    comes_back_without_cursor(|note, _| Ok(std::fs::write(note, "")?)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expired_together_with_its_cursor_is_not_sent_again() -> Result<()> {
    let broker = Broker::start().await?;
    let log = log(&broker.url()).await?;
    let dir = TempDir::new()?;
    let (outbox, _) = open(dir.path())?;
    let (id, mut ids) = (outbox.id(), Vec::new());
    append(&outbox, &mut ids)?;
    ship(&log, &outbox).await?;
    append(&outbox, &mut ids)?;
    drop(outbox);
    let last = log.stream_state(Stream::Exchanges).await?.last_sequence;
    log.purge(Stream::Exchanges, ">", last + 1).await?;
    drain(&log, dir.path()).await?;
    let stored = stored(&log, Stream::Exchanges, id).await?;
    assert_eq!(stored, numbered(&ids)[SOME..]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_stream_gets_everything_that_is_still_there() -> Result<()> {
    let broker = Broker::start().await?;
    let log_before = log(&broker.url()).await?;
    let dir = TempDir::new()?;
    let (outbox, _) = open(dir.path())?;
    let (id, mut ids) = (outbox.id(), Vec::new());
    append(&outbox, &mut ids)?;
    ship(&log_before, &outbox).await?;
    drop((outbox, log_before, broker));
    let anew = Broker::start().await?;
    let log = log(&anew.url()).await?;
    drain(&log, dir.path()).await?;
    let stored = stored(&log, Stream::Exchanges, id).await?;
    assert_eq!(stored, numbered(&ids));
    Ok(())
}
