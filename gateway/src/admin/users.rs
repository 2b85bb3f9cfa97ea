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
    config_event::{Quota, User},
    id::UserId,
};
use serde::Serialize;

use super::{
    answer,
    change::{self, Managed, found, id_of, name_is_free, set, takes_name},
    fields::Fields,
    page::page,
    parameters::{NoParameters, PageParameters, PathParameter},
    quota::{QuotaChange, QuotaView},
};
use crate::{
    auth::Principal,
    configuration::{CommandError, Snapshot, commands::Basis},
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
    let (user, sequence) = found(&snapshot, &id.0)?;
    answer::resource(StatusCode::OK, &View::of(user), sequence)
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
            name_is_free(snapshot, &user, &user.name)?;
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
    let id = id_of::<User>(&state.configuration.current(), &id.0)?;
    let change = |snapshot: &Snapshot, user: &mut User, changed: &mut Vec<String>| {
        set(&mut user.name, name.as_ref(), "name", changed);
        limits.apply(&mut user.quota, changed);
        takes_name(snapshot, user, &user.name, changed)
    };
    let written = change::update(&state, &principal, &headers, id, change).await?;
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
    let id = id_of::<User>(&state.configuration.current(), &id.0)?;
    change::delete(&state, &principal, &headers, id, |snapshot, user: &User| {
        is_unused(snapshot, user)?;
        // A key that is given to the user meanwhile must not be left without one.
        Ok(Basis::Configuration)
    })
    .await
}

impl Managed for User {
    type Id = UserId;
    const NOUN: &'static str = "user";

    fn id(&self) -> UserId {
        self.id
    }

    fn find(snapshot: &Snapshot, id: UserId) -> Option<(&Self, u64)> {
        let entry = snapshot.user(id)?;
        Some((&entry.resource, entry.sequence))
    }

    fn named(snapshot: &Snapshot, name: &str) -> Option<UserId> {
        snapshot.user_named(name).map(|entry| entry.resource.id)
    }

    fn touch(&mut self, now: UnixMillis) {
        self.updated_ms = now;
    }
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
