use std::time::Duration;

use nexus_events::exchange_event::FailureReason;

use super::*;
use crate::provider::{
    Retry, adapter,
    translate::testing::{
        Goldens, encode, encode_body, encode_members, refused, respond, target, translate,
    },
};

const KIND: &str = "gemini";

#[test]
fn what_goes_in_and_out_is_as_the_goldens_say() {
    let goldens = Goldens::of(KIND);
    goldens.requests();
    goldens.responses();
    goldens.streams();
    goldens.errors();
}

#[test]
fn the_address_holds_model_and_method() {
    let body = |stream: bool| {
        let message = r#"{"role":"user","content":"hi"}"#;
        Bytes::from(format!(
            r#"{{"model":"m","messages":[{message}],"stream":{stream}}}"#
        ))
    };
    let host = "https://generativelanguage.googleapis.com";
    for (base, model, stream, path) in [
        (
            "",
            "gemini-3",
            false,
            "/v1beta/models/gemini-3:generateContent",
        ),
        (
            "/",
            "models/gemini-3",
            true,
            "/v1beta/models/gemini-3:streamGenerateContent?alt=sse",
        ),
        (
            "/v1",
            "gemini-3",
            false,
            "/v1/models/gemini-3:generateContent",
        ),
        (
            "",
            "tunedModels/mine",
            false,
            "/v1beta/tunedModels/mine:generateContent",
        ),
        (
            "/v1?a=b",
            "x?y",
            true,
            "/v1/models/x%3Fy:streamGenerateContent?a=b&alt=sse",
        ),
    ] {
        let base = format!("{host}{base}");
        let target = crate::provider::Target {
            model,
            ..target(&base)
        };
        let request = encode(KIND, &body(stream), target).unwrap();
        assert_eq!(request.url.as_str(), format!("{host}{path}"));
        assert_eq!(request.headers["x-goog-api-key"], "secret");
        assert!(!request.headers.contains_key("authorization"));
        assert!(!format!("{request:?}").contains("secret"));
    }
}

/// Members, and the one that is refused.
const REFUSED_MEMBERS: &[(&str, &str)] = &[
    (r#""n":0"#, "n"),
    (r#""n":"two""#, "n"),
    (r#""logit_bias":{"1":1}"#, "logit_bias"),
    (r#""logprobs":7"#, "logprobs"),
    (r#""parallel_tool_calls":false"#, "parallel_tool_calls"),
    (r#""modalities":["image"]"#, "modalities"),
    (r#""audio":{"voice":"a"}"#, "audio"),
    (r#""store":true"#, "store"),
    (r#""prediction":{"type":"content"}"#, "prediction"),
    (r#""service_tier":"flex""#, "service_tier"),
    (r#""reasoning_effort":"xhigh""#, "reasoning_effort"),
    (r#""reasoning_effort":"none""#, "reasoning_effort"),
    (
        r#""response_format":{"type":"grammar"}"#,
        "response_format.type",
    ),
    (r#""novel":1"#, "novel"),
];

/// A message, and the member that is refused.
const REFUSED_MESSAGES: &[(&str, &str)] = &[
    (
        r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/a.png"}}]}"#,
        "messages[0].content[0].image_url.url",
    ),
    (
        r#"{"role":"user","content":[{"type":"file","file":{"file_data":"JVBERi0="}}]}"#,
        "messages[0].content[0].file.file_data",
    ),
    (
        r#"{"role":"tool","tool_call_id":"a","content":"x"}"#,
        "messages[0].tool_call_id",
    ),
    (
        r#"{"role":"user","name":"Ann","content":"x"}"#,
        "messages[0].name",
    ),
];

#[test]
fn what_has_no_counterpart_is_refused_by_its_name() {
    for (members, param) in REFUSED_MEMBERS {
        assert_eq!(&refused(encode_members(KIND, members)), param, "{members}");
    }
    for (message, param) in REFUSED_MESSAGES {
        let body = format!(r#"{{"model":"m","messages":[{message}]}}"#);
        assert_eq!(&refused(encode_body(KIND, &body)), param, "{message}");
    }
}

/// Gemini 3 wants a signature with the first call of a turn; earlier models do without.
#[test]
fn calls_of_another_model_are_signed_for_models_that_insist() {
    let body = Bytes::from_static(br#"{"model":"m","messages":[{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"f","arguments":"{}"}}]}]}"#);
    for (model, signed) in [("gemini-2.5-flash", false), ("gemini-3-pro", true)] {
        let target = crate::provider::Target {
            model,
            ..target("http://h")
        };
        let request = encode(KIND, &body, target).unwrap();
        let text = String::from_utf8(request.body.to_vec()).unwrap();
        assert_eq!(
            text.contains("skip_thought_signature_validator"),
            signed,
            "{model}"
        );
    }
}

#[test]
fn effort_is_a_budget_for_models_without_levels() {
    let body = Bytes::from_static(
        br#"{"model":"m","messages":[{"role":"user","content":"x"}],"reasoning_effort":"none"}"#,
    );
    let target = crate::provider::Target {
        model: "gemini-2.5-flash",
        ..target("http://h")
    };
    let request = encode(KIND, &body, target).unwrap();
    let text = String::from_utf8(request.body.to_vec()).unwrap();
    assert!(
        text.contains(r#""thinkingConfig":{"thinkingBudget":0,"includeThoughts":false}"#),
        "{text}"
    );
}

#[test]
fn half_an_answer_is_never_taken_for_the_whole() {
    Goldens::of(KIND).cut_off();
}

#[test]
fn values_of_the_wrong_kind_are_errors_or_nothing() {
    Goldens::of(KIND).corrupt();
}

/// Each event stands for itself, so order cannot be told; the end is still an end.
#[test]
fn events_out_of_order_are_no_panic() {
    for (what, outcome) in Goldens::of(KIND).disordered() {
        assert!(
            outcome.error.is_none() && outcome.done,
            "{what}: {outcome:?}"
        );
    }
}

#[test]
fn all_candidates_that_were_asked_for_must_end() {
    let event = |index: u32| {
        format!(
            "data: {{\"candidates\":[{{\"index\":{index},\"content\":{{\"parts\":[{{\"text\":\"x\"}}]}},\"finishReason\":\"STOP\"}}]}}\n\n"
        )
    };
    let two = r#"{"n":2}"#;
    assert!(!translate(KIND, two, event(0).as_bytes()).done);
    assert!(translate(KIND, two, (event(0) + &event(1)).as_bytes()).done);
    let twice = translate(KIND, two, (event(0) + &event(0)).as_bytes());
    assert_eq!(
        twice.error.unwrap().reason,
        FailureReason::UpstreamMalformed
    );
    let many: String = (0..1000).map(event).collect();
    assert!(
        translate(KIND, r#"{"n":1000}"#, many.as_bytes())
            .error
            .is_some()
    );
}

#[test]
fn an_error_in_an_answer_is_an_error() {
    let body = r#"{"error":{"code":503,"message":"Overloaded","status":"UNAVAILABLE"}}"#;
    let error = respond(KIND, body.as_bytes()).unwrap_err();
    assert_eq!(error.object.unwrap().kind.as_deref(), Some("UNAVAILABLE"));
    let streamed = translate(KIND, "{}", format!("data: {body}\n\n").as_bytes());
    assert_eq!(streamed.error.unwrap().reason, FailureReason::UpstreamError);
    let broken = r#"{"candidates":[{"content":{"parts":[{"text":"x"}]},"finishReason":"MALFORMED_FUNCTION_CALL","finishMessage":"Malformed call"}]}"#;
    let error = respond(KIND, broken.as_bytes()).unwrap_err();
    let object = error.object.unwrap();
    assert_eq!(object.code.as_deref(), Some("MALFORMED_FUNCTION_CALL"));
    assert_eq!(object.message, "Malformed call");
}

#[test]
fn parts_that_openais_form_has_no_place_for_are_no_answer() {
    for part in [
        r#"{"inlineData":{"mimeType":"image/png","data":"x"}}"#,
        r#"{"executableCode":{"code":"x"}}"#,
    ] {
        let body = format!(
            r#"{{"candidates":[{{"content":{{"parts":[{part}]}},"finishReason":"STOP"}}]}}"#
        );
        let error = respond(KIND, body.as_bytes()).unwrap_err();
        assert_eq!(error.reason, FailureReason::UpstreamMalformed);
    }
}

#[test]
fn thousands_of_tiny_parts_are_too_many() {
    let parts = vec!["{}"; 5_000].join(",");
    let candidate = format!(r#"{{"content":{{"parts":[{parts}]}},"finishReason":"STOP"}}"#);
    let many_parts = format!(r#"{{"candidates":[{candidate}]}}"#);
    let many_candidates = format!(r#"{{"candidates":[{}]}}"#, vec!["{}"; 200].join(","));
    for body in [many_parts, many_candidates] {
        let error = respond(KIND, body.as_bytes()).unwrap_err();
        assert_eq!(error.reason, FailureReason::UpstreamTooLarge);
        let streamed = translate(KIND, "{}", format!("data: {body}\n\n").as_bytes());
        let error = streamed.error.unwrap();
        assert_eq!(error.reason, FailureReason::UpstreamTooLarge);
    }
    let long = "x".repeat(70_000);
    let error = format!(r#"{{"error":{{"status":"INTERNAL","message":"{long}"}}}}"#);
    let error = respond(KIND, error.as_bytes()).unwrap_err();
    assert!(error.object.unwrap().message.len() < 100);
}

#[test]
fn a_delay_that_google_asks_for_is_kept() {
    let gemini = adapter(KIND).unwrap();
    let body = |delay: &str| {
        format!(
            r#"[{{"error":{{"code":429,"message":"Quota","status":"RESOURCE_EXHAUSTED","details":[{{"@type":"x"}},{{"retryDelay":"{delay}"}}]}}}}]"#
        )
    };
    for (delay, retry) in [
        ("7s", Retry::After(Duration::from_secs(7))),
        ("0.5s", Retry::After(Duration::from_millis(500))),
        ("1e300s", Retry::Now),
        ("-1s", Retry::Now),
        ("soon", Retry::Now),
    ] {
        let status = StatusCode::TOO_MANY_REQUESTS;
        let error = gemini.decode_error(status, &HeaderMap::new(), body(delay).as_bytes());
        assert_eq!(error.retry, retry, "{delay}");
        assert_eq!(error.object.unwrap().message, "Quota");
    }
}
