//! The limits of keys and users in the file: the same four members in both.

use nexus_events::config_event::Quota;

use super::{
    plan::{Planner, Shown},
    problem::Problem,
    section::{Field, Holds, Place},
};
use crate::admin::quota::{CONCURRENT_MAX, MONEY_MAX};

pub(super) const REQUESTS: Field = limit(
    "requests_per_minute",
    "Requests a minute; left out: no limit.",
    u32::MAX as u64,
);

pub(super) const TOKENS: Field = limit(
    "tokens_per_minute",
    "Tokens a minute, of prompts and answers; left out: no limit.",
    u32::MAX as u64,
);

pub(super) const CONCURRENT: Field = limit(
    "concurrent_requests",
    "Requests under way at once; left out: no limit.",
    CONCURRENT_MAX as u64,
);

pub(super) const BUDGET: Field = limit(
    "monthly_budget",
    "Money a calendar month (UTC), in millionths of the currency that prices have; left out: no limit.",
    MONEY_MAX,
);

const fn limit(name: &'static str, about: &'static str, most: u64) -> Field {
    Field {
        name,
        stored: name,
        about,
        holds: Holds::Count(most),
        required: false,
    }
}

/// Refuses a budget where there is no price: nothing would ever count in it, and nobody has said
/// what currency it is in.
pub(super) fn refused(planner: &Planner<'_>, place: &Place, quota: &Quota) -> Option<Problem> {
    quota.monthly_budget?;
    if planner.now.prices().next().is_some() {
        return None;
    }
    let message = "'monthly_budget' counts nothing as long as there is no price: the first price says what currency budgets are in, so declare one in the same file, or enter one before";
    Some(place.problem(Some(BUDGET.name), message))
}

/// What the members hold, in the order above.
pub(super) fn shown(quota: &Quota) -> [Shown; 4] {
    [
        Shown::optional(quota.requests_per_minute),
        Shown::optional(quota.tokens_per_minute),
        Shown::optional(quota.concurrent_requests),
        Shown::optional(quota.monthly_budget),
    ]
}
