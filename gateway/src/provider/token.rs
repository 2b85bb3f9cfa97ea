//! Access tokens that a provider's keys are exchanged for, and that expire.
//!
//! *What it is.* An adapter says with which keys a token is drawn and where
//! ([`Grant`]); the transport draws it, and this keeps it until shortly before it
//! expires.
//!
//! *What it promises.* Of each pair of keys one token is drawn at a time: who
//! needs it meanwhile waits for that one, and shares its failure, so that an
//! endpoint that is away is not asked by everybody in turn. Nobody waits longer
//! than `WAIT_MAX`. Neither keys nor tokens stand in any text that is written.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nexus_events::exchange_event::FailureReason;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout};
use url::Url;

use super::{HttpRequest, ProviderError, Retry};
use crate::settings::Secret;

/// Waiting for a token, whoever draws it: 20 s, twice what drawing one may take, for the case that
/// who draws it hangs up.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// A token is not used in its last 5 minutes, or its last tenth if that is less: the provider's
/// clock may be ahead, and an answer takes its time.
const MARGIN_MAX: Duration = Duration::from_mins(5);

/// Longest life that a token is given: 30 days, what Baidu says of its own.
const LIFE_MAX: Duration = Duration::from_hours(30 * 24);

/// Pause before another token is drawn while an old one is good still: 10 s.
const RETRY_EVERY: Duration = Duration::from_secs(10);

/// Pairs of keys whose tokens are kept: 256; an installation has a handful, and keys that were
/// replaced must not pile up.
const KEPT_MAX: usize = 256;

/// How a token is drawn.
pub struct Grant {
    /// Where.
    pub url: Url,
    /// Whose it is.
    pub api_key: Secret,
    /// What proves it.
    pub secret_key: Secret,
    /// Whether the beginning of an answer says that the token is not valid.
    pub is_refused: fn(&[u8]) -> bool,
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").finish_non_exhaustive()
    }
}

/// A request that is to carry an access token.
#[derive(Debug)]
pub struct TokenRequest {
    /// The request, without it.
    pub request: HttpRequest,
    /// How it is drawn.
    pub grant: Arc<Grant>,
}

/// A token and how long it is good, as the provider says.
#[derive(Clone)]
pub(super) struct Drawn {
    pub(super) token: Secret,
    pub(super) expires_in: Duration,
}

/// The tokens that were drawn; a cheap handle.
#[derive(Clone, Default)]
pub(super) struct Tokens(Arc<Mutex<HashMap<[u8; 32], Arc<Slot>>>>);

/// The token of one pair of keys.
#[derive(Default)]
struct Slot {
    /// Held while a token is drawn.
    held: tokio::sync::Mutex<Held>,
    /// How often that was tried, whatever came of it.
    flights: AtomicU64,
}

#[derive(Default)]
struct Held {
    token: Option<Good>,
    /// Why the last flight failed, if it did.
    failure: Option<Failure>,
}

/// A token that was drawn.
struct Good {
    token: Secret,
    /// Until then it is used without a thought.
    fresh_until: Instant,
    /// Until then the provider takes it, should there be no other.
    usable_until: Instant,
}

/// What is shared of a failure: everything but its cause, which was told once.
struct Failure {
    reason: FailureReason,
    status: Option<http::StatusCode>,
    message: String,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Tokens {
    /// The token for these keys, drawn with `draw` when there is none that is good.
    ///
    /// `refused`: the token that the provider has just refused; another one is drawn, unless
    /// somebody has already.
    ///
    /// # Errors
    /// [`ProviderError`]: none could be drawn, or not in time.
    pub(super) async fn get(
        &self,
        grant: &Grant,
        refused: Option<&Secret>,
        draw: impl Future<Output = Result<Drawn, ProviderError>>,
    ) -> Result<Secret, ProviderError> {
        let slot = self.slot(grant);
        let held = timeout(WAIT_MAX, slot.get(refused, draw)).await;
        held.unwrap_or_else(|_elapsed| Err(late(WAIT_MAX)))
    }

    fn slot(&self, grant: &Grant) -> Arc<Slot> {
        let mut hash = Sha256::new();
        for text in [
            grant.url.as_str(),
            grant.api_key.expose(),
            grant.secret_key.expose(),
        ] {
            hash.update(text);
            hash.update([0]);
        }
        let key = hash.finalize().into();
        let mut slots = self.0.lock();
        if slots.len() >= KEPT_MAX && !slots.contains_key(&key) {
            // Tokens are drawn anew: keys that change so often are rare.
            slots.clear();
        }
        Arc::clone(slots.entry(key).or_default())
    }
}

impl Slot {
    async fn get(
        &self,
        refused: Option<&Secret>,
        draw: impl Future<Output = Result<Drawn, ProviderError>>,
    ) -> Result<Secret, ProviderError> {
        let before = self.flights.load(Ordering::Acquire);
        let mut held = self.held.lock().await;
        let is_refused = |token: &Secret| refused.is_some_and(|old| old.expose() == token.expose());
        if let Some(good) = &held.token
            && good.fresh_until > Instant::now()
            && !is_refused(&good.token)
        {
            return Ok(good.token.clone());
        }
        if let Some(failure) = &held.failure
            && self.flights.load(Ordering::Acquire) > before
        {
            return Err(failure.error());
        }
        let began = Instant::now();
        let drawn = draw.await;
        self.flights.fetch_add(1, Ordering::AcqRel);
        match drawn {
            Ok(Drawn { token, expires_in }) => {
                let life = expires_in.min(LIFE_MAX);
                let good = life.saturating_sub(MARGIN_MAX.min(life / 10));
                held.token = Some(Good {
                    token: token.clone(),
                    fresh_until: began + good,
                    usable_until: began + life,
                });
                held.failure = None;
                Ok(token)
            }
            Err(error) => {
                if let Some(old) = &mut held.token
                    && old.usable_until > Instant::now()
                    && !is_refused(&old.token)
                {
                    // The old one still does; the next request but some seconds on tries again.
                    old.fresh_until = Instant::now() + RETRY_EVERY;
                    return Ok(old.token.clone());
                }
                held.failure = Some(Failure::of(&error));
                Err(error)
            }
        }
    }
}

impl Failure {
    fn of(error: &ProviderError) -> Self {
        Self {
            reason: error.reason,
            status: error.status,
            message: error.message.clone(),
        }
    }

    fn error(&self) -> ProviderError {
        ProviderError {
            status: self.status,
            ..ProviderError::new(self.reason, self.message.clone()).with_retry(Retry::Now)
        }
    }
}

/// No token came in time.
pub(super) fn late(bound: Duration) -> ProviderError {
    let seconds = bound.as_secs();
    let message = format!("The provider gave no access token within {seconds} s.");
    ProviderError::new(FailureReason::UpstreamTimeout, message).with_retry(Retry::Now)
}

#[cfg(test)]
mod tests;
