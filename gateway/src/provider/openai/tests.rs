mod goldens;
mod splits;

use nexus_events::{clock::UnixMillis, id::RequestId};

use super::*;
use crate::{protocol::openai::request::ChatRequest, provider::Target};

fn encode(body: &Bytes, target: Target<'_>) -> Result<UpstreamRequest, ProviderError> {
    let id: RequestId = "0199c0de-0000-7000-8000-000000000001".parse().unwrap();
    OpenAi.encode(ProviderCall {
        id,
        time: UnixMillis::from_millis(0),
        request: &ChatRequest::parse(body).unwrap(),
        body,
        target,
    })
}

fn target(server_key: Option<&str>) -> Target<'_> {
    Target {
        server_url: "http://provider.test/",
        server_key,
        model: "upstream-model",
    }
}

fn event(data: &'static str) -> SseEvent {
    SseEvent {
        name: Bytes::new(),
        data: Bytes::from_static(data.as_bytes()),
    }
}

#[test]
fn the_provider_gets_the_hubs_key_and_nobody_sees_it() {
    let body = Bytes::from_static(br#"{"model":"m","messages":[{"role":"user"}],"stream":true}"#);
    let UpstreamRequest::Http(request) = encode(&body, target(Some("sk-1"))).unwrap() else {
        panic!("no HTTP request");
    };
    assert_eq!(
        request.url.as_str(),
        "http://provider.test/v1/chat/completions"
    );
    assert_eq!(request.headers[AUTHORIZATION], "Bearer sk-1");
    assert_eq!(request.headers[ACCEPT], "text/event-stream");
    assert!(!format!("{request:?} {:?}", target(Some("sk-1"))).contains("sk-1"));
}

#[test]
fn a_provider_that_is_configured_wrongly_is_no_panic() {
    let body = Bytes::from_static(br#"{"model":"m","messages":[{"role":"user"}]}"#);
    let nowhere = Target {
        server_url: "nowhere",
        ..target(None)
    };
    let error = encode(&body, nowhere).unwrap_err();
    assert_eq!(
        (error.reason, error.retry),
        (FailureReason::Internal, Retry::Now)
    );
    assert!(encode(&body, target(Some("a\nb"))).is_err());
}

#[test]
fn a_stream_is_chunks_and_a_mark() {
    let chunk = event(r#"{"id":"c","choices":[{"index":0,"delta":{"content":"hi"}}]}"#);
    let Ok(Streamed::Chunk(decoded)) = OpenAi.decode_chunk(&chunk) else {
        panic!("no chunk");
    };
    assert_eq!(decoded.json.get().as_bytes(), chunk.data);
    assert!(matches!(
        OpenAi.decode_chunk(&event("[DONE]")),
        Ok(Streamed::Done)
    ));
    assert!(matches!(
        OpenAi.decode_chunk(&event("")),
        Ok(Streamed::Nothing)
    ));
}

/// A chunk and an answer by its members, nested deeper than the log takes.
fn deep_object() -> String {
    let (open, close) = ("[".repeat(200), "]".repeat(200));
    format!(r#"{{"choices":[],"new":{open}{close}}}"#)
}

#[test]
fn what_is_no_chunk_is_an_error_of_the_right_kind() {
    for garbage in [
        "{",
        "hi",
        "7",
        "[]",
        r#"{"choices":"no"}"#,
        r#"{"choices":[1]}"#,
        r#"{"choices":[],"new":"\ud800"}"#,
    ] {
        let error = OpenAi.decode_chunk(&event(garbage)).unwrap_err();
        assert_eq!(error.reason, FailureReason::UpstreamMalformed, "{garbage}");
    }
    // What some reader of the log could not read.
    let deep = SseEvent {
        data: Bytes::from(deep_object()),
        ..event("")
    };
    let error = OpenAi.decode_chunk(&deep).unwrap_err();
    assert_eq!(error.reason, FailureReason::UpstreamMalformed);
    let reported = event(r#"{"error":{"message":"overloaded","type":"server_error"}}"#);
    let error = OpenAi.decode_chunk(&reported).unwrap_err();
    assert_eq!(error.reason, FailureReason::UpstreamError);
    assert_eq!(error.object.unwrap().message, "overloaded");
    let named = SseEvent {
        name: Bytes::from_static(b"error"),
        ..event(r#"{"message":"overloaded"}"#)
    };
    let error = OpenAi.decode_chunk(&named).unwrap_err();
    assert_eq!(error.object.unwrap().message, "overloaded");
}

#[test]
fn a_whole_answer_is_read_in_place() {
    let body = Bytes::from_static(br#"{"id":"a","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#);
    let answer = OpenAi.decode_response(&body).unwrap();
    assert_eq!(answer.body.as_ptr(), body.as_ptr());
    assert_eq!(
        answer.response.choices[0]
            .finish_reason
            .as_ref()
            .unwrap()
            .as_str(),
        "stop"
    );
}

#[test]
fn an_answer_that_is_none_is_an_error_of_the_right_kind() {
    let deep = deep_object();
    for garbage in ["", "<html>", "{}", r#"{"choices":[{}]}"#, "\u{fffd}", &deep] {
        let error = OpenAi
            .decode_response(&Bytes::copy_from_slice(garbage.as_bytes()))
            .unwrap_err();
        assert_eq!(error.reason, FailureReason::UpstreamMalformed, "{garbage}");
    }
    let disguised = Bytes::from_static(br#"{"error":{"message":"no credit","code":402}}"#);
    let error = OpenAi.decode_response(&disguised).unwrap_err();
    assert_eq!(error.reason, FailureReason::UpstreamError);
}

#[test]
fn error_statuses_say_whether_to_try_elsewhere() {
    let none = HeaderMap::new();
    let decode = |status: u16, headers: &HeaderMap| {
        let status = StatusCode::from_u16(status).unwrap();
        OpenAi.decode_error(status, headers, br#"{"error":{"message":"no","type":"t"}}"#)
    };
    for status in [400, 401, 403, 404, 413, 422] {
        assert_eq!(decode(status, &none).retry, Retry::Never, "{status}");
    }
    for status in [408, 429, 500, 502, 503, 504, 529] {
        assert_eq!(decode(status, &none).retry, Retry::Now, "{status}");
    }
    let mut headers = HeaderMap::new();
    headers.insert(RETRY_AFTER, HeaderValue::from_static("7"));
    assert_eq!(
        decode(429, &headers).retry,
        Retry::After(Duration::from_secs(7))
    );
    headers.insert(RETRY_AFTER, HeaderValue::from_static("999999999"));
    assert_eq!(decode(429, &headers).retry, Retry::After(RETRY_AFTER_MAX));
    let decode_with = |pairs: &[(&'static str, &'static str)]| {
        let pairs = pairs.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        decode(429, &pairs.collect()).retry
    };
    let millis = [("retry-after-ms", "250"), ("retry-after", "1")];
    assert_eq!(
        decode_with(&millis),
        Retry::After(Duration::from_millis(250))
    );
    let date = ("date", "Sun, 29 Nov 2026 08:00:00 GMT");
    let moment = |text| decode_with(&[date, ("retry-after", text)]);
    assert_eq!(
        moment("Sun, 29 Nov 2026 08:00:09 GMT"),
        Retry::After(Duration::from_secs(9))
    );
    // Over, unreadable, or of a server without a clock.
    assert_eq!(moment("Sun, 29 Nov 2026 07:59:00 GMT"), Retry::Now);
    assert_eq!(moment("soon"), Retry::Now);
    assert_eq!(
        decode_with(&[("retry-after", "Sun, 29 Nov 2026 08:00:09 GMT")]),
        Retry::Now
    );
    let error = decode(429, &none);
    assert_eq!(error.object.unwrap().kind.as_deref(), Some("t"));
    let page = OpenAi.decode_error(StatusCode::BAD_GATEWAY, &none, b"<html>");
    assert!(page.object.is_none());
    let python = OpenAi.decode_error(StatusCode::NOT_FOUND, &none, br#"{"detail":"Not Found"}"#);
    assert_eq!(python.object.unwrap().message, "Not Found");
}
