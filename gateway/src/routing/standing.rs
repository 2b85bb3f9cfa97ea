//! What a gateway knows of one provider.
//!
//! Kept in memory, by each gateway for itself: that it cannot reach a provider
//! may be its own network's fault. Locks are held for some instructions and
//! never over an await.

mod call;

use std::time::Duration;

use http::StatusCode;
use nexus_events::{
    audit_event::BreakerState, clock::UnixMillis, config_event::Provider,
    exchange_event::FailureReason,
};
use parking_lot::Mutex;
use tokio::time::Instant;

pub(super) use self::call::Call;
use super::{
    breaker::{Breaker, Transition},
    choice::{Blocked, Why},
    load::Load,
};
use crate::{
    configuration::ProviderRecord,
    provider::{ProviderError, Retry},
};

/// What is known of a provider.
#[derive(Debug)]
pub(super) struct Known {
    /// Where it was when this was learnt: at another address it is another server.
    pub(super) server_url: String,
    /// When it was configured so.
    pub(super) updated: UnixMillis,
    pub(super) load: Load,
    inner: Mutex<Health>,
}

#[derive(Debug)]
struct Health {
    breaker: Breaker,
    cooling: Option<Cooling>,
    last_failure: Option<LastFailure>,
    reached: Option<Reached>,
}

/// The provider asked not to be asked for a while.
#[derive(Clone, Copy, Debug)]
struct Cooling {
    since: Instant,
    until: Instant,
}

/// The latest failure of a provider.
#[derive(Clone, Copy, Debug)]
pub struct LastFailure {
    /// The kind.
    pub reason: FailureReason,
    /// Its HTTP status, where it gave one.
    pub status: Option<StatusCode>,
    /// When.
    pub at: UnixMillis,
}

/// The latest look at a provider.
#[derive(Clone, Copy, Debug)]
pub struct Reached {
    /// Whether it answered, whatever it said.
    pub reachable: bool,
    /// When.
    pub at: UnixMillis,
}

/// Everything that people may see of it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Whether it is asked.
    pub breaker: BreakerState,
    /// The latest time to a first byte.
    pub latency: Option<Duration>,
    /// Requests under way.
    pub in_flight: u32,
    /// The latest look at it.
    pub reached: Option<Reached>,
    /// Its latest failure.
    pub last_failure: Option<LastFailure>,
}

impl Known {
    /// Nothing yet.
    pub(super) fn nothing(record: &ProviderRecord, now: Instant) -> Self {
        Self {
            server_url: record.resource.server_url.clone(),
            updated: record.resource.updated_ms,
            load: Load::default(),
            inner: Mutex::new(Health {
                breaker: Breaker::closed(now),
                cooling: None,
                last_failure: None,
                reached: None,
            }),
        }
    }

    /// Whether it is still the server that this is known of.
    pub(super) fn is_of(&self, provider: &Provider) -> bool {
        provider.updated_ms <= self.updated || provider.server_url == self.server_url
    }

    /// Why it is not to be asked while there is another.
    pub(super) fn blocked(&self, now: Instant) -> Option<Blocked> {
        let health = self.inner.lock();
        if let Some(since) = health.breaker.blocked_since(now) {
            let why = match health.breaker.state() {
                BreakerState::HalfOpen => Why::ProbeUnderWay,
                BreakerState::Open | BreakerState::Closed => Why::BreakerOpen,
            };
            return Some(Blocked { since, why });
        }
        let cooling = health.cooling.filter(|cooling| now < cooling.until)?;
        Some(Blocked {
            since: cooling.since,
            why: Why::CoolingDown,
        })
    }

    /// Whether a request may find out if it has recovered.
    pub(super) fn wants_probe(&self, now: Instant) -> bool {
        let breaker = &self.inner.lock().breaker;
        breaker.state() != BreakerState::Closed && breaker.blocked_since(now).is_none()
    }

    pub(super) fn breaker(&self) -> BreakerState {
        self.inner.lock().breaker.state()
    }

    pub(super) fn seen(&self) -> Seen {
        let health = self.inner.lock();
        Seen {
            breaker: health.breaker.state(),
            latency: self.load.latency(),
            in_flight: self.load.in_flight(),
            reached: health.reached,
            last_failure: health.last_failure,
        }
    }

    /// A look at it ended.
    ///
    /// That it can be reached lets a breaker go half open early only where it had opened because
    /// it could not: a server that answers all requests with errors can always be reached.
    pub(super) fn looked(&self, reached: Reached) -> Option<Transition> {
        let mut health = self.inner.lock();
        health.reached = Some(reached);
        let was_away = health.last_failure.is_some_and(|failure| {
            matches!(
                failure.reason,
                FailureReason::UpstreamRefused
                    | FailureReason::UpstreamTimeout
                    | FailureReason::UpstreamCut
            )
        });
        (reached.reachable && was_away).then(|| health.breaker.reached())?
    }
}

/// How a provider failed, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Failing {
    /// The kind.
    pub reason: FailureReason,
    /// Its HTTP status, where it gave one.
    pub status: Option<StatusCode>,
    /// Whether to ask again.
    pub retry: Retry,
}

impl From<&ProviderError> for Failing {
    fn from(error: &ProviderError) -> Self {
        Self {
            reason: error.reason,
            status: error.status,
            retry: error.retry,
        }
    }
}

impl Failing {
    /// Whether the same provider may do better in a moment.
    pub(super) fn may_pass(self) -> bool {
        match self.status {
            Some(status) => {
                status.is_server_error()
                    || status == StatusCode::REQUEST_TIMEOUT
                    || status == StatusCode::TOO_MANY_REQUESTS
            }
            None => matches!(
                self.reason,
                FailureReason::UpstreamRefused | FailureReason::UpstreamCut
            ),
        }
    }
}
