//! The limits in process: one lock, so all of a demand or nothing.

use std::time::Duration;

use hashlink::LinkedHashMap;
use nexus_events::{clock::UnixMillis, id::RequestId};

use super::{
    BUDGET_LIFE, Back, Demand, Held, LEASE, Need, SETTLED_LIFE, SUM_MAX, Seed, Settlement,
    Standing, Verdict,
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
    /// What was settled, so that it is not taken or charged again.
    settled: Expiring<(RequestId, Settling), ()>,
}

/// What of a request is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Settling {
    Places,
    Money,
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
    /// How much of the log that is read from.
    position: u64,
    spent: u64,
    /// The latest end of what was charged.
    last: UnixMillis,
    reserved: Leases,
}

impl Counters {
    pub(in crate::shared) fn new() -> Self {
        Self {
            rates: Expiring::new(BUCKETS_MAX),
            places: Expiring::new(BUCKETS_MAX),
            budgets: Expiring::new(BUCKETS_MAX),
            settled: Expiring::new(BUCKETS_MAX),
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
        Verdict {
            allowed,
            standings,
            room: None,
            is_unknown: false,
        }
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

    /// Gives back and charges; tells whether money was left to be read.
    pub(in crate::shared) fn settle(&mut self, now: UnixMillis, settlement: &Settlement) -> bool {
        let (lease, mut first, mut late) = (settlement.lease, None, false);
        for (name, back) in &settlement.shares {
            match *back {
                Back::Rate { rate, amount } => {
                    let bucket = Bucket::at(self.rates.get(name.as_str(), now), rate, now);
                    let parts = bucket.parts.saturating_add(rate.signed_parts(amount));
                    self.put_rate(
                        name,
                        now,
                        rate,
                        parts.clamp(-rate.debt_max(), rate.capacity()),
                    );
                }
                Back::Place => self.free_place(name, now, lease),
                Back::Budget { spent, .. } => {
                    let first = *first.get_or_insert_with(|| {
                        let known = self.settled.get(&(lease, Settling::Money), now).is_some();
                        if !known {
                            self.note_settled(lease, Settling::Money, now, SETTLED_LIFE);
                        }
                        !known
                    });
                    let budget = self.budget(name, now);
                    budget.reserved.swept(now).remove(lease);
                    if first && spent > 0 {
                        late |= !budget.charge(settlement.ended, spent);
                    }
                }
            }
        }
        late
    }

    fn free_place(&mut self, name: &str, now: UnixMillis, lease: RequestId) {
        self.note_settled(lease, Settling::Places, now, LEASE);
        if let Some(places) = self.places.get(name, now) {
            places.remove(lease);
        }
    }

    fn note_settled(&mut self, lease: RequestId, what: Settling, now: UnixMillis, life: Duration) {
        self.settled.insert((lease, what), (), now, life);
    }

    /// Renews leases; takes those again that are not there and were not settled.
    pub(in crate::shared) fn hold(&mut self, now: UnixMillis, held: &Held) {
        for (name, reserved) in &held.shares {
            let what = match reserved {
                None => Settling::Places,
                Some(_) => Settling::Money,
            };
            if self.settled.get(&(held.lease, what), now).is_some() {
                continue;
            }
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
            if *back == Back::Place {
                self.free_place(name, now, settlement.lease);
            }
        }
    }

    /// Notes what others and this gateway have spent together, as the shared state says it.
    pub(in crate::shared) fn note_spent(&mut self, name: &str, now: UnixMillis, used: u64) {
        let budget = self.budget(name, now);
        budget.before = used;
        budget.spent = 0;
        budget.reserved = Leases::default();
        // Whatever is settled from now on comes on top of it, whenever it ended.
        budget.since = UnixMillis::from_millis(i64::MIN);
    }

    /// Begins to count, all of it from now on with `afresh`; tells since when each is counted.
    pub(in crate::shared) fn open(
        &mut self,
        names: &[String],
        now: UnixMillis,
        afresh: bool,
    ) -> Vec<UnixMillis> {
        let open = |name: &String| {
            let budget = self.budget(name, now);
            if afresh {
                budget.begin_afresh(now);
            }
            budget.since
        };
        names.iter().map(open).collect()
    }

    /// Sets what was spent before.
    pub(in crate::shared) fn seed(&mut self, now: UnixMillis, seed: &Seed) {
        let budget = self.budget(&seed.bucket, now);
        if budget.since != seed.since {
            return;
        }
        let spent = seed.spent.min(SUM_MAX);
        if !seed.is_whole {
            budget.before = budget.before.max(spent);
        } else if seed.position >= budget.position {
            budget.before = spent;
            budget.position = seed.position;
        }
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
            position: 0,
            spent: 0,
            last: UnixMillis::from_millis(i64::MIN),
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
        // The debt was run into under a limit that may have been another one.
        let parts = known.parts.max(-rate.debt_max());
        Self {
            parts: parts.saturating_add(inflow).min(rate.capacity()),
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
    /// Charges what an exchange spent; `false` when that is to be read, because it ended before.
    fn charge(&mut self, ended: UnixMillis, spent: u64) -> bool {
        if ended < self.since {
            return false;
        }
        self.spent = self.spent.saturating_add(spent).min(SUM_MAX);
        self.last = self.last.max(ended);
        true
    }

    /// Counts from now on, and from after whatever was charged: that is to be read.
    fn begin_afresh(&mut self, now: UnixMillis) {
        self.since = now.max(self.last.plus(Duration::from_millis(1)));
        self.before = self.before.saturating_add(self.spent).min(SUM_MAX);
        self.position = 0;
        self.spent = 0;
    }

    fn used(&mut self, now: UnixMillis) -> u64 {
        let reserved = self.reserved.swept(now).sum;
        let sum = self.before.saturating_add(self.spent);
        sum.saturating_add(reserved)
    }
}

fn signed<T: TryInto<i64>>(value: T) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}
