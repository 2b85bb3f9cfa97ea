//! Whether a stream is still the one that was read before.
//!
//! A stream that was put back from an older copy has lost its tail. Soon it has
//! grown beyond what was read, and its numbers fit again; but the event that was
//! read last is not there any more, or there is another message in its place.
//! The broker's time of storing it, in nanoseconds, tells them apart.
//!
//! *What may vanish.* Retention and the age limit take events from the front:
//! while an older event is there, the one that was read last is there as well.
//! Cursors go at any time, and no reader remembers one.

use crate::{
    log::{Log, LogError, ReadError, StreamState},
    subject::Stream,
};

/// What a reader knows of a stream that it read before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// When the stream was created, nanoseconds since 1970.
    pub created_ns: Option<i128>,
    /// Sequence of the event that was read last; 0 for none.
    pub sequence: u64,
    /// When the broker stored that event, nanoseconds since 1970.
    pub stored_ns: Option<i64>,
}

/// Why a stream is not read on.
#[derive(Debug, thiserror::Error)]
pub enum KnownError {
    /// It is not the one that was read.
    #[error(transparent)]
    Other(#[from] ReadError),
    /// The broker did not say.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl Log {
    /// Where a stream stands, if it still holds what was read from it.
    ///
    /// What is not known is not compared.
    ///
    /// # Errors
    /// [`KnownError`].
    pub async fn known_stream(
        &self,
        stream: Stream,
        known: Known,
    ) -> Result<StreamState, KnownError> {
        let state = self.stream_state(stream).await?;
        if known.created_ns.is_some_and(|at| at != state.created_ns) {
            return Err(ReadError::StreamRecreated { stream }.into());
        }
        let (last, read) = (state.last_sequence, known.sequence);
        if read > last {
            return Err(ReadError::TailLost { stream, last, read }.into());
        }
        if let Some(stored_ns) = known.stored_ns
            && !self.still_holds(stream, (read, stored_ns)).await?
        {
            return Err(ReadError::TailReplaced { stream, read }.into());
        }
        Ok(state)
    }

    /// Whether a stream has that event, or had it until everything up to it was removed.
    async fn still_holds(
        &self,
        stream: Stream,
        (sequence, stored_ns): (u64, i64),
    ) -> Result<bool, LogError> {
        if let Some(message) = self.message_at(stream, sequence).await? {
            return Ok(message.stored_ns == stored_ns);
        }
        let first = self.first_event(stream).await?;
        Ok(first.is_none_or(|first| first > sequence))
    }
}
