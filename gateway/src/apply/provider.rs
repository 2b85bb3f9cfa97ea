//! Providers in the file.

use std::sync::Arc;

use nexus_events::{config_event::Provider, id::ProviderId};

use super::{
    document::Member,
    plan::{Declarable, Planner, Shown},
    problem::Problem,
    reference::Environment,
    section::{self, Declared, Field, Holds, Section},
};
use crate::{
    admin::{
        change::name_is_free,
        providers::{New, is_unused},
    },
    configuration::{
        CommandError, Entry, ProviderRecord, Snapshot, bootstrap::ECHO, fold::provider_seal,
    },
    provider::KINDS,
};

pub(super) static SECTION: Section = Section {
    name: "providers",
    noun: "provider",
    about: "Providers: where requests are sent to.",
    members: &[
        Field {
            name: "name",
            stored: "name",
            about: "Its unique name.",
            holds: Holds::Name,
            required: true,
        },
        Field {
            name: "kind",
            stored: "kind",
            about: "The protocol that it speaks; left out: openai.",
            holds: Holds::OneOf(&KINDS),
            required: false,
        },
        Field {
            name: "server_url",
            stored: "server_url",
            about: "Its base URL; left out: that of the kind, where there is one for everybody.",
            holds: Holds::Text,
            required: false,
        },
        Field {
            name: "server_key",
            stored: "server_key",
            about: "Its API key; left out: none.",
            holds: Holds::Secret,
            required: false,
        },
        Field {
            name: "rate_limit",
            stored: "rate_limit",
            about: "Requests a second that it takes; left out: no limit.",
            holds: Holds::Count(u32::MAX as u64),
            required: false,
        },
    ],
};

pub(super) fn read(
    file: (&[Member], &Environment<'_>),
    problems: &mut Vec<Problem>,
) -> Option<Vec<Declared<New>>> {
    let declared = section::read(file, &SECTION, problems, |entry| {
        let new = New::parse(&entry.body(&[])?).map(|(new, _)| new);
        new.map_err(|error| entry.place.refused(&error))
    });
    section::unique(declared.as_deref(), "name", problems, |new| {
        new.name.clone()
    });
    declared
}

pub(super) fn plan(planner: &mut Planner<'_>, declared: Option<&[Declared<New>]>) {
    let Some(declared) = declared else { return };
    for one in declared {
        let before = planner.before.provider_named(&one.body.name).cloned();
        match wanted(planner, before.as_ref(), &one.body) {
            Ok(provider) => {
                let before = before.as_ref();
                let before = before.map(|entry| (&entry.resource.resource, entry.sequence));
                planner.put(&one.place, before, provider);
            }
            Err(problem) => planner.problems.push(one.place.problem(None, problem)),
        }
    }
    let there = planner.before.providers();
    let mut there: Vec<_> = there.map(|entry| Arc::clone(&entry.resource)).collect();
    there.sort_by(|a, b| a.resource.name.cmp(&b.resource.name));
    for provider in there.iter().map(|record| &record.resource) {
        let is_declared = declared.iter().any(|one| one.body.name == provider.name);
        if !is_declared && (planner.prune_built_in || !is_built_in(provider)) {
            planner.undeclared(provider);
        }
    }
    planner.settle();
}

/// The provider that the hub has put there itself.
pub(super) fn is_built_in(provider: &Provider) -> bool {
    provider.name == ECHO && provider.kind == ECHO
}

/// The provider as it is declared; with the key as it is sealed, if that is the same key.
fn wanted(
    planner: &Planner<'_>,
    before: Option<&Entry<ProviderRecord>>,
    new: &New,
) -> Result<Provider, String> {
    let now = planner.clock.now();
    let record = before.map(|entry| &entry.resource);
    let old = record.map(|record| &record.resource);
    let id = old.map_or_else(|| ProviderId::draw(planner.clock), |old| old.id);
    let is_same = record.is_some_and(|record| record.server_key == new.server_key);
    let server_key = match &new.server_key {
        None => None,
        Some(_) if is_same => old.and_then(|old| old.server_key.clone()),
        Some(key) => {
            let sealed = planner
                .master
                .seal(key.expose().as_bytes(), &provider_seal(id));
            Some(sealed.map_err(|error| error.to_string())?)
        }
    };
    Ok(Provider {
        id,
        name: new.name.clone(),
        kind: new.kind.clone(),
        server_url: new.server_url.clone(),
        server_key,
        rate_limit: new.rate_limit,
        created_ms: old.map_or(now, |old| old.created_ms),
        updated_ms: old.map_or(now, |old| old.updated_ms),
    })
}

impl Declarable for Provider {
    const SECTION: &'static Section = &SECTION;

    fn label(&self, _: &Snapshot) -> String {
        self.name.clone()
    }

    fn shown(&self, _: &Snapshot) -> Vec<Shown> {
        vec![
            Shown::plain(&self.name),
            Shown::plain(&self.kind),
            Shown::plain(&self.server_url),
            Shown::secret(self.server_key.as_ref().map(|sealed| &sealed.ciphertext)),
            Shown::optional(self.rate_limit),
        ]
    }

    fn stands(&self, snapshot: &Snapshot) -> Result<(), CommandError> {
        name_is_free(snapshot, self, &self.name)
    }

    fn may_go(&self, snapshot: &Snapshot) -> Result<(), CommandError> {
        is_unused(snapshot, self.id)
    }
}
