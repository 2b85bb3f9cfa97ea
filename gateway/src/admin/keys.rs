//! API keys.
//!
//! `GET /keys` · `POST /keys` · `GET|PUT|DELETE /keys/{id}`
//!
//! The secret is shown once, in the answer to its creation; the hub keeps its
//! SHA-256. A deleted key is void in this gateway before the answer, and in
//! the others as soon as the event arrives. An operator manages the keys of
//! others, but gives nobody more than he has: admin keys are the admins' own.
//! A key's role stays what it is; what may be used with it can be changed.

use std::borrow::Cow;

use axum::{extract::State as Extract, response::Response};
use http::{HeaderMap, StatusCode};
use nexus_events::{
    clock::UnixMillis,
    config_event::{Key, OnDisconnect, Quota, Role, User},
    id::{KeyId, UserId},
};
use serde::Serialize;

use super::{
    answer,
    change::{self, Managed, found, id_of, name_is_free, names, set, set_nullable, takes_name},
    fields::{Fields, Nullable},
    page::page,
    parameters::{NoParameters, PageParameters, PathParameter},
    quota::{QuotaChange, QuotaView},
};
use crate::{
    auth::Principal,
    configuration::{
        CommandError, Snapshot,
        bootstrap::{draw_key, hash},
        commands::Basis,
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
    cache_ttl_seconds: Option<u32>,
    user_id: Option<UserId>,
    #[serde(flatten)]
    quota: QuotaView,
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
            cache_ttl_seconds: key.cache_ttl_seconds,
            user_id: key.user_id,
            quota: key.quota.into(),
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
    let (key, sequence) = found(&snapshot, &id.0)?;
    answer::resource(StatusCode::OK, &View::of(key), sequence)
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
    let New { name, role, change } = New::parse(&body.0)?;
    may_handle(&principal, role)?;
    let user_id = named_user(&state.configuration.current(), &change.user_id)?.value();
    let mut quota = Quota::default();
    let mut changed = vec!["name".into(), "role".into(), "on_disconnect".into()];
    changed.extend(user_id.map(|_| "user_id".to_owned()));
    let cache_ttl_seconds = change.cache_ttl_seconds.value();
    changed.extend(cache_ttl_seconds.map(|_| "cache_ttl_seconds".to_owned()));
    change.quota.apply(&mut quota, &mut changed);
    let secret = draw_key().map_err(ApiError::internal)?;
    let now = state.clock.now();
    let key = Key {
        id: KeyId::draw(&*state.clock),
        name,
        hash: hash(&secret),
        role,
        on_disconnect: change.on_disconnect.unwrap_or_default(),
        user_id,
        quota,
        cache_ttl_seconds,
        created_ms: now,
        updated_ms: now,
    };
    let changed: Vec<&str> = changed.iter().map(String::as_str).collect();
    let basis = Basis::Kind.naming_if(key.user_id.is_some());
    let written = state
        .commands
        .create(&principal.actor(), &changed, basis, |snapshot| {
            name_is_free(snapshot, &key, &key.name)?;
            has_user(snapshot, &key)?;
            Ok(key.clone())
        })
        .await?;
    let view = View {
        key: Some(secret.expose()),
        ..View::of(&written.resource)
    };
    answer::resource(StatusCode::CREATED, &view, written.sequence)
}

/// `PUT /keys/{id or name}`: changes what the body names.
///
/// # Errors
/// 400: the body is wrong; 403: an operator changes an admin key; 404; 409: the name is taken;
/// 412: `If-Match`; 503: the broker is away.
pub async fn update(
    Extract(state): Extract<State>,
    principal: Principal,
    id: PathParameter,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Response, ApiError> {
    let mut fields = Fields::parse(&body.0)?;
    let name = fields.name_beside_id("name")?;
    let change = Change::read(&mut fields)?;
    fields.finish()?;
    let snapshot = state.configuration.current();
    let id = id_of::<Key>(&snapshot, &id.0)?;
    let user_id = named_user(&snapshot, &change.user_id)?;
    let change = |snapshot: &Snapshot, key: &mut Key, changed: &mut Vec<String>| {
        if key.role == Role::Admin && principal.key.role != Role::Admin {
            return Err(CommandError::Forbidden(ADMINS_OWN));
        }
        set(&mut key.name, name.as_ref(), "name", changed);
        let then = change.on_disconnect.as_ref();
        set(&mut key.on_disconnect, then, "on_disconnect", changed);
        set_nullable(&mut key.user_id, &user_id, "user_id", changed);
        let ttl = &change.cache_ttl_seconds;
        set_nullable(
            &mut key.cache_ttl_seconds,
            ttl,
            "cache_ttl_seconds",
            changed,
        );
        change.quota.apply(&mut key.quota, changed);
        has_user(snapshot, key)?;
        let basis = takes_name(snapshot, key, &key.name, changed)?;
        Ok(basis.naming_if(names(changed, "user_id")))
    };
    let written = change::update(&state, &principal, &headers, id, change).await?;
    let view = View::of(&written.resource);
    answer::resource(StatusCode::OK, &view, written.sequence)
}

/// `DELETE /keys/{id or name}`.
///
/// # Errors
/// 403: an operator revokes an admin key; 404; 409: it is the last admin key; 412: `If-Match`;
/// 503: the broker is away.
pub async fn delete(
    Extract(state): Extract<State>,
    principal: Principal,
    id: PathParameter,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = id_of::<Key>(&state.configuration.current(), &id.0)?;
    change::delete(&state, &principal, &headers, id, |snapshot, key: &Key| {
        if key.role == Role::Admin {
            if principal.key.role != Role::Admin {
                return Err(CommandError::Forbidden(ADMINS_OWN));
            }
            has_other_admin(snapshot, key)?;
        }
        // Two admins that revoke each other at once must not leave none.
        Ok(Basis::Kind)
    })
    .await
}

const ADMINS_OWN: &str = "Only an admin key may create, change or revoke admin keys.";

/// What both a creation and a change may say.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) on_disconnect: Option<OnDisconnect>,
    /// Id or name.
    pub(crate) user_id: Nullable<String>,
    pub(crate) cache_ttl_seconds: Nullable<u32>,
    pub(crate) quota: QuotaChange,
}

impl Change {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            on_disconnect: fields.typed("on_disconnect", "one of: finish, cancel")?,
            user_id: fields.nullable_text("user_id")?,
            cache_ttl_seconds: fields.cache_ttl()?,
            quota: QuotaChange::read(fields)?,
        })
    }
}

/// The user that a body names; 400, because there the body is wrong and not the address.
pub(crate) fn named_user(
    snapshot: &Snapshot,
    named: &Nullable<String>,
) -> Result<Nullable<UserId>, ApiError> {
    named.clone().try_map(|text| {
        let wrong = |_| ApiError::invalid_request(Some("user_id"), "There is no such user.");
        id_of::<User>(snapshot, &text).map_err(wrong)
    })
}

/// The user was there when the request came; it may be gone when the change is decided.
pub(crate) fn has_user(snapshot: &Snapshot, key: &Key) -> Result<(), CommandError> {
    match key.user_id {
        Some(id) if snapshot.user(id).is_none() => Err(CommandError::Invalid {
            member: "user_id".into(),
            message: "There is no such user.".into(),
        }),
        _ => Ok(()),
    }
}

fn may_handle(principal: &Principal, role: Role) -> Result<(), ApiError> {
    if role == Role::Admin && principal.key.role != Role::Admin {
        return Err(ApiError::forbidden(ADMINS_OWN));
    }
    Ok(())
}

/// There is an admin key besides this one.
pub(crate) fn has_other_admin(snapshot: &Snapshot, key: &Key) -> Result<(), CommandError> {
    let mut keys = snapshot.keys().map(|entry| &entry.resource);
    if keys.any(|other| other.role == Role::Admin && other.id != key.id) {
        return Ok(());
    }
    Err(CommandError::Refused {
        code: "last_admin_key",
        message: Cow::Borrowed("It is the last admin key: create another one first."),
    })
}

impl Managed for Key {
    type Id = KeyId;
    const NOUN: &'static str = "key";

    fn id(&self) -> KeyId {
        self.id
    }

    fn find(snapshot: &Snapshot, id: KeyId) -> Option<(&Self, u64)> {
        let entry = snapshot.key(id)?;
        Some((&entry.resource, entry.sequence))
    }

    fn named(snapshot: &Snapshot, name: &str) -> Option<KeyId> {
        snapshot.key_named(name).map(|entry| entry.resource.id)
    }

    fn touch(&mut self, now: UnixMillis) {
        self.updated_ms = now;
    }
}

/// The body of a creation.
#[derive(Debug)]
pub(crate) struct New {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) change: Change,
}

impl New {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        let name = fields.name_beside_id("name")?;
        let name = fields.required("name", name)?;
        let role = fields.typed("role", "one of: admin, operator, auditor, viewer, member")?;
        let change = Change::read(&mut fields)?;
        fields.finish()?;
        Ok(Self {
            name,
            role: role.unwrap_or(Role::Member),
            change,
        })
    }
}
