//! One atomic batch: events, and the cursor that covers them.
//!
//! The broker stores all of it or nothing. The cursor's expected sequence makes
//! a repetition fail as a whole, however long ago the first try was.

use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::{Client, HeaderMap, HeaderValue};
use bytes::Bytes;

use crate::{
    id::OutboxId,
    log::publish::{Acknowledgement, WRONG_LAST_SEQUENCE},
    outbox::cursor::Cursor,
    subject::{self, Lane},
};

/// Most events in a batch: the broker takes 1 000 messages, and one is the cursor.
pub(super) const EVENTS_MAX: usize = 999;

/// Most bytes in a batch: 8 MiB keeps one in flight well below the broker's and the client's buffers.
pub(super) const BYTES_MAX: usize = 8 * 1024 * 1024;

/// One event as it is published.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) subject: String,
    pub(super) payload: Bytes,
}

/// Why a batch was not stored, or may not have been.
#[derive(Debug, thiserror::Error)]
pub(super) enum BatchError {
    /// An earlier try was stored, or someone else wrote.
    #[error("the cursor is not where it was expected")]
    CursorMoved,
    /// The broker is away, busy, full, or did not answer: the outcome is not known.
    #[error("the batch may not have been stored: {0}")]
    Unknown(String),
    /// The broker refused the batch.
    #[error("the broker refused the batch: {}", .0.reason)]
    Refused(Refusal),
}

/// What the broker said of a batch that it did not take.
#[derive(Debug)]
pub(super) struct Refusal {
    /// Its words, with its error code.
    pub(super) reason: String,
    /// Whether it says that a message is at fault, whoever sends it and whenever.
    pub(super) is_about_the_message: bool,
}

/// Publishes events and their cursor; gives the cursor's sequence.
pub(super) async fn publish(
    client: &Client,
    lane: Lane,
    events: &[Outgoing],
    cursor: Cursor,
    expected: u64,
) -> Result<u64, BatchError> {
    let batch_id = batch_id(cursor.outbox, lane);
    let batch_id = HeaderValue::from(batch_id.as_str());
    for (number, event) in (1_u64..).zip(events) {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Batch-Id", batch_id.clone());
        headers.insert("Nats-Batch-Sequence", HeaderValue::from(number));
        client
            .publish_with_headers(event.subject.clone(), headers, event.payload.clone())
            .await
            .map_err(|error| BatchError::Unknown(error.to_string()))?;
    }
    let mut headers = HeaderMap::new();
    headers.insert(
        "Nats-Expected-Last-Subject-Sequence",
        HeaderValue::from(expected),
    );
    headers.insert("Nats-Rollup", "sub");
    if !events.is_empty() {
        headers.insert("Nats-Batch-Id", batch_id);
        headers.insert("Nats-Batch-Sequence", HeaderValue::from(events.len() + 1));
        headers.insert("Nats-Batch-Commit", "1");
    }
    let payload =
        serde_json::to_vec(&cursor).map_err(|error| BatchError::Unknown(error.to_string()))?;
    let answer = client
        .request_with_headers(
            subject::cursor(lane, cursor.outbox),
            headers,
            payload.into(),
        )
        .await
        .map_err(|error| BatchError::Unknown(error.to_string()))?;
    judge(&answer.payload, events.len())
}

fn judge(answer: &[u8], events: usize) -> Result<u64, BatchError> {
    let answer: Acknowledgement = serde_json::from_slice(answer)
        .map_err(|error| BatchError::Unknown(format!("unreadable answer: {error}")))?;
    match answer.error {
        None => {
            let count = answer.count.unwrap_or(0);
            if events > 0 && count != u64::try_from(events).unwrap_or(0) + 1 {
                return Err(BatchError::Unknown(format!(
                    "{count} messages stored instead of {}",
                    events + 1
                )));
            }
            Ok(answer.seq)
        }
        Some(error) if error.err_code == WRONG_LAST_SEQUENCE => Err(BatchError::CursorMoved),
        Some(error) if is_passing(error.err_code) => Err(BatchError::Unknown(error.description)),
        Some(error) => Err(BatchError::Refused(Refusal {
            reason: format!("{} ({})", error.description, error.err_code),
            is_about_the_message: error.err_code == MESSAGE_TOO_LARGE,
        })),
    }
}

/// "message size exceeds maximum allowed": the one refusal of a message for its own sake.
const MESSAGE_TOO_LARGE: u64 = 10054;

/// Errors that say nothing about the events: waiting mends them.
const fn is_passing(code: u64) -> bool {
    matches!(
        code,
        // No quorum, no leader, insufficient resources, limits of the account, storage exceeded.
        10002 | 10008 | 10009 | 10023 | 10028 | 10047
        // Stream offline, not found (yet), store failed, maximum bytes or messages exceeded.
        | 10059 | 10077 | 10118
        // Too many requests.
        | 10167
        // Batches: too many in flight, incomplete, expired.
        | 10176 | 10210 | 10211
    )
}

/// An id that no other batch of the stream has; at most 64 characters.
fn batch_id(outbox: OutboxId, lane: Lane) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{}-{number}", outbox.as_uuid().simple(), lane.number())
}
