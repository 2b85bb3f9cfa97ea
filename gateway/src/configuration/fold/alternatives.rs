//! Who may answer each name that clients ask for, put together when the configuration changes.
//!
//! A configured model without a route has the implicit one: everyone that
//! offers it, with the same weight. A target whose provider or model is gone is
//! left out; a route that has lost all of its targets offers nothing, also
//! where it hides a configured model: its operator has said who may answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use nexus_events::{
    config_event::{Model, Route},
    id::{ModelId, ProviderId, RouteId},
};

use super::super::snapshot::{Alternative, Alternatives, Candidate, Entry, ProviderRecord};

/// Model name → who offers it, in the order of the providers' names.
type Offers<'a> = BTreeMap<&'a str, Vec<Candidate>>;

/// Everything that can be asked for, by name.
pub(super) fn of(
    providers: &BTreeMap<ProviderId, Entry<ProviderRecord>>,
    models: &BTreeMap<ModelId, Entry<Model>>,
    routes: &BTreeMap<RouteId, Entry<Route>>,
) -> BTreeMap<String, Arc<Alternatives>> {
    let offers = offers(providers, models);
    let implicit = offers.iter().map(|(name, candidates)| {
        let alike = candidates.iter().map(|candidate| Alternative {
            candidate: candidate.clone(),
            weight: 1,
            priority: 0,
        });
        let alternatives = Alternatives {
            route: None,
            list: alike.collect(),
        };
        ((*name).to_owned(), Arc::new(alternatives))
    });
    let mut all: BTreeMap<_, _> = implicit.collect();
    for route in routes.values().map(|entry| &entry.resource) {
        let list = of_route(route, &offers);
        if list.is_empty() {
            all.remove(&route.name);
        } else {
            let alternatives = Alternatives {
                route: Some(Arc::clone(route)),
                list,
            };
            all.insert(route.name.clone(), Arc::new(alternatives));
        }
    }
    all
}

fn offers<'a>(
    providers: &BTreeMap<ProviderId, Entry<ProviderRecord>>,
    models: &'a BTreeMap<ModelId, Entry<Model>>,
) -> Offers<'a> {
    let mut by_name: Offers<'_> = BTreeMap::new();
    for model in models.values() {
        let Some(provider) = providers.get(&model.resource.provider_id) else {
            continue;
        };
        by_name
            .entry(&model.resource.model_name)
            .or_default()
            .push(Candidate {
                provider: Arc::clone(&provider.resource),
                model: Arc::clone(&model.resource),
            });
    }
    for offers in by_name.values_mut() {
        offers.sort_by(|a, b| a.provider.resource.name.cmp(&b.provider.resource.name));
    }
    by_name
}

/// The lowest priority first; who is named twice stands where it is asked first.
fn of_route(route: &Route, offers: &Offers<'_>) -> Vec<Alternative> {
    let mut targets: Vec<_> = route.targets.iter().collect();
    targets.sort_by_key(|target| target.priority);
    let mut seen = BTreeSet::new();
    let mut list = Vec::new();
    for target in targets {
        let offered = offers.get(target.model.as_str()).into_iter().flatten();
        let meant = offered.filter(|candidate| {
            let provider = candidate.provider.resource.id;
            target.provider.is_none_or(|wanted| wanted == provider)
        });
        for candidate in meant {
            if seen.insert(candidate.model.id) {
                list.push(Alternative {
                    candidate: candidate.clone(),
                    weight: target.weight,
                    priority: target.priority,
                });
            }
        }
    }
    list
}
