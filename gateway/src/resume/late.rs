//! How long chunks that an ended exchange lacks are waited for.

use std::time::Duration;

use nexus_events::clock::UnixMillis;
use tokio::time::Instant;

/// Chunks are in the log at most seconds after the end of their exchange: a minute without any is
/// proof that they were lost.
const LATE_MAX: Duration = Duration::from_mins(1);

/// While chunks are read that were stored before the end, or so long after it, they are not given
/// up, however long that takes: an hour, by the broker's clock. Chunks and ends are shipped apart.
const STORED_WITHIN: Duration = Duration::from_hours(1);

/// Until when the chunks of one answer are waited for.
#[derive(Debug, Default)]
pub(super) struct Late {
    /// When the end was stored, and until when it is waited after what was read last.
    ended: Option<(UnixMillis, Instant)>,
}

impl Late {
    /// Takes note that the end was seen; the first time counts.
    pub(super) fn ended(&mut self, stored: UnixMillis, now: Instant) {
        self.ended.get_or_insert((stored, now + LATE_MAX));
    }

    /// Takes note of chunks of the shard, of whichever request, that are not its newest: where
    /// they lie at the time of the end, the answer's own may be behind them.
    pub(super) fn reads_over(&mut self, stored: UnixMillis, now: Instant) {
        if let Some((ended, until)) = &mut self.ended
            && stored <= ended.plus(STORED_WITHIN)
        {
            *until = now + LATE_MAX;
        }
    }

    /// When they are given up; `None` before the end was seen.
    pub(super) fn until(&self) -> Option<Instant> {
        self.ended.map(|(_, until)| until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minute_begins_with_the_end_and_anew_with_what_may_lie_before_the_chunks() {
        let (begun, end) = (Instant::now(), UnixMillis::from_millis(1_000_000_000));
        let after = |seconds| begun + Duration::from_secs(seconds);
        let mut late = Late::default();
        late.reads_over(end.minus(STORED_WITHIN), after(0));
        assert_eq!(late.until(), None, "the end was not seen");
        late.ended(end, after(10));
        late.ended(end, after(20));
        assert_eq!(late.until(), Some(after(70)));
        // An hour of other answers lies before the chunks: reading that may take its minutes.
        late.reads_over(end.minus(STORED_WITHIN), after(60));
        assert_eq!(late.until(), Some(after(120)));
        late.reads_over(end.plus(STORED_WITHIN), after(110));
        assert_eq!(late.until(), Some(after(170)));
        // What is stored later than that has nothing to do with it.
        late.reads_over(end.plus(STORED_WITHIN * 2), after(160));
        assert_eq!(late.until(), Some(after(170)));
    }
}
