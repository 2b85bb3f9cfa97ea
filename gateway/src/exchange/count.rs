//! Token counts for answers whose provider gave none, off the request path.
//!
//! A count takes milliseconds, so it happens after the client has its last
//! byte. It is never dropped: the exchange stays open for counting until
//! `tokens_counted` is written, by this gateway or by whoever takes over its
//! outbox. What waits keeps the request's body in memory, so the bodies of all
//! exchanges share one bound, and a request above it is refused.

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

/// Counts tokens; waits its turn when much is to be counted.
pub trait CountTokens: Send + Sync + fmt::Debug {
    /// The tokens of a request and its answer.
    fn count(&self, uncounted: Uncounted) -> BoxFuture<'_, Counted>;
}

/// The counter and the bound of what waits for it; a cheap handle.
#[derive(Clone, Debug)]
pub struct Counting {
    counter: Arc<dyn CountTokens>,
    bodies_kib: Arc<Semaphore>,
}

impl Counting {
    /// Counts with that counter.
    pub fn new(counter: Arc<dyn CountTokens>) -> Self {
        Self {
            counter,
            bodies_kib: Arc::new(Semaphore::new(BODIES_KIB_MAX)),
        }
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
}
