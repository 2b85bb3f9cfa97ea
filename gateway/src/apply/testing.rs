//! A configuration in memory that files are applied to, change by change.

use std::{ffi::OsString, sync::Arc, time::Duration};

use nexus_events::{
    clock::{Clock, ManualClock, UnixMillis},
    config_event::{Action, Changed, Resource, Setting},
    envelope::Stamp,
    seal::MasterKey,
};

use super::{Declaration, Plan, Problem, SOURCE, actor, hidden::Unknown, order};
use crate::configuration::{
    Fold, Snapshot,
    fold::{MESSAGE_KEY, setting_seal},
};

/// Each variable holds a secret that nobody guesses and everybody knows.
fn secret(name: &str) -> OsString {
    format!("{name}-9f86d081884c7d659a2feaa0c55ad015").into()
}

pub(super) fn declaration(text: &str) -> Declaration {
    Declaration::read(text, &|name: &str| Some(secret(name))).unwrap()
}

/// A hub without clients.
#[derive(Clone)]
pub(super) struct Desk {
    clock: Arc<ManualClock>,
    master: MasterKey,
    pub(super) fold: Fold,
    unknown: Unknown,
}

impl Desk {
    pub(super) fn new() -> Self {
        let mut desk = Self {
            clock: Arc::new(ManualClock::at(UnixMillis::from_millis(1_795_000_000_000))),
            master: MasterKey::draw().unwrap(),
            fold: Fold::default(),
            unknown: Unknown::default(),
        };
        let seal = setting_seal(MESSAGE_KEY);
        let sealed = desk.master.seal(&[7; 32], &seal).unwrap();
        let setting = Setting {
            name: MESSAGE_KEY.to_owned(),
            sealed: Some(sealed),
            value: None,
            updated_ms: desk.clock.now(),
        };
        desk.publish(Action::Created, setting);
        desk
    }

    /// One that has been brought to what the file declares.
    pub(super) fn with(text: &str) -> Self {
        let mut desk = Self::new();
        desk.apply(text);
        desk
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.fold.snapshot(&self.master).unwrap()
    }

    pub(super) fn plan(&self, text: &str, prune: bool) -> Result<Plan, Vec<Problem>> {
        let configured = (&self.fold, &self.unknown);
        declaration(text).plan(configured, (&self.master, &*self.clock), prune)
    }

    /// The problems with it, each in a line.
    pub(super) fn refused(&self, text: &str, prune: bool) -> String {
        let problems = self.plan(text, prune).unwrap_err();
        let lines = problems.iter().map(ToString::to_string);
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Goes through a plan on a copy.
    pub(super) fn walk(&self, plan: &Plan) -> Result<(), Problem> {
        let sealed = (&self.master, &*self.clock as &dyn Clock);
        order::walk(&plan.steps, self.fold.clone(), sealed)
    }

    /// Makes the first so many changes of a plan.
    pub(super) fn make(&mut self, plan: &Plan, count: usize) {
        for step in plan.steps.iter().take(count) {
            self.clock.advance(Duration::from_millis(1));
            self.store(&step.event(&*self.clock).unwrap());
        }
    }

    /// Makes what it declares so; the lines that are printed.
    pub(super) fn apply(&mut self, text: &str) -> Vec<String> {
        let plan = self.plan(text, true).unwrap();
        self.make(&plan, usize::MAX);
        plan.lines().collect()
    }

    /// Stores a change as this version writes it.
    pub(super) fn publish<R: Resource>(&mut self, action: Action, resource: R) {
        let change = Changed {
            action,
            changed: Vec::new(),
            actor: actor(),
            resource,
        };
        let stamp = Stamp::draw(&*self.clock);
        self.store(&change.encode(stamp, SOURCE).unwrap());
    }

    /// Stores an event, whoever has written it.
    pub(super) fn store(&mut self, payload: &[u8]) {
        let sequence = self.fold.sequence() + 1;
        self.fold.apply(sequence, payload).unwrap();
        self.unknown.note(payload);
    }
}
