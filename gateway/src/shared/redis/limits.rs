//! The limits by Redis, and by this gateway's share of them while Redis is away.
//!
//! The places that this gateway holds are kept here as well, and so is what a
//! budget's last answer said: when Redis goes, the share begins from there.

use std::sync::atomic::Ordering;

use futures_util::future::{BoxFuture, FutureExt};
use nexus_events::{clock::UnixMillis, id::OutboxId};
use tokio::time::Instant;

use super::{ADMISSION_TIMEOUT, ANSWER_TIMEOUT, RedisState, Unanswered};
use crate::shared::{
    Decision, Rate,
    quota::{Demand, Held, Need, Quotas, Seed, Settled, Settlement, Standing, Verdict},
};

/// Leases that one call renews: 64, at most 640 keys, some 0.4 ms of Redis' time.
const RENEWED_MAX: usize = 64;

/// Budgets that one call opens: 64, some 0.1 ms of Redis' time.
const OPENED_MAX: usize = 64;

impl RedisState {
    async fn admit_demand(&self, demand: &Demand) -> Verdict {
        let answer: Result<Vec<i64>, Unanswered> = if self.health.may_ask(Instant::now()) {
            let call = self.quotas.admit(demand);
            self.tried(&call, ADMISSION_TIMEOUT).await
        } else {
            Err(Unanswered::Refused)
        };
        let read = answer.map(|answer| read(demand, &answer));
        if let Ok(Some(verdict)) = read {
            self.note(demand, &verdict);
            return verdict;
        }
        let gateways = self.gateways.load(Ordering::Relaxed);
        Verdict {
            is_unknown: read != Err(Unanswered::Refused),
            ..self.local.admit_share(demand, gateways)
        }
    }

    fn note(&self, demand: &Demand, verdict: &Verdict) {
        self.local.count(|counters, now| {
            for (share, standing) in demand.shares.iter().zip(&verdict.standings) {
                match share.need {
                    Need::Budget { limit, .. } => {
                        let left = u64::try_from(standing.left).unwrap_or(0);
                        counters.note_spent(&share.bucket, now, limit.saturating_sub(left));
                    }
                    Need::Place { .. } if verdict.allowed => {
                        let held = Held {
                            lease: demand.lease,
                            shares: vec![(share.bucket.clone(), None)],
                        };
                        counters.hold(now, &held);
                    }
                    Need::Place { .. } | Need::Rate { .. } => {}
                }
            }
        });
    }

    async fn settle_all(&self, settlement: &Settlement) -> Settled {
        let settled = if self.health.may_ask(Instant::now()) {
            let call = self.quotas.settle(settlement);
            match self.tried::<bool>(&call, ANSWER_TIMEOUT).await {
                Ok(false) => Settled::Done,
                Ok(true) => Settled::Late,
                Err(unanswered) => unanswered.into(),
            }
        } else {
            Settled::Away
        };
        self.local.count(|counters, now| match settled {
            Settled::Done | Settled::Late => counters.free_places(now, settlement),
            // However often it is told again, this gateway counts it once.
            Settled::Away | Settled::Unknown if settlement.counted_here => {}
            Settled::Away | Settled::Unknown => {
                counters.settle(now, settlement);
            }
        });
        settled
    }

    async fn renew_all(&self, held: &[Held]) {
        self.local.count(|counters, now| {
            let places = held.iter().map(Held::places);
            places.for_each(|one| counters.hold(now, &one));
        });
        for some in held.chunks(RENEWED_MAX) {
            self.ask::<()>(&self.quotas.renew(some)).await;
        }
    }

    async fn count_gateways(&self, gateway: OutboxId) {
        if let Some(living) = self.ask::<u32>(&self.quotas.beat(gateway)).await {
            self.gateways.store(living.max(1), Ordering::Relaxed);
            self.gateways_shown.set(living.into());
        }
    }

    async fn open_budgets(&self, buckets: &[String], afresh: bool) -> Option<Vec<UnixMillis>> {
        let mut all = Vec::with_capacity(buckets.len());
        for some in buckets.chunks(OPENED_MAX) {
            let call = self.quotas.open(some, afresh);
            let since: Vec<i64> = self.ask(&call).await?;
            all.extend(since.into_iter().map(UnixMillis::from_millis));
        }
        Some(all)
    }
}

impl From<Unanswered> for Settled {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Refused => Self::Away,
            Unanswered::Unknown => Self::Unknown,
        }
    }
}

impl Held {
    /// Without what is reserved of budgets.
    fn places(&self) -> Self {
        let places = self
            .shares
            .iter()
            .filter(|(_, reserved)| reserved.is_none());
        Self {
            lease: self.lease,
            shares: places.cloned().collect(),
        }
    }
}

/// An answer of the script; `None` for one that is none.
fn read(demand: &Demand, answer: &[i64]) -> Option<Verdict> {
    let (all, rest) = answer.split_first()?;
    let (pairs, []) = rest.as_chunks::<2>() else {
        return None;
    };
    if pairs.len() != demand.shares.len() + usize::from(demand.room.is_some()) {
        return None;
    }
    let room = demand.room.as_ref().zip(pairs.last());
    let room = room.filter(|_| *all == 1).map(|(room, [fits, left])| {
        let parts = u64::try_from(*left).unwrap_or(0);
        Decision::of(room.rate, *fits == 1, parts)
    });
    let both = demand.shares.iter().zip(pairs);
    let standings = both.map(|(share, [fits, left])| Standing {
        need: share.need,
        fits: *fits == 1,
        left: *left,
    });
    Some(Verdict {
        allowed: *all == 1,
        standings: standings.collect(),
        room,
        is_unknown: false,
    })
}

impl Quotas for RedisState {
    fn take<'a>(&'a self, bucket: &'a str, rate: Rate) -> BoxFuture<'a, Decision> {
        self.take_one(bucket, rate).boxed()
    }

    fn peek<'a>(&'a self, bucket: &'a str, rate: Rate) -> BoxFuture<'a, Decision> {
        self.peek_one(bucket, rate).boxed()
    }

    fn admit<'a>(&'a self, demand: &'a Demand) -> BoxFuture<'a, Verdict> {
        self.admit_demand(demand).boxed()
    }

    fn settle<'a>(&'a self, settlement: &'a Settlement) -> BoxFuture<'a, Settled> {
        self.settle_all(settlement).boxed()
    }

    fn renew<'a>(&'a self, held: &'a [Held]) -> BoxFuture<'a, ()> {
        self.renew_all(held).boxed()
    }

    fn beat(&self, gateway: OutboxId) -> BoxFuture<'_, ()> {
        self.count_gateways(gateway).boxed()
    }

    fn open<'a>(
        &'a self,
        buckets: &'a [String],
        afresh: bool,
    ) -> BoxFuture<'a, Option<Vec<UnixMillis>>> {
        self.open_budgets(buckets, afresh).boxed()
    }

    fn seed<'a>(&'a self, seed: &'a Seed) -> BoxFuture<'a, bool> {
        async move {
            let call = self.quotas.seed(seed);
            self.ask::<()>(&call).await.is_some()
        }
        .boxed()
    }
}
