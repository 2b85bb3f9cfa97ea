use super::*;
use crate::provider::{
    Retry,
    translate::testing::{
        Goldens, encode, encode_body, encode_members, refused, respond, target, translate,
    },
};

const KIND: &str = "anthropic";

#[test]
fn what_goes_in_and_out_is_as_the_goldens_say() {
    let goldens = Goldens::of(KIND);
    goldens.requests();
    goldens.responses();
    goldens.streams();
    goldens.errors();
}

#[test]
fn a_request_goes_to_messages_with_the_hubs_key_and_a_version() {
    let body = Bytes::from_static(br#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#);
    for (base, url) in [
        (
            "https://api.anthropic.com",
            "https://api.anthropic.com/v1/messages",
        ),
        (
            "https://api.anthropic.com/v1/",
            "https://api.anthropic.com/v1/messages",
        ),
        ("http://h/ask#", "http://h/ask"),
    ] {
        let request = encode(KIND, &body, target(base)).unwrap();
        assert_eq!(request.url.as_str(), url);
        assert_eq!(request.headers["x-api-key"], "secret");
        assert_eq!(request.headers["anthropic-version"], "2023-06-01");
        assert!(!request.headers.contains_key("authorization"));
        assert!(!format!("{request:?}").contains("secret"));
    }
}

#[test]
fn betas_go_into_their_header() {
    let edits = r#""context_management":{"edits":[{"type":"clear_thinking_20251015"}]}"#;
    let dated = r#""anthropic_beta":["a","context-management-2030-01-01"]"#;
    for (members, betas) in [
        ("", None),
        (r#","anthropic_beta":[]"#, None),
        (r#","anthropic_beta":["a","b"]"#, Some("a,b")),
        (&format!(",{edits}"), Some("context-management-2025-06-27")),
        (
            &format!(",{edits},{dated}"),
            Some("a,context-management-2030-01-01"),
        ),
    ] {
        let message = r#""messages":[{"role":"user","content":"hi"}]"#;
        let body = Bytes::from(format!(r#"{{"model":"m",{message}{members}}}"#));
        let request = encode(KIND, &body, target("http://h")).unwrap();
        let header = request.headers.get("anthropic-beta");
        assert_eq!(header.map(|value| value.to_str().unwrap()), betas);
        assert!(!request.body.windows(4).any(|word| word == b"beta"));
    }
    assert_eq!(
        refused(encode_members(KIND, r#""anthropic_beta":["\n"]"#)),
        "anthropic_beta"
    );
}

/// Members, and the one that is refused.
const REFUSED_MEMBERS: &[(&str, &str)] = &[
    (r#""n":2"#, "n"),
    (r#""logprobs":true"#, "logprobs"),
    (r#""top_logprobs":3"#, "top_logprobs"),
    (r#""logit_bias":{"1":1}"#, "logit_bias"),
    (r#""seed":7"#, "seed"),
    (r#""presence_penalty":0.5"#, "presence_penalty"),
    (r#""frequency_penalty":-1"#, "frequency_penalty"),
    (r#""modalities":["text","audio"]"#, "modalities"),
    (r#""audio":{"voice":"a"}"#, "audio"),
    (r#""store":true"#, "store"),
    (r#""metadata":{"a":"b"}"#, "metadata"),
    (r#""functions":[{"name":"f"}]"#, "functions"),
    (r#""web_search_options":{}"#, "web_search_options"),
    (
        r#""stream":true,"stream_options":{"include_obfuscation":true}"#,
        "stream_options.include_obfuscation",
    ),
    (r#""service_tier":"flex""#, "service_tier"),
    (r#""tool_choice":"required""#, "tool_choice"),
    (r#""novel":1"#, "novel"),
    (r#""novel":false"#, "novel"),
    (r#""temperature":1.5"#, "temperature"),
    (r#""temperature":"hot""#, "temperature"),
    (r#""max_tokens":0"#, "max_tokens"),
    (r#""stop":7"#, "stop"),
    (r#""reasoning_effort":"none""#, "reasoning_effort"),
    (
        r#""response_format":{"type":"json_object"}"#,
        "response_format.type",
    ),
    (
        r#""response_format":{"type":"json_schema","json_schema":{"name":"a"}}"#,
        "response_format.json_schema.schema",
    ),
    (
        r#""tools":[{"type":"custom","custom":{}}]"#,
        "tools[0].type",
    ),
    (
        r#""tools":[{"type":"function","function":{}}]"#,
        "tools[0].function.name",
    ),
    (
        r#""tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"auto"}}"#,
        "tool_choice.allowed_tools",
    ),
];

/// A message, and the member that is refused.
const REFUSED_MESSAGES: &[(&str, &str)] = &[
    (r#"{"role":"function","content":"x"}"#, "messages[0].role"),
    (
        r#"{"role":"user","name":"Ann","content":"x"}"#,
        "messages[0].name",
    ),
    (r#"{"role":"user","content":7}"#, "messages[0].content"),
    (
        r#"{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"x","format":"wav"}}]}"#,
        "messages[0].content[0].type",
    ),
    (
        r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"ftp://x"}}]}"#,
        "messages[0].content[0].image_url.url",
    ),
    (
        r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://x","detail":"low"}}]}"#,
        "messages[0].content[0].image_url.detail",
    ),
    (
        r#"{"role":"user","content":[{"type":"document","source":{},"citations":{"enabled":true}}]}"#,
        "messages[0].content[0].citations.enabled",
    ),
    (
        r#"{"role":"tool","tool_call_id":"a","content":"x","is_error":"yes"}"#,
        "messages[0].is_error",
    ),
    (
        r#"{"role":"user","content":[{"type":"file","file":{"file_id":"f"}}]}"#,
        "messages[0].content[0].file.file_id",
    ),
    (
        r#"{"role":"system","content":[{"type":"image_url","image_url":{"url":"http://x"}}]}"#,
        "messages[0].content[0]",
    ),
    (
        r#"{"role":"assistant","audio":{"id":"a"}}"#,
        "messages[0].audio",
    ),
    (
        r#"{"role":"assistant","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"[1]"}}]}"#,
        "messages[0].tool_calls[0].function.arguments",
    ),
    (
        r#"{"role":"assistant","thinking_blocks":[{"type":"text","text":"x"}]}"#,
        "messages[0].thinking_blocks[0].type",
    ),
    (
        r#"{"role":"tool","content":"x"}"#,
        "messages[0].tool_call_id",
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

#[test]
fn what_makes_no_difference_is_let_through() {
    let plain = encode_members(KIND, r#""n":1"#).unwrap();
    for members in [
        r#""logprobs":false"#,
        r#""logit_bias":{}"#,
        r#""presence_penalty":0.0"#,
        r#""modalities":["text"]"#,
        r#""store":false"#,
        r#""novel":null"#,
        r#""tools":[]"#,
        r#""tool_choice":"auto""#,
        r#""parallel_tool_calls":true"#,
        r#""response_format":{"type":"text"}"#,
        r#""prompt_cache_key":"k""#,
        r#""stream":false"#,
    ] {
        assert_eq!(encode_members(KIND, members).unwrap(), plain, "{members}");
    }
}

#[test]
fn another_provider_may_do_what_this_one_cannot() {
    let error = encode_members(KIND, r#""n":2"#).unwrap_err();
    assert_eq!(error.retry, Retry::Now);
    assert!(error.message.contains("`n`"), "{}", error.message);
}

#[test]
fn half_an_answer_is_never_taken_for_the_whole() {
    Goldens::of(KIND).cut_off();
}

#[test]
fn values_of_the_wrong_kind_are_errors_or_nothing() {
    Goldens::of(KIND).corrupt();
}

#[test]
fn events_out_of_order_are_malformed() {
    for (what, outcome) in Goldens::of(KIND).disordered() {
        let error = outcome.error.expect(&what);
        assert_eq!(
            error.reason,
            nexus_events::exchange_event::FailureReason::UpstreamMalformed
        );
        assert!(!outcome.done && outcome.frames.is_empty(), "{what}");
    }
}

#[test]
fn blocks_without_end_are_not_kept_without_bound() {
    let start = r#"data: {"type":"message_start","message":{"id":"m"}}"#;
    let blocks = (0..1000).map(|index| {
        format!(r#"data: {{"type":"content_block_start","index":{index},"content_block":{{"type":"text","text":""}}}}"#)
    });
    let events: Vec<String> = std::iter::once(start.to_owned()).chain(blocks).collect();
    let outcome = translate(
        KIND,
        "{}",
        format!("{}\n\n", events.join("\n\n")).as_bytes(),
    );
    assert!(outcome.error.is_some());
}

#[test]
fn thousands_of_tiny_blocks_are_too_many() {
    use crate::stream::sse_decode::EVENT_BYTES_MAX;
    use nexus_events::exchange_event::FailureReason;
    let blocks = vec![r#"{"type":"text"}"#; 5_000].join(",");
    let body = format!(r#"{{"content":[{blocks}],"stop_reason":"end_turn"}}"#);
    let error = respond(KIND, body.as_bytes()).unwrap_err();
    assert_eq!(error.reason, FailureReason::UpstreamTooLarge);
    // Calls that are begun with all of their arguments, and never ended.
    let input = "x".repeat(EVENT_BYTES_MAX * 6 / 10);
    let call = |index: u32| {
        format!(
            r#"data: {{"type":"content_block_start","index":{index},"content_block":{{"type":"tool_use","id":"c","name":"f","input":{{"a":"{input}"}}}}}}"#
        ) + "\n\n"
    };
    let begin = r#"data: {"type":"message_start","message":{}}"#.to_owned() + "\n\n";
    let one = translate(KIND, "{}", (begin.clone() + &call(0)).as_bytes());
    assert!(one.error.is_none());
    let two = translate(KIND, "{}", (begin + &call(0) + &call(1)).as_bytes());
    let error = two.error.unwrap();
    assert_eq!(error.reason, FailureReason::UpstreamTooLarge);
}

#[test]
fn an_error_in_the_stream_ends_it_with_what_the_provider_says() {
    let (start, stream) = (
        r#"data: {"type":"message_start","message":{"id":"m"}}"#,
        r#"data: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
    );
    let outcome = translate(KIND, "{}", format!("{start}\n\n{stream}\n\n").as_bytes());
    let object = outcome.error.unwrap().object.unwrap();
    assert_eq!(object.kind.as_deref(), Some("overloaded_error"));
    assert_eq!(object.message, "Overloaded");
    assert!(!outcome.done && !outcome.frames.is_empty());
}

#[test]
fn an_error_in_disguise_is_an_error() {
    let body = br#"{"type":"error","error":{"type":"api_error","message":"no"}}"#;
    let error = respond(KIND, body).unwrap_err();
    assert_eq!(error.object.unwrap().message, "no");
}

#[test]
fn an_instruction_amid_a_conversation_is_refused_by_its_place() {
    let message = |role: &str| format!(r#"{{"role":"{role}","content":"x"}}"#);
    let body = |roles: &[&str]| {
        let messages: Vec<String> = roles.iter().map(|role| message(role)).collect();
        format!(r#"{{"model":"m","messages":[{}]}}"#, messages.join(","))
    };
    for kind in ["anthropic", "gemini"] {
        let first = body(&["system", "developer", "user"]);
        assert!(encode_body(kind, &first).is_ok(), "{kind}");
        for role in ["system", "developer"] {
            let late = body(&["system", "user", "assistant", role, "user"]);
            assert_eq!(refused(encode_body(kind, &late)), "messages[3]", "{kind}");
        }
    }
}
