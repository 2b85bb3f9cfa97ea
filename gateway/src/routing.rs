//! From a model's name to a provider, and to the next one when it fails.
//!
//! Candidates are the providers that offer the model, in the order of their
//! names. The first is asked; where it fails in a way that another may mend,
//! and nothing has reached the client, the next is. Every try is a pair of
//! attempt events under the one request id.

use crate::{
    configuration::{Candidate, Snapshot},
    provider::{Retry, Target},
    settings::Secret,
};

/// Tries for one request: 2. A client that waits through more has given up.
pub const ATTEMPTS_MAX: u32 = 2;

/// The providers that may answer one request, and how far they have been tried.
#[derive(Debug)]
pub struct Route {
    current: Candidate,
    others: std::vec::IntoIter<Candidate>,
    attempt: u32,
}

impl Route {
    /// The route for a model, to one provider (by id or name) or to any; `None` when nobody offers it.
    pub fn find(snapshot: &Snapshot, model: &str, provider: Option<&str>) -> Option<Self> {
        let mut candidates = snapshot.candidates(model);
        if let Some(wanted) = provider {
            candidates.retain(|candidate| {
                let provider = &candidate.provider.resource;
                provider.name == wanted || provider.id.to_string() == wanted
            });
        }
        Self::of(candidates)
    }

    fn of(candidates: Vec<Candidate>) -> Option<Self> {
        let mut others = candidates.into_iter();
        Some(Self {
            current: others.next()?,
            others,
            attempt: 1,
        })
    }

    /// Who is asked now.
    pub const fn current(&self) -> &Candidate {
        &self.current
    }

    /// Number of the present attempt, from 1.
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Passes over a provider that is not to be asked; `false` when there is no other.
    pub fn skip(&mut self) -> bool {
        self.others.next().is_some_and(|next| {
            self.current = next;
            true
        })
    }

    /// Goes on to the next provider, if there is one and the failure allows it.
    pub fn advance(&mut self, retry: Retry) -> bool {
        // `Retry-After` is about the provider that failed; the next one may be asked at once.
        if retry == Retry::Never || self.attempt >= ATTEMPTS_MAX || !self.skip() {
            return false;
        }
        self.attempt += 1;
        true
    }
}

/// Where a request to that candidate goes.
pub fn target(candidate: &Candidate) -> Target<'_> {
    let model = &candidate.model;
    Target {
        server_url: &candidate.provider.resource.server_url,
        server_key: candidate.provider.server_key.as_ref().map(Secret::expose),
        model: model.upstream_model.as_ref().unwrap_or(&model.model_name),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use nexus_events::{
        clock::{SystemClock, UnixMillis},
        config_event::{Model, Provider},
        id::{ModelId, ProviderId},
    };

    use super::*;
    use crate::configuration::ProviderRecord;

    fn candidate(provider: &str) -> Candidate {
        let (id, zero) = (ProviderId::draw(&SystemClock), UnixMillis::from_millis(0));
        Candidate {
            provider: Arc::new(ProviderRecord {
                resource: Provider {
                    id,
                    name: provider.to_owned(),
                    kind: "openai".to_owned(),
                    server_url: format!("http://{provider}.test"),
                    server_key: None,
                    rate_limit: None,
                    created_ms: zero,
                    updated_ms: zero,
                },
                server_key: Some(Secret::new("sk-1".to_owned())),
            }),
            model: Arc::new(Model {
                id: ModelId::draw(&SystemClock),
                provider_id: id,
                model_name: "m".to_owned(),
                upstream_model: (provider == "b").then(|| "upstream".to_owned()),
                created_ms: zero,
                updated_ms: zero,
            }),
        }
    }

    #[test]
    fn the_next_provider_is_asked_where_the_failure_allows_it() {
        let mut route = Route::of(vec![candidate("a"), candidate("b"), candidate("c")]).unwrap();
        assert!(!route.advance(Retry::Never));
        assert_eq!(target(route.current()).server_url, "http://a.test");
        assert!(route.advance(Retry::After(Duration::from_secs(9))));
        assert_eq!(route.attempt(), 2);
        let target = target(route.current());
        assert_eq!(
            (target.model, target.server_key),
            ("upstream", Some("sk-1"))
        );
        assert!(!route.advance(Retry::Now), "two attempts are all");
    }

    #[test]
    fn a_lone_provider_is_asked_once() {
        assert!(Route::of(Vec::new()).is_none());
        let mut route = Route::of(vec![candidate("a")]).unwrap();
        assert!(!route.advance(Retry::Now));
        assert_eq!(target(route.current()).model, "m");
    }
}
