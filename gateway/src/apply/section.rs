//! The sections of the file: what members each takes, and how one resource of it is read.
//!
//! A section says in a table which members there are; the schema is made from
//! the same table. Whether what they hold is right is decided by the code that
//! reads the bodies of the management API: a resource becomes such a body here.

use std::ops::RangeInclusive;

use nexus_events::clock::UnixMillis;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{
    document::{Member, Node},
    problem::Problem,
    reference::{self, Environment},
};
use crate::{error::ApiError, settings::Secret};

/// A kind of resource that the file can declare.
#[derive(Debug)]
pub(super) struct Section {
    /// Its name in the file: `providers`.
    pub(super) name: &'static str,
    /// One of it, in sentences: `provider`.
    pub(super) noun: &'static str,
    /// What it declares.
    pub(super) about: &'static str,
    /// The members that a resource has.
    pub(super) members: &'static [Field],
}

/// A member that a resource has in the file.
#[derive(Debug)]
pub(super) struct Field {
    /// Its name in the file.
    pub(super) name: &'static str,
    /// Its name in the management API and in events.
    pub(super) stored: &'static str,
    /// What it means.
    pub(super) about: &'static str,
    /// What it holds.
    pub(super) holds: Holds,
    /// Whether it must be there.
    pub(super) required: bool,
}

/// What a member holds, as far as the schema says it.
#[derive(Debug)]
pub(super) enum Holds {
    /// A name of 1 to 128 characters.
    Name,
    /// The same, or `null`.
    NullableName,
    /// Text of at most 4 096 characters.
    Text,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A reference to a secret.
    Secret,
    /// A whole number from 1 up to that, or `null`.
    Count(u64),
    /// A whole number up to that, or `null`.
    CountFromZero(u64),
    /// A whole number in that range.
    Number(RangeInclusive<u64>),
    /// A moment as RFC 3339 has it, which the API takes in milliseconds since 1970.
    Moment,
    /// 1 to so many objects with these members, named as in the management API.
    List(usize, &'static [Field]),
}

impl Section {
    /// The member of that name in the file.
    pub(super) fn field(&self, name: &str) -> Option<&Field> {
        self.members.iter().find(|field| field.name == name)
    }

    fn names(&self) -> String {
        let names: Vec<_> = self.members.iter().map(|field| field.name).collect();
        names.join(", ")
    }
}

/// Where a resource is declared.
#[derive(Clone, Debug)]
pub(super) struct Place {
    section: &'static Section,
    /// `providers[2]`.
    path: String,
    line: u64,
    members: Vec<Member>,
}

/// A resource as it is declared.
#[derive(Debug)]
pub(super) struct Declared<T> {
    pub(super) place: Place,
    pub(super) body: T,
}

impl Place {
    /// `providers[2]`.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Something is wrong with the resource, or with a member of it.
    pub(super) fn problem(&self, member: Option<&str>, message: impl Into<String>) -> Problem {
        let path = member.map_or_else(
            || self.path.clone(),
            |member| format!("{}.{member}", self.path),
        );
        Problem {
            path,
            line: Some(member.map_or(self.line, |member| self.line_of(member))),
            message: message.into(),
        }
    }

    /// The same as the management API says it, which may have another name for the member.
    pub(super) fn refused(&self, error: &ApiError) -> Problem {
        self.problem_of_stored(error.param.as_deref(), &error.message)
    }

    /// Something is wrong with what the management API calls so.
    pub(super) fn problem_of_stored(&self, stored: Option<&str>, message: &str) -> Problem {
        let Some(stored) = stored else {
            return self.problem(None, message);
        };
        let end = stored.find(['.', '[']).unwrap_or(stored.len());
        let (first, rest) = stored.split_at(end);
        let field = self.section.members.iter().find(|it| it.stored == first);
        let name = field.map_or(first, |field| field.name);
        let message = message.replacen(&format!("'{first}"), &format!("'{name}"), 1);
        self.problem(Some(&format!("{name}{rest}")), message)
    }

    /// The line of `targets[1].model`, or of what there is on the way to it.
    fn line_of(&self, path: &str) -> u64 {
        let (mut line, mut members) = (self.line, self.members.as_slice());
        for part in path.split('.') {
            let (name, index) = part.split_once('[').unwrap_or((part, ""));
            let Some(member) = members.iter().find(|member| member.name == name) else {
                return line;
            };
            line = member.line;
            let index: Option<usize> = index.trim_end_matches(']').parse().ok();
            let node = match (&member.node, index) {
                (Node::List(list), Some(index)) => list.get(index).map(|one| {
                    line = one.line;
                    &one.node
                }),
                (node, _) => Some(node),
            };
            let Some(Node::Map(inside)) = node else {
                return line;
            };
            members = inside;
        }
        line
    }
}

/// A resource that is being read.
pub(super) struct Entry<'a> {
    pub(super) place: Place,
    environment: &'a Environment<'a>,
}

impl Entry<'_> {
    /// The resource as a body of the management API, without the members `apart`.
    pub(super) fn body(&self, apart: &[&str]) -> Result<Zeroizing<Vec<u8>>, Problem> {
        let mut body = Map::new();
        for member in &self.place.members {
            let Some(field) = self.place.section.field(&member.name) else {
                let message = format!(
                    "unknown member '{}'; known are: {}",
                    member.name,
                    self.place.section.names()
                );
                return Err(self.place.problem(Some(&member.name), message));
            };
            if apart.contains(&field.name) {
                continue;
            }
            let value = match (&field.holds, &member.node) {
                (Holds::Secret, Node::Null) => Value::Null,
                (Holds::Secret, node) => {
                    Value::String(self.secret_in(field.name, node)?.expose().to_owned())
                }
                (Holds::Moment, node) => self.moment(field.name, node)?,
                (_, node) => self.json(field.name, node)?,
            };
            body.insert(field.stored.to_owned(), value);
        }
        let bytes = serde_json::to_vec(&Value::Object(body));
        bytes
            .map(Zeroizing::new)
            .map_err(|error| self.place.problem(None, error.to_string()))
    }

    /// The secret that a member refers to; `None` when the member is not there.
    pub(super) fn secret(&self, name: &str) -> Result<Option<Secret>, Problem> {
        let mut members = self.place.members.iter();
        let member = members.find(|member| member.name == name);
        member
            .map(|member| self.secret_in(name, &member.node))
            .transpose()
    }

    fn secret_in(&self, name: &str, node: &Node) -> Result<Secret, Problem> {
        // What is no text is no reference either, and refused in the same words.
        let text = match node {
            Node::Text(text) => text.as_str(),
            Node::Null | Node::Bool(_) | Node::Number(_) | Node::List(_) | Node::Map(_) => "",
        };
        reference::secret(text, self.environment)
            .map_err(|why| self.place.problem(Some(name), format!("'{name}' {why}")))
    }

    fn moment(&self, name: &str, node: &Node) -> Result<Value, Problem> {
        let value = self.json(name, node)?;
        let moment = value.as_str().and_then(|text| {
            let moment = UnixMillis::parse_rfc3339(text).ok()?;
            Some(moment.as_millis().into())
        });
        moment.ok_or_else(|| {
            let message = format!("'{name}' must be a date and time such as 2026-12-01T00:00:00Z");
            self.place.problem(Some(name), message)
        })
    }

    /// A value with its references replaced.
    fn json(&self, path: &str, node: &Node) -> Result<Value, Problem> {
        Ok(match node {
            Node::Null => Value::Null,
            Node::Bool(value) => Value::Bool(*value),
            Node::Number(number) => Value::Number(number.clone()),
            Node::Text(text) => {
                let replaced = reference::replace(text, self.environment);
                let wrong = |why| self.place.problem(Some(path), format!("'{path}' {why}"));
                Value::String(replaced.map_err(wrong)?)
            }
            Node::List(list) => {
                let numbered = list.iter().enumerate();
                let values =
                    numbered.map(|(index, one)| self.json(&format!("{path}[{index}]"), &one.node));
                Value::Array(values.collect::<Result<_, _>>()?)
            }
            Node::Map(members) => {
                let mut map = Map::new();
                for member in members {
                    let value = self.json(&format!("{path}.{}", member.name), &member.node)?;
                    map.insert(member.name.clone(), value);
                }
                Value::Object(map)
            }
        })
    }
}

/// Reads a section; `None` for one that the file does not have.
pub(super) fn read<T>(
    (members, environment): (&[Member], &Environment<'_>),
    section: &'static Section,
    problems: &mut Vec<Problem>,
    one: impl Fn(&Entry<'_>) -> Result<T, Problem>,
) -> Option<Vec<Declared<T>>> {
    let whole = members.iter().find(|member| member.name == section.name)?;
    let Node::List(list) = &whole.node else {
        problems.push(Problem {
            path: section.name.to_owned(),
            line: Some(whole.line),
            message: format!("must be a list of {}", section.name),
        });
        return None;
    };
    let mut declared = Vec::new();
    for (index, numbered) in list.iter().enumerate() {
        let mut place = Place {
            section,
            path: format!("{}[{index}]", section.name),
            line: numbered.line,
            members: Vec::new(),
        };
        let Node::Map(members) = &numbered.node else {
            problems.push(place.problem(None, format!("must be a {}", section.noun)));
            continue;
        };
        place.members.clone_from(members);
        let entry = Entry { place, environment };
        match one(&entry) {
            Ok(body) => declared.push(Declared {
                place: entry.place,
                body,
            }),
            Err(problem) => problems.push(problem),
        }
    }
    Some(declared)
}

/// Refuses what is declared twice: the second would undo the first at each run.
pub(super) fn unique<T>(
    declared: Option<&[Declared<T>]>,
    member: &str,
    problems: &mut Vec<Problem>,
    name: impl Fn(&T) -> String,
) {
    let mut seen = std::collections::BTreeMap::new();
    for one in declared.into_iter().flatten() {
        let name = name(&one.body);
        if let Some(first) = seen.get(&name) {
            let noun = one.place.section.noun;
            let message = format!("the {noun} '{name}' is declared already, at {first}");
            problems.push(one.place.problem(Some(member), message));
        } else {
            seen.insert(name, one.place.path.clone());
        }
    }
}
