//! The models and routes that a client may ask for, as the `OpenAI` API lists them.
//!
//! `GET /v1/models` · `GET /v1/models/{model}`
//! (<https://platform.openai.com/docs/api-reference/models>, read 2026-11-24)

use axum::{extract::State as Extract, response::Response};
use http::StatusCode;
use serde::Serialize;

use super::{answer, parameters::PathParameter};
use crate::{configuration::Alternatives, error::ApiError, state::State};

#[derive(Debug, Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<View<'a>>,
}

#[derive(Debug, Serialize)]
struct View<'a> {
    id: &'a str,
    object: &'static str,
    /// Seconds since 1970.
    created: i64,
    owned_by: &'a str,
}

impl<'a> View<'a> {
    /// A model is as old as the first offer of it, a route as its creation; both are owned by the
    /// first who may answer.
    fn of(name: &'a str, alternatives: &'a Alternatives) -> Option<Self> {
        let offered = alternatives.list.iter();
        let offered = offered.map(|one| one.candidate.model.created_ms).min()?;
        let created = alternatives
            .route
            .as_ref()
            .map_or(offered, |route| route.created_ms);
        let first = alternatives.list.first()?;
        Some(Self {
            id: name,
            object: "model",
            created: created.as_millis().div_euclid(1000),
            owned_by: &first.candidate.provider.resource.name,
        })
    }
}

/// `GET /v1/models`.
///
/// # Errors
/// None but a fault of the hub.
pub async fn list(Extract(state): Extract<State>) -> Result<Response, ApiError> {
    let snapshot = state.configuration.current();
    let data = snapshot
        .models()
        .filter_map(|(name, alternatives)| View::of(name, alternatives))
        .collect();
    let list = List {
        object: "list",
        data,
    };
    answer::json(StatusCode::OK, &list)
}

/// `GET /v1/models/{model}`; a model's name may contain slashes.
///
/// # Errors
/// 404.
pub async fn get(
    Extract(state): Extract<State>,
    name: PathParameter,
) -> Result<Response, ApiError> {
    let snapshot = state.configuration.current();
    let alternatives = snapshot.alternatives(&name.0);
    let view = alternatives.and_then(|alternatives| View::of(&name.0, alternatives));
    let view = view.ok_or_else(|| ApiError::model_not_found(&name.0))?;
    answer::json(StatusCode::OK, &view)
}
