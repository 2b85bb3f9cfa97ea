//! Retention: removes from the log what is older than it, and nothing else.
//!
//! In this order, each step safe to repeat:
//!
//! 1. The read model must hold everything that is in the log now.
//! 2. The statistics of each day that expires are published as its rollup.
//! 3. `retention_applied` is published: read models follow it.
//! 4. What lies below its sequences is purged, by the events' subjects, never
//!    the cursors; then the contents that lay in the object store.
//! 5. Where the retention became shorter, the streams' own age limit follows.
//!
//! A crash after any step leaves a log from which the same read model can be
//! built, and the next run goes on. The sequences are chosen so that no event
//! of a request that stays is purged, whatever the clocks of broker and
//! gateway say.

use async_nats::jetstream;
use futures_util::TryStreamExt;
use nexus_events::{
    audit_event::{self, RetentionApplied},
    clock::{SharedClock, UnixMillis},
    envelope::{EncodeError, Stamp},
    id::EventId,
    log::{Expected, Log, LogError, PublishError, bodies},
    subject::Stream,
};
use nexus_projector::{AsOf, ReadModel, position::STREAMS, read_model::ReadError};
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::rollup;

/// Who says it.
pub(crate) const SOURCE: &str = "/nexus/archiver";

/// A day in milliseconds.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// How long to wait for the read model to catch up: 5 min; then the next run tries again.
const BEHIND_MAX: Duration = Duration::from_mins(5);

/// Pause between two looks at the read model.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How much older than the cutoff a content in the object store must be: an hour.
///
/// The id of an event is drawn a moment after that of its request; clocks that were set back in
/// between must not cost a content that stays.
const BODY_MARGIN: Duration = Duration::from_hours(1);

/// Longest listing of the object store: 1 min; it streams some ten thousand objects a second.
const LIST_MAX: Duration = Duration::from_mins(1);

/// Contents removed in one run: 100 000; the next run goes on.
const BODIES_MAX: usize = 100_000;

/// Why retention was not applied; nothing is lost by trying again later.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// There is no read model, or it cannot be read.
    #[error(transparent)]
    ReadModel(#[from] ReadError),
    /// The read model does not hold what the log holds.
    #[error("the read model is behind the log: it holds {read_model}, the log goes to {log}")]
    Behind {
        /// How far the read model got.
        read_model: AsOf,
        /// How far the log goes.
        log: AsOf,
    },
    /// The broker did not do what it was asked.
    #[error(transparent)]
    Log(#[from] LogError),
    /// An event was not published.
    #[error("a rollup or the retention could not be published")]
    Publish(#[from] PublishError),
    /// An event cannot be written as JSON.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// Another archiver is closing the same day.
    #[error("the rollup of {day} is being published by someone else")]
    Overtaken {
        /// The day.
        day: String,
    },
    /// The log holds a rollup that this version cannot read.
    #[error("the rollup of {day} in the log was not written by this version: {reason}")]
    Foreign {
        /// The day.
        day: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The object store could not be read.
    #[error("the contents in the object store could not be removed")]
    Bodies(#[source] async_nats::Error),
}

impl RetentionError {
    /// Whether there is no read model at this moment, which the next tick may mend.
    pub(crate) const fn is_unavailable(&self) -> bool {
        matches!(self, Self::ReadModel(ReadError::Unavailable { .. }))
    }
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Requests that were drawn before this moment are gone.
    pub cutoff_ms: i64,
    /// Days whose rollup was published.
    pub days_closed: u64,
    /// Events that were purged.
    pub purged: u64,
    /// Contents that were removed from the object store.
    pub bodies_removed: u64,
}

/// The start of the first day in UTC that is kept.
pub(crate) fn cutoff(now: UnixMillis, retention: Duration) -> UnixMillis {
    let oldest = now.minus(retention).as_millis();
    UnixMillis::from_millis(oldest - oldest.rem_euclid(DAY_MS))
}

/// Removes what is older than `retention`.
///
/// # Errors
/// [`RetentionError`]: nothing was purged that read models still need.
pub async fn apply(
    log: &Log,
    read_model: &ReadModel,
    clock: &SharedClock,
    retention: Duration,
) -> Result<Outcome, RetentionError> {
    let cutoff = cutoff(clock.now(), retention);
    caught_up(read_model, ends(log).await?).await?;
    let days_closed = rollup::close_days(log, read_model, clock, cutoff).await?;
    let below = purgeable(log, read_model, cutoff).await?;
    let below = tell(log, read_model, clock, below).await?;
    let mut purged = 0;
    for (stream, below) in [
        (Stream::Exchanges, below.exchanges_sequence),
        (Stream::Chunks, below.chunks_sequence),
        (Stream::Audit, below.audit_sequence),
    ] {
        // The broker takes 0 for "everything".
        if below > 1 {
            purged += log.purge(stream, stream.events(), below).await?;
        }
    }
    let bodies_removed = remove_bodies(log, cutoff.minus(BODY_MARGIN)).await?;
    Box::pin(log.lower_age_limits()).await?;
    Ok(Outcome {
        cutoff_ms: cutoff.as_millis(),
        days_closed,
        purged,
        bodies_removed,
    })
}

/// The last event of each stream.
async fn ends(log: &Log) -> Result<AsOf, LogError> {
    let mut ends = AsOf::default();
    for stream in STREAMS {
        let last = log.last_of_subject(stream, stream.events()).await?;
        ends.set(stream, last.map_or(0, |message| message.sequence));
    }
    Ok(ends)
}

/// Waits until the read model holds what the log holds.
pub(crate) async fn caught_up(read_model: &ReadModel, ends: AsOf) -> Result<(), RetentionError> {
    let deadline = Instant::now() + BEHIND_MAX;
    loop {
        let as_of = read_model.as_of().await?;
        if STREAMS
            .iter()
            .all(|stream| as_of.of(*stream) >= ends.of(*stream))
        {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(RetentionError::Behind {
                read_model: as_of,
                log: ends,
            });
        }
        sleep(LOOK_EVERY).await;
    }
}

/// The sequences below which nothing is kept.
async fn purgeable(
    log: &Log,
    read_model: &ReadModel,
    cutoff: UnixMillis,
) -> Result<RetentionApplied, RetentionError> {
    let exchanges = log.sequence_at(Stream::Exchanges, cutoff).await?;
    // A request that stays may have been stored, by the broker's clock, before the cutoff.
    let first_kept = read_model.first_sequence_since(cutoff).await?;
    Ok(RetentionApplied {
        cutoff_ms: cutoff.as_millis(),
        exchanges_sequence: first_kept.map_or(exchanges, |first| first.min(exchanges)),
        chunks_sequence: log.sequence_at(Stream::Chunks, cutoff).await?,
        audit_sequence: log.sequence_at(Stream::Audit, cutoff).await?,
    })
}

/// Publishes the retention once for each cutoff, if there is anything to remove; gives what may be
/// purged: what read models were told.
async fn tell(
    log: &Log,
    read_model: &ReadModel,
    clock: &SharedClock,
    below: RetentionApplied,
) -> Result<RetentionApplied, RetentionError> {
    let told = read_model.retention().await?;
    if told.cutoff_ms >= below.cutoff_ms {
        return Ok(RetentionApplied {
            exchanges_sequence: told.exchanges_sequence,
            audit_sequence: told.audit_sequence,
            ..below
        });
    }
    if !is_anything_below(log, &below).await? {
        return Ok(below);
    }
    let stamp = Stamp::draw(clock.as_ref());
    let (subject, payload) = audit_event::direct(SOURCE, stamp, "retention", &below)?;
    log.publish(subject, payload, Expected::Any).await?;
    tracing::info!(cutoff = %UnixMillis::from_millis(below.cutoff_ms).to_rfc3339(), "retention applied");
    Ok(below)
}

/// Whether a stream has an event below its sequence.
async fn is_anything_below(log: &Log, below: &RetentionApplied) -> Result<bool, LogError> {
    for (stream, below) in [
        (Stream::Exchanges, below.exchanges_sequence),
        (Stream::Chunks, below.chunks_sequence),
        (Stream::Audit, below.audit_sequence),
    ] {
        let first = log.first_event(stream).await?;
        if first.is_some_and(|sequence| sequence < below) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes the contents of events that were drawn before a moment; tells how many.
async fn remove_bodies(log: &Log, before: UnixMillis) -> Result<u64, RetentionError> {
    let expired = timeout(LIST_MAX, expired_bodies(log, before))
        .await
        .map_err(|elapsed| RetentionError::Bodies(Box::new(elapsed)))?
        .map_err(RetentionError::Bodies)?;
    let mut removed = 0;
    for event in expired {
        log.delete_body(event).await?;
        removed += 1;
    }
    Ok(removed)
}

/// The events whose content may go, at most [`BODIES_MAX`] of them.
async fn expired_bodies(log: &Log, before: UnixMillis) -> Result<Vec<EventId>, async_nats::Error> {
    let bucket = jetstream::new(log.client().clone())
        .get_object_store(bodies::BUCKET)
        .await?;
    let mut objects = bucket.list().await?;
    let mut expired = Vec::new();
    while let Some(object) = objects.try_next().await? {
        let event = object.name.parse::<EventId>().ok();
        expired.extend(event.filter(|event| event.drawn_at() < before));
        if expired.len() >= BODIES_MAX {
            break;
        }
    }
    Ok(expired)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cutoff_is_the_start_of_a_day() {
        let noon = UnixMillis::parse_rfc3339("2026-11-24T12:34:56Z").unwrap();
        let days = |days: u64| Duration::from_hours(24 * days);
        assert_eq!(
            cutoff(noon, days(183)).to_rfc3339(),
            "2026-05-25T00:00:00.000Z"
        );
        assert_eq!(
            cutoff(noon, days(0)).to_rfc3339(),
            "2026-11-24T00:00:00.000Z"
        );
    }
}
