//! What one request holds of the limits, from its admission to its settlement.
//!
//! Whatever becomes of the request, what it held is settled: at the end of its
//! exchange with what it used, or, when it is dropped on the way, in the
//! background with nothing used.

use std::sync::Arc;

use http::HeaderMap;
use nexus_events::{
    clock::UnixMillis,
    config_event::PricedTokens,
    id::{ProviderId, RequestId},
};

use super::ledger::Ledger;
use crate::{
    configuration::{Candidate, Snapshot},
    error::ApiError,
    shared::{
        Decision,
        quota::{Back, Counted, Demand, Held, Need, Settlement, Verdict},
    },
};

/// What one request holds of the limits.
#[derive(Debug)]
pub struct Admission {
    ledger: Arc<Ledger>,
    request: RequestId,
    shares: Vec<Taken>,
    /// Every budget that the request's cost is charged to.
    budgets: Vec<String>,
    snapshot: Arc<Snapshot>,
    at: UnixMillis,
    headers: HeaderMap,
    room: Option<Decision>,
    is_settled: bool,
}

/// A part of a limit that was taken.
#[derive(Debug)]
struct Taken {
    counted: Counted,
    bucket: String,
    need: Need,
}

/// What an exchange used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// Tokens.
    pub tokens: u64,
    /// What they cost, in millionths of the currency.
    pub cost: u64,
    /// The time in its terminal event.
    pub ended: UnixMillis,
}

/// How a request ended, for its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It never began: all comes back.
    Never,
    /// It used something.
    Used(Spent),
}

impl Admission {
    pub(super) fn new(
        ledger: &Arc<Ledger>,
        (demand, verdict): (Demand, &Verdict),
        budgets: Vec<String>,
        (snapshot, at): (&Arc<Snapshot>, UnixMillis),
        headers: HeaderMap,
    ) -> Self {
        let both = demand.shares.into_iter().zip(&verdict.standings);
        let shares = both.map(|(share, standing)| Taken {
            counted: share.counted,
            bucket: share.bucket,
            // As it was counted, for it is given back to the same count.
            need: standing.need,
        });
        let admission = Self {
            ledger: Arc::clone(ledger),
            request: demand.lease,
            shares: shares.collect(),
            budgets,
            snapshot: Arc::clone(snapshot),
            at,
            headers,
            room: verdict.room,
            is_settled: false,
        };
        ledger.hold(admission.held());
        admission
    }

    /// What there was of the provider's limit, where that was asked.
    pub const fn room(&self) -> Option<Decision> {
        self.room
    }

    /// The headers that tell how the limits stand.
    pub const fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The same on an error.
    pub fn told_by(&self, error: ApiError) -> ApiError {
        self.headers.iter().fold(error, |error, (name, value)| {
            error.with_header(name.clone(), value.clone())
        })
    }

    /// What so many tokens cost at a provider, in millionths of the currency.
    pub fn cost(&self, candidate: Option<&Candidate>, tokens: PricedTokens) -> u64 {
        candidate.map_or(0, |candidate| {
            let model = &candidate.model;
            cost(
                &self.snapshot,
                (&model.model_name, model.provider_id),
                self.at,
                tokens,
            )
        })
    }

    /// Gives everything back: the request went to no provider.
    pub async fn cancel(&mut self) {
        self.end(Outcome::Never).await;
    }

    /// Frees the places; what else is held waits for its settlement.
    pub async fn free_places(&mut self) {
        let places = self
            .shares
            .extract_if(.., |taken| taken.counted == Counted::Concurrent);
        let places: Vec<_> = places.map(|taken| (taken.bucket, Back::Place)).collect();
        if places.is_empty() {
            return;
        }
        self.ledger.hold(self.held());
        self.ledger
            .settle(Settlement {
                lease: self.request,
                shares: places,
                ended: self.at,
                counted_here: false,
            })
            .await;
    }

    /// Settles with what was used.
    pub async fn settle(&mut self, spent: Spent) {
        self.end(Outcome::Used(spent)).await;
    }

    async fn end(&mut self, outcome: Outcome) {
        self.is_settled = true;
        self.ledger.release(self.request);
        let settlement = self.settlement(outcome);
        if !settlement.shares.is_empty() {
            self.ledger.settle(settlement).await;
        }
    }

    fn settlement(&self, outcome: Outcome) -> Settlement {
        let mut shares = Vec::new();
        for taken in &self.shares {
            let back = match (taken.need, outcome) {
                (Need::Place { .. }, _) => Some(Back::Place),
                (Need::Rate { rate, amount }, Outcome::Never) => Some(Back::Rate {
                    rate,
                    amount: i64::from(amount.min(rate.limit)),
                }),
                (Need::Rate { rate, amount }, Outcome::Used(Spent { tokens, .. })) => {
                    let reserved = i64::from(amount.min(rate.limit));
                    let used = i64::try_from(tokens).unwrap_or(i64::MAX);
                    (taken.counted == Counted::Tokens).then(|| Back::Rate {
                        rate,
                        amount: reserved.saturating_sub(used),
                    })
                }
                // Below.
                (Need::Budget { .. }, _) => None,
            };
            shares.extend(back.map(|back| (taken.bucket.clone(), back)));
        }
        let (spent, ended) = match outcome {
            Outcome::Never => (0, self.at),
            Outcome::Used(spent) => (spent.cost, spent.ended),
        };
        for bucket in &self.budgets {
            let reserved = self.reserved(bucket);
            if reserved > 0 || spent > 0 {
                shares.push((bucket.clone(), Back::Budget { reserved, spent }));
            }
        }
        Settlement {
            lease: self.request,
            shares,
            ended,
            counted_here: false,
        }
    }

    /// What is reserved of a budget.
    fn reserved(&self, bucket: &str) -> u64 {
        let mut budgets = self.shares.iter().filter(|taken| taken.bucket == bucket);
        budgets.find_map(Taken::reserved).unwrap_or(0)
    }

    fn held(&self) -> Held {
        let leases = self.shares.iter().filter_map(|taken| match taken.need {
            Need::Place { .. } => Some((taken.bucket.clone(), None)),
            Need::Budget { amount, .. } => Some((taken.bucket.clone(), Some(amount))),
            Need::Rate { .. } => None,
        });
        Held {
            lease: self.request,
            shares: leases.collect(),
        }
    }
}

impl Taken {
    const fn reserved(&self) -> Option<u64> {
        match self.need {
            Need::Budget { amount, .. } => Some(amount),
            Need::Rate { .. } | Need::Place { .. } => None,
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if !self.is_settled {
            self.ledger.release(self.request);
            self.ledger.settle_later(self.settlement(Outcome::Never));
        }
    }
}

/// What so many tokens of a provider's model cost at the price of a moment.
pub(super) fn cost(
    snapshot: &Snapshot,
    (model, provider): (&str, ProviderId),
    at: UnixMillis,
    tokens: PricedTokens,
) -> u64 {
    let price = snapshot.price_at(model, provider, at);
    price.map_or(0, |price| price.cost_micros(tokens).min(COST_MAX))
}

/// What one request costs at most: 10^15 millionths, as much as a budget holds.
const COST_MAX: u64 = 1_000_000_000_000_000;
