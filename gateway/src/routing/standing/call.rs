//! A call to a provider that is under way, and what its end says of the provider.
//!
//! What is learnt is the provider's own doing. While the hub waits for a client that does not
//! read, it does not read the provider's answer either, and the provider may have ended long ago:
//! that time is no latency of the provider's, and the request does not count as under way. A
//! connection that breaks after such a wait says nothing: servers, and the proxies before them,
//! hang up on whoever does not read.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use nexus_events::exchange_event::FailureReason;
use tokio::time::Instant;

use super::{
    super::{
        Inner,
        breaker::{Admission, Transition},
        load::Load,
    },
    Cooling, Failing, Known, LastFailure,
};
use crate::{configuration::ProviderRecord, provider::Retry};

/// From how long a wait on a server may hang up: 10 s; common proxies do after 60 s.
const PATIENCE: Duration = Duration::from_secs(10);

/// A call to a provider; dropped before its end, it says nothing of the provider.
#[derive(Debug)]
pub(in crate::routing) struct Call {
    routing: Arc<Inner>,
    record: Arc<ProviderRecord>,
    provider: Arc<Known>,
    /// Of the provider's model.
    load: Arc<Load>,
    /// `None` once its outcome is known.
    admission: Option<Admission>,
    /// When it was sent.
    sent: Instant,
    /// The same, later by as much as the hub has waited for the client since.
    started: Instant,
    measured: bool,
    /// Since when the hub waits for the client.
    waiting: Option<Instant>,
    /// Whether it has waited for so long that the provider may hang up.
    has_tried_patience: bool,
}

impl Call {
    /// The provider is asked, or will be in a moment.
    pub(in crate::routing) fn begin(
        routing: &Arc<Inner>,
        record: &Arc<ProviderRecord>,
        provider: &Arc<Known>,
        load: &Arc<Load>,
    ) -> Self {
        let now = Instant::now();
        let (admission, transition) = provider.inner.lock().breaker.admit(now);
        provider.load.begin();
        load.begin();
        let call = Self {
            routing: Arc::clone(routing),
            record: Arc::clone(record),
            provider: Arc::clone(provider),
            load: Arc::clone(load),
            admission: Some(admission),
            sent: now,
            started: now,
            measured: false,
            waiting: None,
            has_tried_patience: false,
        };
        call.tell(transition);
        call
    }

    /// Whether its breaker would rather have had another asked.
    pub(in crate::routing) fn is_forced(&self) -> bool {
        self.admission.is_some_and(Admission::is_forced)
    }

    /// The request leaves now.
    pub(in crate::routing) fn sent(&mut self) {
        self.sent = Instant::now();
        self.started = self.sent;
    }

    /// The first byte came at that moment; `goes_on`: it was the first of a stream.
    pub(in crate::routing) fn first_byte(&mut self, at: Instant, goes_on: bool) {
        if !self.measured {
            self.measured = true;
            let took = at.saturating_duration_since(self.started);
            self.provider.load.answered(took, at);
            self.load.answered(took, at);
        }
        if goes_on && let Some(admission) = &mut self.admission {
            let transition = self.provider.inner.lock().breaker.answering(admission);
            self.tell(transition);
        }
    }

    /// The hub waits for the client and does not read the answer on.
    pub(in crate::routing) fn waits(&mut self) {
        if self.waiting.is_none() {
            self.waiting = Some(Instant::now());
            self.provider.load.end();
            self.load.end();
        }
    }

    /// The answer is read on.
    pub(in crate::routing) fn goes_on(&mut self) {
        if let Some(since) = self.waiting.take() {
            let waited = since.elapsed();
            self.started += waited;
            self.has_tried_patience |= waited >= PATIENCE;
            self.provider.load.begin();
            self.load.begin();
        }
    }

    /// It ended well.
    pub(in crate::routing) fn succeeded(&mut self) {
        let Some(admission) = self.admission.take() else {
            return;
        };
        self.load.refusals.answered();
        let mut health = self.provider.inner.lock();
        // Who was asked before the provider wanted to be left alone says nothing of that.
        health.cooling = health.cooling.filter(|cooling| self.sent <= cooling.since);
        let transition = health.breaker.succeeded(admission, Instant::now());
        drop(health);
        self.tell(transition);
    }

    /// It ended with an error of the provider's, or of the way there.
    pub(in crate::routing) fn failed(&mut self, failing: Failing) {
        let Some(admission) = self.admission.take() else {
            return;
        };
        if self.has_tried_patience && failing.reason == FailureReason::UpstreamCut {
            self.provider.inner.lock().breaker.released(admission);
            return;
        }
        let now = Instant::now();
        let verdict = Verdict::of(failing);
        if verdict != Verdict::ClientsFault {
            let took = now.saturating_duration_since(self.started);
            self.provider.load.failed(took, now);
            self.load.failed(took, now);
        }
        if failing.is_refusal() {
            let configured = self.record.resource.updated_ms;
            self.load.refusals.refused(configured, now);
        }
        let mut health = self.provider.inner.lock();
        if let Some(wait) = cooling_time(failing) {
            let until = now + wait;
            health.cooling = Some(Cooling { since: now, until });
        }
        if verdict != Verdict::ClientsFault {
            health.last_failure = Some(LastFailure {
                reason: failing.reason,
                status: failing.status,
                at: self.routing.clock.now(),
            });
        }
        let transition = match verdict {
            Verdict::Broken => health.breaker.failed(admission, now),
            // It refused, so it lives.
            Verdict::Refuses | Verdict::ClientsFault => health.breaker.succeeded(admission, now),
        };
        drop(health);
        self.tell(transition);
    }

    fn tell(&self, transition: Option<Transition>) {
        if let Some(transition) = transition {
            self.routing.tell(&self.record.resource, transition);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.waiting.is_none() {
            self.provider.load.end();
            self.load.end();
        }
        if let Some(admission) = self.admission.take() {
            self.provider.inner.lock().breaker.released(admission);
        }
    }
}

/// What a failure says of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is broken or away.
    Broken,
    /// It refuses everybody: our key, our model's name, our many requests.
    Refuses,
    /// It refuses what this client sent.
    ClientsFault,
}

impl Failing {
    /// Whether the provider would say the same to everybody: it refuses the hub's key, its credit or the model, or is
    /// not where the operator says.
    pub(in crate::routing) fn is_refusal(self) -> bool {
        Verdict::of(self) == Verdict::Refuses && self.status != Some(StatusCode::TOO_MANY_REQUESTS)
    }
}

impl Verdict {
    fn of(failing: Failing) -> Self {
        match (failing.reason, failing.status) {
            (_, Some(status)) if status.is_server_error() => Self::Broken,
            // It is not where the operator says.
            (_, Some(status)) if status.is_redirection() => Self::Refuses,
            (
                _,
                Some(
                    StatusCode::UNAUTHORIZED
                    | StatusCode::PAYMENT_REQUIRED
                    | StatusCode::FORBIDDEN
                    | StatusCode::NOT_FOUND
                    | StatusCode::TOO_MANY_REQUESTS,
                ),
            ) => Self::Refuses,
            // An answer that is too large is what was asked for; a status below 500 is an answer.
            (FailureReason::UpstreamStatus | FailureReason::UpstreamTooLarge, _) | (_, Some(_)) => {
                Self::ClientsFault
            }
            _ => Self::Broken,
        }
    }
}

/// For how long the provider wants not to be asked.
fn cooling_time(failing: Failing) -> Option<Duration> {
    match (failing.status, failing.retry) {
        (
            Some(StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE),
            Retry::After(wait),
        ) => Some(wait),
        _ => None,
    }
}
