//! Outboxes whose files are damaged: what is whole arrives once, what is not is told, and nobody
//! waits for it for ever.

use std::{
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use nexus_events::{
    envelope::Record,
    id::OutboxId,
    outbox::{Adopted, Outbox, OutboxSettings, Release, SyncMode},
    subject::{Lane, Stream},
};
use nexus_tests::{Broker, Result};
use tempfile::TempDir;

use super::{BOUND, clock, log, record, shipped, shipper, stored};

/// A bound that gives segments of 128 KiB: several of them for some hundred records.
const SMALL: u64 = 1 << 20;

fn open(dir: &Path, bytes_max: u64) -> Result<(Outbox, Vec<Adopted>)> {
    let settings = OutboxSettings {
        dir: dir.to_owned(),
        bytes_max,
        sync: SyncMode::Os,
        release: Release::Local,
    };
    Ok(Outbox::open(&settings, &clock())?)
}

/// The segments of an incarnation, in order.
fn segments(dir: &Path, outbox: OutboxId) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir.join(outbox.to_string()))? {
        let path = entry?.path();
        paths.extend(path.extension().is_some().then_some(path));
    }
    paths.sort_unstable();
    Ok(paths)
}

/// Spoils the last byte of a segment, which is in its last record.
fn spoil_end(segment: &Path) -> Result<()> {
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(segment)?;
    let last = file.metadata()?.len() - 1;
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    file.write_all_at(&[byte[0] ^ 0xff], last)?;
    Ok(())
}

/// Fills an outbox with so many records and lets go of it as a killed process does.
fn abandoned(dir: &Path, records: &[Record]) -> Result<OutboxId> {
    let (outbox, _) = open(dir, SMALL)?;
    for record in records {
        outbox.append(record)?;
    }
    Ok(outbox.id())
}

fn records(count: usize) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    while records.len() < count {
        let record = record(Lane::Exchanges, &format!("{:0>500}", records.len()))?;
        // Shards have one digit or two; all are to be of one size.
        let two_digits = record.subject.split('.').nth(2).map(str::len) == Some(2);
        records.extend(two_digits.then_some(record));
    }
    Ok(records)
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_at_a_segments_end_costs_the_damaged_record_only() -> Result<()> {
    let broker = Broker::start().await?;
    let log = log(&broker.url()).await?;
    let dir = TempDir::new()?;
    let records = records(600)?;
    let id = abandoned(dir.path(), &records)?;
    let segments = segments(dir.path(), id)?;
    assert!(segments.len() > 2, "{segments:?}");
    spoil_end(&segments[0])?;

    let (_next, adopted) = open(dir.path(), SMALL)?;
    let shipper = shipper(&log);
    shipper.drain(&adopted[0]);
    tokio::time::timeout(BOUND, adopted[0].drained()).await??;
    let stored = stored(&log, Stream::Exchanges, id).await?;
    let lost: Vec<_> = (1..)
        .zip(&records)
        .filter(|(position, record)| !stored.contains(&(*position, record.id)))
        .collect();
    assert_eq!(lost.len(), 1, "one record is damaged");
    assert_eq!(stored.len(), records.len() - 1, "each once");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_records_that_only_the_next_segment_knows_of() -> Result<()> {
    let broker = Broker::start().await?;
    let log = log(&broker.url()).await?;
    let dir = TempDir::new()?;
    let (outbox, _) = open(dir.path(), SMALL)?;
    // Three audit events, then so many of another lane that the next segment has none of the first.
    for text in ["one", "two", "three"] {
        outbox.append(&record(Lane::Audit, text)?)?;
    }
    let id = outbox.id();
    while segments(dir.path(), id)?.len() < 2 {
        outbox.append(&record(Lane::Chunks, &"x".repeat(5_000))?)?;
    }
    drop(outbox);
    // Nothing of the first segment behind its first audit event can be read.
    let first = &segments(dir.path(), id)?[0];
    let bytes = std::fs::read(first)?;
    let second = find(&bytes, b"\"two\"").context("the second audit event")?;
    let mut spoiled = bytes.clone();
    spoiled[second..].fill(0);
    std::fs::write(first, spoiled)?;

    let (_next, adopted) = open(dir.path(), SMALL)?;
    let shipper = shipper(&log);
    shipper.drain(&adopted[0]);
    tokio::time::timeout(BOUND, adopted[0].drained()).await??;
    assert_eq!(stored(&log, Stream::Audit, id).await?.len(), 1);
    let alarms = adopted[0].alarms().join("; ");
    assert!(alarms.contains("damaged and lost"), "{alarms}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_ends_with_its_segment_does_not_end_the_lane() -> Result<()> {
    let broker = Broker::start().await?;
    let log = log(&broker.url()).await?;
    // As many records as a batch takes fill a segment exactly; all are of one size.
    let records = records(2_500)?;
    let size = |count: u64| -> Result<u64> {
        let dir = TempDir::new()?;
        let records = &records[..usize::try_from(count)?];
        let id = abandoned(dir.path(), records)?;
        Ok(std::fs::metadata(&segments(dir.path(), id)?[0])?.len())
    };
    let (one, two) = (size(1)?, size(2)?);
    let full = one + (two - one) * 998;

    let dir = TempDir::new()?;
    let (outbox, _) = open(dir.path(), full * 8)?;
    for record in &records {
        outbox.append(record)?;
    }
    let id = outbox.id();
    drop(outbox);
    let first = std::fs::metadata(&segments(dir.path(), id)?[0])?.len();
    assert_eq!(first, full, "a segment is as large as a batch");

    let (_next, adopted) = open(dir.path(), full * 8)?;
    let shipper = shipper(&log);
    shipper.drain(&adopted[0]);
    tokio::time::timeout(BOUND, adopted[0].drained()).await??;
    assert!(adopted[0].alarms().is_empty(), "{:?}", adopted[0].alarms());
    assert_eq!(
        stored(&log, Stream::Exchanges, id).await?.len(),
        records.len()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_that_was_full_has_room_again_when_its_predecessor_is_drained() -> Result<()> {
    let broker = Broker::start().await?;
    let log = log(&broker.url()).await?;
    let dir = TempDir::new()?;
    let (full, _) = open(dir.path(), SMALL)?;
    let mut count = 0_u64;
    while full
        .append(&record(Lane::Exchanges, &"x".repeat(5_000))?)
        .is_ok()
    {
        count += 1;
    }
    let id = full.id();
    drop(full);

    let (outbox, mut adopted) = open(dir.path(), SMALL)?;
    let large = record(Lane::Exchanges, &"x".repeat(5_000))?;
    outbox.append(&large).unwrap_err();
    let shipper = shipper(&log);
    shipper.drain(&adopted[0]);
    tokio::time::timeout(BOUND, adopted[0].drained()).await??;
    assert_eq!(
        stored(&log, Stream::Exchanges, id).await?.len() as u64,
        count
    );
    outbox.append(&large)?;
    adopted.remove(0).remove()?;
    assert_eq!(outbox.usage().limit_bytes, SMALL, "all of it is its own");
    shipper.ship(&outbox);
    shipped(&outbox).await
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}
