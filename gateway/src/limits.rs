//! How much may be asked for, and what a client is told about it.
//!
//! *What it is.* A request passes every limit that holds for it or gets 429;
//! what it gets in return is a [`Permit`], which tells how the limit on the
//! requests a second of the whole hub stands. A provider's own limit decides
//! whom a request goes to: one that is at its limit is passed over, and a
//! request is refused when all of its providers are.
//!
//! A limit is a token bucket: it holds a second's worth, so a burst of that size
//! passes at once and the rate holds from then on.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use nexus_events::config_event::Provider;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    error::ApiError,
    routing::Route,
    shared::{Decision, Rate, SharedState},
};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");

/// WebSocket connections of a gateway: 4 096. Beside its requests each costs some 40 KiB.
const WEBSOCKETS_MAX: usize = 4096;

/// Answers that are read from the log at once: 256, each with two consumers at the broker.
const RESUMED_MAX: usize = 256;

/// The bucket of the whole hub.
const GATEWAY_BUCKET: &str = "gateway";

/// The limits in force.
#[derive(Clone, Debug)]
pub struct Limits {
    shared: Arc<dyn SharedState>,
    gateway: Option<Rate>,
    /// Room for WebSocket connections.
    websockets: Arc<Semaphore>,
    /// Room for answers that are read from the log.
    resumed: Arc<Semaphore>,
}

/// A request that passed all limits.
#[derive(Clone, Copy, Debug)]
pub struct Permit {
    requests: Option<Standing>,
}

/// Where a request stands within a limit.
#[derive(Clone, Copy, Debug)]
struct Standing {
    rate: Rate,
    decision: Decision,
}

impl Limits {
    /// At most so many requests a second; 0 for no limit.
    pub fn new(shared: Arc<dyn SharedState>, requests_per_second: u32) -> Self {
        let gateway = (requests_per_second > 0).then_some(Rate {
            limit: requests_per_second,
            window: Duration::from_secs(1),
        });
        Self {
            shared,
            gateway,
            websockets: Arc::new(Semaphore::new(WEBSOCKETS_MAX)),
            resumed: Arc::new(Semaphore::new(RESUMED_MAX)),
        }
    }

    /// Room for a WebSocket connection, until it is dropped.
    ///
    /// # Errors
    /// 503: there is none.
    pub fn websocket(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        room(&self.websockets, "WebSocket connections are open")
    }

    /// Room for an answer that is read from the log, until it is dropped.
    ///
    /// # Errors
    /// 503: there is none.
    pub fn resumed(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        room(&self.resumed, "answers are read from the log")
    }

    /// Takes a share of the limit of the route's provider, or goes on to the next one that has room.
    ///
    /// # Errors
    /// 429: none has; with the time until the first one has.
    pub async fn find_room(&self, route: &mut Route) -> Result<(), ApiError> {
        let mut soonest = Duration::MAX;
        loop {
            let Err(wait) = self.provider(&route.current().provider.resource).await else {
                return Ok(());
            };
            soonest = soonest.min(wait);
            if !route.skip() {
                let message = format!(
                    "The providers of this model take no more requests for now. Try again in {}.",
                    spelled(soonest)
                );
                return Err(ApiError::rate_limited(message, soonest));
            }
        }
    }

    /// Takes a share of a provider's limit; an error says how long until there is one.
    async fn provider(&self, provider: &Provider) -> Result<(), Duration> {
        let Some(limit) = provider.rate_limit.filter(|limit| *limit > 0) else {
            return Ok(());
        };
        let rate = Rate {
            limit,
            window: Duration::from_secs(1),
        };
        let bucket = format!("provider:{}", provider.id);
        let decision = self.shared.take(&bucket, rate).await;
        if decision.allowed {
            Ok(())
        } else {
            Err(decision.retry_after)
        }
    }

    /// Takes a request's share of the hub's own limit.
    ///
    /// # Errors
    /// 429 with `Retry-After` and the limit's headers.
    pub async fn admit(&self) -> Result<Permit, ApiError> {
        let Some(rate) = self.gateway else {
            return Ok(Permit { requests: None });
        };
        let decision = self.shared.take(GATEWAY_BUCKET, rate).await;
        let standing = Standing { rate, decision };
        if decision.allowed {
            return Ok(Permit {
                requests: Some(standing),
            });
        }
        let message = format!(
            "The hub takes {} requests a second. Try again in {}.",
            rate.limit,
            spelled(decision.retry_after)
        );
        let error = ApiError::rate_limited(message, decision.retry_after);
        Err(standing
            .headers()
            .into_iter()
            .fold(error, |error, (name, value)| error.with_header(name, value)))
    }
}

fn room(of: &Arc<Semaphore>, what: &str) -> Result<OwnedSemaphorePermit, ApiError> {
    Arc::clone(of).try_acquire_owned().map_err(|error| {
        let message = format!("Too many {what}; try again later.");
        ApiError::unavailable("overloaded", message).with_source(error)
    })
}

impl Permit {
    /// Writes the limit's headers on an answer; nothing where there is no limit.
    pub fn write_headers(&self, headers: &mut HeaderMap) {
        if let Some(standing) = self.requests {
            headers.extend(standing.headers());
        }
    }
}

impl Standing {
    fn headers(self) -> [(HeaderName, HeaderValue); 3] {
        // Digits, letters and dots: a header value that cannot be refused.
        let reset = HeaderValue::from_str(&spelled(self.decision.reset_after));
        [
            (LIMIT, HeaderValue::from(self.rate.limit)),
            (REMAINING, HeaderValue::from(self.decision.remaining)),
            (RESET, reset.unwrap_or(HeaderValue::from_static("0s"))),
        ]
    }
}

/// A duration as `OpenAI` spells it: `20ms`, `1.5s`, `6m0s`.
fn spelled(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    let fraction = match millis {
        0 => String::new(),
        _ => format!(".{millis:03}").trim_end_matches('0').to_owned(),
    };
    match (seconds, millis) {
        (0, 1..) => format!("{millis}ms"),
        (0..60, _) => format!("{seconds}{fraction}s"),
        _ => format!("{}m{}{fraction}s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use http::{StatusCode, header::RETRY_AFTER};
    use nexus_events::clock::{ManualClock, SharedClock, UnixMillis};

    use super::*;
    use crate::shared::{MemoryState, WINDOW};

    fn limits(requests_per_second: u32) -> (Limits, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::at(UnixMillis::from_millis(0)));
        let shared = MemoryState::new(Arc::clone(&clock) as SharedClock, WINDOW);
        (Limits::new(Arc::new(shared), requests_per_second), clock)
    }

    fn told(headers: &HeaderMap) -> [&str; 3] {
        [LIMIT, REMAINING, RESET].map(|name| headers[&name].to_str().unwrap())
    }

    #[tokio::test]
    async fn a_second_holds_so_many_requests_and_the_next_one_is_told_when_to_come_back() {
        let (limits, clock) = limits(4);
        for expected in [
            ["4", "3", "250ms"],
            ["4", "2", "500ms"],
            ["4", "1", "750ms"],
            ["4", "0", "1s"],
        ] {
            let mut headers = HeaderMap::new();
            limits.admit().await.unwrap().write_headers(&mut headers);
            assert_eq!(told(&headers), expected);
        }
        let error = limits.admit().await.unwrap_err();
        assert_eq!(
            error.message,
            "The hub takes 4 requests a second. Try again in 250ms."
        );
        let response = error.into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        assert_eq!(told(response.headers()), ["4", "0", "1s"]);

        clock.advance(Duration::from_millis(249));
        limits.admit().await.unwrap_err();
        clock.advance(Duration::from_millis(1));
        limits.admit().await.unwrap();
        limits.admit().await.unwrap_err();
        // However long it stood still, it holds one second's worth.
        clock.advance(Duration::from_hours(1));
        for _ in 0..4 {
            limits.admit().await.unwrap();
        }
        limits.admit().await.unwrap_err();
    }

    #[tokio::test]
    async fn zero_is_no_limit() {
        let (limits, _clock) = limits(0);
        let mut headers = HeaderMap::new();
        for _ in 0..10_000 {
            limits.admit().await.unwrap().write_headers(&mut headers);
        }
        assert!(headers.is_empty());
    }

    #[test]
    fn durations_are_spelled_as_clients_know_them() {
        for (millis, expected) in [
            (0, "0s"),
            (20, "20ms"),
            (1_000, "1s"),
            (1_500, "1.5s"),
            (59_001, "59.001s"),
            (360_000, "6m0s"),
            (61_250, "1m1.25s"),
        ] {
            assert_eq!(spelled(Duration::from_millis(millis)), expected);
        }
    }
}
