//! What differs and is not seen in what the sections show.
//!
//! *The thought.* A resource is declared whole, so it is as it should be only
//! when everything that is stored of it is what the file makes of it. What a
//! plan prints is less than that: it has names where ids are stored, and no
//! secrets. And what this version reads is less, too: a newer hub may have
//! stored members that it does not know. Both kinds of difference must be
//! found and told, and gone after one run; or the plan would say *unchanged* of
//! what differs, or write the same again each time.
//!
//! So resources are compared as the log stores them, member by member; and of
//! each resource in the log those members are noted that do not come out again
//! when this version writes it. They are removed, as any member that the file
//! leaves out, and the plan says so.

use std::collections::BTreeMap;

use nexus_events::{
    config_event::{Action, Key, Model, Price, Provider, Resource, Route, User},
    envelope::Envelope,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Members that are not declared: what it is called by the log, and when it was changed.
const UNDECLARED: [&str; 3] = ["id", "created_ms", "updated_ms"];

/// Members of stored resources that this version does not know, by kind and id.
#[derive(Clone, Debug, Default)]
pub(super) struct Unknown(BTreeMap<(&'static str, String), Vec<String>>);

/// What is read of a change.
#[derive(Deserialize)]
struct Change {
    action: Action,
    resource: Value,
}

impl Unknown {
    /// Notes what an event of the configuration stores; the last one of a resource counts.
    pub(super) fn note(&mut self, payload: &[u8]) {
        let Ok(envelope) = Envelope::decode(payload) else {
            return;
        };
        match envelope.kind.as_ref() {
            Provider::EVENT => self.note_of::<Provider>(&envelope),
            Model::EVENT => self.note_of::<Model>(&envelope),
            Route::EVENT => self.note_of::<Route>(&envelope),
            Key::EVENT => self.note_of::<Key>(&envelope),
            User::EVENT => self.note_of::<User>(&envelope),
            Price::EVENT => self.note_of::<Price>(&envelope),
            _ => {}
        }
    }

    fn note_of<R: Resource>(&mut self, envelope: &Envelope<'_>) {
        let Ok(change) = envelope.data_as::<Change>() else {
            return;
        };
        // What this version cannot read is none of what it declares.
        let Ok(known) = serde_json::from_value::<R>(change.resource.clone()) else {
            return;
        };
        let id = (R::KIND, known.key());
        let mut found = Vec::new();
        if let Ok(known) = serde_json::to_value(&known) {
            added("", &change.resource, &known, &mut found);
        }
        if change.action == Action::Deleted || found.is_empty() {
            self.0.remove(&id);
        } else {
            self.0.insert(id, found);
        }
    }

    /// The members of a resource that this version does not know: `targets[0].region`.
    pub(super) fn of<R: Resource>(&self, resource: &R) -> &[String] {
        let found = self.0.get(&(R::KIND, resource.key()));
        found.map_or(&[], Vec::as_slice)
    }
}

/// Paths of what is stored and does not come out again; `null` is nothing.
fn added(path: &str, stored: &Value, known: &Value, found: &mut Vec<String>) {
    match (stored, known) {
        (Value::Object(stored), Value::Object(known)) => {
            for (name, value) in stored {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                match known.get(name) {
                    Some(known) => added(&path, value, known, found),
                    None if value.is_null() => {}
                    None => found.push(path),
                }
            }
        }
        (Value::Array(stored), Value::Array(known)) => {
            for (index, (stored, known)) in stored.iter().zip(known).enumerate() {
                added(&format!("{path}[{index}]"), stored, known, found);
            }
        }
        _ => {}
    }
}

/// Names of the members in which two states of a resource differ, as the events have them.
pub(super) fn differing<R: Serialize>(before: Option<&R>, after: &R) -> Vec<String> {
    let members = |resource: &R| match serde_json::to_value(resource) {
        Ok(Value::Object(members)) => members,
        _ => serde_json::Map::new(),
    };
    let (before, after) = (before.map(members).unwrap_or_default(), members(after));
    let new = after.iter().filter(|(name, _)| !before.contains_key(*name));
    let old = before
        .iter()
        .filter(|(name, value)| after.get(*name) != Some(*value));
    let names = old.chain(new).map(|(name, _)| name.clone());
    names
        .filter(|name| !UNDECLARED.contains(&&**name))
        .collect()
}

/// The member that a path is in.
pub(super) fn member(path: &str) -> &str {
    path.split(['.', '[']).next().unwrap_or(path)
}

#[cfg(test)]
mod tests;
