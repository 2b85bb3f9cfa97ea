//! An admission that is being asked for.
//!
//! Nobody knows yet what the shared state took for it. A client that hangs up
//! meanwhile, or a Redis that answered too late, must not leave a place or a
//! reservation behind for as long as a lease holds.

use std::sync::Arc;

use nexus_events::clock::UnixMillis;

use super::ledger::Ledger;
use crate::shared::quota::{Back, Demand, Need, Settlement, Share, Verdict};

/// A demand whose verdict is awaited. Dropped before, all leases that it may have taken end.
///
/// What it took of a rate stays taken: whether it was is not known, and it flows back.
#[derive(Debug)]
pub(super) struct Pending<'a> {
    ledger: &'a Arc<Ledger>,
    demand: Demand,
    at: UnixMillis,
    is_decided: bool,
}

impl<'a> Pending<'a> {
    pub(super) const fn new(ledger: &'a Arc<Ledger>, demand: Demand, at: UnixMillis) -> Self {
        Self {
            ledger,
            demand,
            at,
            is_decided: false,
        }
    }

    pub(super) const fn demand(&self) -> &Demand {
        &self.demand
    }

    /// The demand, now that it is known what came of it.
    ///
    /// Refused here and perhaps let in by the shared state: what that took is given back.
    pub(super) fn decided(mut self, verdict: &Verdict) -> Demand {
        self.is_decided = verdict.allowed || !verdict.is_unknown;
        let shares = if self.is_decided {
            std::mem::take(&mut self.demand.shares)
        } else {
            self.demand.shares.clone()
        };
        Demand {
            lease: self.demand.lease,
            shares,
            room: None,
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if self.is_decided {
            return;
        }
        let leases = self.demand.shares.iter().filter_map(lease);
        self.ledger.settle_later(Settlement {
            lease: self.demand.lease,
            shares: leases.collect(),
            ended: self.at,
            counted_here: false,
        });
    }
}

fn lease(share: &Share) -> Option<(String, Back)> {
    let back = match share.need {
        Need::Place { .. } => Back::Place,
        Need::Budget { amount, .. } => Back::Budget {
            reserved: amount,
            spent: 0,
        },
        Need::Rate { .. } => return None,
    };
    Some((share.bucket.clone(), back))
}
