//! Whether Redis is worth asking.
//!
//! It is away after an error, or after three time-outs in a row (one is a busy
//! moment). While it is away one call a second tries, and no other waits. The
//! change is logged once, each way.

use std::{error::Error, time::Duration};

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge};
use redis::RedisError;
use tokio::time::Instant;

use super::ANSWER_TIMEOUT;
use crate::metrics::Metrics;

/// Time-outs in a row that make Redis away: 3.
const TIMEOUTS_MAX: u32 = 3;

/// Between two tries while it is away: 1 s, so that one request a second waits for it at most.
const TRY_INTERVAL: Duration = Duration::from_secs(1);

/// What a call came to.
#[derive(Debug)]
pub(super) enum Outcome {
    Answered,
    Failed(RedisError),
    Late,
}

/// No answer in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer in {ANSWER_TIMEOUT:?}")]
struct Late;

#[derive(Debug)]
pub(super) struct Health {
    state: Mutex<State>,
    up: IntGauge,
    fallbacks: IntCounter,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Up { timeouts: u32 },
    Away { next_try: Instant },
}

impl Health {
    pub(super) fn new(metrics: &Metrics) -> Self {
        metrics.redis_up.set(1);
        Self {
            state: Mutex::new(State::Up { timeouts: 0 }),
            up: metrics.redis_up.clone(),
            fallbacks: metrics.redis_fallbacks.clone(),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(*self.state.lock(), State::Up { .. })
    }

    /// Whether this call is to ask Redis.
    pub(super) fn may_ask(&self, now: Instant) -> bool {
        let may = match &mut *self.state.lock() {
            State::Up { .. } => true,
            State::Away { next_try } if *next_try <= now => {
                *next_try = now + TRY_INTERVAL;
                true
            }
            State::Away { .. } => false,
        };
        if !may {
            self.fallbacks.inc();
        }
        may
    }

    /// Notes what came of a call.
    pub(super) fn note(&self, now: Instant, outcome: &Outcome) {
        let failure: &dyn Error = match outcome {
            Outcome::Answered => return self.answered(),
            Outcome::Failed(error) => error,
            Outcome::Late => &Late,
        };
        self.fallbacks.inc();
        let away = State::Away {
            next_try: now + TRY_INTERVAL,
        };
        let mut state = self.state.lock();
        match (&mut *state, outcome) {
            (State::Away { .. }, _) => {}
            (State::Up { timeouts }, Outcome::Late) if *timeouts + 1 < TIMEOUTS_MAX => {
                *timeouts += 1;
            }
            (State::Up { .. }, _) => {
                *state = away;
                drop(state);
                self.up.set(0);
                tracing::warn!(
                    error = failure,
                    "redis is away: this gateway serves from its own memory"
                );
            }
        }
    }

    fn answered(&self) {
        let before = std::mem::replace(&mut *self.state.lock(), State::Up { timeouts: 0 });
        if matches!(before, State::Away { .. }) {
            self.up.set(1);
            tracing::info!("redis is back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Outcome {
        Outcome::Failed(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into())
    }

    #[test]
    fn one_time_out_is_a_busy_moment_and_three_are_not() {
        let metrics = Metrics::new().unwrap();
        let health = Health::new(&metrics);
        let now = Instant::now();
        health.note(now, &Outcome::Late);
        health.note(now, &Outcome::Late);
        health.note(now, &Outcome::Answered);
        health.note(now, &Outcome::Late);
        health.note(now, &Outcome::Late);
        assert!(health.is_up());
        health.note(now, &Outcome::Late);
        assert!(!health.is_up());
        assert_eq!(metrics.redis_up.get(), 0);
        assert_eq!(metrics.redis_fallbacks.get(), 5);
    }

    #[test]
    fn while_it_is_away_one_call_a_second_tries() {
        let health = Health::new(&Metrics::new().unwrap());
        let start = Instant::now();
        health.note(start, &refused());
        assert!(!health.is_up(), "an error is no busy moment");
        assert!(!health.may_ask(start));
        let next = start + TRY_INTERVAL;
        assert!(health.may_ask(next));
        assert!(!health.may_ask(next));
        health.note(next, &refused());
        assert!(!health.may_ask(next));
        assert!(health.may_ask(next + TRY_INTERVAL));
        health.note(next, &Outcome::Answered);
        assert!(health.is_up());
        assert!(health.may_ask(next));
    }
}
