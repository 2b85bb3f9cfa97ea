//! What the incarnations of one process share: its own, and those that it adopted.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::subject::Lane;

/// Held for the audit lane: 1 MiB, more than a thousand events, or a sixteenth of a small bound.
///
/// Who was refused and what was managed while the outbox is full is just what is asked afterwards.
const AUDIT_BYTES: u64 = 1024 * 1024;

/// The room that adopted incarnations take, and what went wrong in the lanes of all of them.
#[derive(Debug, Default)]
pub(super) struct Joint {
    adopted_bytes: AtomicU64,
    gaps: [AtomicU64; 3],
    alarms: [AtomicBool; 3],
    set_aside: [AtomicU64; 3],
}

impl Joint {
    /// Notes that an adopted incarnation takes so many bytes of the bound.
    pub(super) fn take(&self, bytes: u64) {
        self.adopted_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes that it takes so many bytes less.
    pub(super) fn give_back(&self, bytes: u64) {
        self.adopted_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts events that a lane held once and that cannot be read any more.
    pub(super) fn gap(&self, lane: Lane, missing: u64) {
        if let Some(gaps) = self.gaps.get(lane.index()) {
            gaps.fetch_add(missing, Ordering::Relaxed);
        }
    }

    /// Notes that somebody should look into a lane.
    pub(super) fn alarm(&self, lane: Lane) {
        if let Some(alarm) = self.alarms.get(lane.index()) {
            alarm.store(true, Ordering::Relaxed);
        }
    }

    /// Counts a record that the broker cannot take.
    pub(super) fn set_aside(&self, lane: Lane) {
        if let Some(set_aside) = self.set_aside.get(lane.index()) {
            set_aside.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Events lost since the start, by lane.
    pub(super) fn gaps(&self) -> [u64; 3] {
        counts(&self.gaps)
    }

    /// Records set aside since the start, by lane.
    pub(super) fn all_set_aside(&self) -> [u64; 3] {
        counts(&self.set_aside)
    }

    /// Whether somebody should look into a lane, by lane.
    pub(super) fn alarms(&self) -> [bool; 3] {
        let alarms = self.alarms.each_ref();
        alarms.map(|alarm| alarm.load(Ordering::Relaxed))
    }
}

fn counts(counters: &[AtomicU64; 3]) -> [u64; 3] {
    let counters = counters.each_ref();
    counters.map(|counter| counter.load(Ordering::Relaxed))
}

/// How much an incarnation may hold.
#[derive(Clone, Debug)]
pub(super) enum Budget {
    /// The own incarnation: the bound on records and reserves of all together, in bytes. What the
    /// adopted ones take of it shrinks while they are drained.
    Own { bound: u64, joint: Arc<Joint> },
    /// An adopted incarnation is not appended to; what it frees is the own one's again.
    Adopted { joint: Arc<Joint> },
}

impl Budget {
    /// Bytes that records and reserves may take at present.
    pub(super) fn limit(&self) -> u64 {
        match self {
            Self::Own { bound, joint } => {
                bound.saturating_sub(joint.adopted_bytes.load(Ordering::Relaxed))
            }
            Self::Adopted { .. } => 0,
        }
    }

    /// What of it is held for the audit lane.
    pub(super) fn held_for_audit(&self) -> u64 {
        match self {
            Self::Own { bound, .. } => AUDIT_BYTES.min(bound / 16),
            Self::Adopted { .. } => 0,
        }
    }

    /// What requests may take of it.
    pub(super) fn limit_of_requests(&self) -> u64 {
        self.limit().saturating_sub(self.held_for_audit())
    }

    pub(super) const fn joint(&self) -> &Arc<Joint> {
        match self {
            Self::Own { joint, .. } | Self::Adopted { joint } => joint,
        }
    }
}
