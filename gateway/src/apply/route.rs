//! Routes in the file.

use std::sync::Arc;

use nexus_events::{
    config_event::{Route, RouteTarget},
    id::RouteId,
};

use super::{
    document::Member,
    plan::{Declarable, Planner, Shown},
    problem::Problem,
    reference::Environment,
    section::{self, Declared, Field, Holds, Section},
    step,
};
use crate::{
    admin::{
        change::name_is_free,
        routes::{ATTEMPTS, MILLIS, New, PRIORITIES, TARGETS_MAX, WEIGHTS, resolve},
    },
    cache::TTL_SECONDS_MAX,
    configuration::{CommandError, Snapshot},
};

pub(super) static SECTION: Section = Section {
    name: "routes",
    noun: "route",
    about: "Names that clients ask for like models, and who may answer.",
    members: &[
        Field {
            name: "name",
            stored: "name",
            about: "Its unique name; it goes before a model of that name.",
            holds: Holds::Name,
            required: true,
        },
        Field {
            name: "targets",
            stored: "targets",
            about: "Who may answer.",
            holds: Holds::List(TARGETS_MAX, TARGET),
            required: true,
        },
        Field {
            name: "attempts",
            stored: "attempts",
            about: "Tries for one request; left out: as many as the gateway makes by default.",
            holds: Holds::Count(*ATTEMPTS.end() as u64),
            required: false,
        },
        Field {
            name: "first_byte_timeout_ms",
            stored: "first_byte_timeout_ms",
            about: "Milliseconds until a provider's first byte; left out: the gateway's setting.",
            holds: Holds::Count(*MILLIS.end() as u64),
            required: false,
        },
        Field {
            name: "idle_timeout_ms",
            stored: "idle_timeout_ms",
            about: "Milliseconds that an answer may stand still; left out: the gateway's setting.",
            holds: Holds::Count(*MILLIS.end() as u64),
            required: false,
        },
        Field {
            name: "cache_ttl_seconds",
            stored: "cache_ttl_seconds",
            about: "Seconds that answers to deterministic requests may be kept; left out: they are not.",
            holds: Holds::CountFromZero(TTL_SECONDS_MAX as u64),
            required: false,
        },
    ],
};

const TARGET: &[Field] = &[
    Field {
        name: "model",
        stored: "model",
        about: "The model that is asked for.",
        holds: Holds::Name,
        required: true,
    },
    Field {
        name: "provider",
        stored: "provider",
        about: "Name of its provider; left out: everybody who offers the model.",
        holds: Holds::NullableName,
        required: false,
    },
    Field {
        name: "weight",
        stored: "weight",
        about: "Share among the targets of the same priority; left out: 1.",
        holds: Holds::Number(*WEIGHTS.start() as u64..=*WEIGHTS.end() as u64),
        required: false,
    },
    Field {
        name: "priority",
        stored: "priority",
        about: "A higher one is asked only when the lower ones cannot answer; left out: 0.",
        holds: Holds::Number(*PRIORITIES.start() as u64..=*PRIORITIES.end() as u64),
        required: false,
    },
];

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
        let new = &one.body;
        let before = planner.before.route_named(&new.name).cloned();
        let targets = match resolve(&planner.now, &new.targets) {
            Ok(targets) => targets,
            Err(error) => {
                let problem = step::refused(&error, Some(&one.place), &new.name);
                planner.problems.push(problem);
                continue;
            }
        };
        let now = planner.clock.now();
        let old = before.as_ref().map(|entry| &*entry.resource);
        let route = Route {
            id: old.map_or_else(|| RouteId::draw(planner.clock), |old| old.id),
            name: new.name.clone(),
            targets,
            attempts: new.attempts,
            first_byte_timeout_ms: new.first_byte_timeout_ms,
            idle_timeout_ms: new.idle_timeout_ms,
            cache_ttl_seconds: new.cache_ttl_seconds,
            created_ms: old.map_or(now, |old| old.created_ms),
            updated_ms: old.map_or(now, |old| old.updated_ms),
        };
        let before = before.as_ref();
        let before = before.map(|entry| (&*entry.resource, entry.sequence));
        planner.put(&one.place, before, route);
    }
    let there = planner.before.routes();
    let mut there: Vec<_> = there.map(|entry| Arc::clone(&entry.resource)).collect();
    there.sort_by(|a, b| a.name.cmp(&b.name));
    for route in &there {
        if !declared.iter().any(|one| one.body.name == route.name) {
            planner.undeclared(&**route);
        }
    }
    planner.settle();
}

/// `[openai/gpt-4.1-mini weight 3 priority 0, …]`.
fn shown(targets: &[RouteTarget], snapshot: &Snapshot) -> Shown {
    let each = targets.iter().map(|target| {
        let provider = target.provider.map_or("any", |id| {
            let entry = snapshot.provider(id);
            entry.map_or("(gone)", |entry| entry.resource.resource.name.as_str())
        });
        let (model, weight, priority) = (&target.model, target.weight, target.priority);
        format!("{provider}/{model} weight {weight} priority {priority}")
    });
    Shown::Plain(format!("[{}]", each.collect::<Vec<_>>().join(", ")))
}

impl Declarable for Route {
    const SECTION: &'static Section = &SECTION;

    fn label(&self, _: &Snapshot) -> String {
        self.name.clone()
    }

    fn shown(&self, snapshot: &Snapshot) -> Vec<Shown> {
        vec![
            Shown::plain(&self.name),
            shown(&self.targets, snapshot),
            Shown::optional(self.attempts),
            Shown::optional(self.first_byte_timeout_ms),
            Shown::optional(self.idle_timeout_ms),
            Shown::optional(self.cache_ttl_seconds),
        ]
    }

    /// What its targets name was looked up when the plan was made; it may go at any time.
    fn stands(&self, snapshot: &Snapshot) -> Result<(), CommandError> {
        name_is_free(snapshot, self, &self.name)
    }

    fn may_go(&self, _: &Snapshot) -> Result<(), CommandError> {
        Ok(())
    }
}
