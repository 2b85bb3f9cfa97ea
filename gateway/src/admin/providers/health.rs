//! How a provider fares, as this gateway sees it; no part of the stored resource and its `ETag`.

use std::time::Duration;

use nexus_events::{audit_event::BreakerState, clock::UnixMillis};
use serde::Serialize;

use crate::routing::Seen;

/// A provider's health as the API shows it.
#[derive(Debug, Serialize)]
pub(super) struct HealthView {
    state: BreakerState,
    /// The latest time to a first byte.
    latency_ms: Option<u64>,
    in_flight: u32,
    /// Whether anybody answered at the latest look; `null` before the first one.
    reachable: Option<bool>,
    checked_ms: Option<UnixMillis>,
    last_failure: Option<FailureView>,
}

#[derive(Debug, Serialize)]
struct FailureView {
    reason: &'static str,
    /// HTTP status, where there was one.
    status: Option<u16>,
    at_ms: UnixMillis,
}

impl HealthView {
    /// That of a provider; one of which nothing is known is taken for healthy.
    pub(super) fn of(seen: Option<Seen>) -> Self {
        let reached = seen.and_then(|seen| seen.reached);
        let millis = |took: Duration| u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        Self {
            state: seen.map_or(BreakerState::Closed, |seen| seen.breaker),
            latency_ms: seen.and_then(|seen| seen.latency).map(millis),
            in_flight: seen.map_or(0, |seen| seen.in_flight),
            reachable: reached.map(|reached| reached.reachable),
            checked_ms: reached.map(|reached| reached.at),
            last_failure: seen
                .and_then(|seen| seen.last_failure)
                .map(|failure| FailureView {
                    reason: failure.reason.as_str(),
                    status: failure.status.map(|status| status.as_u16()),
                    at_ms: failure.at,
                }),
        }
    }
}
