//! Calls without a valid key, counted for a minute instead of told one by one.
//!
//! Anyone can make them, so an event for each would let anyone fill the log.

use nexus_events::{
    audit_event::{self, UnauthenticatedCalls},
    clock::{SharedClock, UnixMillis},
    envelope::Stamp,
    outbox::Outbox,
};
use parking_lot::Mutex;

const MINUTE_MS: i64 = 60_000;

/// The count of the present minute.
#[derive(Debug, Default)]
pub struct Unauthenticated(Mutex<Minute>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Minute {
    start_ms: i64,
    count: u64,
}

impl Unauthenticated {
    /// Counts a call; gives the minute before, once it is over and had any.
    #[must_use]
    pub fn count(&self, now: UnixMillis) -> Option<UnauthenticatedCalls> {
        self.turn(now, 1)
    }

    /// Gives the minute before, once it is over and had any.
    #[must_use]
    pub fn over(&self, now: UnixMillis) -> Option<UnauthenticatedCalls> {
        self.turn(now, 0)
    }

    fn turn(&self, now: UnixMillis, more: u64) -> Option<UnauthenticatedCalls> {
        let start_ms = now.as_millis() - now.as_millis().rem_euclid(MINUTE_MS);
        let mut minute = self.0.lock();
        if minute.start_ms == start_ms {
            minute.count += more;
            return None;
        }
        let before = std::mem::replace(
            &mut *minute,
            Minute {
                start_ms,
                count: more,
            },
        );
        told(before)
    }

    /// Appends the audit event of a minute; one that is not taken is counted with the present one.
    pub fn tell(
        &self,
        (outbox, clock, source): (&Outbox, &SharedClock, &str),
        minute: UnauthenticatedCalls,
    ) {
        let record = audit_event::record(source, Stamp::draw(&**clock), "/", &minute);
        let appended = record
            .map_err(|error| error.to_string())
            .and_then(|record| outbox.append(&record).map_err(|error| error.to_string()));
        if let Err(error) = appended {
            self.0.lock().count += minute.count;
            let count = minute.count;
            tracing::error!(error, count, "could not record unauthenticated calls yet");
        }
    }

    /// Gives what was counted so far: for the end of the process.
    #[must_use]
    pub fn rest(&self) -> Option<UnauthenticatedCalls> {
        told(std::mem::take(&mut *self.0.lock()))
    }
}

fn told(minute: Minute) -> Option<UnauthenticatedCalls> {
    (minute.count > 0).then_some(UnauthenticatedCalls {
        minute_ms: minute.start_ms,
        count: minute.count,
    })
}

#[cfg(test)]
mod tests {
    use nexus_events::{
        clock::SystemClock,
        outbox::{OutboxSettings, Release, SyncMode},
    };

    use super::*;

    #[test]
    fn a_minute_that_the_outbox_did_not_take_is_told_with_the_next() {
        let dir = tempfile::TempDir::new().unwrap();
        let clock: SharedClock = std::sync::Arc::new(SystemClock);
        let settings = OutboxSettings {
            dir: dir.path().to_owned(),
            bytes_max: 100,
            sync: SyncMode::Os,
            release: Release::Local,
        };
        let (full, _) = Outbox::open(&settings, &clock).unwrap();
        let calls = Unauthenticated::default();
        assert_eq!(calls.count(at(0)), None);
        let before = calls.count(at(MINUTE_MS)).unwrap();
        calls.tell((&full, &clock, "/nexus/test"), before);
        assert_eq!(full.usage().appended, [0; 3], "there is no room");
        let told = calls.over(at(2 * MINUTE_MS)).unwrap();
        assert_eq!(told.count, 2);
    }

    fn at(ms: i64) -> UnixMillis {
        UnixMillis::from_millis(1_795_000_020_000 + ms)
    }

    #[test]
    fn a_minute_is_told_once_it_is_over() {
        let calls = Unauthenticated::default();
        assert_eq!(calls.count(at(0)), None);
        assert_eq!(calls.count(at(10)), None);
        let told = calls.over(at(MINUTE_MS)).unwrap();
        assert_eq!(told.count, 2);
        assert_eq!(told.minute_ms.rem_euclid(MINUTE_MS), 0);
        assert_eq!(calls.over(at(5 * MINUTE_MS)), None);
        assert_eq!(calls.count(at(5 * MINUTE_MS)), None);
        assert_eq!(calls.rest().unwrap().count, 1);
        assert_eq!(calls.rest(), None);
    }
}
