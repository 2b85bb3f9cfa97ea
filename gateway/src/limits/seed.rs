//! What was spent of the month before the shared state began to count it.
//!
//! After a restart, or when Redis was emptied, a budget is counted from then
//! on; what ended earlier in the month is in the read model. It is priced by
//! the prices that were in force, and told to the shared state, off the path
//! of requests: until then a budget counts what it has seen itself.
//!
//! *Who reads.* Each gateway, once for each moment that it sees a budget counted
//! from: only it knows when everything that it has recorded can be read. The
//! reading that has seen most of the log counts.
//!
//! *When it is read again.* When a settlement comes too late for the counter, so
//! that the reading may have come too early for its event. And a budget is
//! counted afresh, with all of the month to be read, where settlements may have
//! been lost: after each start and what it adopted, after the sweeper settled
//! something, when settlements could not be told for too long, and once a day.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
};

use futures_util::future::BoxFuture;
use nexus_events::{
    clock::UnixMillis,
    id::{KeyId, UserId},
};
use nexus_projector::read_model::UsedTokens;
use parking_lot::Mutex;

use super::{
    Limits,
    admission::cost,
    demand::{budget_bucket, month_begin},
};
use crate::{configuration::Snapshot, shared::quota::Seed};

/// Moments that a round reads up to: 64. Each is one look into the index, behind the one before.
const MOMENTS_MAX: usize = 64;

/// How much of the log can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The sequence of the last exchange event.
    pub sequence: u64,
    /// Whether that covers all that this gateway had recorded when it asked.
    pub is_whole: bool,
}

/// Where past usage can be read.
pub trait Past: Send + Sync {
    /// How much of it can be read, once that is all of it or it takes too long; `None` while nothing
    /// can be.
    fn reached(&self) -> BoxFuture<'_, Option<Reached>>;

    /// Tokens of the requests that came at or after `from` and ended in a time; `None` while that
    /// cannot be told.
    fn usage(
        &self,
        from: UnixMillis,
        ended: Range<UnixMillis>,
    ) -> BoxFuture<'_, Option<Vec<UsedTokens>>>;
}

/// What this gateway has read already.
#[derive(Debug, Default)]
pub(super) struct Seeded {
    /// Budget → the moment up to which all was read. As many as there are budgets this month.
    read: Mutex<HashMap<String, UnixMillis>>,
    afresh: AtomicBool,
}

/// A budget, and the keys whose requests it pays.
struct Budget {
    bucket: String,
    keys: Vec<KeyId>,
}

/// Budgets whose past is to be read.
struct Unread {
    budgets: Vec<(Budget, u64)>,
    of_key: HashMap<KeyId, Vec<usize>>,
    by_since: BTreeMap<UnixMillis, Vec<usize>>,
}

impl Seeded {
    /// Reads again what was spent of these budgets.
    pub(super) fn read_again<'a>(&self, buckets: impl Iterator<Item = &'a String>) {
        let mut read = self.read.lock();
        for bucket in buckets {
            read.remove(bucket);
        }
    }

    /// Counts all budgets afresh.
    pub(super) fn begin_afresh(&self) {
        self.afresh.store(true, Ordering::Release);
    }

    fn unread(&self, budgets: Vec<Budget>, since: &[UnixMillis]) -> Unread {
        let mut read = self.read.lock();
        let mut known = HashMap::with_capacity(budgets.len());
        let mut unread = Unread {
            budgets: Vec::new(),
            of_key: HashMap::new(),
            by_since: BTreeMap::new(),
        };
        for (budget, since) in budgets.into_iter().zip(since) {
            if let Some((bucket, upto)) = read.remove_entry(&budget.bucket)
                && upto == *since
            {
                known.insert(bucket, upto);
                continue;
            }
            let place = unread.budgets.len();
            for key in &budget.keys {
                unread.of_key.entry(*key).or_default().push(place);
            }
            unread.by_since.entry(*since).or_default().push(place);
            unread.budgets.push((budget, 0));
        }
        // Without those of last month, and of keys that are gone.
        *read = known;
        unread
    }
}

impl Unread {
    fn add(&mut self, snapshot: &Snapshot, rows: &[UsedTokens]) {
        for row in rows {
            let model = (&*row.model, row.provider_id);
            let cost = cost(snapshot, model, row.first_ms, row.tokens);
            for place in self.of_key.get(&row.key_id).into_iter().flatten() {
                if let Some((_, spent)) = self.budgets.get_mut(*place) {
                    *spent = spent.saturating_add(cost);
                }
            }
        }
    }
}

impl Limits {
    /// Counts all budgets afresh: something may have been spent that nobody told.
    pub fn begin_afresh(&self) {
        self.seeded.begin_afresh();
    }

    /// Tells the shared state what was spent before of every budget of which that is not read.
    pub async fn seed(&self, snapshot: &Snapshot, now: UnixMillis, past: &dyn Past) {
        let budgets = budgets(snapshot, now);
        let names: Vec<String> = budgets.iter().map(|one| one.bucket.clone()).collect();
        // Not before it can be read: what was counted until now is worth more than nothing.
        let afresh = self.seeded.afresh.load(Ordering::Acquire) && past.reached().await.is_some();
        if afresh {
            self.seeded.afresh.store(false, Ordering::Release);
        }
        let Some(since) = self.shared.open(&names, afresh).await else {
            if afresh {
                self.seeded.begin_afresh();
            }
            return;
        };
        let mut unread = self.seeded.unread(budgets, &since);
        if unread.budgets.is_empty() {
            return;
        }
        // Asked now, so that it covers what was recorded before the budgets were opened.
        let Some(reached) = past.reached().await else {
            return;
        };
        let month = month_begin(now);
        let mut begin = month;
        let moments = std::mem::take(&mut unread.by_since);
        for (since, places) in moments.into_iter().take(MOMENTS_MAX) {
            let Some(rows) = past.usage(month, begin..since).await else {
                return;
            };
            unread.add(snapshot, &rows);
            begin = begin.max(since);
            for place in places {
                if let Some((budget, spent)) = unread.budgets.get(place) {
                    self.tell(budget, (since, *spent), reached).await;
                }
            }
        }
    }

    async fn tell(&self, budget: &Budget, (since, spent): (UnixMillis, u64), reached: Reached) {
        let seed = Seed {
            bucket: budget.bucket.clone(),
            since,
            spent,
            position: reached.sequence,
            is_whole: reached.is_whole,
        };
        if self.shared.seed(&seed).await && reached.is_whole {
            self.seeded.read.lock().insert(seed.bucket, since);
        }
    }
}

/// The month's budgets of all keys and users that have one.
fn budgets(snapshot: &Snapshot, now: UnixMillis) -> Vec<Budget> {
    let mut keys_of: BTreeMap<UserId, Vec<KeyId>> = BTreeMap::new();
    let mut all = Vec::new();
    for entry in snapshot.keys() {
        let key = &entry.resource;
        if let Some(user) = key.user_id {
            keys_of.entry(user).or_default().push(key.id);
        }
        if key.quota.monthly_budget.is_some() {
            all.push(Budget {
                bucket: budget_bucket(&format!("key:{}", key.id), now),
                keys: vec![key.id],
            });
        }
    }
    for entry in snapshot.users() {
        let user = &entry.resource;
        if user.quota.monthly_budget.is_some() {
            all.push(Budget {
                bucket: budget_bucket(&format!("user:{}", user.id), now),
                keys: keys_of.remove(&user.id).unwrap_or_default(),
            });
        }
    }
    all
}
