//! How far a lane of an outbox has come, as the stream tells everybody.

use serde::{Deserialize, Serialize};

use crate::{
    clock::UnixMillis,
    id::OutboxId,
    log::{Log, history::HistoryError},
    subject::Lane,
};

/// Cursors taken from a stream at a time.
const BATCH: usize = 1_000;

/// How far a lane of an outbox has been stored: the last message of each batch, one for each outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The outbox.
    pub outbox: OutboxId,
    /// The last position stored.
    pub position: u64,
    /// When it was written, by the gateway's clock.
    pub time_ms: UnixMillis,
    /// Whatever was appended to the lane before this moment, by the gateway's clock, is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete_ms: Option<UnixMillis>,
    /// The outbox is shipped, closed and removed: nothing more comes from it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
}

impl Cursor {
    /// Whether the stream holds all that the outbox was given before a moment, by its own clock.
    pub fn holds_all_before(&self, moment: UnixMillis) -> bool {
        self.ended || self.complete_ms.is_some_and(|complete| complete >= moment)
    }
}

impl Log {
    /// The present cursors of all outboxes whose lane has moved since a moment, by the broker's clock.
    ///
    /// Waits as long as it takes.
    ///
    /// # Errors
    /// See [`HistoryError`].
    pub async fn cursors(
        &self,
        lane: Lane,
        since: UnixMillis,
    ) -> Result<Vec<Cursor>, HistoryError> {
        let (stream, subjects) = (lane.stream(), lane.cursors());
        let mut cursors = Vec::new();
        let first = self.sequence_of(stream, &subjects, since).await?;
        let last = self.last_of_subject(stream, &subjects).await?;
        if last.is_none_or(|last| last.sequence < first) {
            return Ok(cursors);
        }
        let mut reader = self.reader(stream, Some(subjects), first.saturating_sub(1));
        // A cursor that moves while they are read is met further on, until nothing is behind the last.
        loop {
            let batch = reader.next_batch(BATCH).await?;
            let is_last = batch.last().is_some_and(|message| message.pending == 0);
            for message in batch {
                let Ok(cursor) = serde_json::from_slice::<Cursor>(&message.payload) else {
                    continue;
                };
                cursors.retain(|earlier: &Cursor| earlier.outbox != cursor.outbox);
                cursors.push(cursor);
            }
            if is_last {
                return Ok(cursors);
            }
        }
    }
}
