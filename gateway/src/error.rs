//! What a client is told when something went wrong; the only type that knows status codes.
//!
//! A handler returns an [`ApiError`]; turned into a response it carries itself
//! in the response's extensions, and the outermost middleware writes the body,
//! because only there the request id is at hand and a failure is logged once.
//! Two messages: `message` is for the client and never holds a secret, a key or
//! content of others; `source` is for the operator's log and never leaves the hub.
//! What a provider says itself is the client's alone: `Display` leaves it out.

use std::{borrow::Cow, error::Error, fmt, sync::Arc, time::Duration};

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::RETRY_AFTER};
use nexus_events::id::RequestId;
use serde::Serialize;

/// The `type` of an error that the request itself caused.
pub const INVALID_REQUEST: &str = "invalid_request_error";
/// The `type` of an error about the key.
pub const AUTHENTICATION: &str = "authentication_error";
/// The `type` of an error about what the key may do.
pub const PERMISSION: &str = "permission_error";
/// The `type` of an error about too many requests.
pub const RATE_LIMIT: &str = "requests";
/// The `type` of an error of a provider.
pub const UPSTREAM: &str = "upstream_error";
/// The `type` of an error of the hub.
pub const SERVER: &str = "server_error";

/// An error as the `OpenAI` API words it.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// `error.type`: ours, or a provider's.
    pub kind: Cow<'static, str>,
    /// `error.code`: what programs look at.
    pub code: Option<Cow<'static, str>>,
    /// `error.param`: the member of the request that is wrong.
    pub param: Option<String>,
    /// `error.message`: a sentence for the client.
    pub message: String,
    /// Whether the message is a provider's own, which may quote what it was asked.
    quotes: bool,
    headers: Option<Box<HeaderMap>>,
    source: Option<Arc<Source>>,
}

/// A thin pointer keeps the error below the size at which moving it costs.
#[derive(Debug)]
struct Source(Box<dyn Error + Send + Sync>);

impl ApiError {
    /// An error with that status, type and code.
    pub fn new(
        status: StatusCode,
        kind: &'static str,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            kind: Cow::Borrowed(kind),
            code: Some(Cow::Borrowed(code)),
            param: None,
            message: message.into(),
            quotes: false,
            headers: None,
            source: None,
        }
    }

    /// 400: the request is malformed; `param` names the member that is wrong.
    pub fn invalid_request(param: Option<&str>, message: impl Into<String>) -> Self {
        let code = match param {
            Some(_) => "invalid_value",
            None => "invalid_request",
        };
        let error = Self::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, code, message);
        match param {
            Some(param) => error.with_param(param),
            None => error,
        }
    }

    /// 404: no provider offers that model.
    pub fn model_not_found(model: &str) -> Self {
        let message = format!("The model '{}' does not exist.", shortened(model));
        Self::new(
            StatusCode::NOT_FOUND,
            INVALID_REQUEST,
            "model_not_found",
            message,
        )
        .with_param("model")
    }

    /// 401: no key was given.
    pub fn missing_key() -> Self {
        Self::unauthenticated(
            "missing_api_key",
            "No API key given: send it as 'Authorization: Bearer <key>'.",
        )
    }

    /// 401: the key is none of ours.
    pub fn wrong_key() -> Self {
        Self::unauthenticated("invalid_api_key", "The API key is not valid.")
    }

    /// 403: the key may not do that.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            PERMISSION,
            "permission_denied",
            message,
        )
    }

    /// 404: there is no such thing; `what` names the thing, such as `provider`.
    pub fn not_found(what: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            INVALID_REQUEST,
            "not_found",
            format!("There is no such {what}."),
        )
    }

    /// 409: what is there already stands against it.
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, INVALID_REQUEST, code, message)
    }

    /// 412: the resource is no longer what `If-Match` says.
    pub fn precondition_failed(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            INVALID_REQUEST,
            "precondition_failed",
            message,
        )
    }

    /// 413: the body is larger than `limit` bytes.
    pub fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            INVALID_REQUEST,
            "request_too_large",
            format!("The request's body is larger than {limit} bytes."),
        )
    }

    /// 422: a member is well formed and does not fit what is there.
    pub fn unprocessable(param: &str, message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            INVALID_REQUEST,
            "unprocessable",
            message,
        )
        .with_param(param)
    }

    /// 429: too many requests; `retry_after` is when to come back.
    pub fn rate_limited(message: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            RATE_LIMIT,
            "rate_limit_exceeded",
            message,
        )
        .with_retry_after(retry_after)
    }

    /// An error of a provider, with the status that the client is to see.
    pub fn upstream(
        status: StatusCode,
        code: Option<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code,
            ..Self::new(status, UPSTREAM, "upstream_error", message)
        }
    }

    /// The same whose message is a provider's own: the client's and the log of events' to know, and
    /// no line's of the process log.
    #[must_use]
    pub const fn quoting(mut self) -> Self {
        self.quotes = true;
        self
    }

    /// The code, if it is one of the hub's own.
    pub fn own_code(&self) -> Option<&'static str> {
        match self.code {
            Some(Cow::Borrowed(code)) => Some(code),
            Some(Cow::Owned(_)) | None => None,
        }
    }

    /// 503: the hub can not do that now.
    pub fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER, code, message)
    }

    /// 500: a fault of the hub; the client learns nothing but that.
    pub fn internal(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            SERVER,
            "internal_error",
            "The hub failed to handle the request; its operator finds the reason by the request id.",
        )
        .with_source(source)
    }

    /// The same with the member of the request that is wrong.
    #[must_use]
    pub fn with_param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// The same with what the operator's log should say.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(Arc::new(Source(source.into())));
        self
    }

    /// The same with a header on the answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.get_or_insert_default().insert(name, value);
        self
    }

    /// The same with `Retry-After`, in whole seconds and at least one.
    #[must_use]
    pub fn with_retry_after(self, after: Duration) -> Self {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        self.with_header(RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    /// The headers on the answer.
    pub fn headers(&self) -> Option<&HeaderMap> {
        self.headers.as_deref()
    }

    /// What `Retry-After` says.
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers()?.get(RETRY_AFTER)?.to_str().ok()?;
        seconds.parse().ok().map(Duration::from_secs)
    }

    /// The error object: `{"error":{"message","type","code","param","request_id"}}`.
    pub fn body(&self, request: RequestId) -> Vec<u8> {
        let body = Body {
            error: Object {
                message: &self.message,
                kind: &self.kind,
                code: self.code.as_deref(),
                param: self.param.as_deref(),
                request_id: request,
            },
        };
        // Strings and an id: there is nothing in it that JSON could refuse.
        serde_json::to_vec(&body).unwrap_or_default()
    }

    fn unauthenticated(code: &'static str, message: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, AUTHENTICATION, code, message).with_header(
            http::header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer"),
        )
    }
}

#[derive(Serialize)]
struct Body<'a> {
    error: Object<'a>,
}

#[derive(Serialize)]
struct Object<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    code: Option<&'a str>,
    param: Option<&'a str>,
    request_id: RequestId,
}

/// For the process log: the message, unless it may quote what somebody said.
impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.quotes {
            let status = self.status.as_u16();
            write!(
                f,
                "the provider reported an error, status {status} for the client"
            )
        } else {
            f.write_str(&self.message)
        }
    }
}

impl Error for ApiError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.source.as_ref()?;
        Some(source.0.as_ref())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::default();
        *response.status_mut() = self.status;
        if let Some(headers) = &self.headers {
            response.headers_mut().extend((**headers).clone());
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// What a client typed, cut to a length that fits into a sentence: 128 characters.
fn shortened(text: &str) -> String {
    text.chars().take(128).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> RequestId {
        "0199c0de-0000-7000-8000-000000000001".parse().unwrap()
    }

    #[test]
    fn an_error_object_has_the_members_that_clients_read() {
        let error = ApiError::model_not_found("gpt-9");
        let body: serde_json::Value = serde_json::from_slice(&error.body(request())).unwrap();
        assert_eq!(
            body,
            serde_json::json!({"error": {
                "message": "The model 'gpt-9' does not exist.",
                "type": "invalid_request_error",
                "code": "model_not_found",
                "param": "model",
                "request_id": "0199c0de-0000-7000-8000-000000000001",
            }})
        );
    }

    #[test]
    fn the_operators_reason_stays_out_of_the_clients_message() {
        let error = ApiError::internal(std::io::Error::other("disk on fire"));
        let body = String::from_utf8(error.body(request())).unwrap();
        assert!(!body.contains("fire"), "{body}");
        assert_eq!(error.source().unwrap().to_string(), "disk on fire");
    }

    #[test]
    fn retry_after_is_rounded_up_to_a_whole_second() {
        for (after_ms, expected) in [(0, "1"), (20, "1"), (1_000, "1"), (1_001, "2")] {
            let error = ApiError::rate_limited("slow down", Duration::from_millis(after_ms));
            let response = error.into_response();
            assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(response.headers()[RETRY_AFTER], expected);
        }
    }

    #[test]
    fn an_error_stays_small_enough_to_be_returned_by_value() {
        assert!(size_of::<ApiError>() < 128, "{}", size_of::<ApiError>());
    }
}
