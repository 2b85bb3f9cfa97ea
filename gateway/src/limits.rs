//! How much may be asked for, and what a client is told about it.
//!
//! *What it is.* A request passes every limit that holds for it, all at once,
//! or gets 429: the requests a second of the whole hub; requests and tokens a
//! minute, requests at once and money a month of its key and of the key's user.
//! What it gets is an [`Admission`], which is settled with what was really used.
//! A provider's own limit decides whom a request goes to: one that is at its
//! limit is passed over, and a request is refused when all of its providers are.
//!
//! *How it counts.* A rate is a token bucket: it holds a whole second's or
//! minute's worth, so a burst of that size passes at once and the rate holds
//! from then on. Tokens and money are guessed beforehand ([`estimate`]),
//! reserved, and settled at the end; what was used beyond is a debt.
//!
//! *What it never does.* No exchange waits for its settlement longer than for
//! any other call of the shared state, and none fails by it.

mod admission;
mod demand;
pub mod estimate;
mod ledger;
mod pending;
mod seed;
mod told;

use std::{sync::Arc, time::Duration};

use nexus_events::{
    clock::UnixMillis,
    config_event::{Key, PricedTokens, Provider},
    id::{OutboxId, RequestId},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

pub use self::{
    admission::{Admission, Spent},
    seed::{Past, Reached},
};
use self::{demand::Wanted, estimate::Estimate, ledger::Ledger, pending::Pending, seed::Seeded};
use crate::{
    configuration::{Candidate, Snapshot},
    error::ApiError,
    routing::Route,
    shared::{
        Decision, Quotas, Rate,
        quota::{Demand, Room, Verdict},
    },
};

/// WebSocket connections of a gateway: 4 096. Beside its requests each costs some 40 KiB.
const WEBSOCKETS_MAX: usize = 4096;

/// Answers that are read from the log at once: 256, each with two consumers at the broker.
const RESUMED_MAX: usize = 256;

/// The limits in force.
#[derive(Clone, Debug)]
pub struct Limits {
    shared: Arc<dyn Quotas>,
    ledger: Arc<Ledger>,
    seeded: Arc<Seeded>,
    hub: Option<Rate>,
    /// Room for WebSocket connections.
    websockets: Arc<Semaphore>,
    /// Room for answers that are read from the log.
    resumed: Arc<Semaphore>,
}

/// A request that asks to be let in.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// Its id.
    pub request: RequestId,
    /// Whose key it came with.
    pub key: &'a Key,
    /// The configuration in force.
    pub snapshot: &'a Arc<Snapshot>,
    /// Who is to be asked first.
    pub candidate: &'a Candidate,
    /// When it came.
    pub at: UnixMillis,
    /// What it may use.
    pub estimate: Estimate,
    /// Whether that candidate is asked for sure, so that its limit can be asked with the others.
    pub wants_room: bool,
}

impl Limits {
    /// At most so many requests a second; 0 for no limit.
    pub fn new(shared: Arc<dyn Quotas>, requests_per_second: u32) -> Self {
        let hub = (requests_per_second > 0).then_some(Rate {
            limit: requests_per_second,
            window: Duration::from_secs(1),
        });
        let seeded = Arc::new(Seeded::default());
        Self {
            ledger: Arc::new(Ledger::new(Arc::clone(&shared), Arc::clone(&seeded))),
            seeded,
            shared,
            hub,
            websockets: Arc::new(Semaphore::new(WEBSOCKETS_MAX)),
            resumed: Arc::new(Semaphore::new(RESUMED_MAX)),
        }
    }

    /// Room for a WebSocket connection, until it is dropped.
    ///
    /// # Errors
    /// 503: there is none.
    pub fn websocket(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        room(&self.websockets, "WebSocket connections are open")
    }

    /// Room for an answer that is read from the log, until it is dropped.
    ///
    /// # Errors
    /// 503: there is none.
    pub fn resumed(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        room(&self.resumed, "answers are read from the log")
    }

    /// Takes a share of the limit of the route's provider, or goes on to the next one that has room.
    ///
    /// `first`: what the admission found with the provider that it was asked for.
    ///
    /// # Errors
    /// 429: none has; with the time until the first one has.
    pub async fn find_room(
        &self,
        route: &mut Route,
        mut first: Option<Decision>,
    ) -> Result<(), ApiError> {
        let mut soonest = Duration::MAX;
        loop {
            let found = match first.take() {
                Some(decision) if decision.allowed => Ok(()),
                Some(decision) => Err(decision.retry_after),
                None => self.provider(&route.current().provider.resource).await,
            };
            let Err(wait) = found else {
                return Ok(());
            };
            soonest = soonest.min(wait);
            if !route.skip() {
                let message = format!(
                    "The providers of this model take no more requests for now. Try again in {}.",
                    spelled(soonest)
                );
                return Err(ApiError::rate_limited(message, soonest));
            }
        }
    }

    /// How a provider's limit stands now, without taking anything of it; `None` where it has none.
    pub async fn of_provider(&self, provider: &Provider) -> Option<Decision> {
        let (bucket, rate) = bucket(provider)?;
        Some(self.shared.peek(&bucket, rate).await)
    }

    /// Takes a share of a provider's limit; an error says how long until there is one.
    async fn provider(&self, provider: &Provider) -> Result<(), Duration> {
        let Some((bucket, rate)) = bucket(provider) else {
            return Ok(());
        };
        let decision = self.shared.take(&bucket, rate).await;
        if decision.allowed {
            Ok(())
        } else {
            Err(decision.retry_after)
        }
    }

    /// Takes what a request may use of every limit that holds for it, or nothing.
    ///
    /// # Errors
    /// 429 with `Retry-After` and the limits' headers; it names the limit, and whose it is.
    ///
    /// # Cancel safety
    /// Dropped, what may have been taken is given back in the background.
    pub async fn admit(&self, asking: Asking<'_>) -> Result<Admission, ApiError> {
        let Asking {
            key,
            snapshot,
            candidate,
            at,
            estimate,
            ..
        } = asking;
        let tokens = PricedTokens {
            input: estimate.input,
            cached_input: 0,
            output: estimate.output,
        };
        let model = (&*candidate.model.model_name, candidate.model.provider_id);
        let wanted = Wanted {
            request: asking.request,
            key,
            user: key
                .user_id
                .and_then(|id| snapshot.user(id))
                .map(|entry| &*entry.resource),
            now: at,
            tokens: estimate.total(),
            cost: admission::cost(snapshot, model, at, tokens),
            currency: snapshot.currency(),
        };
        let room = bucket(&candidate.provider.resource).filter(|_| asking.wants_room);
        let demand = Demand {
            room: room.map(|(bucket, rate)| Room { bucket, rate }),
            ..wanted.demand(self.hub)
        };
        let pending = Pending::new(&self.ledger, demand, at);
        let verdict = self.decide(pending.demand()).await;
        let demand = pending.decided(&verdict);
        let headers = told::headers(&demand, &verdict);
        if !verdict.allowed {
            let error = wanted.refused(&demand, &verdict);
            return Err(headers.iter().fold(error, |error, (name, value)| {
                error.with_header(name.clone(), value.clone())
            }));
        }
        let counted = (demand, &verdict);
        let budgets = wanted.budgets();
        let prices = (snapshot, at);
        Ok(Admission::new(
            &self.ledger,
            counted,
            budgets,
            prices,
            headers,
        ))
    }

    async fn decide(&self, demand: &Demand) -> Verdict {
        if demand.shares.is_empty() && demand.room.is_none() {
            // Nothing to ask: no round trip for a hub without limits.
            return Verdict {
                allowed: true,
                standings: Vec::new(),
                room: None,
                is_unknown: false,
            };
        }
        self.shared.admit(demand).await
    }

    /// Keeps what this gateway's requests hold, until `over`.
    pub async fn keep_up(&self, gateway: OutboxId, over: &CancellationToken) {
        self.ledger.keep_up(gateway, over).await;
    }
}

fn room(of: &Arc<Semaphore>, what: &str) -> Result<OwnedSemaphorePermit, ApiError> {
    Arc::clone(of).try_acquire_owned().map_err(|error| {
        let message = format!("Too many {what}; try again later.");
        ApiError::unavailable("overloaded", message).with_source(error)
    })
}

/// A duration as `OpenAI` spells it: `20ms`, `1.5s`, `6m0s`.
fn spelled(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    let fraction = match millis {
        0 => String::new(),
        _ => format!(".{millis:03}").trim_end_matches('0').to_owned(),
    };
    match (seconds, millis) {
        (0, 1..) => format!("{millis}ms"),
        (0..60, _) => format!("{seconds}{fraction}s"),
        _ => format!("{}m{}{fraction}s", seconds / 60, seconds % 60),
    }
}

/// Where a provider's limit is counted; `None` where it has none.
fn bucket(provider: &Provider) -> Option<(String, Rate)> {
    let limit = provider.rate_limit.filter(|limit| *limit > 0)?;
    let window = Duration::from_secs(1);
    Some((format!("provider:{}", provider.id), Rate { limit, window }))
}

#[cfg(test)]
mod tests;
