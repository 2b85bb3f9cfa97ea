//! Ends for which the own outbox has no room: one of them holds up no other.
//!
//! It is tried again, for there is room when the broker has taken some of the outbox, or when a long
//! answer has ended that holds its reserve. An answer that is larger than the outbox never has room;
//! so after some tries the end is written without it. The chunks have it, and so does the count.

use std::collections::BTreeMap;

use nexus_events::id::RequestId;

use crate::exchange::lost::Settlement;

/// So many times there must be no room for an end before it is written without its answer: 8, which
/// is some 15 s of an adopter and two minutes of the sweeper.
const TRIES_MAX: u32 = 8;

/// How often there was no room for which request's end.
#[derive(Debug, Default)]
pub(super) struct NoRoom {
    tries: BTreeMap<RequestId, u32>,
}

impl NoRoom {
    /// Leaves the answer out of an end that was tried often enough.
    pub(super) fn strip(&self, request: RequestId, settlement: &mut Settlement) {
        let tries = self.tries.get(&request).copied().unwrap_or(0);
        if tries >= TRIES_MAX {
            settlement.strip();
        }
    }

    /// Notes that there was none for this one.
    pub(super) fn note(&mut self, request: RequestId) {
        let tries = self.tries.entry(request).or_default();
        *tries = tries.saturating_add(1);
    }

    /// Notes that this one was written.
    pub(super) fn forget(&mut self, request: RequestId) {
        self.tries.remove(&request);
    }
}
