//! Users in the file: who holds keys.

use std::sync::Arc;

use nexus_events::{
    config_event::{Quota, User},
    id::UserId,
};

use super::{
    document::Member,
    plan::{Declarable, Planner, Shown},
    problem::Problem,
    quota,
    reference::Environment,
    section::{self, Declared, Field, Holds, Section},
};
use crate::{
    admin::{
        change::name_is_free,
        users::{New, is_unused},
    },
    configuration::{CommandError, Snapshot},
};

pub(super) static SECTION: Section = Section {
    name: "users",
    noun: "user",
    about: "Who holds keys, and what may be used with all keys of one together.",
    members: &[
        Field {
            name: "name",
            stored: "name",
            about: "Its unique name.",
            holds: Holds::Name,
            required: true,
        },
        quota::REQUESTS,
        quota::TOKENS,
        quota::CONCURRENT,
        quota::BUDGET,
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
    section::unique(declared.as_deref(), "name", problems, |new| {
        new.name.clone()
    });
    declared
}

pub(super) fn plan(planner: &mut Planner<'_>, declared: Option<&[Declared<New>]>) {
    let Some(declared) = declared else { return };
    for one in declared {
        let new = &one.body;
        let before = planner.before.user_named(&new.name).cloned();
        let mut limits = Quota::default();
        new.limits.apply(&mut limits, &mut Vec::new());
        let refused = quota::refused(planner, &one.place, &limits);
        planner.problems.extend(refused);
        let now = planner.clock.now();
        let old = before.as_ref().map(|entry| &*entry.resource);
        let user = User {
            id: old.map_or_else(|| UserId::draw(planner.clock), |old| old.id),
            name: new.name.clone(),
            quota: limits,
            created_ms: old.map_or(now, |old| old.created_ms),
            updated_ms: old.map_or(now, |old| old.updated_ms),
        };
        let before = before.as_ref();
        let before = before.map(|entry| (&*entry.resource, entry.sequence));
        planner.put(&one.place, before, user);
    }
    let there = planner.before.users();
    let mut there: Vec<_> = there.map(|entry| Arc::clone(&entry.resource)).collect();
    there.sort_by(|a, b| a.name.cmp(&b.name));
    for user in &there {
        if !declared.iter().any(|one| one.body.name == user.name) {
            planner.undeclared(&**user);
        }
    }
    planner.settle();
}

impl Declarable for User {
    const SECTION: &'static Section = &SECTION;

    fn label(&self, _: &Snapshot) -> String {
        self.name.clone()
    }

    fn shown(&self, _: &Snapshot) -> Vec<Shown> {
        let mut shown = vec![Shown::plain(&self.name)];
        shown.extend(quota::shown(&self.quota));
        shown
    }

    fn stands(&self, snapshot: &Snapshot) -> Result<(), CommandError> {
        name_is_free(snapshot, self, &self.name)
    }

    fn may_go(&self, snapshot: &Snapshot) -> Result<(), CommandError> {
        is_unused(snapshot, self)
    }
}
