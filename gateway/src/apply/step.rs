//! One change: its line for people, and how it is made.
//!
//! It is made only to what it was decided on. A resource that someone else has
//! changed since the plan was made is left as it is, and so is a name that
//! someone else has taken.

use std::fmt;

use futures_util::future::LocalBoxFuture;
use nexus_events::{
    clock::Clock,
    config_event::{Action, Changed},
    envelope::{EncodeError, Stamp},
};

use super::{
    SOURCE, actor, hidden,
    order::Turn,
    plan::{Declarable, Shown},
    problem::Problem,
    section::Place,
};
use crate::configuration::{
    CommandError, Commands, Snapshot,
    commands::{Basis, Decision},
};

/// A change of any kind of resource.
pub(super) trait Pending: fmt::Debug {
    /// The line for people.
    fn line(&self) -> String;
    /// What it is done to: `provider azure`.
    fn subject(&self) -> String;
    /// Names of the members that change, as the events have them.
    fn changed(&self) -> Vec<&str>;
    /// When it is made.
    fn turn(&self) -> Turn;
    /// Why it does not stand beside the rest of that configuration.
    fn check(&self, beside: &Snapshot) -> Option<Problem>;
    /// The event that it will be, for a copy of the configuration.
    fn event(&self, clock: &dyn Clock) -> Result<Vec<u8>, EncodeError>;
    /// Makes it.
    fn make<'a>(&'a self, commands: &'a Commands) -> LocalBoxFuture<'a, Result<(), CommandError>>;
}

/// A change of one kind of resource.
#[derive(Debug)]
pub(super) struct Step<R> {
    pub(super) action: Action,
    pub(super) label: String,
    /// What its members held, if it was there.
    pub(super) old: Option<Vec<Shown>>,
    /// What they will hold.
    pub(super) new: Vec<Shown>,
    /// Members that differ as they are stored, see [`hidden`].
    pub(super) changed: Vec<String>,
    /// Members that this version does not know, and that are not there any more after it.
    pub(super) unknown: Vec<String>,
    /// The resource after the change.
    pub(super) resource: R,
    /// Stream sequence of the resource that the change was decided on.
    pub(super) sequence: u64,
    /// Where it is declared, unless it is deleted.
    pub(super) place: Option<Place>,
}

impl<R: Declarable> Step<R> {
    /// Members that differ, with what they held and will hold.
    fn differences(&self) -> impl Iterator<Item = (usize, &Shown, &Shown)> {
        let new = self.new.iter().enumerate();
        new.filter_map(|(index, new)| {
            let old = self.old.as_ref().and_then(|old| old.get(index));
            let old = old.unwrap_or(&Shown::Nothing);
            (old != new).then_some((index, old, new))
        })
    }

    fn details(&self) -> String {
        let fields = R::SECTION.members;
        let shown: Vec<_> = self.differences().collect();
        let told = shown.iter().filter_map(|(index, old, new)| {
            let name = fields.get(*index)?.name;
            Some(match (old, new) {
                (Shown::Secret(_), Shown::Nothing) => format!("{name} (removed)"),
                (Shown::Secret(_), _) => format!("{name} (changed)"),
                (_, Shown::Secret(_)) => format!("{name} (set)"),
                _ => format!("{name} {} → {}", visible(old), visible(new)),
            })
        });
        let is_shown = |stored: &str| {
            let mut shown = shown.iter().filter_map(|(index, ..)| fields.get(*index));
            shown.any(|field| field.stored == stored)
        };
        let hidden = self.changed.iter().filter(|stored| !is_shown(stored));
        let hidden = hidden.map(|stored| {
            let field = fields.iter().find(|field| field.stored == *stored);
            format!("{} (changed)", field.map_or(&**stored, |field| field.name))
        });
        let unknown = self.unknown.iter();
        let unknown = unknown.map(|path| format!("{path} (unknown to this version, removed)"));
        let all = told.chain(hidden).chain(unknown);
        all.collect::<Vec<_>>().join(", ")
    }

    async fn publish(&self, commands: &Commands) -> Result<(), CommandError> {
        let (actor, changed) = (actor(), self.changed());
        if self.action == Action::Created {
            let created = commands.create(&actor, &changed, Basis::Configuration, |snapshot| {
                self.resource.stands(snapshot)?;
                Ok(self.resource.clone())
            });
            return created.await.map(|_| ());
        }
        let made = commands.change(&actor, Some(self.sequence), |snapshot| {
            // What is gone has changed, too.
            let there = R::find(snapshot, self.resource.id());
            let (_, sequence) = there.ok_or(CommandError::Stale)?;
            if self.action == Action::Deleted {
                self.resource.may_go(snapshot)?;
            } else {
                self.resource.stands(snapshot)?;
            }
            Ok(Decision {
                action: self.action,
                resource: self.resource.clone(),
                sequence,
                changed: changed.iter().map(|name| (*name).to_owned()).collect(),
                // What was checked above is what it names, who names it, who is the last admin.
                basis: Basis::Configuration,
            })
        });
        made.await.map(|_| ())
    }
}

impl<R: Declarable> Pending for Step<R> {
    fn line(&self) -> String {
        match self.action {
            Action::Created => format!("+ {}", self.subject()),
            Action::Updated => format!("~ {}: {}", self.subject(), self.details()),
            Action::Deleted => format!("- {}", self.subject()),
        }
    }

    fn subject(&self) -> String {
        format!("{} {}", R::SECTION.noun, self.label)
    }

    fn changed(&self) -> Vec<&str> {
        let mut changed: Vec<_> = self.changed.iter().map(String::as_str).collect();
        for name in self.unknown.iter().map(|path| hidden::member(path)) {
            if !changed.contains(&name) {
                changed.push(name);
            }
        }
        changed
    }

    fn turn(&self) -> Turn {
        Turn::of(self.action, &self.resource)
    }

    fn event(&self, clock: &dyn Clock) -> Result<Vec<u8>, EncodeError> {
        let change = Changed {
            action: self.action,
            changed: Vec::new(),
            actor: actor(),
            resource: self.resource.clone(),
        };
        change.encode(Stamp::draw(clock), SOURCE)
    }

    fn check(&self, beside: &Snapshot) -> Option<Problem> {
        let stands = match self.action {
            Action::Created | Action::Updated => self.resource.stands(beside),
            Action::Deleted => self.resource.may_go(beside),
        };
        stands
            .err()
            .map(|error| refused(&error, self.place.as_ref(), &self.subject()))
    }

    fn make<'a>(&'a self, commands: &'a Commands) -> LocalBoxFuture<'a, Result<(), CommandError>> {
        Box::pin(self.publish(commands))
    }
}

/// What the rules of the management API say against a declaration, or against a deletion.
pub(super) fn refused(error: &CommandError, place: Option<&Place>, subject: &str) -> Problem {
    match (error, place) {
        (CommandError::Invalid { member, message }, Some(place)) => {
            place.problem_of_stored(Some(member), message)
        }
        (CommandError::Unprocessable { member, message }, Some(place)) => {
            place.problem_of_stored(Some(member), message)
        }
        (error, Some(place)) => place.problem(None, error.to_string()),
        (error, None) => Problem::of_file(None, format!("{subject} cannot be deleted: {error}")),
    }
}

fn visible(shown: &Shown) -> &str {
    match shown {
        Shown::Nothing => "none",
        Shown::Plain(text) => text,
        Shown::Secret(_) => "(secret)",
    }
}
