use nexus_events::exchange_event::FailureReason;

use super::*;
use crate::provider::{
    adapter,
    translate::testing::{encode, target},
};

/// The three forms, and what is read of them.
const ERRORS: [(&str, &str, u16, Retry); 6] = [
    (
        r#"{"code":"invalid_model","message":"no","type":"invalid_request_error"}"#,
        "invalid_model",
        400,
        Retry::Never,
    ),
    (
        r#"{"id":"as-1","code":"rpm_rate_limit_exceeded","message":"no","type":"rate_limit_exceeded"}"#,
        "rpm_rate_limit_exceeded",
        429,
        Retry::Now,
    ),
    (
        r#"{"error_code":110,"error_msg":"no"}"#,
        "110",
        502,
        Retry::Never,
    ),
    (
        r#"{"error_code":18,"error_msg":"no","id":"as-1"}"#,
        "18",
        429,
        Retry::Now,
    ),
    (
        r#"{"error_code":336100,"error_msg":"no"}"#,
        "336100",
        503,
        Retry::Now,
    ),
    (
        r#"{"error":{"code":"malformed_json","message":"no","type":"invalid_request_error"},"id":"as-1"}"#,
        "malformed_json",
        400,
        Retry::Never,
    ),
];

fn event(data: &str) -> SseEvent {
    SseEvent {
        data: Bytes::from(data.to_owned()),
        ..SseEvent::default()
    }
}

#[test]
fn requests_go_to_version_two_with_a_bearer_key() {
    let body = Bytes::from_static(br#"{"model":"m","messages":[{"role":"user","content":"hi"}],"web_search":{"enable":true}}"#);
    let request = encode("ernie", &body, target("https://qianfan.baidubce.com/v2")).unwrap();
    assert_eq!(
        request.url.as_str(),
        "https://qianfan.baidubce.com/v2/chat/completions"
    );
    assert_eq!(request.headers["authorization"], "Bearer secret");
    assert!(
        std::str::from_utf8(&request.body)
            .unwrap()
            .contains(r#""web_search":{"enable":true}"#)
    );
}

#[test]
fn an_error_with_a_status_of_success_is_an_error() {
    let ernie = adapter("ernie").unwrap();
    for (body, code, status, retry) in ERRORS {
        let whole = ernie
            .decode_response(&Bytes::from_static(body.as_bytes()))
            .unwrap_err();
        let chunk = ernie.decode_chunk(&event(body)).unwrap_err();
        for error in [whole, chunk] {
            assert_eq!(error.reason, FailureReason::UpstreamError, "{body}");
            assert_eq!(error.client_status().as_u16(), status, "{body}");
            assert_eq!(error.retry, retry, "{body}");
            let object = error.object.unwrap();
            assert_eq!(
                (object.code.as_deref(), object.message.as_str()),
                (Some(code), "no")
            );
        }
    }
}

#[test]
fn an_error_with_an_error_status_is_read_as_well() {
    let ernie = adapter("ernie").unwrap();
    for (body, code, ..) in ERRORS {
        let status = StatusCode::BAD_REQUEST;
        let error = ernie.decode_error(status, &HeaderMap::new(), body.as_bytes());
        assert_eq!(error.client_status(), status);
        let object = error.object.unwrap();
        assert_eq!(
            (object.code.as_deref(), object.message.as_str()),
            (Some(code), "no")
        );
    }
}

#[test]
fn answers_are_read_as_openais() {
    let ernie = adapter("ernie").unwrap();
    let body = Bytes::from_static(br#"{"id":"as-1","object":"chat.completion","code":0,"choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop","flag":0}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#);
    assert_eq!(
        ernie.decode_response(&body).unwrap().body.as_ptr(),
        body.as_ptr()
    );
    for data in [
        r#"{"id":"as-1","choices":[{"index":0,"delta":{"content":"hi"},"flag":0}]}"#,
        r#"{"id":"as-1","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
        r#"{"id":"as-1","code":"0","message":"ok"}"#,
    ] {
        assert!(
            matches!(ernie.decode_chunk(&event(data)), Ok(Streamed::Chunk(_))),
            "{data}"
        );
    }
    assert!(matches!(
        ernie.decode_chunk(&event("[DONE]")),
        Ok(Streamed::Done)
    ));
    let malformed = ernie
        .decode_response(&Bytes::from_static(b"{}"))
        .unwrap_err();
    assert_eq!(malformed.reason, FailureReason::UpstreamMalformed);
}

#[test]
fn a_chunk_cut_off_anywhere_is_malformed() {
    let ernie = adapter("ernie").unwrap();
    for (body, ..) in ERRORS {
        for end in 1..body.len() {
            let error = ernie
                .decode_chunk(&event(body.get(..end).unwrap()))
                .unwrap_err();
            assert_eq!(error.reason, FailureReason::UpstreamMalformed);
            let cut = Bytes::copy_from_slice(&body.as_bytes()[..end]);
            assert!(ernie.decode_response(&cut).is_err());
        }
    }
}
