//! Refusals: a provider that answers, and will not serve a model to anybody through this hub.
//!
//! Its key was revoked, its credit is used up, the deployment was deleted: the provider lives, so its breaker
//! stays closed, and every request would go there first and be refused. After [`IN_A_ROW`] refusals without an
//! answer in between the model is passed over for [`PAUSE`], while there is another. Then it is asked again, and one
//! more refusal is enough.
//!
//! Not the first refusal: a client can bring one about, by naming a file that there is not, and the answers of others
//! in between say that nothing is wrong.

use std::time::Duration;

use nexus_events::clock::UnixMillis;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Refusals without an answer in between: 3.
const IN_A_ROW: u32 = 3;

/// For how long the model is passed over: 30 s, so that a mended account is found soon and a broken one costs one try
/// in half a minute.
const PAUSE: Duration = Duration::from_secs(30);

/// The refusals of one model at its provider.
#[derive(Debug, Default)]
pub struct Refusals {
    latest: Mutex<Option<Row>>,
}

/// Refusals that followed each other.
#[derive(Clone, Copy, Debug)]
struct Row {
    count: u32,
    at: Instant,
    /// When the provider was configured as it was then: with another key it is asked at once.
    configured: UnixMillis,
}

impl Refusals {
    /// It was refused, by the provider as it was configured at that time.
    pub fn refused(&self, configured: UnixMillis, at: Instant) {
        let mut latest = self.latest.lock();
        let before = latest.filter(|row| row.configured == configured);
        *latest = Some(Row {
            count: before.map_or(0, |row| row.count).saturating_add(1),
            at,
            configured,
        });
    }

    /// It was answered.
    pub fn answered(&self) {
        *self.latest.lock() = None;
    }

    /// Since when it is passed over.
    pub fn blocked_since(&self, configured: UnixMillis, now: Instant) -> Option<Instant> {
        let row = (*self.latest.lock())?;
        let is_blocked =
            row.count >= IN_A_ROW && row.configured == configured && now < row.at + PAUSE;
        is_blocked.then_some(row.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn three_in_a_row_are_passed_over_for_half_a_minute_and_then_one_is_enough() {
        let (refusals, then) = (Refusals::default(), UnixMillis::from_millis(1));
        let blocked = || refusals.blocked_since(then, Instant::now()).is_some();
        for _ in 0..2 {
            refusals.refused(then, Instant::now());
        }
        refusals.answered();
        for _ in 0..2 {
            refusals.refused(then, Instant::now());
            assert!(!blocked());
        }
        refusals.refused(then, Instant::now());
        assert!(blocked());
        tokio::time::advance(PAUSE).await;
        assert!(!blocked());
        refusals.refused(then, Instant::now());
        assert!(blocked());
        // With a new key it is another matter.
        let now = UnixMillis::from_millis(2);
        assert!(refusals.blocked_since(now, Instant::now()).is_none());
        refusals.refused(now, Instant::now());
        assert!(refusals.blocked_since(now, Instant::now()).is_none());
    }
}
