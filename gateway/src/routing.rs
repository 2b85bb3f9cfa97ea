//! From the name that a client asks for to a provider, and to the next one when it fails.
//!
//! *What it is.* A configured route names its targets with priorities and
//! weights; a configured model without one has the implicit route, all who
//! offer it. [`Routing::find`] opens a [`Route`] for one request: whom it asks
//! now ([`choice`]), whom after that, how often. What every gateway learns of
//! the providers by itself stands beside it: what it costs to ask ([`load`]),
//! whether to ask at all ([`breaker`]), how many retries are left ([`budget`]).
//!
//! *What it promises.* A retry happens before the first byte only, never at the
//! same provider and model twice unless there is no other, and within the
//! gateway's budget. No provider is refused to a client by a guess of ours:
//! where all breakers are open, one is asked all the same. Each transition of a
//! breaker is an audit event.
//!
//! *What it costs.* One read lock and two small lists a request, and for each who
//! may answer some locks of a few instructions. None is held over an await.

pub mod breaker;
pub mod budget;
pub mod chance;
pub mod choice;
pub mod explain;
pub mod load;
pub mod reach;
mod refusals;
mod route;
mod standing;

use std::{collections::HashMap, sync::Arc, time::Duration};

use nexus_events::{
    audit_event::{self, BreakerChanged, BreakerState},
    clock::SharedClock,
    config_event::Provider,
    envelope::{EventData, Stamp},
    id::{ModelId, ProviderId},
    outbox::Outbox,
};
use parking_lot::RwLock;
use tokio::time::Instant;

use self::{
    breaker::Transition,
    budget::Budget,
    chance::Chance,
    choice::{Blocked, Standing, Why},
    load::Load,
    standing::Known,
};
pub use self::{
    route::{Next, Route, target},
    standing::{Failing, LastFailure, Reached, Seen},
};
use crate::{
    configuration::{Alternative, Candidate, ProviderRecord, Snapshot},
    metrics::Metrics,
};

/// Finds providers and knows how they fare; a cheap handle.
#[derive(Clone, Debug)]
pub struct Routing {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    registry: RwLock<Registry>,
    budget: Budget,
    chance: Chance,
    clock: SharedClock,
    outbox: Outbox,
    metrics: Arc<Metrics>,
}

/// What is known of providers and of their models: of those that are configured only.
#[derive(Debug, Default)]
struct Registry {
    providers: HashMap<ProviderId, Arc<Known>>,
    models: HashMap<ModelId, Arc<Load>>,
}

/// One of those who may answer a request.
#[derive(Debug)]
struct Contender {
    candidate: Candidate,
    priority: u8,
    weight: u16,
    known: Arc<Known>,
    load: Arc<Load>,
    spent: bool,
}

impl Routing {
    /// Nothing is known of anybody yet.
    pub fn new(outbox: Outbox, clock: SharedClock, metrics: Arc<Metrics>, chance: Chance) -> Self {
        let inner = Inner {
            registry: RwLock::default(),
            budget: Budget::full(Instant::now()),
            chance,
            clock,
            outbox,
            metrics,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The route for what a client asks for, to one provider (by id or name) or to any; `None`
    /// when nobody offers it.
    pub fn find(&self, snapshot: &Snapshot, model: &str, provider: Option<&str>) -> Option<Route> {
        let alternatives = snapshot.alternatives(model)?;
        let meant = alternatives.list.iter().filter(|one| {
            let provider_of = &one.candidate.provider.resource;
            provider.is_none_or(|wanted| {
                provider_of.name == wanted || provider_of.id.to_string() == wanted
            })
        });
        let contenders = self.inner.contenders(snapshot, meant);
        self.inner.budget.request();
        Route::open(&self.inner, alternatives.route.clone(), contenders)
    }

    /// What is known of a provider; nothing yet of one that was never asked.
    pub fn seen(&self, provider: &Provider) -> Option<Seen> {
        let registry = self.inner.registry.read();
        let known = registry.providers.get(&provider.id);
        known
            .filter(|known| known.is_of(provider))
            .map(|known| known.seen())
    }

    /// A look at a provider ended.
    fn looked(&self, snapshot: &Snapshot, record: &Arc<ProviderRecord>, reachable: bool) {
        let Some(known) = self.inner.provider(snapshot, record) else {
            return;
        };
        let at = self.inner.clock.now();
        if let Some(transition) = known.looked(Reached { reachable, at }) {
            self.inner.tell(&record.resource, transition);
        }
    }
}

impl Inner {
    /// Those who may answer, with what is known of each.
    fn contenders<'a>(
        &self,
        snapshot: &Snapshot,
        list: impl Iterator<Item = &'a Alternative> + Clone,
    ) -> Vec<Contender> {
        let known: Option<Vec<_>> = {
            let registry = self.registry.read();
            list.clone()
                .map(|one| registry.get(&one.candidate))
                .collect()
        };
        let known =
            known.unwrap_or_else(|| self.enter(snapshot, list.clone().map(|one| &one.candidate)));
        let both = list.zip(known);
        both.map(|(one, (known, load))| Contender {
            candidate: one.candidate.clone(),
            priority: one.priority,
            weight: one.weight,
            known,
            load,
            spent: false,
        })
        .collect()
    }

    /// Enters newcomers, and strikes off who is not configured any more: so there are never more
    /// than were configured at one time.
    fn enter<'a>(
        &self,
        snapshot: &Snapshot,
        candidates: impl Iterator<Item = &'a Candidate>,
    ) -> Vec<(Arc<Known>, Arc<Load>)> {
        let now = Instant::now();
        let mut moved = Vec::new();
        let mut registry = self.registry.write();
        registry.keep_those_of(snapshot);
        let known = candidates
            .map(|candidate| {
                let record = &candidate.provider;
                let load = registry.models.entry(candidate.model.id).or_default();
                let load = Arc::clone(load);
                (registry.provider(record, now, &mut moved), load)
            })
            .collect();
        drop(registry);
        self.show_open();
        for (record, transition) in moved {
            self.tell(&record.resource, transition);
        }
        known
    }

    /// A provider's entry; `None` when the configuration does not hold it any more.
    fn provider(&self, snapshot: &Snapshot, record: &Arc<ProviderRecord>) -> Option<Arc<Known>> {
        snapshot.provider(record.resource.id)?;
        let mut moved = Vec::new();
        let known = {
            let mut registry = self.registry.write();
            registry.keep_those_of(snapshot);
            registry.provider(record, Instant::now(), &mut moved)
        };
        self.show_open();
        for (record, transition) in moved {
            self.tell(&record.resource, transition);
        }
        Some(known)
    }

    /// Shows how many breakers are not closed.
    fn show_open(&self) {
        let registry = self.registry.read();
        let not_closed = registry.providers.values();
        let not_closed = not_closed.filter(|known| known.breaker() != BreakerState::Closed);
        let count = i64::try_from(not_closed.count()).unwrap_or(i64::MAX);
        drop(registry);
        self.metrics.breakers_open.set(count);
    }

    /// Records that a breaker has changed.
    fn tell(&self, provider: &Provider, transition: Transition) {
        let Transition { from, to, reason } = transition;
        tracing::warn!(
            provider = %provider.name,
            from = from.as_str(),
            to = to.as_str(),
            reason,
            "the provider's breaker has changed"
        );
        let metrics = &self.metrics;
        metrics
            .breaker_changes
            .with_label_values(&[to.as_str()])
            .inc();
        self.show_open();
        let data = BreakerChanged {
            provider: provider.id,
            provider_name: provider.name.clone(),
            from,
            to,
            reason: reason.to_owned(),
        };
        let source = format!("/nexus/gateway/{}", self.outbox.id());
        let about = provider.id.to_string();
        let record = audit_event::record(&source, Stamp::draw(&*self.clock), &about, &data);
        let appended = record
            .map_err(|error| error.to_string())
            .and_then(|record| {
                let appended = self.outbox.append(&record);
                appended.map_err(|error| error.to_string())
            });
        if let Err(error) = appended {
            metrics.not_recorded(data.kind());
            tracing::error!(error, provider = %provider.name, "a breaker's change was not recorded");
        }
    }
}

impl Registry {
    fn get(&self, candidate: &Candidate) -> Option<(Arc<Known>, Arc<Load>)> {
        let known = self.providers.get(&candidate.provider.resource.id)?;
        let load = self.models.get(&candidate.model.id)?;
        known
            .is_of(&candidate.provider.resource)
            .then(|| (Arc::clone(known), Arc::clone(load)))
    }

    /// A provider's entry; a new one for a newcomer, and for one that has moved.
    fn provider(
        &mut self,
        record: &Arc<ProviderRecord>,
        now: Instant,
        moved: &mut Vec<(Arc<ProviderRecord>, Transition)>,
    ) -> Arc<Known> {
        let id = record.resource.id;
        match self.providers.get(&id) {
            Some(known) if known.is_of(&record.resource) => return Arc::clone(known),
            Some(known) if known.breaker() != BreakerState::Closed => {
                let transition = Transition {
                    from: known.breaker(),
                    to: BreakerState::Closed,
                    reason: "address_changed",
                };
                moved.push((Arc::clone(record), transition));
            }
            Some(_) | None => {}
        }
        let known = Arc::new(Known::nothing(record, now));
        self.providers.insert(id, Arc::clone(&known));
        known
    }

    fn keep_those_of(&mut self, snapshot: &Snapshot) {
        self.providers
            .retain(|id, _| snapshot.provider(*id).is_some());
        self.models.retain(|id, _| snapshot.model(*id).is_some());
    }
}

impl Contender {
    fn standing(&self, now: Instant) -> Standing {
        // A probe costs one request at a time, and what failed is forgiven only by an answer: its
        // figure would keep away from it everybody who could bring one.
        let cost = if self.known.wants_probe(now) {
            Duration::ZERO
        } else {
            self.load.cost(now)
        };
        Standing {
            priority: self.priority,
            weight: self.weight,
            cost,
            blocked: self.blocked(now),
            spent: self.spent,
        }
    }

    /// Why it is not to be asked while there is another.
    fn blocked(&self, now: Instant) -> Option<Blocked> {
        let configured = self.candidate.provider.resource.updated_ms;
        self.known.blocked(now).or_else(|| {
            let since = self.load.refusals.blocked_since(configured, now)?;
            let why = Why::Refusing;
            Some(Blocked { since, why })
        })
    }
}

#[cfg(test)]
mod tests;
