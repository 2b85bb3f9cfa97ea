//! What changes have in common: how a resource is found, changed, deleted, and kept unique.
//!
//! A handler says what is particular to its kind: which members a body names,
//! and what must hold beside the rest of the configuration. That a change may
//! be decided more than once, on a newer configuration, is seen to here: the
//! resource is looked up each time, and is 404 when it has gone meanwhile.

use std::{fmt, str::FromStr};

use axum::response::Response;
use http::HeaderMap;
use nexus_events::{
    clock::UnixMillis,
    config_event::{Action, Actor, Resource},
};

use super::{answer, fields::Nullable};
use crate::{
    auth::Principal,
    configuration::{
        CommandError, Commands, Snapshot,
        commands::{Basis, Decision, Written},
    },
    error::ApiError,
    state::AppState,
};

/// A kind of resource that is managed.
pub(crate) trait Managed: Resource + Clone + 'static {
    /// Its id.
    type Id: Copy + PartialEq + fmt::Display + FromStr;
    /// What one of it is called in sentences.
    const NOUN: &'static str;

    /// The resource's id.
    fn id(&self) -> Self::Id;
    /// The resource as it is configured, with the stream sequence of its last change.
    fn find(snapshot: &Snapshot, id: Self::Id) -> Option<(&Self, u64)>;
    /// The one of that name; `None` for kinds without unique names.
    fn named(snapshot: &Snapshot, name: &str) -> Option<Self::Id>;
    /// It changes now.
    fn touch(&mut self, now: UnixMillis);
}

/// The id of a resource by its id or, in its place, its name.
///
/// # Errors
/// 404.
pub(super) fn id_of<R: Managed>(snapshot: &Snapshot, id_or_name: &str) -> Result<R::Id, ApiError> {
    let id = id_or_name.parse().ok();
    let id = id.filter(|id| R::find(snapshot, *id).is_some());
    id.or_else(|| R::named(snapshot, id_or_name))
        .ok_or_else(|| ApiError::not_found(R::NOUN))
}

/// A resource by its id or its name, with the stream sequence of its last change.
///
/// # Errors
/// 404.
pub(super) fn found<'a, R: Managed>(
    snapshot: &'a Snapshot,
    id_or_name: &str,
) -> Result<(&'a R, u64), ApiError> {
    let id = id_of::<R>(snapshot, id_or_name)?;
    R::find(snapshot, id).ok_or_else(|| ApiError::not_found(R::NOUN))
}

/// No other resource of the kind has that name.
///
/// # Errors
/// `name_taken`.
pub(crate) fn name_is_free<R: Managed>(
    snapshot: &Snapshot,
    resource: &R,
    name: &str,
) -> Result<(), CommandError> {
    match R::named(snapshot, name) {
        Some(other) if other != resource.id() => Err(CommandError::Refused {
            code: "name_taken",
            message: format!("There is a {} named '{name}' already.", R::NOUN).into(),
        }),
        _ => Ok(()),
    }
}

/// What a change looks at that may have taken a name: the whole kind, if it has.
///
/// # Errors
/// `name_taken`.
pub(super) fn takes_name<R: Managed>(
    snapshot: &Snapshot,
    resource: &R,
    name: &str,
    changed: &[String],
) -> Result<Basis, CommandError> {
    if !names(changed, "name") {
        return Ok(Basis::Resource);
    }
    name_is_free(snapshot, resource, name)?;
    Ok(Basis::Kind)
}

/// Changes a resource: `change` sets its members, notes the names of those that differ, and says
/// what it looked at.
///
/// # Errors
/// 404; 412: `If-Match`; 503: the broker is away; and what `change` has against it.
pub(super) async fn update<R: Managed>(
    state: &AppState,
    principal: &Principal,
    headers: &HeaderMap,
    id: R::Id,
    change: impl Fn(&Snapshot, &mut R, &mut Vec<String>) -> Result<Basis, CommandError>,
) -> Result<Written<R>, ApiError> {
    let if_match = answer::if_match(headers)?;
    let decide = |snapshot: &Snapshot| {
        let found = R::find(snapshot, id);
        let (before, sequence) = found.ok_or(CommandError::NotFound(R::NOUN))?;
        let (mut resource, mut changed) = (before.clone(), Vec::new());
        let basis = change(snapshot, &mut resource, &mut changed)?;
        if !changed.is_empty() {
            resource.touch(state.clock.now());
        }
        Ok(Decision {
            action: Action::Updated,
            resource,
            sequence,
            changed,
            basis,
        })
    };
    let actor = principal.actor();
    Ok(state.commands.change(&actor, if_match, decide).await?)
}

/// Deletes a resource and answers; `may_go` says what it looked at.
///
/// # Errors
/// 404; 412: `If-Match`; 503: the broker is away; and what `may_go` has against it.
pub(super) async fn delete<R: Managed>(
    state: &AppState,
    principal: &Principal,
    headers: &HeaderMap,
    id: R::Id,
    may_go: impl Fn(&Snapshot, &R) -> Result<Basis, CommandError>,
) -> Result<Response, ApiError> {
    let if_match = answer::if_match(headers)?;
    let who = (&state.commands, &principal.actor());
    remove(who, if_match, id, may_go).await?;
    answer::deleted(id)
}

/// Deletes a resource.
///
/// # Errors
/// By kind, see [`CommandError`].
pub(super) async fn remove<R: Managed>(
    (commands, actor): (&Commands, &Actor),
    if_match: Option<u64>,
    id: R::Id,
    may_go: impl Fn(&Snapshot, &R) -> Result<Basis, CommandError>,
) -> Result<(), CommandError> {
    let decide = |snapshot: &Snapshot| {
        let found = R::find(snapshot, id);
        let (resource, sequence) = found.ok_or(CommandError::NotFound(R::NOUN))?;
        Ok(Decision {
            action: Action::Deleted,
            basis: may_go(snapshot, resource)?,
            resource: resource.clone(),
            sequence,
            changed: Vec::new(),
        })
    };
    commands.change(actor, if_match, decide).await.map(drop)
}

/// Nothing stands against it, and nothing else was looked at.
///
/// # Errors
/// None.
#[expect(
    clippy::unnecessary_wraps,
    reason = "it stands among those that refuse"
)]
pub(super) fn at_any_time<R>(_: &Snapshot, _: &R) -> Result<Basis, CommandError> {
    Ok(Basis::Resource)
}

/// Whether a member is among those that change.
pub(super) fn names(changed: &[String], member: &str) -> bool {
    changed.iter().any(|name| name == member)
}

/// Sets a member that is named and differs, and notes its name.
pub(super) fn set<T: Clone + PartialEq>(
    member: &mut T,
    value: Option<&T>,
    name: &str,
    changed: &mut Vec<String>,
) {
    if let Some(value) = value
        && value != member
    {
        member.clone_from(value);
        changed.push(name.to_owned());
    }
}

/// The same for a member that may be `null`.
pub(super) fn set_nullable<T: Clone + PartialEq>(
    member: &mut Option<T>,
    value: &Nullable<T>,
    name: &str,
    changed: &mut Vec<String>,
) {
    match value {
        Nullable::Absent => {}
        Nullable::Null => set(member, Some(&None), name, changed),
        Nullable::Value(value) => set(member, Some(&Some(value.clone())), name, changed),
    }
}
