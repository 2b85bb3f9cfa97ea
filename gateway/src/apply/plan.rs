//! What is to be done to make the configuration what the file declares.
//!
//! Planning happens on a copy of the configuration: what is decided is applied
//! to the copy as if it had been published, so a model finds the provider that
//! is declared in the same file. In the end each change is checked against the
//! copy by the rules of the management API, and when one does not stand
//! nothing is written at all.

use std::fmt;

use nexus_events::{
    clock::Clock,
    config_event::{Action, Key},
    seal::MasterKey,
};

use super::{
    hidden::{self, Unknown},
    order,
    problem::Problem,
    section::{Place, Section},
    step::{Pending, Step},
};
use crate::{
    admin::change::Managed,
    configuration::{CommandError, Fold, Snapshot, fold::FoldError},
};

/// What a member of a resource holds, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// Nothing.
    Nothing,
    /// A value that may be seen.
    Plain(String),
    /// One that may not; two that are equal are the same secret.
    Secret(String),
}

impl Shown {
    pub(super) fn plain(value: &impl ToString) -> Self {
        Self::Plain(value.to_string())
    }

    pub(super) fn optional(value: Option<impl ToString>) -> Self {
        value.map_or(Self::Nothing, |value| Self::plain(&value))
    }

    pub(super) fn secret(value: Option<&String>) -> Self {
        value.map_or(Self::Nothing, |value| Self::Secret(value.clone()))
    }
}

/// A kind of resource that the file can declare.
pub(super) trait Declarable: Managed + fmt::Debug + PartialEq {
    /// Its section.
    const SECTION: &'static Section;
    /// What it is called in sentences.
    fn label(&self, snapshot: &Snapshot) -> String;
    /// What the members of the section hold, in their order.
    fn shown(&self, snapshot: &Snapshot) -> Vec<Shown>;
    /// Whether it can stand beside what is configured.
    fn stands(&self, snapshot: &Snapshot) -> Result<(), CommandError>;
    /// Whether all that stays can do without it.
    fn may_go(&self, snapshot: &Snapshot) -> Result<(), CommandError>;
    /// Whether others of its kind can give up only when it is what it will be.
    fn takes_over(&self) -> bool {
        false
    }
}

/// What is to be done, and what is not.
#[derive(Debug, Default)]
pub struct Plan {
    pub(super) steps: Vec<Box<dyn Pending>>,
    /// Resources that are as they are declared.
    pub unchanged: usize,
    /// Resources that the file does not declare, in sections that it has; they stay.
    pub undeclared: Vec<String>,
}

impl Plan {
    /// Whether there is nothing to be done.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// One line for each change, in the order in which they are made.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.steps.iter().map(|step| step.line())
    }
}

/// A plan that is being made.
pub(super) struct Planner<'a> {
    /// The configuration as it is.
    pub(super) before: Snapshot,
    /// As it will be when all that was decided up to the last section is done.
    pub(super) now: Snapshot,
    pub(super) master: &'a MasterKey,
    pub(super) clock: &'a dyn Clock,
    /// Whether what is not declared is deleted.
    pub(super) prune: bool,
    /// Whether that holds for what the hub has put there itself, too.
    pub(super) prune_built_in: bool,
    pub(super) problems: Vec<Problem>,
    /// The configuration as it is, with its secrets sealed.
    start: Fold,
    fold: Fold,
    unknown: &'a Unknown,
    plan: Plan,
    /// The last one is done first.
    deletions: Vec<Box<dyn Pending>>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        (fold, unknown): (&Fold, &'a Unknown),
        master: &'a MasterKey,
        clock: &'a dyn Clock,
    ) -> Result<Self, FoldError> {
        Ok(Self {
            before: fold.snapshot(master)?,
            now: fold.snapshot(master)?,
            master,
            clock,
            prune: false,
            prune_built_in: false,
            problems: Vec::new(),
            start: fold.clone(),
            fold: fold.clone(),
            unknown,
            plan: Plan::default(),
            deletions: Vec::new(),
        })
    }

    /// A resource as it is declared, and as it is now with the sequence of its last change.
    pub(super) fn put<R: Declarable>(
        &mut self,
        place: &Place,
        before: Option<(&R, u64)>,
        mut after: R,
    ) {
        let unknown = before.map_or(&[][..], |(before, _)| self.unknown.of(before));
        if unknown.is_empty() && before.is_some_and(|(before, _)| *before == after) {
            self.plan.unchanged += 1;
            return;
        }
        let changed = hidden::differing(before.map(|(before, _)| before), &after);
        after.touch(self.clock.now());
        let old = before.map(|(before, _)| before.shown(&self.before));
        let step = Step {
            action: before.map_or(Action::Created, |_| Action::Updated),
            label: after.label(&self.now),
            old,
            new: after.shown(&self.now),
            changed,
            unknown: unknown.to_vec(),
            resource: after,
            sequence: before.map_or(0, |(_, sequence)| sequence),
            place: Some(place.clone()),
        };
        self.apply(&step);
        self.plan.steps.push(Box::new(step));
    }

    /// Whether all that is stored of the resource is what this version knows of it.
    pub(super) fn is_known_whole<R: Declarable>(&self, resource: &R) -> bool {
        self.unknown.of(resource).is_empty()
    }

    /// A resource that the file does not declare.
    pub(super) fn undeclared<R: Declarable>(&mut self, resource: &R) {
        if self.prune {
            self.delete(resource);
        } else {
            self.note(resource, "not declared; --prune deletes it");
        }
    }

    /// A resource that stays although the file does not declare it.
    pub(super) fn note<R: Declarable>(&mut self, resource: &R, why: &str) {
        let (noun, label) = (R::SECTION.noun, resource.label(&self.before));
        self.plan
            .undeclared
            .push(format!("? {noun} {label}: {why}"));
    }

    /// Keys as they will be.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.fold.keys().map(|(key, _)| key)
    }

    /// A resource that goes.
    pub(super) fn delete<R: Declarable>(&mut self, resource: &R) {
        let Some((_, sequence)) = R::find(&self.before, resource.id()) else {
            return;
        };
        let step = Step {
            action: Action::Deleted,
            label: resource.label(&self.before),
            old: None,
            new: Vec::new(),
            changed: Vec::new(),
            unknown: Vec::new(),
            resource: resource.clone(),
            sequence,
            place: None,
        };
        self.apply(&step);
        self.deletions.push(Box::new(step));
    }

    /// Ends a section: the next one sees what was decided.
    pub(super) fn settle(&mut self) {
        match self.fold.snapshot(self.master) {
            Ok(snapshot) => self.now = snapshot,
            Err(error) => self.problem(error.to_string()),
        }
    }

    /// The plan, in which everything stands beside everything else, at the end and on the way.
    pub(super) fn finish(mut self) -> Result<Plan, Vec<Problem>> {
        self.plan.steps.extend(self.deletions.into_iter().rev());
        order::sort(&mut self.plan.steps);
        let steps = &self.plan.steps;
        let refused = steps.iter().filter_map(|step| step.check(&self.now));
        self.problems.extend(refused);
        if self.problems.is_empty() {
            let walked = order::walk(steps, self.start, (self.master, self.clock));
            self.problems.extend(walked.err());
        }
        if self.problems.is_empty() {
            Ok(self.plan)
        } else {
            Err(self.problems)
        }
    }

    pub(super) fn problem(&mut self, message: String) {
        self.problems.push(Problem::of_file(None, message));
    }

    /// Does to the copy what the event would do.
    fn apply(&mut self, step: &dyn Pending) {
        if let Err(error) = order::advance(&mut self.fold, step, self.clock) {
            self.problems.push(error);
        }
    }
}
