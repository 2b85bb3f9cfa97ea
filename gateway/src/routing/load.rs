//! What it costs to ask somebody now: latency × (requests under way + 1).
//!
//! *Latency* is the time to the first byte. A slow answer counts at once and
//! whole, a quick one pulls the figure down step by step: who has become slow
//! is noticed by the first request, who has recovered by some. Between answers
//! the figure halves every five seconds, so whoever was avoided is tried again
//! after a while, and a figure of yesterday says nothing.
//!
//! *A failure* counts as two seconds on top of twice the latency. Two seconds,
//! because a healthy hosted model begins to answer within one: whoever failed
//! stands behind everyone that is merely slow, and fifteen seconds later is
//! worth another try. Twice the latency, because whoever fails has to be asked
//! again elsewhere, which takes as long again; so one that always takes long
//! (whole answers do) does not look better by failing early.
//!
//! Nobody is known to be good: who was never measured and has nothing under way
//! costs nothing and is asked next; until the first answer it counts as one
//! second, so that a newcomer is not flooded before anything is known of it.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::refusals::Refusals;

/// The figures halve in this time: 5 s.
const HALF_LIFE_MICROS: u64 = 5_000_000;

/// What a failure adds: 2 s, see above.
const FAILURE_MICROS: u64 = 2_000_000;

/// What an answer is expected to take of which nothing is known: 1 s.
const UNKNOWN_MICROS: u64 = 1_000_000;

/// The load of a provider, or of one of its models.
#[derive(Debug, Default)]
pub struct Load {
    in_flight: AtomicU32,
    measured: Mutex<Option<Measured>>,
    /// Of a model: the refusals that followed each other.
    pub refusals: Refusals,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    latency_micros: u64,
    penalty_micros: u64,
    at: Instant,
}

impl Load {
    /// A request is under way.
    pub fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// It is not any more.
    pub fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// The first byte came after that time.
    pub fn answered(&self, took: Duration, now: Instant) {
        let took = micros(took);
        let mut measured = self.measured.lock();
        let before = measured.map_or(Measured::nothing(now), |before| before.at(now));
        let latency_micros = match *measured {
            // Downwards it goes by what it has decayed meanwhile, as far as the new figure.
            Some(old) if took < old.latency_micros => {
                took + decayed(old.latency_micros - took, old.at, now)
            }
            _ => took,
        };
        *measured = Some(Measured {
            latency_micros,
            ..before
        });
    }

    /// It failed after that time.
    pub fn failed(&self, took: Duration, now: Instant) {
        let mut measured = self.measured.lock();
        let mut after = measured.map_or(Measured::nothing(now), |before| before.at(now));
        let bad = FAILURE_MICROS
            .saturating_add(after.latency_micros)
            .max(micros(took));
        after.penalty_micros = after.penalty_micros.max(bad);
        *measured = Some(after);
    }

    /// Requests under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The latest latency; `None` when nothing was measured.
    pub fn latency(&self) -> Option<Duration> {
        let measured = *self.measured.lock();
        let micros = measured?.latency_micros;
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    /// What it costs to ask now.
    pub fn cost(&self, now: Instant) -> Duration {
        let measured = *self.measured.lock();
        let in_flight = u64::from(self.in_flight());
        let micros = match measured.map(|measured| measured.at(now)) {
            Some(now) => now.latency_micros.saturating_add(now.penalty_micros),
            None if in_flight > 0 => UNKNOWN_MICROS,
            None => 0,
        };
        Duration::from_micros(micros.saturating_mul(in_flight + 1))
    }
}

impl Measured {
    const fn nothing(now: Instant) -> Self {
        Self {
            latency_micros: 0,
            penalty_micros: 0,
            at: now,
        }
    }

    /// The figures as they have decayed by now.
    fn at(self, now: Instant) -> Self {
        Self {
            latency_micros: decayed(self.latency_micros, self.at, now),
            penalty_micros: decayed(self.penalty_micros, self.at, now),
            at: self.at.max(now),
        }
    }
}

/// A figure after a while: halved for each half-life, and in between on a straight line.
fn decayed(figure: u64, from: Instant, now: Instant) -> u64 {
    let age = micros(now.saturating_duration_since(from));
    let times = u32::try_from(age / HALF_LIFE_MICROS).unwrap_or(u32::MAX);
    let halved = figure.checked_shr(times).unwrap_or(0);
    let part = age % HALF_LIFE_MICROS;
    halved - halved.saturating_mul(part) / (2 * HALF_LIFE_MICROS)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[tokio::test]
    async fn a_slow_answer_counts_at_once_and_a_quick_one_by_and_by() {
        let (load, mut now) = (Load::default(), Instant::now());
        load.answered(ms(100), now);
        assert_eq!(load.cost(now), ms(100));
        load.answered(ms(900), now);
        assert_eq!(load.cost(now), ms(900));
        load.answered(ms(100), now);
        assert_eq!(load.latency(), Some(ms(900)), "no time has passed");
        now += Duration::from_secs(5);
        load.answered(ms(100), now);
        assert_eq!(load.latency(), Some(ms(500)));
        now += Duration::from_secs(5);
        assert_eq!(load.cost(now), ms(250), "it decays by itself");
        assert_eq!(
            load.latency(),
            Some(ms(500)),
            "people see what was measured"
        );
        now += Duration::from_hours(9);
        assert_eq!(load.cost(now), ms(0));
    }

    #[tokio::test]
    async fn what_is_under_way_counts_as_often() {
        let (load, now) = (Load::default(), Instant::now());
        assert_eq!(load.cost(now), ms(0), "nobody has tried");
        load.begin();
        assert_eq!(
            load.cost(now),
            ms(2_000),
            "one second each, nothing is known"
        );
        load.answered(ms(100), now);
        load.begin();
        assert_eq!(load.cost(now), ms(300));
        load.end();
        load.end();
        assert_eq!((load.cost(now), load.in_flight()), (ms(100), 0));
    }

    #[tokio::test]
    async fn a_failure_is_worse_than_a_slow_answer_and_is_forgiven() {
        let (load, mut now) = (Load::default(), Instant::now());
        load.answered(ms(100), now);
        load.failed(ms(1), now);
        assert_eq!(load.cost(now), ms(2_200));
        load.failed(ms(1), now);
        assert_eq!(load.cost(now), ms(2_200), "failures do not pile up");
        load.failed(ms(30_000), now);
        assert_eq!(load.cost(now), ms(30_100));
        assert_eq!(load.latency(), Some(ms(100)));
        now += Duration::from_secs(10);
        assert_eq!(load.cost(now), ms(7_525));
        let never = Load::default();
        never.failed(ms(1), now);
        assert_eq!((never.cost(now), never.latency()), (ms(2_000), None));
    }
}
