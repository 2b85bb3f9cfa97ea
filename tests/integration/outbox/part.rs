//! A broker that stored a part of a batch and not its cursor. It must not; one whose stream got a
//! limit in the middle of a commit did, and answered nothing.

use anyhow::Context;
use nexus_events::{
    id::{EventId, OutboxId},
    log::Log,
    outbox::Outbox,
    subject::Stream,
};
use nexus_tests::{Broker, Result};
use serde_json::Value;
use tempfile::TempDir;

use super::idle::{append, ship};
use super::{log, numbered, open, stored};

/// Events of the batch that were stored.
const PART: usize = 7;

/// Stores events of an outbox as a batch does, without a cursor.
async fn store_part(broker: &Broker, log: &Log, outbox: OutboxId, ids: &[EventId]) -> Result<()> {
    let context = async_nats::jetstream::new(broker.client().await?);
    let done = stored(log, Stream::Exchanges, outbox).await?;
    let (before, _) = done.last().context("nothing is stored")?;
    let last = log
        .last_of_subject(Stream::Exchanges, Stream::Exchanges.events())
        .await?
        .context("nothing is stored")?;
    let mut event: Value = serde_json::from_slice(&last.payload)?;
    for (position, id) in (before + 1..).zip(ids) {
        event["position"] = position.into();
        event["id"] = id.to_string().into();
        let payload = event.to_string().into();
        context
            .publish(last.subject.clone(), payload)
            .await?
            .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_without_its_cursor_is_not_sent_again() -> Result<()> {
    let broker = Broker::start().await?;
    let log = log(&broker.url()).await?;
    let dir = TempDir::new()?;
    let (outbox, _) = open(dir.path())?;
    let other_dir = TempDir::new()?;
    let (other, _): (Outbox, _) = open(other_dir.path())?;
    let (mut ids, mut others) = (Vec::new(), Vec::new());
    append(&outbox, &mut ids)?;
    ship(&log, &outbox).await?;
    let before = ids.len();
    append(&outbox, &mut ids)?;
    let part = ids.get(before..before + PART).context("too few")?;
    store_part(&broker, &log, outbox.id(), part).await?;
    // What others stored meanwhile is none of it.
    append(&other, &mut others)?;
    ship(&log, &other).await?;

    ship(&log, &outbox).await?;
    let found = stored(&log, Stream::Exchanges, outbox.id()).await?;
    assert_eq!(found, numbered(&ids));
    Ok(())
}
