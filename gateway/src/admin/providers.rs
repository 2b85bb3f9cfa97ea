//! Providers.
//!
//! `GET /providers` · `POST /providers` · `GET|PUT|DELETE /providers/{id or name}`
//!
//! A provider's key goes in and never comes out: answers say `has_key`.
//! Deleting a provider deletes its models first, so that none is left that
//! nobody offers, and it goes when it has none; a crash in between leaves a
//! provider with fewer models, and the deletion can be repeated.

mod body;
mod health;
mod view;

use std::net::SocketAddr;

use axum::{extract::State as Extract, response::Response};
use body::{Change, check_key, check_url};
use http::{HeaderMap, StatusCode};
use nexus_events::{
    clock::UnixMillis,
    config_event::{Actor, Model, Provider},
    id::ProviderId,
};
use view::View;

pub(crate) use body::New;

use super::{
    answer,
    change::{
        self, Managed, at_any_time, found, id_of, name_is_free, set, set_nullable, takes_name,
    },
    fields::{Nullable, wrong},
    page::page,
    parameters::{NoParameters, PageParameters, PathParameter},
};
use crate::{
    auth::Principal,
    configuration::{
        CommandError, ProviderRecord, Snapshot,
        commands::{Basis, Commands, TRIES_MAX},
        fold::provider_seal,
    },
    error::ApiError,
    middleware::RequestBody,
    provider::own_address,
    settings::Secret,
    state::{AppState, State},
};

/// How often models that are entered while a provider is being deleted are deleted with it: 32 times, as often as a
/// decision is made again ([`TRIES_MAX`]), and for the same reason. With 8, eight calls that entered one model each
/// could each take a round.
const ROUNDS_MAX: u32 = TRIES_MAX;

/// `GET /providers`.
///
/// # Errors
/// 400: a parameter of the page is wrong.
pub async fn list(
    Extract(state): Extract<State>,
    parameters: PageParameters,
) -> Result<Response, ApiError> {
    let snapshot = state.configuration.current();
    let rows = snapshot.providers().map(|entry| {
        let provider = &entry.resource.resource;
        (
            provider.id.to_string(),
            View::of(provider, state.routing.seen(provider)),
        )
    });
    answer::json(StatusCode::OK, &page(rows, &parameters)?)
}

/// `GET /providers/{id or name}`.
///
/// # Errors
/// 404.
pub async fn get(
    Extract(state): Extract<State>,
    id: PathParameter,
    _: NoParameters,
) -> Result<Response, ApiError> {
    let snapshot = state.configuration.current();
    let (provider, sequence) = found(&snapshot, &id.0)?;
    let view = View::of(provider, state.routing.seen(provider));
    answer::resource(StatusCode::OK, &view, sequence)
}

/// `POST /providers`.
///
/// # Errors
/// 400: the body is wrong; 409: the name is taken; 503: the broker is away.
pub async fn create(
    Extract(state): Extract<State>,
    principal: Principal,
    body: RequestBody,
) -> Result<Response, ApiError> {
    let (new, changed) = New::parse(&body.0)?;
    leads_elsewhere(state.settings.listen, &new.server_url).await?;
    let now = state.clock.now();
    let id = ProviderId::draw(&*state.clock);
    let sealed = new.server_key.as_ref().map(|key| seal(&state, id, key));
    let provider = Provider {
        id,
        name: new.name,
        kind: new.kind,
        server_url: new.server_url,
        server_key: sealed.transpose()?,
        rate_limit: new.rate_limit,
        created_ms: now,
        updated_ms: now,
    };
    let written = state
        .commands
        .create(&principal.actor(), &changed, Basis::Kind, |snapshot| {
            name_is_free(snapshot, &provider, &provider.name)?;
            Ok(provider.clone())
        })
        .await?;
    let view = View::of(&written.resource, None);
    answer::resource(StatusCode::CREATED, &view, written.sequence)
}

/// `PUT /providers/{id or name}`: changes what the body names.
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
    let change = Change::parse(&body.0)?;
    let snapshot = state.configuration.current();
    let id = id_of::<Provider>(&snapshot, &id.0)?;
    let found = snapshot.provider(id);
    let found = found.ok_or_else(|| ApiError::not_found(Provider::NOUN))?;
    check_change(&state, &change, &found.resource).await?;
    let sealed = change
        .server_key
        .clone()
        .try_map(|key| seal(&state, id, &key))?;
    let change = |snapshot: &Snapshot, provider: &mut Provider, changed: &mut Vec<String>| {
        set(&mut provider.name, change.name.as_ref(), "name", changed);
        set(&mut provider.kind, change.kind.as_ref(), "kind", changed);
        let url = change.server_url.as_ref();
        set(&mut provider.server_url, url, "server_url", changed);
        let limit = &change.rate_limit;
        set_nullable(&mut provider.rate_limit, limit, "rate_limit", changed);
        set_nullable(&mut provider.server_key, &sealed, "server_key", changed);
        takes_name(snapshot, provider, &provider.name, changed)
    };
    let written = change::update(&state, &principal, &headers, id, change).await?;
    let view = View::of(&written.resource, state.routing.seen(&written.resource));
    answer::resource(StatusCode::OK, &view, written.sequence)
}

/// `DELETE /providers/{id or name}`: with its models.
///
/// # Errors
/// 404; 409: others keep entering models of it; 412: `If-Match`; 503: the broker is away.
pub async fn delete(
    Extract(state): Extract<State>,
    principal: Principal,
    id: PathParameter,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let if_match = answer::if_match(&headers)?;
    let snapshot = state.configuration.current();
    let (provider, sequence) = found::<Provider>(&snapshot, &id.0)?;
    if if_match.is_some_and(|expected| expected != sequence) {
        return Err(CommandError::Stale.into());
    }
    let (id, actor) = (provider.id, principal.actor());
    let who = (&state.commands, &actor);
    for _ in 0..ROUNDS_MAX {
        let snapshot = state.configuration.current();
        delete_models(who, &snapshot, id).await?;
        let gone = change::remove(who, if_match, id, |snapshot, _: &Provider| {
            is_unused(snapshot, id)?;
            Ok(Basis::Configuration)
        });
        let gone = gone.await;
        match gone {
            Ok(()) => return answer::deleted(id),
            // Someone has entered another model of it meanwhile.
            Err(CommandError::Refused { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(CommandError::Overtaken.into())
}

/// Deletes the models that the provider offers.
async fn delete_models(
    who: (&Commands, &Actor),
    snapshot: &Snapshot,
    id: ProviderId,
) -> Result<(), CommandError> {
    for model in offered_by(snapshot, id).map(|model| model.id) {
        match change::remove::<Model>(who, None, model, at_any_time).await {
            // Someone else was faster.
            Ok(()) | Err(CommandError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn offered_by(snapshot: &Snapshot, id: ProviderId) -> impl Iterator<Item = &Model> {
    let models = snapshot.provider_models().map(|entry| &*entry.resource);
    models.filter(move |model| model.provider_id == id)
}

/// No model is the provider's.
pub(crate) fn is_unused(snapshot: &Snapshot, id: ProviderId) -> Result<(), CommandError> {
    match offered_by(snapshot, id).next() {
        None => Ok(()),
        Some(model) => Err(CommandError::Refused {
            code: "provider_in_use",
            message: format!("The model '{}' is the provider's.", model.model_name).into(),
        }),
    }
}

impl Managed for Provider {
    type Id = ProviderId;
    const NOUN: &'static str = "provider";

    fn id(&self) -> ProviderId {
        self.id
    }

    fn find(snapshot: &Snapshot, id: ProviderId) -> Option<(&Self, u64)> {
        let entry = snapshot.provider(id)?;
        Some((&entry.resource.resource, entry.sequence))
    }

    fn named(snapshot: &Snapshot, name: &str) -> Option<ProviderId> {
        let entry = snapshot.provider_named(name)?;
        Some(entry.resource.resource.id)
    }

    fn touch(&mut self, now: UnixMillis) {
        self.updated_ms = now;
    }
}

/// What kind, address and key together come to, after a change of one of them.
async fn check_change(
    state: &AppState,
    change: &Change,
    record: &ProviderRecord,
) -> Result<(), ApiError> {
    let before = &record.resource;
    let kind = change.kind.as_ref().unwrap_or(&before.kind);
    if change.server_url.is_some() || change.kind.is_some() {
        let url = change.server_url.as_ref().unwrap_or(&before.server_url);
        check_url(kind, url)?;
        leads_elsewhere(state.settings.listen, url).await?;
    }
    if change.server_key != Nullable::Absent || change.kind.is_some() {
        let key = match &change.server_key {
            Nullable::Absent => record.server_key.as_ref(),
            Nullable::Null => None,
            Nullable::Value(key) => Some(key),
        };
        check_key(kind, key)?;
    }
    Ok(())
}

/// Refuses an address that is the hub's own: a request would be sent round in a circle.
pub(crate) async fn leads_elsewhere(listen: SocketAddr, server_url: &str) -> Result<(), ApiError> {
    let url = server_url.trim().parse().ok();
    let Some(url) = url else { return Ok(()) };
    if own_address::is_own(listen, &url).await {
        let why = "is the address of the hub itself: it must be the provider's";
        return Err(wrong("server_url", why));
    }
    Ok(())
}

fn seal(
    state: &AppState,
    id: ProviderId,
    key: &Secret,
) -> Result<nexus_events::seal::Sealed, ApiError> {
    state
        .master_key
        .seal(key.expose().as_bytes(), &provider_seal(id))
        .map_err(ApiError::internal)
}
