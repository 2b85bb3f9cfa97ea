//! Whether the log stands still under a gateway that shows nothing before it is stored.
//!
//! With `NEXUS_RELEASE=stream` every request waits for the broker before its
//! provider is asked. A broker that takes nothing would let requests pile up,
//! and every client wait for its own timeout. So when a lane that has something
//! to ship has not moved for [`STANDSTILL`], new requests are refused, and so is
//! readiness, until it moves again. What was let in before waits on.
//!
//! A refusal is recorded, and told without waiting: it says that nothing was
//! done. An answer never is.

use std::time::Duration;

use nexus_events::{
    outbox::{Appended, Outbox, ReleaseError, Usage},
    subject::Lane,
};
use tokio::{sync::watch, time::Instant};

use crate::error::ApiError;

/// A lane that has not moved for so long stands still: 10 s, twice what a broker needs to come
/// back after its restart.
pub const STANDSTILL: Duration = Duration::from_secs(10);

/// What everyone may know of it; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Standstill(watch::Sender<bool>);

impl Standstill {
    /// Refuses what would have to wait.
    ///
    /// # Errors
    /// 503 `log_stalled`.
    pub fn check(&self) -> Result<(), ApiError> {
        if *self.0.borrow() {
            let message = "The event log takes nothing at the moment; try again later.";
            return Err(ApiError::unavailable("log_stalled", message).with_retry_after(STANDSTILL));
        }
        Ok(())
    }

    /// Waits until a refusal may be told.
    ///
    /// # Errors
    /// As of [`Outbox::released`].
    pub async fn released_or_stands(
        &self,
        outbox: &Outbox,
        appended: Appended,
    ) -> Result<(), ReleaseError> {
        outbox.synced(appended).await?;
        let mut stands = self.0.subscribe();
        tokio::select! {
            biased;
            released = outbox.released(appended) => released,
            _ = stands.wait_for(|stands| *stands) => Ok(()),
        }
    }

    /// Notes whether it stands still.
    pub fn set(&self, stands: bool) {
        self.0.send_if_modified(|stood| {
            let changed = *stood != stands;
            *stood = stands;
            changed
        });
    }
}

/// Looks at the lanes, again and again.
#[derive(Debug)]
pub struct Lookout {
    /// Where each lane was, and since when it has something to ship and has not moved.
    lanes: [(u64, Instant); 3],
}

impl Lookout {
    /// Begins to look at that moment.
    pub const fn new(now: Instant) -> Self {
        Self {
            lanes: [(0, now); 3],
        }
    }

    /// The lane that stands still.
    pub fn look(&mut self, usage: &Usage, now: Instant) -> Option<Lane> {
        let mut standing = None;
        let seen = usage.appended.iter().zip(&usage.shipped).zip(&usage.lost);
        for ((lane, (reached, since)), ((appended, shipped), lost)) in
            Lane::ALL.into_iter().zip(&mut self.lanes).zip(seen)
        {
            // Nobody waits for what is damaged: there is nothing left to ship.
            if shipped != reached || shipped.max(lost) >= appended {
                (*reached, *since) = (*shipped, now);
            } else if now.saturating_duration_since(*since) >= STANDSTILL {
                standing = standing.or(Some(lane));
            }
        }
        standing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(appended: [u64; 3], shipped: [u64; 3]) -> Usage {
        Usage {
            used_bytes: 0,
            reserved_bytes: 0,
            limit_bytes: 1,
            audit_bytes: 0,
            open_requests: 0,
            appended,
            shipped,
            lost: [0; 3],
        }
    }

    #[test]
    fn a_lane_whose_end_is_damaged_has_nothing_to_ship() {
        let began = Instant::now();
        let mut lookout = Lookout::new(began);
        let lost = |lost| Usage {
            lost,
            ..usage([7, 9, 3], [7, 4, 3])
        };
        assert_eq!(lookout.look(&lost([0, 9, 0]), began + STANDSTILL * 2), None);
        let later = began + STANDSTILL * 4;
        assert_eq!(lookout.look(&lost([0, 8, 0]), later), Some(Lane::Chunks));
    }

    #[test]
    fn a_lane_stands_still_that_has_something_to_ship_and_does_not_move() {
        let began = Instant::now();
        let mut lookout = Lookout::new(began);
        let mut at = |half: u32, appended, shipped| {
            lookout.look(&usage(appended, shipped), began + STANDSTILL / 2 * half)
        };
        assert_eq!(at(0, [7, 0, 3], [7, 0, 3]), None, "all is shipped");
        assert_eq!(at(1, [7, 1, 4], [7, 0, 3]), None, "half the time");
        let standing = at(2, [7, 2, 5], [7, 0, 4]);
        assert_eq!(standing, Some(Lane::Chunks), "the other moves");
        assert_eq!(at(3, [7, 2, 5], [7, 1, 4]), None, "both moved");
        assert_eq!(at(4, [7, 2, 5], [7, 1, 4]), Some(Lane::Audit));
        assert_eq!(at(5, [7, 2, 5], [7, 1, 5]), Some(Lane::Chunks));
        assert_eq!(at(6, [7, 2, 5], [7, 2, 5]), None);
    }

    #[test]
    fn while_it_stands_still_requests_are_refused() {
        let standstill = Standstill::default();
        assert!(standstill.check().is_ok());
        standstill.clone().set(true);
        let refused = standstill.check().unwrap_err();
        assert_eq!(refused.status.as_u16(), 503);
        assert_eq!(refused.code.as_deref(), Some("log_stalled"));
        standstill.set(false);
        assert!(standstill.check().is_ok());
    }
}
