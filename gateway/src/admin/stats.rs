//! Statistics, from the read model.
//!
//! `GET /stats` · `GET /stats/conversations/{id}`

use axum::{Extension, extract::State as Extract, response::Response};

use super::{
    answer,
    parameters::{NoParameters, PathParameter},
};
use crate::{
    auth::{Access, Principal},
    error::ApiError,
    state::State,
};

/// `GET /stats`.
///
/// # Errors
/// 503: the read model is absent.
pub async fn totals(Extract(state): Extract<State>, _: NoParameters) -> Result<Response, ApiError> {
    let totals = state.read_model.stats(state.clock.now()).await?;
    answer::read(&totals, &totals.as_of)
}

/// `GET /stats/conversations/{id}`.
///
/// # Errors
/// 404: there is none that the caller may see; 503: the read model is absent.
pub async fn conversation(
    Extract(state): Extract<State>,
    Extension(access): Extension<Access>,
    principal: Principal,
    id: PathParameter,
    _: NoParameters,
) -> Result<Response, ApiError> {
    let conversation = id.id("conversation")?;
    let usage = state
        .read_model
        .conversation_stats(conversation, state.clock.now())
        .await?
        .filter(|usage| access.covers(&principal, Some(usage.key_id)))
        .ok_or_else(|| ApiError::not_found("conversation"))?;
    answer::read(&usage, &usage.as_of)
}
