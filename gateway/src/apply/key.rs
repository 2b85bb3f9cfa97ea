//! API keys in the file.
//!
//! Its secret is made outside and referred to; the hub keeps its SHA-256, by
//! which it is compared. A key that is there already may be declared without a
//! secret, and keeps the one that it has: so the first admin key, whose secret
//! the hub is started with, can be declared like any other.

use std::{collections::BTreeSet, sync::Arc};

use nexus_events::{
    config_event::{Key, Quota, Role},
    id::KeyId,
};

use super::{
    document::Member,
    plan::{Declarable, Planner, Shown},
    problem::Problem,
    quota,
    reference::Environment,
    section::{self, Declared, Entry, Field, Holds, Section},
};
use crate::{
    admin::{
        change::name_is_free,
        keys::{self, has_other_admin, has_user},
    },
    cache::TTL_SECONDS_MAX,
    configuration::{
        self, CommandError, Snapshot,
        bootstrap::{ADMIN, hash},
    },
    settings::KEY_CHARS_MIN,
};

/// Different characters in a secret: 8. Of 32 random hexadecimal digits about 14 are different.
const DIFFERENT_CHARS_MIN: usize = 8;

pub(super) static SECTION: Section = Section {
    name: "keys",
    noun: "key",
    about: "API keys of people and programs.",
    members: &[
        Field {
            name: "name",
            stored: "name",
            about: "Its unique name.",
            holds: Holds::Name,
            required: true,
        },
        Field {
            name: "secret",
            stored: "hash",
            about: "What its holder sends as bearer token: 32 random characters or more. Left out: a key that is there already keeps the one that it has.",
            holds: Holds::Secret,
            required: false,
        },
        Field {
            name: "role",
            stored: "role",
            about: "What its holder may do; left out: member.",
            holds: Holds::OneOf(&["admin", "operator", "auditor", "viewer", "member"]),
            required: false,
        },
        Field {
            name: "on_disconnect",
            stored: "on_disconnect",
            about: "What happens to a request whose client hangs up; left out: finish.",
            holds: Holds::OneOf(&["finish", "cancel"]),
            required: false,
        },
        Field {
            name: "user",
            stored: "user_id",
            about: "Name of the user whose it is; left out: nobody's.",
            holds: Holds::NullableName,
            required: false,
        },
        Field {
            name: "cache_ttl_seconds",
            stored: "cache_ttl_seconds",
            about: "Seconds that answers to its deterministic requests may be kept, 0 for never; left out: as the route says.",
            holds: Holds::CountFromZero(TTL_SECONDS_MAX as u64),
            required: false,
        },
        quota::REQUESTS,
        quota::TOKENS,
        quota::CONCURRENT,
        quota::BUDGET,
    ],
};

/// A key as it is declared.
#[derive(Debug)]
pub(super) struct New {
    body: keys::New,
    /// SHA-256 of its secret.
    hash: Option<String>,
}

pub(super) fn read(
    file: (&[Member], &Environment<'_>),
    problems: &mut Vec<Problem>,
) -> Option<Vec<Declared<New>>> {
    let declared = section::read(file, &SECTION, problems, |entry| {
        let body = keys::New::parse(&entry.body(&["secret"])?);
        Ok(New {
            body: body.map_err(|error| entry.place.refused(&error))?,
            hash: secret(entry)?,
        })
    });
    section::unique(declared.as_deref(), "name", problems, |new| {
        new.body.name.clone()
    });
    declared
}

/// The hash of a secret that cannot be guessed and can stand in a header.
fn secret(entry: &Entry<'_>) -> Result<Option<String>, Problem> {
    let Some(secret) = entry.secret("secret")? else {
        return Ok(None);
    };
    let text = secret.expose();
    let wrong = |why: String| Err(entry.place.problem(Some("secret"), why));
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return wrong("'secret' must be printable ASCII without blanks".to_owned());
    }
    let different = text.bytes().collect::<BTreeSet<_>>().len();
    if text.len() < KEY_CHARS_MIN || different < DIFFERENT_CHARS_MIN {
        return wrong(format!(
            "'secret' can be guessed: it must have {KEY_CHARS_MIN} random characters or more (openssl rand -hex 32)"
        ));
    }
    Ok(Some(hash(&secret)))
}

pub(super) fn plan(planner: &mut Planner<'_>, declared: Option<&[Declared<New>]>) {
    let Some(declared) = declared else { return };
    let mut kept = Vec::new();
    for one in declared {
        let before = planner.before.key_named(&one.body.body.name);
        let before = before.or_else(|| {
            let mut found = renamed(planner, declared, &one.body);
            found.find(|entry| !kept.contains(&entry.resource.id))
        });
        let before = before.cloned();
        kept.extend(before.as_ref().map(|entry| entry.resource.id));
        let before = before.as_ref();
        let before = before.map(|entry| (&*entry.resource, entry.sequence));
        match wanted(planner, before.map(|(key, _)| key), one) {
            Ok(key) => planner.put(&one.place, before, key),
            Err(problem) => planner.problems.push(problem),
        }
    }
    let there = planner.before.keys();
    let mut there: Vec<_> = there.map(|entry| Arc::clone(&entry.resource)).collect();
    there.sort_by(|a, b| a.name.cmp(&b.name));
    for key in there.iter().filter(|key| !kept.contains(&key.id)) {
        if planner.prune_built_in || key.name != ADMIN {
            undeclared(planner, key);
        }
    }
    let had_admin = there.iter().any(|key| key.role == Role::Admin);
    planner.settle();
    if had_admin && !planner.now.keys().any(|it| it.resource.role == Role::Admin) {
        planner.problem("no admin key would be left: declare one with the role admin".to_owned());
    }
}

/// The key that would go and has the same secret: it is the same key by another name.
///
/// As a deletion and a creation its holder would be nobody for a moment.
fn renamed<'a>(
    planner: &'a Planner<'_>,
    declared: &'a [Declared<New>],
    new: &'a New,
) -> impl Iterator<Item = &'a configuration::Entry<Key>> {
    let keys = planner.before.keys().filter(|_| planner.prune);
    keys.filter(move |entry| {
        let key = &entry.resource;
        let is_declared = || declared.iter().any(|one| one.body.body.name == key.name);
        let goes = planner.prune_built_in || key.name != ADMIN;
        new.hash.as_ref() == Some(&key.hash) && goes && !is_declared()
    })
}

/// The key as it is declared; with the secret that it has, if the file names none.
fn wanted(planner: &Planner<'_>, old: Option<&Key>, one: &Declared<New>) -> Result<Key, Problem> {
    let New { body, hash } = &one.body;
    let hash = hash.as_ref().or(old.map(|old| &old.hash)).ok_or_else(|| {
        let message = format!("'secret' is required: there is no key '{}' yet", body.name);
        one.place.problem(Some("secret"), message)
    })?;
    if let Some(problem) = is_anothers(planner, old, hash, one) {
        return Err(problem);
    }
    let user_id = keys::named_user(&planner.now, &body.change.user_id);
    let mut limits = Quota::default();
    body.change.quota.apply(&mut limits, &mut Vec::new());
    if let Some(problem) = quota::refused(planner, &one.place, &limits) {
        return Err(problem);
    }
    let now = planner.clock.now();
    Ok(Key {
        id: old.map_or_else(|| KeyId::draw(planner.clock), |old| old.id),
        name: body.name.clone(),
        hash: hash.clone(),
        role: body.role,
        on_disconnect: body.change.on_disconnect.unwrap_or_default(),
        user_id: user_id.map_err(|error| one.place.refused(&error))?.value(),
        cache_ttl_seconds: body.change.cache_ttl_seconds.clone().value(),
        quota: limits,
        created_ms: old.map_or(now, |old| old.created_ms),
        updated_ms: old.map_or(now, |old| old.updated_ms),
    })
}

/// Refuses a secret that another key has now, even if that one gives it up or goes.
fn is_anothers(
    planner: &Planner<'_>,
    old: Option<&Key>,
    hash: &str,
    one: &Declared<New>,
) -> Option<Problem> {
    let mut others = planner.before.keys().map(|entry| &entry.resource);
    let other = others.find(|key| key.hash == hash && Some(key.id) != old.map(|old| old.id))?;
    let message = format!(
        "'secret' is that of the key '{0}': no two keys may have the same, and passed from one to the other it would be nobody's for a moment. Give '{0}' another one, or delete it, in a run before",
        other.name
    );
    Some(one.place.problem(Some("secret"), message))
}

/// The last admin key stays, whatever is pruned.
fn undeclared(planner: &mut Planner<'_>, key: &Key) {
    let mut admins = planner
        .keys()
        .filter(|other| other.role == Role::Admin && other.id != key.id);
    if key.role == Role::Admin && admins.next().is_none() {
        drop(admins);
        let reason = "not declared; it stays because it is the last admin key";
        planner.note(key, reason);
    } else {
        drop(admins);
        planner.undeclared(key);
    }
}

impl Declarable for Key {
    const SECTION: &'static Section = &SECTION;

    fn label(&self, _: &Snapshot) -> String {
        self.name.clone()
    }

    fn shown(&self, snapshot: &Snapshot) -> Vec<Shown> {
        let word = |value: serde_json::Result<serde_json::Value>| {
            let value = value.ok();
            Shown::optional(value.as_ref().and_then(serde_json::Value::as_str))
        };
        let user = self.user_id.and_then(|id| snapshot.user(id));
        let mut shown = vec![
            Shown::plain(&self.name),
            Shown::Secret(self.hash.clone()),
            word(serde_json::to_value(self.role)),
            word(serde_json::to_value(self.on_disconnect)),
            Shown::optional(user.map(|entry| &entry.resource.name)),
            Shown::optional(self.cache_ttl_seconds),
        ];
        shown.extend(quota::shown(&self.quota));
        shown
    }

    fn stands(&self, snapshot: &Snapshot) -> Result<(), CommandError> {
        name_is_free(snapshot, self, &self.name)?;
        has_user(snapshot, self)?;
        let mut others = snapshot.keys().filter(|it| it.resource.id != self.id);
        if let Some(other) = others.find(|it| it.resource.hash == self.hash) {
            let message = format!(
                "The key '{}' has the same secret: whose request it is could not be told.",
                other.resource.name
            );
            return Err(CommandError::Refused {
                code: "secret_taken",
                message: message.into(),
            });
        }
        let was = snapshot.key(self.id).map(|entry| entry.resource.role);
        if was == Some(Role::Admin) && self.role != Role::Admin {
            return has_other_admin(snapshot, self);
        }
        Ok(())
    }

    fn may_go(&self, snapshot: &Snapshot) -> Result<(), CommandError> {
        if self.role == Role::Admin {
            return has_other_admin(snapshot, self);
        }
        Ok(())
    }

    /// One admin key must be left at any time.
    fn takes_over(&self) -> bool {
        self.role == Role::Admin
    }
}
