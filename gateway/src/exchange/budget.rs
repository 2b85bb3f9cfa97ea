//! What one stream may cost at most, whatever it says and however long it takes.
//!
//! The bound of an answer counts what is put together of it, and the idle time-out begins anew
//! with each byte. A provider that goes wrong can keep within both for ever: with chunks that add
//! nothing, which all are recorded, or with comments that keep the connection alive. So a stream
//! has a bound of what is recorded of it, and one of the time in which it adds nothing.

use std::time::Duration;

use nexus_events::exchange_event::FailureReason;
use tokio::time::Instant;

use crate::provider::ProviderError;

/// Bytes that are recorded of one stream: 1 GiB.
///
/// A million tokens in a chunk each, more than any model says at once, are half of it.
const RECORDED_MAX: usize = 1024 * 1024 * 1024;

/// What a chunk's event has beside the chunk: about 256 bytes.
const EVENT_BYTES: usize = 256;

/// How long a stream may add nothing to its answer: 30 min; models that think for longer answer in
/// other ways.
const NOTHING_MAX: Duration = Duration::from_mins(30);

/// What a stream has cost so far.
pub(super) struct Budget {
    recorded: usize,
    /// When it last added something, or the client last was waited for.
    added: Instant,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self {
            recorded: 0,
            added: Instant::now(),
        }
    }

    /// A chunk of so many bytes came; `adds`: it adds to the answer.
    ///
    /// # Errors
    /// More would be recorded than of any stream.
    pub(super) fn chunk(
        &mut self,
        bytes: usize,
        adds: bool,
        at: Instant,
    ) -> Result<(), ProviderError> {
        self.recorded = self.recorded.saturating_add(bytes + EVENT_BYTES);
        if self.recorded > RECORDED_MAX {
            let message = "The provider's stream has more chunks than the hub records.";
            return Err(ProviderError::new(FailureReason::UpstreamTooLarge, message));
        }
        if adds {
            self.added = at;
        }
        Ok(())
    }

    /// The hub has waited for the client until now.
    pub(super) fn waited(&mut self) {
        self.added = Instant::now();
    }

    /// Checks that the stream has not gone on for too long without adding anything.
    ///
    /// # Errors
    /// It has.
    pub(super) fn check(&self) -> Result<(), ProviderError> {
        if self.added.elapsed() <= NOTHING_MAX {
            return Ok(());
        }
        let minutes = NOTHING_MAX.as_secs() / 60;
        let message = format!("The provider's stream added nothing for {minutes} minutes.");
        Err(ProviderError::new(FailureReason::UpstreamStalled, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_recorded_is_bounded_also_where_nothing_is_said() {
        let mut budget = Budget::new();
        let large = RECORDED_MAX / 8 - EVENT_BYTES;
        for _ in 0..8 {
            budget.chunk(large, false, Instant::now()).unwrap();
        }
        let error = budget.chunk(2, true, Instant::now()).unwrap_err();
        assert_eq!(error.reason, FailureReason::UpstreamTooLarge);
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_adds_something_gives_more_time() {
        let mut budget = Budget::new();
        let almost = Duration::from_mins(29);
        tokio::time::advance(almost).await;
        budget.check().unwrap();
        budget.chunk(9, true, Instant::now()).unwrap();
        tokio::time::advance(almost).await;
        budget.chunk(9, false, Instant::now()).unwrap();
        budget.check().unwrap();
        budget.waited();
        tokio::time::advance(almost).await;
        budget.check().unwrap();
        budget.chunk(9, false, Instant::now()).unwrap();
        tokio::time::advance(Duration::from_mins(2)).await;
        let error = budget.check().unwrap_err();
        assert_eq!(error.reason, FailureReason::UpstreamStalled);
    }
}
