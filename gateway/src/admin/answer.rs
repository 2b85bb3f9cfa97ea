//! Answers: JSON with an `ETag`, or with the position of the read model; errors by kind.

use std::fmt;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_TYPE, ETAG, IF_MATCH},
};
use nexus_projector::{position::AsOf, read_model::ReadError};
use serde::Serialize;

use crate::{configuration::CommandError, error::ApiError};

/// The position of the read model that an answer comes from, on every read.
const X_NEXUS_AS_OF: HeaderName = HeaderName::from_static("x-nexus-as-of");

/// A JSON answer.
///
/// # Errors
/// 500: the value cannot be written as JSON.
pub fn json(status: StatusCode, value: &impl Serialize) -> Result<Response, ApiError> {
    let body = serde_json::to_vec(value).map_err(ApiError::internal)?;
    let mut response = Body::from(body).into_response();
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// A resource with its `ETag`, the stream sequence of its last change.
///
/// # Errors
/// 500: the value cannot be written as JSON.
pub fn resource(
    status: StatusCode,
    value: &impl Serialize,
    sequence: u64,
) -> Result<Response, ApiError> {
    let mut response = json(status, value)?;
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{sequence}\"")) {
        response.headers_mut().insert(ETAG, tag);
    }
    Ok(response)
}

/// What was read from the read model, with its position.
///
/// # Errors
/// 500: the value cannot be written as JSON.
pub fn read(value: &impl Serialize, as_of: &AsOf) -> Result<Response, ApiError> {
    let mut response = json(StatusCode::OK, value)?;
    let position = HeaderValue::from_str(&as_of.to_string()).map_err(ApiError::internal)?;
    response.headers_mut().insert(X_NEXUS_AS_OF, position);
    Ok(response)
}

/// The answer to a deletion.
///
/// # Errors
/// Those of [`json`].
pub fn deleted(id: impl fmt::Display) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Deleted {
        id: String,
        deleted: bool,
    }
    let gone = Deleted {
        id: id.to_string(),
        deleted: true,
    };
    json(StatusCode::OK, &gone)
}

/// The sequence that `If-Match` asks for; `None` without the header and for `*`.
///
/// # Errors
/// 412: the header names something that no resource here ever was.
pub fn if_match(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers.get(IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let sequence = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .and_then(|text| text.parse().ok());
    match sequence {
        Some(sequence) => Ok(Some(sequence)),
        None => Err(ApiError::precondition_failed(
            "If-Match is not an ETag of this resource.",
        )),
    }
}

impl From<CommandError> for ApiError {
    fn from(error: CommandError) -> Self {
        match &error {
            CommandError::NotFound(what) => Self::not_found(what),
            CommandError::Invalid { member, message } => {
                Self::invalid_request(Some(member), &**message)
            }
            CommandError::Unprocessable { member, message } => {
                Self::unprocessable(member, message.clone())
            }
            CommandError::Refused { code, message } => Self::conflict(code, message.clone()),
            CommandError::Forbidden(message) => Self::forbidden(*message),
            CommandError::Stale => Self::precondition_failed(
                "The resource has changed since: read it again and repeat the change.",
            ),
            CommandError::Overtaken => Self::conflict(
                "conflict",
                "Others are changing the same resources: try again.",
            ),
            CommandError::Unavailable(_) => Self::unavailable(
                "broker_unavailable",
                "The log cannot be reached, so the configuration cannot be changed now. Whether this change was stored is not known.",
            )
            .with_source(error),
            CommandError::Halted(_) => Self::unavailable(
                "configuration_halted",
                "The configuration cannot be changed here.",
            )
            .with_source(error),
            CommandError::NotInForce => Self::unavailable(
                "not_in_force",
                "The change is stored but not in force here yet.",
            )
            .with_source(error),
            CommandError::Broker(_) | CommandError::Encode(_) | CommandError::Seal(_) => {
                Self::internal(error)
            }
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            // Damaged, locked, cut short: the projector finds it and builds another, if need be.
            ReadError::Unavailable { .. } | ReadError::Database(_) => read_model_unavailable(error),
            ReadError::BadCursor => {
                Self::invalid_request(Some("cursor"), "The cursor is not one that this list gave.")
            }
            ReadError::Inconsistent { .. } => Self::internal(error),
        }
    }
}

fn read_model_unavailable(error: ReadError) -> ApiError {
    let message = "The read model is not available at the moment.";
    ApiError::unavailable("read_model_unavailable", message).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_takes_the_tags_that_we_give() {
        let of = |text: &'static str| {
            if_match(&HeaderMap::from_iter([(
                IF_MATCH,
                HeaderValue::from_static(text),
            )]))
        };
        assert_eq!(if_match(&HeaderMap::new()).unwrap(), None);
        assert_eq!(of("*").unwrap(), None);
        assert_eq!(of("\"12\"").unwrap(), Some(12));
        for wrong in ["12", "\"x\"", "W/\"12\"", ""] {
            assert_eq!(
                of(wrong).unwrap_err().status,
                StatusCode::PRECONDITION_FAILED
            );
        }
    }
}
