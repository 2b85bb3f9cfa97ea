//! Errors in Anthropic's words.
//!
//! `code` and `param`, which Anthropic has not, are the same as in every other error of the hub.

use nexus_events::id::RequestId;
use serde_json::{Value, json};

use crate::{error::ApiError, protocol::openai::response::ErrorObject};

/// The kinds of errors that Anthropic's clients know.
const KINDS: [&str; 11] = [
    "invalid_request_error",
    "authentication_error",
    "billing_error",
    "permission_error",
    "not_found_error",
    "conflict_error",
    "request_too_large",
    "rate_limit_error",
    "timeout_error",
    "overloaded_error",
    "api_error",
];

/// Whether answers at a path are in Anthropic's form.
pub(crate) fn is_spoken_at(path: &str) -> bool {
    matches!(path, "/v1/messages" | "/messages")
}

/// The body of an answer with an error status.
pub(crate) fn of_answer(error: &ApiError, request: RequestId) -> Vec<u8> {
    let kind = match error.status.as_u16() {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        409 => "conflict_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        408 | 504 => "timeout_error",
        503 | 529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    };
    let told = ErrorObject {
        message: error.message.clone(),
        kind: None,
        code: error.code.as_deref().map(str::to_owned),
        param: error.param.clone(),
    };
    body(kind, &told, request).to_string().into_bytes()
}

/// The error that ends a stream.
pub(super) fn of_object(error: &ErrorObject, request: RequestId) -> Value {
    let given = error.kind.as_deref().unwrap_or_default();
    let known = KINDS.into_iter().find(|kind| *kind == given);
    body(known.unwrap_or("api_error"), error, request)
}

fn body(kind: &str, error: &ErrorObject, request: RequestId) -> Value {
    json!({
        "type": "error",
        "error": {
            "type": kind,
            "message": error.message,
            "code": error.code,
            "param": error.param,
        },
        "request_id": request,
    })
}
