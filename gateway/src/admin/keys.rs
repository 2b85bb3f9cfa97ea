//! API keys.
//!
//! `GET /keys` · `POST /keys` · `GET|DELETE /keys/{id}`
//!
//! The secret is shown once, in the answer to its creation; the hub keeps its
//! SHA-256. A deleted key is void in this gateway before the answer, and in
//! the others as soon as the event arrives. An operator manages the keys of
//! others, but gives nobody more than he has: admin keys are the admins' own.

use std::borrow::Cow;

use axum::{extract::State as Extract, response::Response};
use http::StatusCode;
use nexus_events::{
    clock::UnixMillis,
    config_event::{Key, OnDisconnect, Role},
    id::KeyId,
};
use serde::Serialize;

use super::{
    answer::{self, Deleted},
    fields::Fields,
    page::page,
    parameters::{NoParameters, PageParameters, PathParameter},
    providers::deletion,
};
use crate::{
    auth::Principal,
    configuration::{
        CommandError, Snapshot,
        bootstrap::{draw_key, hash},
    },
    error::ApiError,
    middleware::RequestBody,
    state::State,
};

/// A key as the API shows it.
#[derive(Debug, Serialize)]
struct View<'a> {
    id: KeyId,
    name: &'a str,
    role: Role,
    on_disconnect: OnDisconnect,
    created_ms: UnixMillis,
    updated_ms: UnixMillis,
    /// The secret; only in the answer to the creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
}

impl<'a> View<'a> {
    fn of(key: &'a Key) -> Self {
        Self {
            id: key.id,
            name: &key.name,
            role: key.role,
            on_disconnect: key.on_disconnect,
            created_ms: key.created_ms,
            updated_ms: key.updated_ms,
            key: None,
        }
    }
}

/// `GET /keys`.
///
/// # Errors
/// 400: a parameter of the page is wrong.
pub async fn list(
    Extract(state): Extract<State>,
    parameters: PageParameters,
) -> Result<Response, ApiError> {
    let snapshot = state.configuration.current();
    let rows = snapshot
        .keys()
        .map(|entry| (entry.resource.id.to_string(), View::of(&entry.resource)));
    answer::json(StatusCode::OK, &page(rows, &parameters)?)
}

/// `GET /keys/{id or name}`.
///
/// # Errors
/// 404.
pub async fn get(
    Extract(state): Extract<State>,
    id: PathParameter,
    _: NoParameters,
) -> Result<Response, ApiError> {
    let snapshot = state.configuration.current();
    let entry = find(&snapshot, &id)?;
    let entry = snapshot
        .key(entry)
        .ok_or_else(|| ApiError::not_found("key"))?;
    answer::resource(StatusCode::OK, &View::of(&entry.resource), entry.sequence)
}

/// `POST /keys`.
///
/// # Errors
/// 400: the body is wrong; 403: an operator gives out an admin key; 409: the name is taken;
/// 503: the broker is away.
pub async fn create(
    Extract(state): Extract<State>,
    principal: Principal,
    body: RequestBody,
) -> Result<Response, ApiError> {
    let mut fields = Fields::parse(&body.0)?;
    let name = fields.name_beside_id("name")?;
    let name = fields.required("name", name)?;
    let role = fields
        .typed("role", "one of: admin, operator, auditor, viewer, member")?
        .unwrap_or(Role::Member);
    let on_disconnect = fields
        .typed("on_disconnect", "one of: finish, cancel")?
        .unwrap_or_default();
    fields.finish()?;
    may_handle(&principal, role)?;
    let secret = draw_key().map_err(ApiError::internal)?;
    let now = state.clock.now();
    let key = Key {
        id: KeyId::draw(&*state.clock),
        name,
        hash: hash(&secret),
        role,
        on_disconnect,
        created_ms: now,
        updated_ms: now,
    };
    let changed = ["name", "role", "on_disconnect"];
    let written = state
        .commands
        .create(&principal.actor(), &changed, |snapshot| {
            if snapshot.key_named(&key.name).is_some() {
                return Err(CommandError::Refused {
                    code: "name_taken",
                    message: format!("There is a key named '{}' already.", key.name).into(),
                });
            }
            Ok(key.clone())
        })
        .await?;
    let view = View {
        key: Some(secret.expose()),
        ..View::of(&written.resource)
    };
    answer::resource(StatusCode::CREATED, &view, written.sequence)
}

/// `DELETE /keys/{id or name}`.
///
/// # Errors
/// 403: an operator revokes an admin key; 404; 409: it is the last admin key; 503: the broker is
/// away.
pub async fn delete(
    Extract(state): Extract<State>,
    principal: Principal,
    id: PathParameter,
) -> Result<Response, ApiError> {
    let id = find(&state.configuration.current(), &id)?;
    state
        .commands
        .change(&principal.actor(), None, |snapshot| {
            let entry = snapshot.key(id).ok_or(CommandError::NotFound("key"))?;
            if entry.resource.role == Role::Admin {
                if principal.key.role != Role::Admin {
                    return Err(CommandError::Forbidden(ADMINS_OWN));
                }
                if admins(snapshot) == 1 {
                    return Err(CommandError::Refused {
                        code: "last_admin_key",
                        message: Cow::Borrowed(
                            "It is the last admin key: create another one first.",
                        ),
                    });
                }
            }
            let mut decision = deletion((*entry.resource).clone(), entry.sequence);
            // Two admins that revoke each other at once must not leave none.
            decision.takes_name = true;
            Ok(decision)
        })
        .await?;
    let gone = Deleted {
        id: id.to_string(),
        deleted: true,
    };
    answer::json(StatusCode::OK, &gone)
}

const ADMINS_OWN: &str = "Only an admin key may create or revoke admin keys.";

fn may_handle(principal: &Principal, role: Role) -> Result<(), ApiError> {
    if role == Role::Admin && principal.key.role != Role::Admin {
        return Err(ApiError::forbidden(ADMINS_OWN));
    }
    Ok(())
}

fn admins(snapshot: &Snapshot) -> usize {
    snapshot
        .keys()
        .filter(|entry| entry.resource.role == Role::Admin)
        .count()
}

fn find(snapshot: &Snapshot, id_or_name: &PathParameter) -> Result<KeyId, ApiError> {
    let by_id = id_or_name
        .0
        .parse()
        .ok()
        .filter(|id| snapshot.key(*id).is_some());
    by_id
        .or_else(|| {
            snapshot
                .key_named(&id_or_name.0)
                .map(|entry| entry.resource.id)
        })
        .ok_or_else(|| ApiError::not_found("key"))
}
