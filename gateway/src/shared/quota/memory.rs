//! The limits in process: one lock, so all of a demand or nothing.

use std::time::Duration;

use hashlink::LinkedHashMap;
use nexus_events::{clock::UnixMillis, id::RequestId};

use super::{
    BUDGET_LIFE, Back, DEBT_MAX, Demand, Held, LEASE, Need, Opened, SUM_MAX, Settlement, Standing,
    Verdict,
};
use crate::shared::{Rate, expiring::Expiring};

/// Buckets of each sort: 100 000, some 20 MiB together. One that is forgotten starts full again.
const BUCKETS_MAX: usize = 100_000;

/// Every limit that this process counts.
#[derive(Debug)]
pub(in crate::shared) struct Counters {
    rates: Expiring<Box<str>, Bucket>,
    places: Expiring<Box<str>, Leases>,
    budgets: Expiring<Box<str>, Budget>,
}

/// A token bucket that can be in debt.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    parts: i64,
    at: UnixMillis,
}

/// Leases in the order in which they end, and the sum of what they reserve.
#[derive(Debug, Default)]
struct Leases {
    entries: LinkedHashMap<RequestId, (UnixMillis, u64)>,
    sum: u64,
}

/// A month's money.
#[derive(Debug)]
struct Budget {
    since: UnixMillis,
    /// Spent before `since`, as far as it is known.
    before: u64,
    seeded: bool,
    spent: u64,
    reserved: Leases,
}

impl Counters {
    pub(in crate::shared) fn new() -> Self {
        Self {
            rates: Expiring::new(BUCKETS_MAX),
            places: Expiring::new(BUCKETS_MAX),
            budgets: Expiring::new(BUCKETS_MAX),
        }
    }

    /// Decides on this gateway's share: the whole limits for the only one.
    pub(in crate::shared) fn admit(
        &mut self,
        now: UnixMillis,
        demand: &Demand,
        gateways: u32,
    ) -> Verdict {
        let stands = |share: &super::Share| {
            let known = self.known_spent(&share.bucket, now, share.need);
            self.standing(&share.bucket, now, share.need.share_of(gateways, known))
        };
        let mut standings: Vec<Standing> = demand.shares.iter().map(stands).collect();
        let allowed = standings.iter().all(|standing| standing.fits);
        if allowed {
            for (share, standing) in demand.shares.iter().zip(&mut standings) {
                self.take(&share.bucket, now, demand.lease, standing);
            }
        }
        Verdict { allowed, standings }
    }

    fn known_spent(&mut self, name: &str, now: UnixMillis, need: Need) -> u64 {
        match need {
            Need::Budget { .. } => self
                .budgets
                .get(name, now)
                .map_or(0, |budget| budget.before),
            Need::Rate { .. } | Need::Place { .. } => 0,
        }
    }

    fn standing(&mut self, name: &str, now: UnixMillis, need: Need) -> Standing {
        let (left, wanted) = match need {
            Need::Rate { rate, amount } => {
                let bucket = Bucket::at(self.rates.get(name, now), rate, now);
                (bucket.parts, rate.parts(amount))
            }
            Need::Place { limit } => {
                let places = self.places.get(name, now);
                let taken = places.map_or(0, |leases| leases.swept(now).entries.len());
                (i64::from(limit) - signed(taken), 1)
            }
            Need::Budget { limit, amount } => {
                let used = self.budgets.get(name, now).map_or(0, |one| one.used(now));
                (signed(limit) - signed(used), signed(amount))
            }
        };
        Standing {
            need,
            fits: left >= wanted,
            left,
        }
    }

    fn take(&mut self, name: &str, now: UnixMillis, lease: RequestId, standing: &mut Standing) {
        match standing.need {
            Need::Rate { rate, amount } => {
                standing.left -= rate.parts(amount);
                self.put_rate(name, now, rate, standing.left);
            }
            Need::Place { .. } => {
                standing.left -= 1;
                self.hold_place(name, now, lease);
            }
            Need::Budget { amount, .. } => {
                standing.left -= signed(amount);
                let budget = self.budget(name, now);
                budget.reserved.put(lease, now, amount);
            }
        }
    }

    /// Gives back and charges.
    pub(in crate::shared) fn settle(&mut self, now: UnixMillis, settlement: &Settlement) {
        for (name, back) in &settlement.shares {
            match *back {
                Back::Rate { rate, amount } => {
                    let bucket = Bucket::at(self.rates.get(name.as_str(), now), rate, now);
                    let parts = bucket.parts.saturating_add(rate.signed_parts(amount));
                    self.put_rate(name, now, rate, parts.clamp(-DEBT_MAX, rate.capacity()));
                }
                Back::Place => {
                    if let Some(places) = self.places.get(name.as_str(), now) {
                        places.remove(settlement.lease);
                    }
                }
                Back::Budget { spent, .. } => {
                    let budget = self.budget(name, now);
                    let was_there = budget.reserved.swept(now).remove(settlement.lease);
                    if was_there || !settlement.again {
                        budget.spent = budget.spent.saturating_add(spent).min(SUM_MAX);
                    }
                }
            }
        }
    }

    /// Renews leases; takes those again that are not there.
    pub(in crate::shared) fn hold(&mut self, now: UnixMillis, held: &Held) {
        for (name, reserved) in &held.shares {
            match reserved {
                None => self.hold_place(name, now, held.lease),
                Some(amount) => {
                    let budget = self.budget(name, now);
                    budget.reserved.put(held.lease, now, *amount);
                }
            }
        }
    }

    /// Frees the place of a request, and nothing else.
    pub(in crate::shared) fn free_places(&mut self, now: UnixMillis, settlement: &Settlement) {
        for (name, back) in &settlement.shares {
            if *back == Back::Place
                && let Some(places) = self.places.get(name.as_str(), now)
            {
                places.remove(settlement.lease);
            }
        }
    }

    /// Notes what others and this gateway have spent together, as the shared state says it.
    pub(in crate::shared) fn note_spent(&mut self, name: &str, now: UnixMillis, used: u64) {
        let budget = self.budget(name, now);
        budget.before = used;
        budget.spent = 0;
        budget.reserved = Leases::default();
    }

    pub(in crate::shared) fn open(&mut self, name: &str, now: UnixMillis) -> Opened {
        let budget = self.budget(name, now);
        Opened {
            since: budget.since,
            seeded: budget.seeded,
        }
    }

    pub(in crate::shared) fn seed(
        &mut self,
        name: &str,
        now: UnixMillis,
        before: u64,
        whole: bool,
    ) {
        let budget = self.budget(name, now);
        budget.before = before.min(SUM_MAX);
        budget.seeded = whole;
    }

    fn put_rate(&mut self, name: &str, now: UnixMillis, rate: Rate, parts: i64) {
        let at = self.rates.get(name, now).map_or(now, |bucket| bucket.at);
        let bucket = Bucket {
            parts,
            at: at.max(now),
        };
        // When it is full again it is what an absent one is.
        let left = rate.until(rate.capacity(), parts) + Duration::from_millis(1);
        self.rates.insert(name.into(), bucket, now, left);
    }

    fn hold_place(&mut self, name: &str, now: UnixMillis, lease: RequestId) {
        let places = &mut self.places;
        let leases = places.get_or_insert(name.into(), now, LEASE, Leases::default);
        leases.put(lease, now, 0);
    }

    fn budget(&mut self, name: &str, now: UnixMillis) -> &mut Budget {
        let new = || Budget {
            since: now,
            before: 0,
            seeded: false,
            spent: 0,
            reserved: Leases::default(),
        };
        self.budgets
            .get_or_insert(name.into(), now, BUDGET_LIFE, new)
    }
}

impl Bucket {
    /// The bucket with what has flowed in until now; a full one where there is none.
    fn at(known: Option<&mut Self>, rate: Rate, now: UnixMillis) -> Self {
        let Some(known) = known else {
            return Self {
                parts: rate.capacity(),
                at: now,
            };
        };
        // A clock that was set back brings nothing and takes nothing.
        let passed_ms = (now.as_millis() - known.at.as_millis()).max(0);
        let inflow = passed_ms.saturating_mul(i64::from(rate.limit));
        Self {
            parts: known.parts.saturating_add(inflow).min(rate.capacity()),
            at: known.at.max(now),
        }
    }
}

impl Leases {
    /// Without those that have ended.
    fn swept(&mut self, now: UnixMillis) -> &mut Self {
        while let Some((_, (ends, amount))) = self.entries.front()
            && *ends <= now
        {
            self.sum = self.sum.saturating_sub(*amount);
            self.entries.pop_front();
        }
        self
    }

    fn put(&mut self, lease: RequestId, now: UnixMillis, amount: u64) {
        self.remove(lease);
        self.sum = self.sum.saturating_add(amount);
        self.entries.insert(lease, (now.plus(LEASE), amount));
    }

    fn remove(&mut self, lease: RequestId) -> bool {
        let removed = self.entries.remove(&lease);
        let amount = removed.map_or(0, |(_, amount)| amount);
        self.sum = self.sum.saturating_sub(amount);
        removed.is_some()
    }
}

impl Budget {
    fn used(&mut self, now: UnixMillis) -> u64 {
        let reserved = self.reserved.swept(now).sum;
        let sum = self.before.saturating_add(self.spent);
        sum.saturating_add(reserved)
    }
}

fn signed<T: TryInto<i64>>(value: T) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}
