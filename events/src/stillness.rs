//! How long something has been seen to stand still.
//!
//! Whether another process lives is told by a sequence that it moves now and
//! then: its lease's, its cursor's. To compare the moment of the last move with
//! the present one would compare the clocks of two machines, and one that was
//! set forward would declare everybody dead. So whoever wants to know looks
//! again and again, and counts by its own monotonic clock how long it has seen
//! the same sequence.
//!
//! Only looks without a hole count. While the broker is away nobody can move
//! anything, so a look that failed, or came too late, begins the count anew:
//! after an outage everybody has the same time to come back.

use std::time::Duration;

use tokio::time::Instant;

/// One look at a sequence.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// What was seen; 0: nothing there.
    pub sequence: u64,
    /// When it was asked for: it stood so at some moment after that.
    pub asked: Instant,
    /// When the answer came: it stood so at some moment before that.
    pub answered: Instant,
}

/// A sequence that has not moved since it was first seen.
#[derive(Clone, Copy, Debug)]
pub struct Stillness {
    sequence: u64,
    since: Instant,
    seen: Instant,
}

impl Stillness {
    /// Begins to count with a first look.
    pub const fn begin(look: Look) -> Self {
        Self {
            sequence: look.sequence,
            since: look.answered,
            seen: look.answered,
        }
    }

    /// Takes another look; gives how long the sequence has certainly stood still.
    ///
    /// Zero when it has moved, or when the look before is longer ago than `gap_max`.
    pub fn look(&mut self, look: Look, gap_max: Duration) -> Duration {
        let gap = look.answered.duration_since(self.seen);
        if look.sequence != self.sequence || gap > gap_max {
            *self = Self::begin(look);
            return Duration::ZERO;
        }
        self.seen = look.answered;
        // It stood at the end of the first look and at the beginning of this one.
        look.asked.saturating_duration_since(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP_MAX: Duration = Duration::from_secs(15);

    /// A look that was asked for at a second and answered one later.
    fn look(begin: Instant, sequence: u64, second: u64) -> Look {
        let asked = begin + Duration::from_secs(second);
        Look {
            sequence,
            asked,
            answered: asked + Duration::from_secs(1),
        }
    }

    #[test]
    fn only_the_time_between_two_looks_is_certain() {
        let begin = Instant::now();
        let mut stillness = Stillness::begin(look(begin, 7, 0));
        let still = stillness.look(look(begin, 7, 10), GAP_MAX);
        assert_eq!(still, Duration::from_secs(9));
        let still = stillness.look(look(begin, 7, 20), GAP_MAX);
        assert_eq!(still, Duration::from_secs(19));
    }

    #[test]
    fn a_move_and_a_hole_begin_anew() {
        let begin = Instant::now();
        let mut stillness = Stillness::begin(look(begin, 7, 0));
        stillness.look(look(begin, 7, 10), GAP_MAX);
        let moved = stillness.look(look(begin, 8, 20), GAP_MAX);
        assert_eq!(moved, Duration::ZERO);
        let still = stillness.look(look(begin, 8, 30), GAP_MAX);
        assert_eq!(still, Duration::from_secs(9));
        // Frozen for a while: nobody knows what was in between.
        let hole = stillness.look(look(begin, 8, 60), GAP_MAX);
        assert_eq!(hole, Duration::ZERO);
        let still = stillness.look(look(begin, 8, 70), GAP_MAX);
        assert_eq!(still, Duration::from_secs(9));
    }
}
