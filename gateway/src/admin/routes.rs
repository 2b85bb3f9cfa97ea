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
    config_event::Route,
    id::{ProviderId, RouteId},
};
use serde::Serialize;

use body::Change;
pub(crate) use body::{ATTEMPTS, MILLIS, New, PRIORITIES, TARGETS_MAX, WEIGHTS, resolve};

use super::{
    answer,
    change::{
        self, Managed, at_any_time, found, id_of, name_is_free, names, set, set_nullable,
        takes_name,
    },
    page::page,
    parameters::{NoParameters, PageParameters, PathParameter},
};
use crate::{
    auth::Principal,
    configuration::{CommandError, Snapshot, commands::Basis},
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
    let (route, sequence) = found(&snapshot, &id.0)?;
    answer::resource(StatusCode::OK, &View::of(route, &snapshot), sequence)
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
                name_is_free(snapshot, &route, &route.name)?;
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
    let id = id_of::<Route>(&state.configuration.current(), &id.0)?;
    let change = |snapshot: &Snapshot, route: &mut Route, changed: &mut Vec<String>| {
        set_members(route, &change, snapshot, changed)?;
        let basis = takes_name(snapshot, route, &route.name, changed)?;
        Ok(basis.naming_if(names(changed, "targets")))
    };
    let written = change::update(&state, &principal, &headers, id, change).await?;
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
    let id = id_of::<Route>(&state.configuration.current(), &id.0)?;
    change::delete::<Route>(&state, &principal, &headers, id, at_any_time).await
}

/// Sets what a change names.
fn set_members(
    route: &mut Route,
    change: &Change,
    snapshot: &Snapshot,
    changed: &mut Vec<String>,
) -> Result<(), CommandError> {
    set(&mut route.name, change.name.as_ref(), "name", changed);
    let targets = change.targets.as_ref();
    let targets = targets.map(|targets| resolve(snapshot, targets));
    let targets = targets.transpose()?;
    set(&mut route.targets, targets.as_ref(), "targets", changed);
    set_nullable(&mut route.attempts, &change.attempts, "attempts", changed);
    set_nullable(
        &mut route.first_byte_timeout_ms,
        &change.first_byte_timeout_ms,
        "first_byte_timeout_ms",
        changed,
    );
    set_nullable(
        &mut route.idle_timeout_ms,
        &change.idle_timeout_ms,
        "idle_timeout_ms",
        changed,
    );
    set_nullable(
        &mut route.cache_ttl_seconds,
        &change.cache_ttl_seconds,
        "cache_ttl_seconds",
        changed,
    );
    Ok(())
}

impl Managed for Route {
    type Id = RouteId;
    const NOUN: &'static str = "route";

    fn id(&self) -> RouteId {
        self.id
    }

    fn find(snapshot: &Snapshot, id: RouteId) -> Option<(&Self, u64)> {
        let entry = snapshot.route(id)?;
        Some((&entry.resource, entry.sequence))
    }

    fn named(snapshot: &Snapshot, name: &str) -> Option<RouteId> {
        snapshot.route_named(name).map(|entry| entry.resource.id)
    }

    fn touch(&mut self, now: UnixMillis) {
        self.updated_ms = now;
    }
}
