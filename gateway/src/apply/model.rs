//! Models that providers offer, in the file.

use std::sync::Arc;

use nexus_events::{config_event::Model, id::ModelId};

use super::{
    document::Member,
    plan::{Declarable, Planner, Shown},
    problem::Problem,
    provider::is_built_in,
    reference::Environment,
    section::{self, Declared, Field, Holds, Section},
};
use crate::{
    admin::provider_models::{New, has_provider, is_free},
    configuration::{CommandError, Snapshot},
};

pub(super) static SECTION: Section = Section {
    name: "models",
    noun: "model",
    about: "Models that providers offer.",
    members: &[
        Field {
            name: "provider",
            stored: "provider_id",
            about: "Name of the provider that offers it.",
            holds: Holds::Name,
            required: true,
        },
        Field {
            name: "model_name",
            stored: "model_name",
            about: "The name that clients ask for; unique within the provider.",
            holds: Holds::Name,
            required: true,
        },
        Field {
            name: "upstream_model",
            stored: "upstream_model",
            about: "The name that the provider knows it by; left out: the same.",
            holds: Holds::NullableName,
            required: false,
        },
    ],
};

pub(super) fn read(
    file: (&[Member], &Environment<'_>),
    problems: &mut Vec<Problem>,
) -> Option<Vec<Declared<New>>> {
    let declared = section::read(file, &SECTION, problems, |entry| {
        let new = New::parse(&entry.body(&[])?);
        new.map_err(|error| entry.place.refused(&error))
    });
    section::unique(declared.as_deref(), "model_name", problems, |new| {
        format!("{}/{}", new.provider_id, new.model_name)
    });
    declared
}

pub(super) fn plan(planner: &mut Planner<'_>, declared: Option<&[Declared<New>]>) {
    let mut kept = Vec::new();
    for one in declared.into_iter().flatten() {
        let new = &one.body;
        let Some(provider) = planner.now.provider_named(&new.provider_id) else {
            let message = format!("there is no provider '{}'", new.provider_id);
            let problem = one.place.problem(Some("provider"), message);
            planner.problems.push(problem);
            continue;
        };
        let provider_id = provider.resource.resource.id;
        let before = planner.before.model_named(provider_id, &new.model_name);
        let before = before.cloned();
        let now = planner.clock.now();
        let old = before.as_ref().map(|entry| &*entry.resource);
        let model = Model {
            id: old.map_or_else(|| ModelId::draw(planner.clock), |old| old.id),
            provider_id,
            model_name: new.model_name.clone(),
            upstream_model: new.upstream_model.clone(),
            created_ms: old.map_or(now, |old| old.created_ms),
            updated_ms: old.map_or(now, |old| old.updated_ms),
        };
        kept.push(model.id);
        let before = before.as_ref();
        let before = before.map(|entry| (&*entry.resource, entry.sequence));
        planner.put(&one.place, before, model);
    }
    let there = planner.before.provider_models();
    let mut there: Vec<_> = there.map(|entry| Arc::clone(&entry.resource)).collect();
    there.sort_by_cached_key(|model| model.label(&planner.before));
    for model in there.iter().filter(|model| !kept.contains(&model.id)) {
        match planner.now.provider(model.provider_id) {
            // It goes with its provider.
            None => planner.delete(&**model),
            Some(entry) => {
                let is_built_in = is_built_in(&entry.resource.resource);
                if declared.is_some() && (planner.prune_built_in || !is_built_in) {
                    planner.undeclared(&**model);
                }
            }
        }
    }
    planner.settle();
}

impl Declarable for Model {
    const SECTION: &'static Section = &SECTION;

    fn label(&self, snapshot: &Snapshot) -> String {
        let provider = snapshot.provider(self.provider_id);
        let provider = provider.map_or("?", |entry| entry.resource.resource.name.as_str());
        format!("{provider}/{}", self.model_name)
    }

    fn shown(&self, snapshot: &Snapshot) -> Vec<Shown> {
        let provider = snapshot.provider(self.provider_id);
        vec![
            Shown::optional(provider.map(|entry| &entry.resource.resource.name)),
            Shown::plain(&self.model_name),
            Shown::optional(self.upstream_model.as_ref()),
        ]
    }

    fn stands(&self, snapshot: &Snapshot) -> Result<(), CommandError> {
        has_provider(snapshot, self)?;
        is_free(snapshot, self)
    }

    fn may_go(&self, _: &Snapshot) -> Result<(), CommandError> {
        Ok(())
    }
}
