//! The models that a client may ask for, as the `OpenAI` API lists them.
//!
//! `GET /v1/models` · `GET /v1/models/{model}`
//! (<https://platform.openai.com/docs/api-reference/models>, read 2026-11-24)

use axum::{extract::State as Extract, response::Response};
use http::StatusCode;
use serde::Serialize;

use super::{answer, parameters::PathParameter};
use crate::{configuration::Candidate, error::ApiError, state::State};

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
    /// A model is as old as the first offer of it, and owned by whoever is asked first.
    fn of(name: &'a str, candidates: &'a [Candidate]) -> Option<Self> {
        let oldest = candidates
            .iter()
            .map(|candidate| candidate.model.created_ms)
            .min()?;
        Some(Self {
            id: name,
            object: "model",
            created: oldest.as_millis().div_euclid(1000),
            owned_by: &candidates.first()?.provider.resource.name,
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
        .filter_map(|(name, candidates)| View::of(name, candidates))
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
    let candidates = snapshot.candidates(&name.0);
    let view = View::of(&name.0, &candidates).ok_or_else(|| ApiError::model_not_found(&name.0))?;
    answer::json(StatusCode::OK, &view)
}
