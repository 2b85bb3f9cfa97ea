//! Shared state of a single gateway: in process, bounded, gone with the process.
//!
//! Also what a gateway falls back on while Redis is away.

use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, ready};
use nexus_events::{
    clock::{SharedClock, UnixMillis},
    id::{ConversationId, KeyId, OutboxId},
    message_id::MessageId,
};
use parking_lot::Mutex;

use super::{
    AnswerKey, CONVERSATIONS_MAX, Decision, ExchangeEnd, KeptAnswer, Prefix, PrefixQuery, Rate,
    Remembered, ScopeId, SharedState,
    answers::Answers,
    expiring::Expiring,
    quota::{Demand, Held, Quotas, Room, Seed, Settled, Settlement, Verdict, memory::Counters},
};

/// Ends of exchanges: 400 000, some 60 MiB when full.
///
/// Enough for 220 exchanges a second over half an hour; beyond that those that
/// nobody came back to for longest go first.
const ENDS_MAX: usize = 400_000;

/// Holders of conversation ids: 100 000, some 10 MiB. Only ids that a client made up itself.
const HOLDERS_MAX: usize = 100_000;

/// Buckets: 100 000, some 10 MiB. One that is forgotten starts full again.
const BUCKETS_MAX: usize = 100_000;

/// Shared state in process.
#[derive(Debug)]
pub struct MemoryState {
    clock: SharedClock,
    window: Duration,
    ends: Mutex<Expiring<(ScopeId, MessageId), Ends>>,
    holders: Mutex<Expiring<ConversationId, KeyId>>,
    buckets: Mutex<Expiring<Box<str>, Bucket>>,
    counters: Mutex<Counters>,
    answers: Mutex<Answers>,
}

impl MemoryState {
    /// Nothing yet; prefixes and holders are kept for `window` after their last use.
    pub fn new(clock: SharedClock, window: Duration) -> Self {
        Self {
            clock,
            window,
            ends: Mutex::new(Expiring::new(ENDS_MAX)),
            holders: Mutex::new(Expiring::new(HOLDERS_MAX)),
            buckets: Mutex::new(Expiring::new(BUCKETS_MAX)),
            counters: Mutex::new(Counters::new()),
            answers: Mutex::default(),
        }
    }

    /// [`SharedState::find_prefix`], at once.
    pub fn find(&self, query: PrefixQuery<'_>) -> Option<Prefix> {
        let now = self.clock.now();
        let mut ends = self.ends.lock();
        let found = query.ids.iter().enumerate().find_map(|(index, id)| {
            let end = ends.get(&(query.scope, *id), now)?.of(query.conversation)?;
            Some(Prefix { index, end })
        })?;
        for id in query.ids.iter().skip(found.index).rev() {
            ends.renew(&(query.scope, *id), now, self.window);
        }
        Some(found)
    }

    /// [`SharedState::remember`], at once.
    pub fn keep(&self, scope: ScopeId, ids: &[MessageId], end: ExchangeEnd, at: Remembered) {
        let now = self.clock.now();
        let age = match at {
            Remembered::Now => Duration::ZERO,
            Remembered::Ago(age) => age,
        };
        let Some(left) = self.window.checked_sub(age).filter(|left| !left.is_zero()) else {
            return;
        };
        let mut ends = self.ends.lock();
        for id in ids {
            let key = (scope, *id);
            match (ends.get(&key, now), at) {
                (None, _) => ends.insert(key, Ends::one(end), now, left),
                (Some(known), Remembered::Ago(_)) => known.add_last(end),
                (Some(known), Remembered::Now) => {
                    known.add_first(end);
                    ends.renew(&key, now, left);
                }
            }
        }
    }

    /// [`SharedState::holder`], at once.
    pub fn hold(&self, conversation: ConversationId, claimant: Option<KeyId>) -> Option<KeyId> {
        let now = self.clock.now();
        let mut holders = self.holders.lock();
        if let Some(holder) = holders.get(&conversation, now).copied() {
            holders.renew(&conversation, now, self.window);
            return Some(holder);
        }
        let claimant = claimant?;
        holders.insert(conversation, claimant, now, self.window);
        Some(claimant)
    }

    /// [`SharedState::answer`], at once.
    pub fn known_answer(&self, key: AnswerKey) -> Option<KeptAnswer> {
        self.answers.lock().get(&key, self.clock.now())
    }

    /// [`SharedState::keep_answer`], at once.
    pub fn keep_one(&self, key: AnswerKey, answer: KeptAnswer, ttl: Duration) {
        let now = self.clock.now();
        self.answers.lock().insert(key, answer, now, ttl);
    }

    /// [`Quotas::take`], at once.
    pub fn take_one(&self, name: &str, rate: Rate) -> Decision {
        let now = self.clock.now();
        let mut buckets = self.buckets.lock();
        let mut bucket = buckets
            .get(name, now)
            .copied()
            .unwrap_or_else(|| Bucket::full(rate, now));
        let decision = bucket.take(rate, now);
        // After a whole window without use it is full, which is what an absent one is.
        buckets.insert(name.into(), bucket, now, rate.window);
        decision
    }

    /// [`Quotas::peek`], at once.
    pub fn peek_one(&self, name: &str, rate: Rate) -> Decision {
        let now = self.clock.now();
        let known = self.buckets.lock().get(name, now).copied();
        let mut bucket = known.unwrap_or_else(|| Bucket::full(rate, now));
        bucket.fill(rate, now);
        Decision::of(rate, bucket.has_one(rate), bucket.parts)
    }
}

impl MemoryState {
    /// Runs what it is given on the counters of the limits, with the time.
    pub(super) fn count<T>(&self, what: impl FnOnce(&mut Counters, UnixMillis) -> T) -> T {
        let now = self.clock.now();
        what(&mut self.counters.lock(), now)
    }
}

impl MemoryState {
    /// Decides on this gateway's share: the whole limits for the only one.
    pub(super) fn admit_share(&self, demand: &Demand, gateways: u32) -> Verdict {
        let mut verdict = self.count(|counters, now| counters.admit(now, demand, gateways));
        if verdict.allowed
            && let Some(Room { bucket, rate }) = &demand.room
        {
            verdict.room = Some(self.take_one(bucket, rate.share_of(gateways)));
        }
        verdict
    }
}

impl Quotas for MemoryState {
    fn take<'a>(&'a self, bucket: &'a str, rate: Rate) -> BoxFuture<'a, Decision> {
        ready(self.take_one(bucket, rate)).boxed()
    }

    fn peek<'a>(&'a self, bucket: &'a str, rate: Rate) -> BoxFuture<'a, Decision> {
        ready(self.peek_one(bucket, rate)).boxed()
    }

    fn admit<'a>(&'a self, demand: &'a Demand) -> BoxFuture<'a, Verdict> {
        ready(self.admit_share(demand, 1)).boxed()
    }

    fn settle<'a>(&'a self, settlement: &'a Settlement) -> BoxFuture<'a, Settled> {
        let late = self.count(|counters, now| counters.settle(now, settlement));
        let settled = if late { Settled::Late } else { Settled::Done };
        ready(settled).boxed()
    }

    fn renew<'a>(&'a self, held: &'a [Held]) -> BoxFuture<'a, ()> {
        self.count(|counters, now| held.iter().for_each(|one| counters.hold(now, one)));
        ready(()).boxed()
    }

    fn beat(&self, _: OutboxId) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }

    fn open<'a>(
        &'a self,
        buckets: &'a [String],
        afresh: bool,
    ) -> BoxFuture<'a, Option<Vec<UnixMillis>>> {
        let opened = self.count(|counters, now| counters.open(buckets, now, afresh));
        ready(Some(opened)).boxed()
    }

    fn seed<'a>(&'a self, seed: &'a Seed) -> BoxFuture<'a, bool> {
        self.count(|counters, now| counters.seed(now, seed));
        ready(true).boxed()
    }
}

impl SharedState for MemoryState {
    fn find_prefix<'a>(&'a self, query: PrefixQuery<'a>) -> BoxFuture<'a, Option<Prefix>> {
        ready(self.find(query)).boxed()
    }

    fn remember<'a>(
        &'a self,
        scope: ScopeId,
        ids: &'a [MessageId],
        end: ExchangeEnd,
        at: Remembered,
    ) -> BoxFuture<'a, ()> {
        self.keep(scope, ids, end, at);
        ready(()).boxed()
    }

    fn holder(
        &self,
        conversation: ConversationId,
        claimant: Option<KeyId>,
    ) -> BoxFuture<'_, Option<KeyId>> {
        ready(self.hold(conversation, claimant)).boxed()
    }

    fn answer(&self, key: AnswerKey) -> BoxFuture<'_, Option<KeptAnswer>> {
        ready(self.known_answer(key)).boxed()
    }

    fn keep_answer(&self, key: AnswerKey, answer: KeptAnswer, ttl: Duration) -> BoxFuture<'_, ()> {
        self.keep_one(key, answer, ttl);
        ready(()).boxed()
    }
}

/// The exchanges that ended with one message, the latest first, one for each conversation.
#[derive(Debug)]
struct Ends {
    latest: ExchangeEnd,
    // Nearly always empty, and then without an allocation.
    others: Vec<ExchangeEnd>,
}

impl Ends {
    const fn one(end: ExchangeEnd) -> Self {
        Self {
            latest: end,
            others: Vec::new(),
        }
    }

    fn of(&self, conversation: Option<ConversationId>) -> Option<ExchangeEnd> {
        let Some(conversation) = conversation else {
            return Some(self.latest);
        };
        std::iter::once(&self.latest)
            .chain(&self.others)
            .find(|end| end.conversation == conversation)
            .copied()
    }

    fn add_first(&mut self, end: ExchangeEnd) {
        let before = std::mem::replace(&mut self.latest, end);
        self.others
            .retain(|other| other.conversation != end.conversation);
        if before.conversation != end.conversation {
            self.others.insert(0, before);
            self.others.truncate(CONVERSATIONS_MAX - 1);
        }
    }

    fn add_last(&mut self, end: ExchangeEnd) {
        if self.of(Some(end.conversation)).is_none() && self.others.len() + 1 < CONVERSATIONS_MAX {
            self.others.push(end);
        }
    }
}

/// A token bucket; [`Decision::of`] says in what it counts.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    parts: u64,
    at: UnixMillis,
}

impl Bucket {
    fn full(rate: Rate, now: UnixMillis) -> Self {
        Self {
            parts: u64::from(rate.limit) * rate.window_ms(),
            at: now,
        }
    }

    fn take(&mut self, rate: Rate, now: UnixMillis) -> Decision {
        self.fill(rate, now);
        let allowed = self.has_one(rate);
        if allowed {
            self.parts -= rate.window_ms();
        }
        Decision::of(rate, allowed, self.parts)
    }

    /// Adds what the time has brought.
    fn fill(&mut self, rate: Rate, now: UnixMillis) {
        let limit = u64::from(rate.limit);
        let capacity = limit * rate.window_ms();
        // A clock that was set back brings nothing and takes nothing.
        let passed_ms = u64::try_from(now.as_millis() - self.at.as_millis()).unwrap_or(0);
        self.parts = capacity.min(self.parts.saturating_add(passed_ms.saturating_mul(limit)));
        self.at = self.at.max(now);
    }

    fn has_one(self, rate: Rate) -> bool {
        self.parts >= rate.window_ms()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nexus_events::clock::ManualClock;

    use super::*;

    #[test]
    fn a_clock_that_is_set_back_breaks_no_bucket() {
        let clock = Arc::new(ManualClock::at(UnixMillis::from_millis(10_000)));
        let rate = Rate {
            limit: 1,
            window: Duration::from_secs(1),
        };
        let mut bucket = Bucket::full(rate, clock_now(&clock));
        assert!(bucket.take(rate, clock_now(&clock)).allowed);
        let earlier = UnixMillis::from_millis(5_000);
        assert_eq!(
            bucket.take(rate, earlier).retry_after,
            Duration::from_secs(1)
        );
        clock.advance(Duration::from_secs(1));
        assert!(bucket.take(rate, clock_now(&clock)).allowed);
    }

    fn clock_now(clock: &ManualClock) -> UnixMillis {
        nexus_events::clock::Clock::now(clock)
    }
}
