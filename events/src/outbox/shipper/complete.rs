//! Up to when a stream has all of a lane.

use crate::clock::UnixMillis;

/// What the lane's cursor may say of it.
#[derive(Debug, Default)]
pub(super) struct Complete {
    /// When the outbox was read last, and the position that it was at.
    asked: Option<(UnixMillis, u64)>,
    /// What was appended before is stored.
    until: Option<UnixMillis>,
}

impl Complete {
    /// Takes note that the outbox is read now, with that position as its last.
    pub(super) fn asks(&mut self, now: UnixMillis, appended: u64) {
        self.asked = Some((now, appended));
        // A clock that was set back draws the same moments again.
        self.until = self.until.map(|until| until.min(now));
    }

    /// Before which moment all is stored, once everything up to a position is: an outbox that
    /// drains is no further than before, until it comes to its end.
    pub(super) fn once_stored(&self, position: u64) -> Option<UnixMillis> {
        match self.asked {
            Some((asked, appended)) if position >= appended => Some(asked),
            _ => self.until,
        }
    }

    /// Takes note of what the stored cursor says.
    pub(super) const fn stored(&mut self, until: Option<UnixMillis>) {
        self.until = until;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_shipped_all_that_was_there_is_complete() {
        let at = |millis| Some(UnixMillis::from_millis(millis));
        let mut complete = Complete::default();
        assert_eq!(complete.once_stored(7), None, "nobody has looked");
        complete.asks(UnixMillis::from_millis(10), 3_000);
        assert_eq!(complete.once_stored(999), None, "it drains an outage");
        assert_eq!(complete.once_stored(3_000), at(10));
        complete.stored(at(10));
        // More has come: what is said is no more than before.
        complete.asks(UnixMillis::from_millis(20), 4_500);
        assert_eq!(complete.once_stored(3_999), at(10));
        assert_eq!(complete.once_stored(4_500), at(20));
        complete.stored(at(20));
        // The clock is set back: what it said before is to come once more.
        complete.asks(UnixMillis::from_millis(15), 4_600);
        assert_eq!(complete.once_stored(4_599), at(15));
        // The stream was put back, or never held more than this.
        complete.stored(at(5));
        assert_eq!(complete.once_stored(4_599), at(5));
        // A bare cursor of a lane that has nothing to ship.
        complete.asks(UnixMillis::from_millis(30), 4_600);
        assert_eq!(complete.once_stored(4_600), at(30));
    }
}
