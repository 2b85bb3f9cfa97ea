//! `GET /v1/chat/completions/{id}/events`: a streamed answer again, or on from where it was cut off.
//!
//! `starting_after`, or the header `Last-Event-ID` that browsers send by
//! themselves, names the last chunk that the client has; without either the
//! answer comes whole. `pace=original` lets the chunks come as they came. The
//! answer comes in the form in which it was asked for, chat or a dialect.

use axum::{Extension, extract::State as Extract, response::Response};
use http::HeaderMap;

use super::chat_completions::{reply, translated};
use crate::{
    admin::parameters::{PathParameter, QueryParameters},
    auth::{Access, Principal},
    error::ApiError,
    resume::{self, Wanted},
    state::State,
};

/// What SDKs and the dialects put before the id of an answer.
const PREFIXES: [&str; 4] = ["chatcmpl-", "cmpl-", "resp_", "msg_"];

/// Gives a streamed answer out of the log.
///
/// # Errors
/// 400: a parameter is wrong; 404: there is no such request that the caller may see; 409: its
/// answer was not streamed; 503: the log cannot be read.
pub async fn get(
    Extract(state): Extract<State>,
    (Extension(access), principal): (Extension<Access>, Principal),
    mut id: PathParameter,
    (headers, query): (HeaderMap, QueryParameters),
) -> Result<Response, ApiError> {
    let bare = PREFIXES.iter().find_map(|prefix| id.0.strip_prefix(prefix));
    if let Some(bare) = bare.map(str::to_owned) {
        id = PathParameter(bare);
    }
    let wanted = Wanted {
        request: id.id("request")?,
        next: next(&query, &headers)?,
        original_pace: original_pace(&query)?,
    };
    let may_see = |received: &nexus_events::exchange_event::Received| {
        access.covers(&principal, Some(received.key))
    };
    let begun = resume::begin(&state, wanted, may_see).await?;
    Ok(match begun.spoken {
        None => reply(Ok(begun.reply)),
        Some(spoken) => translated(Ok(begun.reply), spoken, wanted.next),
    })
}

/// The number of the first chunk that the client does not have.
fn next(query: &QueryParameters, headers: &HeaderMap) -> Result<u32, ApiError> {
    let (name, text) = if let Some(text) = query.get("starting_after") {
        ("starting_after", text)
    } else if let Some(value) = headers.get("last-event-id") {
        ("Last-Event-ID", value.to_str().unwrap_or_default())
    } else {
        return Ok(0);
    };
    let last: Option<u32> = text.parse().ok();
    last.and_then(|last| last.checked_add(1)).ok_or_else(|| {
        let message = format!("'{name}' must be the id of a chunk: a number from 0.");
        ApiError::invalid_request(Some(name), message)
    })
}

fn original_pace(query: &QueryParameters) -> Result<bool, ApiError> {
    match query.get("pace") {
        None | Some("fast") => Ok(false),
        Some("original") => Ok(true),
        Some(_) => Err(ApiError::invalid_request(
            Some("pace"),
            "'pace' must be one of: fast, original.",
        )),
    }
}
