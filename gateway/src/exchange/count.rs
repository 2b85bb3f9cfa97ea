//! The hub's own token counts, off the request path.
//!
//! *Where the provider gave none.* A count takes milliseconds, so it happens after the client has its last
//! byte. It is never dropped: the exchange stays open for counting until
//! `tokens_counted` is written, by this gateway or by whoever takes over its
//! outbox. What waits keeps the request's body in memory, so the bodies of all
//! exchanges share one bound, and a request above it is refused.
//!
//! *Where it gave some*, a sample is counted all the same, to tell how far the
//! hub's counts can be trusted. Such an audit is owed to nobody: it is made when
//! the counter is idle, and else dropped and counted as dropped. Its event says
//! `audit`, fills nothing in, and belongs to an exchange that is closed already.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use nexus_events::id::RequestId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer::AnsweredChoice;
use crate::error::ApiError;

/// Bodies of all exchanges under way or to be counted: 512 MiB, sixteen of the largest.
pub const BODIES_KIB_MAX: usize = 512 * 1024;

/// An exchange whose tokens nobody has counted.
#[derive(Debug)]
pub struct Uncounted {
    /// The request.
    pub request: RequestId,
    /// The name that the provider knows the model by: it tells the vocabulary.
    pub model: String,
    /// The request's body.
    pub body: Bytes,
    /// The answer.
    pub choices: Vec<AnsweredChoice>,
}

/// The tokens of an exchange, as the gateway counts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Of the prompt.
    pub input_tokens: u64,
    /// Of the answer.
    pub output_tokens: u64,
    /// The vocabulary that they were counted with.
    pub vocabulary: String,
}

/// Counts tokens.
pub trait CountTokens: Send + Sync + fmt::Debug {
    /// The tokens of a request and its answer; waits its turn when much is to be counted.
    fn count(&self, uncounted: Uncounted) -> BoxFuture<'_, Counted>;

    /// The same, if it can be done at once; `None` when others are being counted.
    fn count_if_idle(&self, uncounted: Uncounted) -> BoxFuture<'_, Option<Counted>>;
}

/// The counter and the bound of what waits for it; a cheap handle.
#[derive(Clone, Debug)]
pub struct Counting {
    counter: Arc<dyn CountTokens>,
    bodies_kib: Arc<Semaphore>,
    audit_percent: u8,
}

impl Counting {
    /// Counts with that counter, and audits nothing.
    pub fn new(counter: Arc<dyn CountTokens>) -> Self {
        Self {
            counter,
            bodies_kib: Arc::new(Semaphore::new(BODIES_KIB_MAX)),
            audit_percent: 0,
        }
    }

    /// The same, with that share of the exchanges audited, in percent.
    #[must_use]
    pub fn auditing(mut self, percent: u8) -> Self {
        self.audit_percent = percent;
        self
    }

    /// Holds room for a body until the permit is dropped.
    pub(super) fn admit(&self, body_bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let kib = u32::try_from(body_bytes / 1024 + 1).unwrap_or(u32::MAX);
        let bodies = Arc::clone(&self.bodies_kib);
        bodies.try_acquire_many_owned(kib).map_err(|error| {
            let message = "The hub has too many large requests under way; try again later.";
            ApiError::unavailable("overloaded", message).with_source(error)
        })
    }

    /// Counts; waits its turn.
    pub async fn count(&self, uncounted: Uncounted) -> Counted {
        self.counter.count(uncounted).await
    }

    /// Counts what the provider has counted; `None` when the counter is busy.
    pub async fn audit(&self, uncounted: Uncounted) -> Option<Counted> {
        self.counter.count_if_idle(uncounted).await
    }

    /// Whether an exchange is in the sample that is audited.
    ///
    /// The chance lies in its id, whose last 32 bits are random: the same request is in the
    /// sample of whoever looks, and out of it likewise.
    pub(super) fn is_in_sample(&self, request: RequestId) -> bool {
        let [.., a, b, c, d] = request.as_uuid().into_bytes();
        let drawn = u64::from(u32::from_be_bytes([a, b, c, d])) * 100;
        (drawn >> 32) < u64::from(self.audit_percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Nobody;

    impl CountTokens for Nobody {
        fn count(&self, _: Uncounted) -> BoxFuture<'_, Counted> {
            Box::pin(std::future::pending())
        }

        fn count_if_idle(&self, _: Uncounted) -> BoxFuture<'_, Option<Counted>> {
            Box::pin(async { None })
        }
    }

    #[test]
    fn bodies_share_one_bound() {
        let counting = Counting::new(Arc::new(Nobody));
        let largest = 32 * 1024 * 1024 - 1;
        let mut held: Vec<_> = (0..16).map(|_| counting.admit(largest).unwrap()).collect();
        assert_eq!(counting.admit(0).unwrap_err().status.as_u16(), 503);
        held.pop();
        assert!(counting.admit(largest).is_ok());
    }

    #[test]
    fn the_sample_is_of_the_size_that_was_asked_for() {
        let ids: Vec<_> = (0..20_000)
            .map(|_| RequestId::draw(&nexus_events::clock::SystemClock))
            .collect();
        for (percent, expected) in [(0, 0..=0), (10, 1_600..=2_400), (100, 20_000..=20_000)] {
            let counting = Counting::new(Arc::new(Nobody)).auditing(percent);
            let sample = ids.iter().filter(|id| counting.is_in_sample(**id)).count();
            assert!(expected.contains(&sample), "{sample} for {percent} %");
        }
    }
}
