//! How many retries the whole gateway may make: a budget, so that trouble is not multiplied.
//!
//! When every provider fails, `attempts` tries for each request would triple
//! the load on those who are down already, and keep them there. A bucket of
//! tokens holds that down: each request adds a fifth of a token, each retry
//! takes a whole one, so that over time at most a fifth more is sent than was
//! asked for. Beside that ten tokens a second come by themselves, because at a
//! few requests a second a fifth would be nothing and retries cost nobody
//! anything there. It holds a hundred at most: a provider that goes down lets
//! the requests that are under way be tried again at once, and no more.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A retry's price, in thousandths of a token.
const RETRY: u64 = 1_000;

/// What a request adds, in thousandths: 0.2 tokens.
const REQUEST: u64 = 200;

/// What a millisecond adds, in thousandths: 10 tokens a second.
const MILLISECOND: u64 = 10;

/// The most it holds, in thousandths: 100 tokens.
const MOST: u64 = 100_000;

/// The gateway's retries.
#[derive(Debug)]
pub struct Budget(Mutex<Bucket>);

#[derive(Debug)]
struct Bucket {
    thousandths: u64,
    filled: Instant,
}

impl Budget {
    /// A full one.
    pub const fn full(now: Instant) -> Self {
        Self(Mutex::new(Bucket {
            thousandths: MOST,
            filled: now,
        }))
    }

    /// A request came.
    pub fn request(&self) {
        let mut bucket = self.0.lock();
        bucket.thousandths = (bucket.thousandths + REQUEST).min(MOST);
    }

    /// Takes a retry; `false` when there is none left.
    pub fn retry(&self, now: Instant) -> bool {
        let mut bucket = self.0.lock();
        let millis = now.saturating_duration_since(bucket.filled).as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        // Only whole milliseconds are counted, so only these are over.
        bucket.filled += Duration::from_millis(millis);
        let came = millis.saturating_mul(MILLISECOND);
        bucket.thousandths = bucket.thousandths.saturating_add(came).min(MOST);
        match bucket.thousandths.checked_sub(RETRY) {
            Some(rest) => {
                bucket.thousandths = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Retries that it gives until it is empty.
    fn rest(budget: &Budget, now: Instant) -> usize {
        (0..1_000).take_while(|_| budget.retry(now)).count()
    }

    #[tokio::test]
    async fn a_burst_passes_and_then_a_fifth_of_what_is_asked() {
        let now = Instant::now();
        let budget = Budget::full(now);
        assert_eq!(rest(&budget, now), 100);
        for _ in 0..49 {
            budget.request();
        }
        assert_eq!(rest(&budget, now), 9);
        for _ in 0..10_000 {
            budget.request();
        }
        assert_eq!(rest(&budget, now), 100, "it holds no more");
    }

    #[tokio::test]
    async fn ten_retries_a_second_there_are_whatever_is_asked() {
        let mut now = Instant::now();
        let budget = Budget::full(now);
        rest(&budget, now);
        for _ in 0..5 {
            now += Duration::from_secs(1);
            assert_eq!(rest(&budget, now), 10);
        }
        now += Duration::from_micros(99_900);
        assert_eq!(rest(&budget, now), 0);
        now += Duration::from_micros(100);
        assert_eq!(rest(&budget, now), 1);
        now += Duration::from_hours(9);
        assert_eq!(rest(&budget, now), 100);
    }
}
