//! What every request passes through, from the outside to the inside.
//!
//! 1. [`outermost`]: gives the request its id and its time of arrival, holds
//!    the limits on its head, catches panics, and writes the body of every
//!    error. It is outermost so that no answer leaves without an id, and no
//!    error in another shape. Before an error leaves, what is left of the
//!    request's body is read ([`unread`]), so that the client gets to see it.
//! 2. [`guard`]: one for each route of the table. It knows the permission
//!    that the route needs, finds the caller, and records refusals and
//!    management calls. A handler behind it cannot be reached without a key.

pub mod body;
pub mod guard;
pub mod unread;

use std::panic::AssertUnwindSafe;

use axum::{
    body::Body,
    extract::{Request, State as Extract},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use http::{
    HeaderName, HeaderValue, StatusCode, Version,
    header::{AUTHORIZATION, CONTENT_TYPE, EXPECT, HOST, HeaderMap},
};
use nexus_events::{clock::UnixMillis, id::RequestId};
use tokio::time::Instant;
use tracing::Instrument;

use crate::{
    dialect::messages,
    error::{ApiError, INVALID_REQUEST},
    state::State,
};

pub use body::RequestBody;
use unread::Unread;

/// Names and values of all headers together: 32 KiB, several times what clients and proxies send.
const HEADER_BYTES_MAX: usize = 32 * 1024;

/// Path and query: 8 KiB, the longest that common proxies pass on.
const URI_BYTES_MAX: usize = 8 * 1024;

/// The request's id, on every answer.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The same, where Anthropic's clients look for it.
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// When a request came; in the extensions of every request, beside its `RequestId`.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// For durations.
    pub at: Instant,
    /// For dates.
    pub time: UnixMillis,
}

/// See the module's documentation.
pub async fn outermost(Extract(state): Extract<State>, request: Request, next: Next) -> Response {
    let waits = request.headers().contains_key(EXPECT);
    let (parts, body) = request.into_parts();
    let (body, unread) = Unread::of(body, waits);
    let mut request = Request::from_parts(parts, body);
    let id = RequestId::draw(&*state.clock);
    let is_anthropic = messages::error::is_spoken_at(request.uri().path());
    let arrival = Arrival {
        at: Instant::now(),
        // One moment for both, so that whoever has the id has the other.
        time: id.drawn_at(),
    };
    request.extensions_mut().insert(id);
    request.extensions_mut().insert(arrival);
    let span = tracing::info_span!("request", request.id = %id);
    let mut response = match check_head(&request) {
        Err(error) => {
            drop(request);
            error.into_response()
        }
        Ok(()) => AssertUnwindSafe(next.run(request))
            .catch_unwind()
            .instrument(span.clone())
            .await
            .unwrap_or_else(|_| ApiError::internal("a handler panicked").into_response()),
    };
    let is_error = response.extensions().get::<ApiError>().is_some();
    span.in_scope(|| finish(&state, id, is_anthropic, &mut response));
    if is_error {
        unread.discard(response.status()).await;
    }
    response
}

/// A path that is in no row of the table.
pub async fn unknown_path(request: Request) -> ApiError {
    let message = format!(
        "Unknown request URL: {} {}.",
        request.method(),
        request.uri().path()
    );
    ApiError::new(
        StatusCode::NOT_FOUND,
        INVALID_REQUEST,
        "unknown_url",
        message,
    )
}

/// A path that is in the table, with another method.
pub async fn wrong_method(request: Request) -> ApiError {
    let message = format!(
        "{} does not take the method {}.",
        request.uri().path(),
        request.method()
    );
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        INVALID_REQUEST,
        "method_not_allowed",
        message,
    )
}

fn check_head(request: &Request) -> Result<(), ApiError> {
    let uri_bytes = request
        .uri()
        .path_and_query()
        .map_or(0, |path| path.as_str().len());
    if uri_bytes > URI_BYTES_MAX {
        return Err(ApiError::new(
            StatusCode::URI_TOO_LONG,
            INVALID_REQUEST,
            "uri_too_long",
            format!("The request's URL is longer than {URI_BYTES_MAX} bytes."),
        ));
    }
    if header_bytes(request.headers()) > HEADER_BYTES_MAX {
        return Err(headers_too_large());
    }
    if request.version() == Version::HTTP_11 && !request.headers().contains_key(HOST) {
        return Err(bad_head("A request of HTTP/1.1 must have a 'Host' header."));
    }
    // Whoever stands between could take the other one for the key.
    if request
        .headers()
        .get_all(AUTHORIZATION)
        .iter()
        .nth(1)
        .is_some()
    {
        return Err(bad_head("There must be one 'Authorization' header."));
    }
    Ok(())
}

fn bad_head(message: &str) -> ApiError {
    ApiError::new(
        StatusCode::BAD_REQUEST,
        INVALID_REQUEST,
        "bad_headers",
        message,
    )
}

/// 431: the headers are larger than they may be, or more than the HTTP library takes.
pub(crate) fn headers_too_large() -> ApiError {
    ApiError::new(
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        INVALID_REQUEST,
        "headers_too_large",
        format!(
            "The request's headers are too many or too large (at most {HEADER_BYTES_MAX} bytes)."
        ),
    )
}

fn header_bytes(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum()
}

/// Writes an error's body, logs what the operator must know, counts the answer.
fn finish(state: &State, id: RequestId, is_anthropic: bool, response: &mut Response) {
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        log(&error);
        if error.status == StatusCode::UNAUTHORIZED
            && let Some(minute) = state.unauthenticated.count(state.clock.now())
        {
            state.tell_unauthenticated(minute);
        }
        *response.body_mut() = Body::from(if is_anthropic {
            messages::error::of_answer(&error, id)
        } else {
            error.body(id)
        });
        response.headers_mut().insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/json; charset=utf-8"),
        );
    }
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        if is_anthropic {
            response.headers_mut().insert(REQUEST_ID, value.clone());
        }
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    let class = match response.status().as_u16() {
        500.. => "5xx",
        400.. => "4xx",
        300.. => "3xx",
        _ => "2xx",
    };
    state.metrics.answers.with_label_values(&[class]).inc();
}

/// The message of a refused request is the client's alone: it may quote what the client sent.
fn log(error: &ApiError) {
    let status = error.status.as_u16();
    let code = error.own_code();
    let cause = std::error::Error::source(error);
    match status {
        500 => tracing::error!(error = cause, status, code, "{error}"),
        501.. => tracing::warn!(error = cause, status, code, "{error}"),
        _ => tracing::debug!(status, code, "a request was refused"),
    }
}
