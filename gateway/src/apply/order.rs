//! The order in which the changes of a plan are made.
//!
//! *The thought.* A run can end after any of its changes, and the hub serves
//! clients during all of them. So each configuration on the way must be one
//! that the rules of the management API allow, and whatever can be asked for
//! before the run and after it, by whatever key, can be asked for in between.
//! Three rules see to that:
//!
//! 1. *What is named comes before what names it*: a provider before its models,
//!    models before the routes and prices that name them, users before keys.
//! 2. *Nothing goes before what takes its place is there.* All deletions come
//!    after everything else, and in the opposite direction: what names others
//!    goes before what it names. So a model that moves to another provider is
//!    offered by both for a moment, a name that passes from a route to a model
//!    belongs to both, and a key has left its user when the user goes.
//! 3. *Who takes over comes before who gives up*: a key that becomes an admin's
//!    before one that no longer is, so that there is one at any time.
//!
//! *Names.* A resource is found by its name, so within a kind no name passes
//! from one to another. The exception is a key's secret, for which no order
//! would do: two keys must not have the same, and no client's may be unknown
//! for a moment. A key that only has another name in the file is therefore
//! renamed, and what is left, such as two keys that change secrets, is refused
//! (`apply/key.rs`).
//!
//! *No trust in rules alone.* A plan is walked through on a copy of the
//! configuration ([`walk`]): each change is checked where it stands in the
//! order, by what checks it again when it is made. A hole shows before the
//! first write, not half-way.

use std::cmp::Reverse;

use nexus_events::{clock::Clock, config_event::Action, seal::MasterKey};

use super::{SECTIONS, plan::Declarable, problem::Problem, step::Pending};
use crate::configuration::Fold;

/// When a change is made: the smaller one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    /// It is created or changed, in the order of the sections.
    Put {
        section: usize,
        /// Whether others of its section may need it.
        takes_over: Reverse<bool>,
    },
    /// It is deleted, in the opposite order.
    Delete { section: Reverse<usize> },
}

impl Turn {
    /// When the resource is changed so.
    pub(super) fn of<R: Declarable>(action: Action, resource: &R) -> Self {
        let mut sections = SECTIONS.iter();
        let section = sections.position(|section| section.name == R::SECTION.name);
        let section = section.unwrap_or(SECTIONS.len());
        match action {
            Action::Created | Action::Updated => Self::Put {
                section,
                takes_over: Reverse(resource.takes_over()),
            },
            Action::Deleted => Self::Delete {
                section: Reverse(section),
            },
        }
    }
}

/// Puts the changes in the order in which they are made; those of one turn stay as they are.
pub(super) fn sort(steps: &mut [Box<dyn Pending>]) {
    steps.sort_by_key(|step| step.turn());
}

/// Goes through the changes on a copy, and tells the first that does not stand where it is made.
///
/// Those of one turn have names of their own and need none of each other, so one look at the
/// configuration does for all of them: a file of thousands is checked at once.
pub(super) fn walk(
    steps: &[Box<dyn Pending>],
    mut fold: Fold,
    (master, clock): (&MasterKey, &dyn Clock),
) -> Result<(), Problem> {
    let mut between = None;
    for step in steps {
        let turn = step.turn();
        let snapshot = match between.take() {
            Some((of, snapshot)) if of == turn => snapshot,
            _ => {
                let snapshot = fold.snapshot(master);
                snapshot.map_err(|error| Problem::of_file(None, error.to_string()))?
            }
        };
        let (_, snapshot) = between.insert((turn, snapshot));
        if let Some(mut problem) = step.check(snapshot) {
            problem.message += " That holds in the middle of the run: make the change in two runs.";
            return Err(problem);
        }
        advance(&mut fold, &**step, clock)?;
    }
    Ok(())
}

/// Does to a copy of the configuration what the change will do.
pub(super) fn advance(
    fold: &mut Fold,
    step: &dyn Pending,
    clock: &dyn Clock,
) -> Result<(), Problem> {
    let of = |error: &dyn std::error::Error| Problem::of_file(None, error.to_string());
    let payload = step.event(clock).map_err(|error| of(&error))?;
    let applied = fold.apply(fold.sequence() + 1, &payload);
    applied.map_err(|error| of(&error))
}

#[cfg(test)]
mod tests;
