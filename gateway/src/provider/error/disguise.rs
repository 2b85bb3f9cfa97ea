//! The status that an error stands for which came in an answer with a success status.
//!
//! A provider, or a proxy before it, may find out late: it has said 200, and the body is an error
//! object, or the stream begins with one. Such an error has a name all the same, and the vendors
//! say which status the name goes with; so it counts as that status would have. The more exact
//! name comes first: `code`, then `type`. A name that nobody knows stands for nothing.
//!
//! Read on 2026-11-29: `https://platform.openai.com/docs/guides/error-codes`,
//! `https://platform.claude.com/docs/en/api/errors`, and `google.rpc.Code` with its statuses in
//! `https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto`. Some proxies put
//! the status itself into `code`.

use http::StatusCode;

use crate::protocol::openai::response::ErrorObject;

/// Anthropic's status for a provider that has too much to do.
const OVERLOADED: u16 = 529;

/// The status; `None` where neither name is known.
pub(super) fn status(object: &ErrorObject) -> Option<StatusCode> {
    let names = [&object.code, &object.kind];
    names.into_iter().flatten().find_map(|name| of_name(name))
}

fn of_name(name: &str) -> Option<StatusCode> {
    let status = match name.to_ascii_lowercase().as_str() {
        "rate_limit_error"
        | "rate_limit_exceeded"
        | "too_many_requests"
        | "requests"
        | "tokens"
        | "insufficient_quota"
        | "resource_exhausted" => 429,
        "overloaded_error" => OVERLOADED,
        "overloaded"
        | "engine_overloaded"
        | "server_overloaded"
        | "service_unavailable"
        | "service_unavailable_error"
        | "unavailable" => 503,
        "server_error"
        | "api_error"
        | "internal_error"
        | "internal_server_error"
        | "internal"
        | "unknown" => 500,
        "timeout_error" | "deadline_exceeded" => 504,
        "context_length_exceeded"
        | "invalid_request_error"
        | "invalid_argument"
        | "failed_precondition"
        | "out_of_range" => 400,
        "authentication_error" | "invalid_api_key" | "unauthenticated" => 401,
        "billing_error" => 402,
        "permission_error" | "permission_denied" => 403,
        "not_found_error" | "model_not_found" | "not_found" => 404,
        "request_too_large" => 413,
        number => number.parse().ok()?,
    };
    let status = StatusCode::from_u16(status).ok()?;
    (status.is_client_error() || status.is_server_error()).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: Option<&str>, code: Option<&str>) -> Option<u16> {
        let object = ErrorObject {
            kind: kind.map(str::to_owned),
            code: code.map(str::to_owned),
            ..ErrorObject::default()
        };
        status(&object).map(|status| status.as_u16())
    }

    #[test]
    fn the_vendors_names_have_their_statuses() {
        for (kind, code, status) in [
            ("tokens", "rate_limit_exceeded", 429),
            ("server_error", "", 500),
            ("invalid_request_error", "context_length_exceeded", 400),
            ("overloaded_error", "", 529),
            ("api_error", "", 500),
            ("rate_limit_error", "", 429),
            ("timeout_error", "", 504),
            ("RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED", 429),
            ("UNAVAILABLE", "", 503),
            ("INVALID_ARGUMENT", "", 400),
        ] {
            assert_eq!(of(Some(kind), Some(code)), Some(status), "{kind} {code}");
        }
    }

    #[test]
    fn the_code_is_more_exact_than_the_type() {
        let of = |kind, code| of(Some(kind), Some(code));
        assert_eq!(of("server_error", "rate_limit_exceeded"), Some(429));
        assert_eq!(of("invalid_request_error", "invalid_api_key"), Some(401));
        assert_eq!(of("server_error", "engine_down"), Some(500));
    }

    #[test]
    fn a_code_may_be_the_status_itself() {
        for (code, status) in [("429", Some(429)), ("502", Some(502)), ("529", Some(529))] {
            assert_eq!(of(None, Some(code)), status);
        }
        for code in ["0", "17", "200", "302", "600", "336501", "-429"] {
            assert_eq!(of(None, Some(code)), None, "{code}");
        }
    }

    #[test]
    fn a_name_that_nobody_knows_stands_for_nothing() {
        assert_eq!(of(None, None), None);
        assert_eq!(of(Some("strange"), Some("thing")), None);
    }
}
