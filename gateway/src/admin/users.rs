//! Users: who holds keys, and what may be used with all of them together.
//!
//! `GET /users` · `POST /users` · `GET|PUT|DELETE /users/{id or name}`
//!
//! Only an admin changes them. A key names its user; a user that a key names
//! cannot go before the key does, or names another.

use axum::{extract::State as Extract, response::Response};
use http::{HeaderMap, StatusCode};
use nexus_events::{
    clock::UnixMillis,
    config_event::{Action, Quota, User},
    id::UserId,
};
use serde::Serialize;

use super::{
    answer,
    fields::Fields,
    page::page,
    parameters::{NoParameters, PageParameters, PathParameter},
    providers::{deletion, set},
    quota::{QuotaChange, QuotaView},
};
use crate::{
    auth::Principal,
    configuration::{
        CommandError, Entry, Snapshot,
        commands::{Basis, Decision},
    },
    error::ApiError,
    middleware::RequestBody,
    state::State,
};

/// A user as the API shows it.
#[derive(Debug, Serialize)]
struct View<'a> {
    id: UserId,
    name: &'a str,
    #[serde(flatten)]
    quota: QuotaView,
    created_ms: UnixMillis,
    updated_ms: UnixMillis,
}

impl<'a> View<'a> {
    fn of(user: &'a User) -> Self {
        Self {
            id: user.id,
            name: &user.name,
            quota: user.quota.into(),
            created_ms: user.created_ms,
            updated_ms: user.updated_ms,
        }
    }
}

/// `GET /users`.
///
/// # Errors
/// 400: a parameter of the page is wrong.
pub async fn list(
    Extract(state): Extract<State>,
    parameters: PageParameters,
) -> Result<Response, ApiError> {
    let snapshot = state.configuration.current();
    let rows = snapshot
        .users()
        .map(|entry| (entry.resource.id.to_string(), View::of(&entry.resource)));
    answer::json(StatusCode::OK, &page(rows, &parameters)?)
}

/// `GET /users/{id or name}`.
///
/// # Errors
/// 404.
pub async fn get(
    Extract(state): Extract<State>,
    id: PathParameter,
    _: NoParameters,
) -> Result<Response, ApiError> {
    let snapshot = state.configuration.current();
    let entry = find(&snapshot, &id.0).ok_or_else(|| ApiError::not_found("user"))?;
    answer::resource(StatusCode::OK, &View::of(&entry.resource), entry.sequence)
}

/// `POST /users`.
///
/// # Errors
/// 400: the body is wrong; 409: the name is taken; 503: the broker is away.
pub async fn create(
    Extract(state): Extract<State>,
    principal: Principal,
    body: RequestBody,
) -> Result<Response, ApiError> {
    let New { name, limits } = New::parse(&body.0)?;
    let mut changed = vec!["name".to_owned()];
    let mut quota = Quota::default();
    limits.apply(&mut quota, &mut changed);
    let now = state.clock.now();
    let user = User {
        id: UserId::draw(&*state.clock),
        name,
        quota,
        created_ms: now,
        updated_ms: now,
    };
    let changed: Vec<&str> = changed.iter().map(String::as_str).collect();
    let written = state
        .commands
        .create(&principal.actor(), &changed, Basis::Kind, |snapshot| {
            name_is_free(snapshot, &user)?;
            Ok(user.clone())
        })
        .await?;
    let view = View::of(&written.resource);
    answer::resource(StatusCode::CREATED, &view, written.sequence)
}

/// `PUT /users/{id or name}`: changes what the body names.
///
/// # Errors
/// 400: the body is wrong; 404; 409: the name is taken; 412: `If-Match`; 503: the broker is away.
pub async fn update(
    Extract(state): Extract<State>,
    principal: Principal,
    id: PathParameter,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Response, ApiError> {
    let mut fields = Fields::parse(&body.0)?;
    let name = fields.name_beside_id("name")?;
    let limits = QuotaChange::read(&mut fields)?;
    fields.finish()?;
    let if_match = answer::if_match(&headers)?;
    let id = id_of(&state.configuration.current(), &id.0)?;
    let written = state
        .commands
        .change(&principal.actor(), if_match, |snapshot| {
            let entry = snapshot.user(id).ok_or(CommandError::NotFound("user"))?;
            let mut user = (*entry.resource).clone();
            let mut changed = Vec::new();
            set(&mut user.name, name.as_ref(), "name", &mut changed);
            let takes_name = !changed.is_empty();
            if takes_name {
                name_is_free(snapshot, &user)?;
            }
            limits.apply(&mut user.quota, &mut changed);
            if !changed.is_empty() {
                user.updated_ms = state.clock.now();
            }
            Ok(Decision {
                action: Action::Updated,
                resource: user,
                sequence: entry.sequence,
                changed,
                basis: Basis::taking_name(takes_name),
            })
        })
        .await?;
    let view = View::of(&written.resource);
    answer::resource(StatusCode::OK, &view, written.sequence)
}

/// `DELETE /users/{id or name}`.
///
/// # Errors
/// 404; 409: a key names it; 412: `If-Match`; 503: the broker is away.
pub async fn delete(
    Extract(state): Extract<State>,
    principal: Principal,
    id: PathParameter,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let if_match = answer::if_match(&headers)?;
    let id = id_of(&state.configuration.current(), &id.0)?;
    state
        .commands
        .change(&principal.actor(), if_match, |snapshot| {
            let entry = snapshot.user(id).ok_or(CommandError::NotFound("user"))?;
            is_unused(snapshot, &entry.resource)?;
            let mut decision = deletion((*entry.resource).clone(), entry.sequence);
            // A key that is given to the user meanwhile must not be left without one.
            decision.basis = Basis::Configuration;
            Ok(decision)
        })
        .await?;
    answer::deleted(id)
}

/// A user by its id or its name.
pub(super) fn find<'a>(snapshot: &'a Snapshot, id_or_name: &str) -> Option<&'a Entry<User>> {
    let by_id = id_or_name.parse().ok().and_then(|id| snapshot.user(id));
    by_id.or_else(|| snapshot.user_named(id_or_name))
}

fn id_of(snapshot: &Snapshot, id_or_name: &str) -> Result<UserId, ApiError> {
    let found = find(snapshot, id_or_name).map(|entry| entry.resource.id);
    found.ok_or_else(|| ApiError::not_found("user"))
}

/// No key is the user's.
pub(crate) fn is_unused(snapshot: &Snapshot, user: &User) -> Result<(), CommandError> {
    let mut keys = snapshot.keys().map(|entry| &entry.resource);
    match keys.find(|key| key.user_id == Some(user.id)) {
        None => Ok(()),
        Some(key) => Err(CommandError::Refused {
            code: "user_in_use",
            message: format!("The key '{}' is the user's.", key.name).into(),
        }),
    }
}

/// No other user has its name.
pub(crate) fn name_is_free(snapshot: &Snapshot, user: &User) -> Result<(), CommandError> {
    match snapshot.user_named(&user.name) {
        Some(other) if other.resource.id != user.id => Err(CommandError::Refused {
            code: "name_taken",
            message: format!("There is a user named '{}' already.", user.name).into(),
        }),
        _ => Ok(()),
    }
}

/// The body of a creation.
#[derive(Debug)]
pub(crate) struct New {
    pub(crate) name: String,
    pub(crate) limits: QuotaChange,
}

impl New {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        let name = fields.name_beside_id("name")?;
        let name = fields.required("name", name)?;
        let limits = QuotaChange::read(&mut fields)?;
        fields.finish()?;
        Ok(Self { name, limits })
    }
}
