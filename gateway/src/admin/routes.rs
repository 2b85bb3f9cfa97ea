//! Routes: names that clients ask for, and who may answer.
//!
//! `GET /routes` · `POST /routes` · `GET|PUT|DELETE /routes/{id or name}` ·
//! `GET /routes/explain?model=…`
//!
//! A target is checked when it is written. What it names may go later: then the
//! others answer, and the route tells by a `provider_name` of `null` who is gone.

mod body;
pub mod explain;

use axum::{extract::State as Extract, response::Response};
use http::{HeaderMap, StatusCode};
use nexus_events::{
    clock::UnixMillis,
    config_event::{Action, Route},
    id::{ProviderId, RouteId},
};
use serde::Serialize;

use body::Change;
pub(crate) use body::{ATTEMPTS, MILLIS, New, PRIORITIES, TARGETS_MAX, WEIGHTS, resolve};

use super::{
    answer,
    page::page,
    parameters::{NoParameters, PageParameters, PathParameter},
    providers::{deletion, set, set_nullable},
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

/// A route as the API shows it.
#[derive(Debug, Serialize)]
struct View<'a> {
    id: RouteId,
    name: &'a str,
    targets: Vec<TargetView<'a>>,
    attempts: Option<u8>,
    first_byte_timeout_ms: Option<u32>,
    idle_timeout_ms: Option<u32>,
    cache_ttl_seconds: Option<u32>,
    created_ms: UnixMillis,
    updated_ms: UnixMillis,
}

#[derive(Debug, Serialize)]
struct TargetView<'a> {
    model: &'a str,
    provider: Option<ProviderId>,
    provider_name: Option<&'a str>,
    weight: u16,
    priority: u8,
}

impl<'a> View<'a> {
    fn of(route: &'a Route, snapshot: &'a Snapshot) -> Self {
        let name_of = |provider: Option<ProviderId>| {
            let entry = snapshot.provider(provider?)?;
            Some(entry.resource.resource.name.as_str())
        };
        let targets = route.targets.iter().map(|target| TargetView {
            model: &target.model,
            provider: target.provider,
            provider_name: name_of(target.provider),
            weight: target.weight,
            priority: target.priority,
        });
        Self {
            id: route.id,
            name: &route.name,
            targets: targets.collect(),
            attempts: route.attempts,
            first_byte_timeout_ms: route.first_byte_timeout_ms,
            idle_timeout_ms: route.idle_timeout_ms,
            cache_ttl_seconds: route.cache_ttl_seconds,
            created_ms: route.created_ms,
            updated_ms: route.updated_ms,
        }
    }
}

/// `GET /routes`.
///
/// # Errors
/// 400: a parameter of the page is wrong.
pub async fn list(
    Extract(state): Extract<State>,
    parameters: PageParameters,
) -> Result<Response, ApiError> {
    let snapshot = state.configuration.current();
    let rows = snapshot.routes().map(|entry| {
        let route = &entry.resource;
        (route.id.to_string(), View::of(route, &snapshot))
    });
    answer::json(StatusCode::OK, &page(rows, &parameters)?)
}

/// `GET /routes/{id or name}`.
///
/// # Errors
/// 404.
pub async fn get(
    Extract(state): Extract<State>,
    id: PathParameter,
    _: NoParameters,
) -> Result<Response, ApiError> {
    let snapshot = state.configuration.current();
    let entry = find(&snapshot, &id.0).ok_or_else(|| ApiError::not_found("route"))?;
    let view = View::of(&entry.resource, &snapshot);
    answer::resource(StatusCode::OK, &view, entry.sequence)
}

/// `POST /routes`.
///
/// # Errors
/// 400: the body is wrong, or a target names what is not there; 409: the name is taken; 503: the
/// broker is away.
pub async fn create(
    Extract(state): Extract<State>,
    principal: Principal,
    body: RequestBody,
) -> Result<Response, ApiError> {
    let (new, changed) = New::parse(&body.0)?;
    let now = state.clock.now();
    let id = RouteId::draw(&*state.clock);
    let written = state
        .commands
        .create(
            &principal.actor(),
            &changed,
            Basis::Configuration,
            |snapshot| {
                let route = Route {
                    id,
                    name: new.name.clone(),
                    targets: resolve(snapshot, &new.targets)?,
                    attempts: new.attempts,
                    first_byte_timeout_ms: new.first_byte_timeout_ms,
                    idle_timeout_ms: new.idle_timeout_ms,
                    cache_ttl_seconds: new.cache_ttl_seconds,
                    created_ms: now,
                    updated_ms: now,
                };
                name_is_free(snapshot, &route)?;
                Ok(route)
            },
        )
        .await?;
    let snapshot = state.configuration.current();
    let view = View::of(&written.resource, &snapshot);
    answer::resource(StatusCode::CREATED, &view, written.sequence)
}

/// `PUT /routes/{id or name}`: changes what the body names; targets as a whole.
///
/// # Errors
/// 400: the body is wrong, or a target names what is not there; 404; 409: the name is taken; 412:
/// `If-Match`; 503: the broker is away.
pub async fn update(
    Extract(state): Extract<State>,
    principal: Principal,
    id: PathParameter,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Response, ApiError> {
    let change = Change::parse(&body.0)?;
    let if_match = answer::if_match(&headers)?;
    let id = id_of(&state.configuration.current(), &id.0)?;
    let now = state.clock.now();
    let written = state
        .commands
        .change(&principal.actor(), if_match, |snapshot| {
            let entry = snapshot.route(id).ok_or(CommandError::NotFound("route"))?;
            let (route, changed) = changed(&entry.resource, &change, snapshot)?;
            let takes_name = route.name != entry.resource.name;
            if takes_name {
                name_is_free(snapshot, &route)?;
            }
            let updated_ms = if changed.is_empty() {
                route.updated_ms
            } else {
                now
            };
            Ok(Decision {
                action: Action::Updated,
                resource: Route {
                    updated_ms,
                    ..route
                },
                sequence: entry.sequence,
                basis: if changed.iter().any(|member| member == "targets") {
                    Basis::Configuration
                } else {
                    Basis::taking_name(takes_name)
                },
                changed,
            })
        })
        .await?;
    let snapshot = state.configuration.current();
    let view = View::of(&written.resource, &snapshot);
    answer::resource(StatusCode::OK, &view, written.sequence)
}

/// `DELETE /routes/{id or name}`.
///
/// # Errors
/// 404; 412: `If-Match`; 503: the broker is away.
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
            let entry = snapshot.route(id).ok_or(CommandError::NotFound("route"))?;
            Ok(deletion((*entry.resource).clone(), entry.sequence))
        })
        .await?;
    answer::deleted(id)
}

/// A route as it is after a change, and the names of the members that changed.
fn changed(
    before: &Route,
    change: &Change,
    snapshot: &Snapshot,
) -> Result<(Route, Vec<String>), CommandError> {
    let mut route = before.clone();
    let mut changed = Vec::new();
    set(&mut route.name, change.name.as_ref(), "name", &mut changed);
    let targets = change.targets.as_ref();
    let targets = targets
        .map(|targets| resolve(snapshot, targets))
        .transpose()?;
    set(
        &mut route.targets,
        targets.as_ref(),
        "targets",
        &mut changed,
    );
    set_nullable(
        &mut route.attempts,
        &change.attempts,
        "attempts",
        &mut changed,
    );
    set_nullable(
        &mut route.first_byte_timeout_ms,
        &change.first_byte_timeout_ms,
        "first_byte_timeout_ms",
        &mut changed,
    );
    set_nullable(
        &mut route.idle_timeout_ms,
        &change.idle_timeout_ms,
        "idle_timeout_ms",
        &mut changed,
    );
    set_nullable(
        &mut route.cache_ttl_seconds,
        &change.cache_ttl_seconds,
        "cache_ttl_seconds",
        &mut changed,
    );
    Ok((route, changed))
}

/// A route by its id or its name.
fn find<'a>(snapshot: &'a Snapshot, id_or_name: &str) -> Option<&'a Entry<Route>> {
    let by_id = id_or_name.parse().ok().and_then(|id| snapshot.route(id));
    by_id.or_else(|| snapshot.route_named(id_or_name))
}

fn id_of(snapshot: &Snapshot, id_or_name: &str) -> Result<RouteId, ApiError> {
    let found = find(snapshot, id_or_name).map(|entry| entry.resource.id);
    found.ok_or_else(|| ApiError::not_found("route"))
}

/// No other route has its name.
pub(crate) fn name_is_free(snapshot: &Snapshot, route: &Route) -> Result<(), CommandError> {
    match snapshot.route_named(&route.name) {
        Some(other) if other.resource.id != route.id => Err(CommandError::Refused {
            code: "name_taken",
            message: format!("There is a route named '{}' already.", route.name).into(),
        }),
        _ => Ok(()),
    }
}
