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
    config_event::{Action, Actor, Model, Provider},
    id::ProviderId,
};
use view::View;

pub(crate) use body::New;

use super::{
    answer,
    fields::{Nullable, wrong},
    page::page,
    parameters::{NoParameters, PageParameters, PathParameter},
};
use crate::{
    auth::Principal,
    configuration::{
        CommandError, Entry, ProviderRecord, Snapshot,
        commands::{Basis, Commands, Decision},
        fold::provider_seal,
    },
    error::ApiError,
    middleware::RequestBody,
    provider::own_address,
    settings::Secret,
    state::{AppState, State},
};

/// How often models that are entered while a provider is being deleted are deleted with it: 8 times.
const ROUNDS_MAX: u32 = 8;

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
    let entry = find(&snapshot, &id.0).ok_or_else(|| ApiError::not_found("provider"))?;
    let provider = &entry.resource.resource;
    let view = View::of(provider, state.routing.seen(provider));
    answer::resource(StatusCode::OK, &view, entry.sequence)
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
            name_is_free(snapshot, &provider)?;
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
    let if_match = answer::if_match(&headers)?;
    let snapshot = state.configuration.current();
    let found = find(&snapshot, &id.0).ok_or_else(|| ApiError::not_found("provider"))?;
    let before = &found.resource.resource;
    let id = before.id;
    check_change(&state, &change, &found.resource).await?;
    let sealed = change
        .server_key
        .clone()
        .try_map(|key| seal(&state, id, &key))?;
    let written = state
        .commands
        .change(&principal.actor(), if_match, |snapshot| {
            let entry = snapshot
                .provider(id)
                .ok_or(CommandError::NotFound("provider"))?;
            let mut provider = entry.resource.resource.clone();
            let mut changed = Vec::new();
            set(
                &mut provider.name,
                change.name.as_ref(),
                "name",
                &mut changed,
            );
            set(
                &mut provider.kind,
                change.kind.as_ref(),
                "kind",
                &mut changed,
            );
            let url = change.server_url.as_ref();
            set(&mut provider.server_url, url, "server_url", &mut changed);
            set_nullable(
                &mut provider.rate_limit,
                &change.rate_limit,
                "rate_limit",
                &mut changed,
            );
            set_nullable(
                &mut provider.server_key,
                &sealed,
                "server_key",
                &mut changed,
            );
            let takes_name = changed.iter().any(|member| member == "name");
            if takes_name {
                name_is_free(snapshot, &provider)?;
            }
            if !changed.is_empty() {
                provider.updated_ms = state.clock.now();
            }
            Ok(Decision {
                action: Action::Updated,
                resource: provider,
                sequence: entry.sequence,
                changed,
                basis: Basis::taking_name(takes_name),
            })
        })
        .await?;
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
    let entry = find(&snapshot, &id.0).ok_or_else(|| ApiError::not_found("provider"))?;
    if if_match.is_some_and(|expected| expected != entry.sequence) {
        return Err(CommandError::Stale.into());
    }
    let (id, actor) = (entry.resource.resource.id, principal.actor());
    for _ in 0..ROUNDS_MAX {
        let snapshot = state.configuration.current();
        delete_models(&state.commands, &actor, &snapshot, id).await?;
        let gone = state
            .commands
            .change(&actor, if_match, |snapshot| {
                let entry = snapshot
                    .provider(id)
                    .ok_or(CommandError::NotFound("provider"))?;
                is_unused(snapshot, id)?;
                let mut decision = deletion(entry.resource.resource.clone(), entry.sequence);
                decision.basis = Basis::Configuration;
                Ok(decision)
            })
            .await;
        match gone {
            Ok(_) => return answer::deleted(id),
            // Someone has entered another model of it meanwhile.
            Err(CommandError::Refused { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(CommandError::Overtaken.into())
}

/// Deletes the models that the provider offers.
async fn delete_models(
    commands: &Commands,
    actor: &Actor,
    snapshot: &Snapshot,
    id: ProviderId,
) -> Result<(), CommandError> {
    for model in offered_by(snapshot, id).map(|model| model.id) {
        let deleted = commands.change(actor, None, |snapshot| {
            let entry = snapshot.model(model);
            let entry = entry.ok_or(CommandError::NotFound("model"))?;
            Ok(deletion::<Model>((*entry.resource).clone(), entry.sequence))
        });
        match deleted.await {
            // Someone else was faster.
            Ok(_) | Err(CommandError::NotFound(_)) => {}
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

/// A provider by its id or its name.
pub(super) fn find<'a>(
    snapshot: &'a Snapshot,
    id_or_name: &str,
) -> Option<&'a Entry<ProviderRecord>> {
    id_or_name
        .parse()
        .ok()
        .and_then(|id| snapshot.provider(id))
        .or_else(|| snapshot.provider_named(id_or_name))
}

/// The decision to delete a resource.
pub(super) fn deletion<R>(resource: R, sequence: u64) -> Decision<R> {
    Decision {
        action: Action::Deleted,
        resource,
        sequence,
        changed: Vec::new(),
        basis: Basis::Resource,
    }
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

/// No other provider has its name.
pub(crate) fn name_is_free(snapshot: &Snapshot, provider: &Provider) -> Result<(), CommandError> {
    match snapshot.provider_named(&provider.name) {
        Some(other) if other.resource.resource.id != provider.id => Err(CommandError::Refused {
            code: "name_taken",
            message: format!("There is a provider named '{}' already.", provider.name).into(),
        }),
        _ => Ok(()),
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
