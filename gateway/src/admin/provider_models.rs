//! Models that providers offer.
//!
//! `GET /provider_models` · `POST /provider_models` ·
//! `GET|PUT|DELETE /provider_models/{id}` · `GET /providers/{id or name}/models`

use axum::{extract::State as Extract, response::Response};
use http::{HeaderMap, StatusCode};
use nexus_events::{
    clock::UnixMillis,
    config_event::{Model, Provider},
    id::{ModelId, ProviderId},
};
use serde::Serialize;

use super::{
    answer,
    change::{self, Managed, at_any_time, id_of, names, set, set_nullable},
    fields::{Fields, Nullable},
    page::page,
    parameters::{NoParameters, PAGE, PageParameters, PathParameter, QueryParameters},
};
use crate::{
    auth::Principal,
    configuration::{CommandError, Snapshot, commands::Basis},
    error::ApiError,
    middleware::RequestBody,
    state::State,
};

/// A model as the API shows it.
#[derive(Debug, Serialize)]
struct View<'a> {
    id: ModelId,
    provider_id: ProviderId,
    provider_name: Option<&'a str>,
    model_name: &'a str,
    upstream_model: &'a str,
    created_ms: UnixMillis,
    updated_ms: UnixMillis,
}

impl<'a> View<'a> {
    fn of(model: &'a Model, snapshot: &'a Snapshot) -> Self {
        let provider = snapshot.provider(model.provider_id);
        Self {
            id: model.id,
            provider_id: model.provider_id,
            provider_name: provider.map(|entry| entry.resource.resource.name.as_str()),
            model_name: &model.model_name,
            upstream_model: model.upstream_model.as_ref().unwrap_or(&model.model_name),
            created_ms: model.created_ms,
            updated_ms: model.updated_ms,
        }
    }
}

/// `GET /provider_models`, with `provider_id` those of one provider.
///
/// # Errors
/// 400: a parameter is wrong; 404: no such provider.
pub async fn list(
    Extract(state): Extract<State>,
    query: QueryParameters,
) -> Result<Response, ApiError> {
    query.only(&[&PAGE[..], &["provider_id"]].concat())?;
    let snapshot = state.configuration.current();
    let provider = match query.get("provider_id") {
        Some(id) => Some(provider(&snapshot, id)?),
        None => None,
    };
    rows(&snapshot, provider, &PageParameters::of(&query)?)
}

/// `GET /providers/{id or name}/models`.
///
/// # Errors
/// 400: a parameter is wrong; 404: no such provider.
pub async fn of_provider(
    Extract(state): Extract<State>,
    id: PathParameter,
    parameters: PageParameters,
) -> Result<Response, ApiError> {
    let snapshot = state.configuration.current();
    let provider = provider(&snapshot, &id.0)?;
    rows(&snapshot, Some(provider), &parameters)
}

/// `GET /provider_models/{id}`.
///
/// # Errors
/// 404.
pub async fn get(
    Extract(state): Extract<State>,
    id: PathParameter,
    _: NoParameters,
) -> Result<Response, ApiError> {
    let snapshot = state.configuration.current();
    let model = Model::find(&snapshot, id.id("model")?);
    let (model, sequence) = model.ok_or_else(|| ApiError::not_found("model"))?;
    answer::resource(StatusCode::OK, &View::of(model, &snapshot), sequence)
}

/// `POST /provider_models`.
///
/// # Errors
/// 400: the body is wrong; 409: the provider offers it already; 503: the broker is away.
pub async fn create(
    Extract(state): Extract<State>,
    principal: Principal,
    body: RequestBody,
) -> Result<Response, ApiError> {
    let New {
        provider_id,
        model_name,
        upstream_model,
    } = New::parse(&body.0)?;
    let mut changed = vec!["provider_id", "model_name"];
    changed.extend(upstream_model.as_ref().map(|_| "upstream_model"));
    let now = state.clock.now();
    let model = Model {
        id: ModelId::draw(&*state.clock),
        provider_id: named_provider(&state.configuration.current(), &provider_id)?,
        model_name,
        upstream_model,
        created_ms: now,
        updated_ms: now,
    };
    let written = state
        .commands
        .create(
            &principal.actor(),
            &changed,
            Basis::Configuration,
            |snapshot| {
                has_provider(snapshot, &model)?;
                is_free(snapshot, &model)?;
                Ok(model.clone())
            },
        )
        .await?;
    let snapshot = state.configuration.current();
    let view = View::of(&written.resource, &snapshot);
    answer::resource(StatusCode::CREATED, &view, written.sequence)
}

/// `PUT /provider_models/{id}`: changes what the body names.
///
/// # Errors
/// 400: the body is wrong; 404; 409: the provider offers it already; 412: `If-Match`; 503: the
/// broker is away.
pub async fn update(
    Extract(state): Extract<State>,
    principal: Principal,
    id: PathParameter,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Response, ApiError> {
    let id: ModelId = id.id("model")?;
    let (body, fields) = Body::parse(&body.0)?;
    fields.finish()?;
    let snapshot = state.configuration.current();
    let named = body.provider_id.as_ref();
    let provider = named.map(|text| named_provider(&snapshot, text));
    let provider = provider.transpose()?;
    let change = |snapshot: &Snapshot, model: &mut Model, changed: &mut Vec<String>| {
        let name = body.model_name.as_ref();
        set(
            &mut model.provider_id,
            provider.as_ref(),
            "provider_id",
            changed,
        );
        set(&mut model.model_name, name, "model_name", changed);
        let takes_name = !changed.is_empty();
        let upstream = &body.upstream_model;
        set_nullable(
            &mut model.upstream_model,
            upstream,
            "upstream_model",
            changed,
        );
        if !takes_name {
            return Ok(Basis::Resource);
        }
        has_provider(snapshot, model)?;
        is_free(snapshot, model)?;
        Ok(Basis::Kind.naming_if(names(changed, "provider_id")))
    };
    let written = change::update(&state, &principal, &headers, id, change).await?;
    let snapshot = state.configuration.current();
    let view = View::of(&written.resource, &snapshot);
    answer::resource(StatusCode::OK, &view, written.sequence)
}

/// `DELETE /provider_models/{id}`.
///
/// # Errors
/// 404; 412: `If-Match`; 503: the broker is away.
pub async fn delete(
    Extract(state): Extract<State>,
    principal: Principal,
    id: PathParameter,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id: ModelId = id.id("model")?;
    change::delete::<Model>(&state, &principal, &headers, id, at_any_time).await
}

impl Managed for Model {
    type Id = ModelId;
    const NOUN: &'static str = "model";

    fn id(&self) -> ModelId {
        self.id
    }

    fn find(snapshot: &Snapshot, id: ModelId) -> Option<(&Self, u64)> {
        let entry = snapshot.model(id)?;
        Some((&entry.resource, entry.sequence))
    }

    /// Its name is unique within its provider only.
    fn named(_: &Snapshot, _: &str) -> Option<ModelId> {
        None
    }

    fn touch(&mut self, now: UnixMillis) {
        self.updated_ms = now;
    }
}

fn rows(
    snapshot: &Snapshot,
    provider: Option<ProviderId>,
    parameters: &PageParameters,
) -> Result<Response, ApiError> {
    let rows = snapshot
        .provider_models()
        .map(|entry| &*entry.resource)
        .filter(|model| provider.is_none_or(|provider| model.provider_id == provider))
        .map(|model| (model.id.to_string(), View::of(model, snapshot)));
    answer::json(StatusCode::OK, &page(rows, parameters)?)
}

fn provider(snapshot: &Snapshot, id_or_name: &str) -> Result<ProviderId, ApiError> {
    id_of::<Provider>(snapshot, id_or_name)
}

/// The provider that a body names; 400, because there the body is wrong and not the address.
fn named_provider(snapshot: &Snapshot, id_or_name: &str) -> Result<ProviderId, ApiError> {
    provider(snapshot, id_or_name)
        .map_err(|error| ApiError::invalid_request(Some("provider_id"), error.message))
}

/// The provider was there when the request came; it may be gone when the change is decided.
pub(crate) fn has_provider(snapshot: &Snapshot, model: &Model) -> Result<(), CommandError> {
    match snapshot.provider(model.provider_id) {
        Some(_) => Ok(()),
        None => Err(CommandError::Invalid {
            member: "provider_id".into(),
            message: "There is no such provider.".into(),
        }),
    }
}

pub(crate) fn is_free(snapshot: &Snapshot, model: &Model) -> Result<(), CommandError> {
    match snapshot.model_named(model.provider_id, &model.model_name) {
        Some(other) if other.resource.id != model.id => Err(CommandError::Refused {
            code: "name_taken",
            message: format!(
                "The provider offers a model '{}' already.",
                model.model_name
            )
            .into(),
        }),
        _ => Ok(()),
    }
}

/// The body of a creation.
#[derive(Debug)]
pub(crate) struct New {
    /// Id or name.
    pub(crate) provider_id: String,
    pub(crate) model_name: String,
    pub(crate) upstream_model: Option<String>,
}

impl New {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let (body, fields) = Body::parse(body)?;
        let new = Self {
            provider_id: fields.required("provider_id", body.provider_id)?,
            model_name: fields.required("model_name", body.model_name)?,
            upstream_model: body.upstream_model.value(),
        };
        fields.finish()?;
        Ok(new)
    }
}

/// The body of a creation or a change.
struct Body {
    provider_id: Option<String>,
    model_name: Option<String>,
    upstream_model: Nullable<String>,
}

impl Body {
    fn parse(body: &[u8]) -> Result<(Self, Fields<'_>), ApiError> {
        let mut fields = Fields::parse(body)?;
        let body = Self {
            provider_id: fields.text("provider_id")?,
            model_name: fields.name("model_name")?,
            upstream_model: fields.nullable_name("upstream_model")?,
        };
        Ok((body, fields))
    }
}
