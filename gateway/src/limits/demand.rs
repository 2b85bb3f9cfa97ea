//! Which limits hold for a request, and how it is refused by one of them.

use std::time::Duration;

use chrono::{Datelike, Months, NaiveTime};
use http::StatusCode;
use nexus_events::{
    clock::UnixMillis,
    config_event::{Key, Quota, User},
    id::RequestId,
};

use super::spelled;
use crate::{
    error::ApiError,
    shared::{
        Rate,
        quota::{Counted, Demand, Need, Share, Standing, Verdict, Whose},
    },
};

/// The bucket of the whole hub.
const HUB_BUCKET: &str = "hub";

/// The time of the limits on requests and tokens.
const MINUTE: Duration = Duration::from_mins(1);

/// When to come back for a place: after 1 s; nobody knows when one is free.
const PLACE_WAIT: Duration = Duration::from_secs(1);

/// What a request wants of the limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) request: RequestId,
    pub(super) key: &'a Key,
    pub(super) user: Option<&'a User>,
    pub(super) now: UnixMillis,
    /// Tokens at most.
    pub(super) tokens: u32,
    /// Money at most, in millionths of the currency.
    pub(super) cost: u64,
    pub(super) currency: &'a str,
}

impl Wanted<'_> {
    /// The demand, under the hub's limit and those of the key and its user.
    pub(super) fn demand(&self, hub: Option<Rate>) -> Demand {
        let mut shares = Vec::new();
        shares.extend(hub.map(|rate| Share {
            whose: Whose::Hub,
            counted: Counted::Requests,
            bucket: HUB_BUCKET.to_owned(),
            need: Need::Rate { rate, amount: 1 },
        }));
        self.add(&mut shares, Whose::Key, &self.key.quota);
        if let Some(user) = self.user {
            self.add(&mut shares, Whose::User, &user.quota);
        }
        Demand {
            lease: self.request,
            shares,
            room: None,
        }
    }

    fn add(&self, shares: &mut Vec<Share>, whose: Whose, quota: &Quota) {
        let minute = |limit, amount| Need::Rate {
            rate: Rate {
                limit,
                window: MINUTE,
            },
            amount,
        };
        let requests = quota.requests_per_minute.map(|limit| minute(limit, 1));
        let tokens = quota.tokens_per_minute;
        let tokens = tokens.map(|limit| minute(limit, self.tokens));
        let places = quota.concurrent_requests;
        let places = places.map(|limit| Need::Place { limit });
        // What costs nothing may go on when the money is spent.
        let amount = Some(self.cost).filter(|cost| *cost > 0);
        let money = quota.monthly_budget.zip(amount);
        let money = money.map(|(limit, amount)| Need::Budget { limit, amount });
        for (counted, need) in [
            (Counted::Requests, requests),
            (Counted::Tokens, tokens),
            (Counted::Concurrent, places),
            (Counted::Money, money),
        ] {
            let bucket = || self.bucket(whose, counted);
            shares.extend(need.map(|need| Share {
                whose,
                counted,
                bucket: bucket(),
                need,
            }));
        }
    }

    /// Names of the budgets that a cost is charged to.
    pub(super) fn budgets(&self) -> Vec<String> {
        let of_user = self.user.map(|user| (Whose::User, &user.quota));
        let both = std::iter::once((Whose::Key, &self.key.quota)).chain(of_user);
        let limited = both.filter(|(_, quota)| quota.monthly_budget.is_some());
        limited
            .map(|(whose, _)| self.bucket(whose, Counted::Money))
            .collect()
    }

    fn bucket(&self, whose: Whose, counted: Counted) -> String {
        let owner = match (whose, self.user) {
            (Whose::Hub, _) => return HUB_BUCKET.to_owned(),
            (Whose::User, Some(user)) => format!("user:{}", user.id),
            (Whose::Key, _) | (Whose::User, None) => format!("key:{}", self.key.id),
        };
        match counted {
            Counted::Requests => format!("{owner}:requests"),
            Counted::Tokens => format!("{owner}:tokens"),
            Counted::Concurrent => format!("{owner}:places"),
            Counted::Money => budget_bucket(&owner, self.now),
        }
    }

    /// The refusal by the limit that takes longest to have room again.
    pub(super) fn refused(&self, demand: &Demand, verdict: &Verdict) -> ApiError {
        let both = demand.shares.iter().zip(&verdict.standings);
        let unfit = both.filter(|(_, standing)| !standing.fits);
        let longest = unfit.max_by_key(|(_, standing)| self.wait(standing));
        let Some((share, standing)) = longest else {
            return ApiError::internal("refused by no limit");
        };
        let wait = self.wait(standing);
        let (kind, code) = match share.counted {
            Counted::Requests | Counted::Concurrent => ("requests", "rate_limit_exceeded"),
            Counted::Tokens => ("tokens", "rate_limit_exceeded"),
            Counted::Money => ("insufficient_quota", "insufficient_quota"),
        };
        let message = self.sentence(share, standing, wait);
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, kind, code, message).with_retry_after(wait)
    }

    fn sentence(&self, share: &Share, standing: &Standing, wait: Duration) -> String {
        let who = match (share.whose, self.user) {
            (Whose::Hub, _) => "The hub".to_owned(),
            (Whose::User, Some(user)) => format!("The user '{}'", user.name),
            (Whose::Key, _) | (Whose::User, None) => format!("The key '{}'", self.key.name),
        };
        let again = format!("Try again in {}.", spelled(wait));
        match share.need {
            Need::Rate { rate, .. } if share.whose == Whose::Hub => {
                format!("The hub takes {} requests a second. {again}", rate.limit)
            }
            Need::Rate { rate, amount } if share.counted == Counted::Tokens => format!(
                "{who} may use {} tokens a minute, and this request may use {amount}. {again}",
                rate.limit
            ),
            Need::Rate { rate, .. } => {
                format!("{who} may send {} requests a minute. {again}", rate.limit)
            }
            Need::Place { limit } => {
                format!("{who} may have {limit} requests under way at once. {again}")
            }
            Need::Budget { limit, amount } => {
                let left = u64::try_from(standing.left).unwrap_or(0);
                let money = |micros| spelled_money(micros, self.currency);
                format!(
                    "{who} may spend {} a month; {} are left, and this request may cost {}. The next month begins in {}.",
                    money(limit),
                    money(left),
                    money(amount),
                    spelled(wait)
                )
            }
        }
    }

    /// How long until the limit has room.
    fn wait(&self, standing: &Standing) -> Duration {
        match standing.need {
            Need::Rate { rate, amount } => rate.until(rate.parts(amount), standing.left),
            Need::Place { .. } => PLACE_WAIT,
            Need::Budget { .. } => {
                let left = next_month(self.now).as_millis() - self.now.as_millis();
                Duration::from_millis(u64::try_from(left).unwrap_or(0))
            }
        }
    }
}

/// The bucket of an owner's money in the month of a moment.
pub(super) fn budget_bucket(owner: &str, at: UnixMillis) -> String {
    let month = at.to_datetime();
    format!("{owner}:budget:{:04}-{:02}", month.year(), month.month())
}

/// When the month of a moment began, UTC.
pub(super) fn month_begin(at: UnixMillis) -> UnixMillis {
    let day = at.to_datetime().date_naive();
    let first = day.with_day(1).unwrap_or(day).and_time(NaiveTime::MIN);
    UnixMillis::from_millis(first.and_utc().timestamp_millis())
}

/// When the month after that of a moment begins, UTC.
fn next_month(at: UnixMillis) -> UnixMillis {
    let begin = month_begin(at).to_datetime();
    let next = begin.checked_add_months(Months::new(1)).unwrap_or(begin);
    UnixMillis::from_millis(next.timestamp_millis())
}

/// Money as people write it: `12.5 USD`.
fn spelled_money(micros: u64, currency: &str) -> String {
    let (whole, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let fraction = format!(".{fraction:06}");
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    format!("{whole}{fraction} {currency}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> UnixMillis {
        UnixMillis::parse_rfc3339(text).unwrap()
    }

    #[test]
    fn months_are_those_of_the_calendar_in_utc() {
        let last = at("2026-12-31T23:59:59.999Z");
        assert_eq!(budget_bucket("key:1", last), "key:1:budget:2026-12");
        assert_eq!(month_begin(last), at("2026-12-01T00:00:00Z"));
        assert_eq!(next_month(last), at("2027-01-01T00:00:00Z"));
        let first = next_month(last);
        assert_eq!(budget_bucket("key:1", first), "key:1:budget:2027-01");
        assert_eq!(month_begin(first), first);
    }

    #[test]
    fn money_is_spelled_without_what_says_nothing() {
        for (micros, expected) in [
            (0, "0 USD"),
            (1, "0.000001 USD"),
            (2_500_000, "2.5 USD"),
            (100_000_000, "100 USD"),
        ] {
            assert_eq!(spelled_money(micros, "USD"), expected);
        }
    }
}
