//! Single requests with everything that is known of them, from the read model.
//!
//! `GET /requests/{id}`

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

/// `GET /requests/{id}`.
///
/// # Errors
/// 404: there is none that the caller may see; 503: the read model is absent.
pub async fn get(
    Extract(state): Extract<State>,
    Extension(access): Extension<Access>,
    principal: Principal,
    id: PathParameter,
    _: NoParameters,
) -> Result<Response, ApiError> {
    let request = state
        .read_model
        .request(without_prefix(id).id("request")?)
        .await?
        .filter(|request| access.covers(&principal, request.key_id))
        .ok_or_else(|| ApiError::not_found("request"))?;
    answer::read(&request, &request.as_of)
}

/// Echo names a completion by its request's id after this prefix, as the `OpenAI` API begins its own.
fn without_prefix(id: PathParameter) -> PathParameter {
    match id.0.strip_prefix("chatcmpl-") {
        Some(rest) => PathParameter(rest.to_owned()),
        None => id,
    }
}
