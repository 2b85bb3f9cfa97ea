//! Conversations, from the read model.
//!
//! `GET /conversations` · `GET /conversations/{id}`

use axum::{Extension, extract::State as Extract, response::Response};
use nexus_projector::read_model::PageRequest;

use super::{
    answer,
    page::Page,
    parameters::{NoParameters, PageParameters, PathParameter},
};
use crate::{
    auth::{Access, Principal},
    error::ApiError,
    state::State,
};

/// `GET /conversations`: those that were active last first.
///
/// # Errors
/// 400: a parameter of the page is wrong; 503: the read model is absent.
pub async fn list(
    Extract(state): Extract<State>,
    Extension(access): Extension<Access>,
    principal: Principal,
    parameters: PageParameters,
) -> Result<Response, ApiError> {
    let request = PageRequest {
        after: parameters.cursor,
        limit: u32::try_from(parameters.limit).unwrap_or(u32::MAX),
        key: (access == Access::Own).then_some(principal.key.id),
    };
    let rows = state
        .read_model
        .conversations(&request, state.clock.now())
        .await?;
    let page = Page {
        data: rows.data,
        next_cursor: rows.next,
    };
    answer::read(&page, &rows.as_of)
}

/// `GET /conversations/{id}`: with its messages.
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
    let conversation = state
        .read_model
        .conversation(id.id("conversation")?, state.clock.now())
        .await?
        .filter(|found| access.covers(&principal, Some(found.summary.key_id)))
        .ok_or_else(|| ApiError::not_found("conversation"))?;
    answer::read(&conversation, &conversation.as_of)
}
