//! What was spent of the month before the shared state began to count it.
//!
//! After a restart, or when Redis was emptied, a budget is counted from then
//! on; what was spent earlier in the month is in the read model. It is priced
//! by the prices that were in force, and told to the shared state, off the path
//! of requests: until then a budget counts what it has seen itself.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use nexus_events::{
    clock::UnixMillis,
    id::{KeyId, UserId},
};
use nexus_projector::read_model::UsedTokens;

use super::{
    Limits,
    admission::cost,
    demand::{budget_bucket, month_begin},
};
use crate::configuration::Snapshot;

/// Moments that a round reads the month for: 8. Budgets that began together share one.
const MOMENTS_MAX: usize = 8;

/// The tokens of a time.
#[derive(Clone, Debug)]
pub struct PastUsage {
    /// By key, provider, model and price.
    pub rows: Vec<UsedTokens>,
    /// Whether nothing of the time can be missing.
    pub is_whole: bool,
}

/// Where past usage can be read.
pub trait Past: Send + Sync {
    /// Tokens of the requests that came at or after `from` and ended before `before`; `None` while
    /// that cannot be told.
    fn usage(&self, from: UnixMillis, before: UnixMillis) -> BoxFuture<'_, Option<PastUsage>>;
}

/// A budget whose past is not known.
struct Unseeded {
    bucket: String,
    keys: Vec<KeyId>,
}

impl Limits {
    /// Tells the shared state what was spent before of every budget of which that is not known.
    pub async fn seed(&self, snapshot: &Snapshot, now: UnixMillis, past: &dyn Past) {
        let mut by_begin: BTreeMap<UnixMillis, Vec<Unseeded>> = BTreeMap::new();
        for budget in budgets(snapshot, now) {
            if let Some(opened) = self.shared.open(&budget.bucket).await
                && !opened.seeded
            {
                by_begin.entry(opened.since).or_default().push(budget);
            }
        }
        for (since, budgets) in by_begin.into_iter().take(MOMENTS_MAX) {
            let Some(usage) = past.usage(month_begin(now), since).await else {
                return;
            };
            for Unseeded { bucket, keys } in budgets {
                let of_budget = usage.rows.iter().filter(|row| keys.contains(&row.key_id));
                let spent = of_budget.fold(0_u64, |sum, row| {
                    let model = (&*row.model, row.provider_id);
                    sum.saturating_add(cost(snapshot, model, row.first_ms, row.tokens))
                });
                self.shared.seed(&bucket, spent, usage.is_whole).await;
            }
        }
    }
}

/// The month's budgets of all keys and users that have one.
fn budgets(snapshot: &Snapshot, now: UnixMillis) -> Vec<Unseeded> {
    let mut keys_of: BTreeMap<UserId, Vec<KeyId>> = BTreeMap::new();
    let mut all = Vec::new();
    for entry in snapshot.keys() {
        let key = &entry.resource;
        if let Some(user) = key.user_id {
            keys_of.entry(user).or_default().push(key.id);
        }
        if key.quota.monthly_budget.is_some() {
            all.push(Unseeded {
                bucket: budget_bucket(&format!("key:{}", key.id), now),
                keys: vec![key.id],
            });
        }
    }
    for entry in snapshot.users() {
        let user = &entry.resource;
        if user.quota.monthly_budget.is_some() {
            all.push(Unseeded {
                bucket: budget_bucket(&format!("user:{}", user.id), now),
                keys: keys_of.remove(&user.id).unwrap_or_default(),
            });
        }
    }
    all
}
