use http::HeaderValue;
use serde_json::{Value, json};

use super::*;
use crate::dialect::{
    candidate::Speaker,
    testing::{Goldens, refused, refused_by, to_chat, to_chat_with},
};

fn goldens() -> Goldens {
    Goldens::of("messages", &Messages)
}

#[test]
fn what_goes_in_and_out_is_as_the_goldens_say() {
    let goldens = goldens();
    goldens.requests();
    goldens.answers();
    goldens.streams();
}

/// A body with a member in it.
fn with(member: &str) -> String {
    format!(
        r#"{{"model":"m","max_tokens":9,"messages":[{{"role":"user","content":"hi"}}],{member}}}"#
    )
}

fn saying(role: &str, block: &str) -> String {
    format!(
        r#"{{"model":"m","max_tokens":9,"messages":[{{"role":"{role}","content":[{block}]}}]}}"#
    )
}

#[test]
fn what_has_no_counterpart_is_refused_by_its_name() {
    for (member, param) in [
        (r#""container":"c""#, "container"),
        (r#""mcp_servers":[{}]"#, "mcp_servers"),
        (
            r#""context_management":{"edits":[1]}"#,
            "context_management.edits[0]",
        ),
        (
            r#""context_management":{"edits":[{"type":"compact_20260112"}]}"#,
            "context_management.edits[0].type",
        ),
        (
            r#""context_management":{"novel":1}"#,
            "context_management.novel",
        ),
        (r#""service_tier":"priority""#, "service_tier"),
        (r#""cache_control":"ephemeral""#, "cache_control"),
        (r#""metadata":{"team":"a"}"#, "metadata.team"),
        (r#""thinking":{"budget_tokens":1}"#, "thinking.type"),
        (r#""temperature":"hot""#, "temperature"),
        (r#""stream":1"#, "stream"),
        (r#""stop_sequences":"a""#, "stop_sequences"),
        (r#""tool_choice":{"type":"some"}"#, "tool_choice.type"),
        (r#""tool_choice":{"type":"tool"}"#, "tool_choice.name"),
        (
            r#""tools":[{"type":"web_search_20250305","name":"s"}]"#,
            "tools[0].type",
        ),
        (r#""tools":[{"name":"s"}]"#, "tools[0].input_schema"),
        (
            r#""tools":[{"name":"s","input_schema":{},"novel":1}]"#,
            "tools[0].novel",
        ),
        (
            r#""output_config":{"format":{"type":"text"}}"#,
            "output_config.format.type",
        ),
        (r#""system":7"#, "system"),
        (r#""system":[{"type":"image"}]"#, "system[0].type"),
        (r#""max_tokens":9"#, "max_tokens"),
    ] {
        assert_eq!(refused(&Messages, &with(member)), param, "{member}");
    }
    for (body, param) in [
        (r#"{"messages":[{"role":"user","content":"hi"}]}"#, "model"),
        (
            r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#,
            "max_tokens",
        ),
        (
            r#"{"model":"m","max_tokens":0,"messages":[]}"#,
            "max_tokens",
        ),
        (r#"{"model":"m","max_tokens":9,"messages":[]}"#, "messages"),
        (
            r#"{"model":"m","max_tokens":9,"messages":["hi"]}"#,
            "messages[0]",
        ),
        (
            r#"{"model":"m","max_tokens":9,"messages":[{"role":"user"}]}"#,
            "messages[0].content",
        ),
        (
            r#"{"model":"m","max_tokens":9,"messages":[{"role":"tool","content":""}]}"#,
            "messages[0].role",
        ),
    ] {
        assert_eq!(refused(&Messages, body), param, "{body}");
    }
}

#[test]
fn blocks_without_counterpart_are_refused_by_their_place() {
    for (role, block, param) in [
        (
            "user",
            r#"{"type":"search_result","source":"s","title":"t"}"#,
            "messages[0].content[0].content",
        ),
        (
            "user",
            r#"{"type":"container_upload","file_id":"f"}"#,
            "messages[0].content[0].type",
        ),
        ("user", r#"{"text":"x"}"#, "messages[0].content[0].type"),
        (
            "user",
            r#"{"type":"text","text":"x","citations":[1]}"#,
            "messages[0].content[0].citations",
        ),
        (
            "user",
            r#"{"type":"image","source":{"type":"file","file_id":"f"}}"#,
            "messages[0].content[0].source.type",
        ),
        (
            "user",
            r#"{"type":"document","source":{"type":"file","file_id":"x"}}"#,
            "messages[0].content[0].source.type",
        ),
        (
            "user",
            r#"{"type":"document","source":{"type":"text","data":"x"}}"#,
            "messages[0].content[0].source.media_type",
        ),
        (
            "user",
            r#"{"type":"document","source":{"type":"url","url":"u","novel":1}}"#,
            "messages[0].content[0].source.novel",
        ),
        (
            "user",
            r#"{"type":"document","source":{"type":"url","url":"u"},"citations":{"enabled":true}}"#,
            "messages[0].content[0].citations.enabled",
        ),
        (
            "user",
            r#"{"type":"tool_result"}"#,
            "messages[0].content[0].tool_use_id",
        ),
        (
            "user",
            r#"{"type":"tool_use","id":"a","name":"f","input":{}}"#,
            "messages[0].content[0].type",
        ),
        (
            "assistant",
            r#"{"type":"tool_use","id":"a","name":"f"}"#,
            "messages[0].content[0].input",
        ),
        (
            "assistant",
            r#"{"type":"server_tool_use","id":"a"}"#,
            "messages[0].content[0].type",
        ),
        (
            "assistant",
            r#"{"type":"redacted_thinking"}"#,
            "messages[0].content[0].data",
        ),
    ] {
        assert_eq!(refused(&Messages, &saying(role, block)), param, "{block}");
    }
}

#[test]
fn what_only_some_providers_understand_is_refused_where_none_of_them_is() {
    use Speaker::{Anthropic, Compatible, ErnieV1, Gemini, OpenAi};
    let thinking = saying(
        "assistant",
        r#"{"type":"thinking","thinking":"x","signature":"c2ln"}"#,
    );
    let redacted = saying("assistant", r#"{"type":"redacted_thinking","data":"c2ln"}"#);
    let enabled = with(r#""thinking":{"type":"enabled","budget_tokens":1024}"#);
    for (body, param, able, unable) in [
        (
            thinking,
            "messages[0].content[0].signature",
            vec![Anthropic],
            vec![Gemini, ErnieV1, OpenAi, Compatible],
        ),
        (
            redacted,
            "messages[0].content[0].data",
            vec![Anthropic],
            vec![Gemini, ErnieV1, OpenAi, Compatible],
        ),
        (
            enabled,
            "thinking",
            vec![Anthropic, Compatible],
            vec![Gemini, ErnieV1, OpenAi],
        ),
        (
            with(r#""service_tier":"standard_only""#),
            "service_tier",
            vec![Anthropic],
            vec![Gemini, ErnieV1, OpenAi, Compatible],
        ),
        (
            with(r#""context_management":{"edits":[{"type":"clear_tool_uses_20250919"}]}"#),
            "context_management",
            vec![Anthropic],
            vec![Gemini, ErnieV1, OpenAi, Compatible],
        ),
        (
            saying(
                "user",
                r#"{"type":"document","source":{"type":"url","url":"https://x.test/a.pdf"}}"#,
            ),
            "messages[0].content[0].source.type",
            vec![Anthropic],
            vec![Gemini, ErnieV1, OpenAi, Compatible],
        ),
        (
            saying(
                "user",
                r#"{"type":"search_result","source":"s","title":"t","content":[]}"#,
            ),
            "messages[0].content[0].type",
            vec![Anthropic],
            vec![Gemini, ErnieV1, OpenAi, Compatible],
        ),
        (
            with(r#""top_k":4"#),
            "top_k",
            vec![Anthropic, Gemini, Compatible],
            vec![ErnieV1, OpenAi],
        ),
    ] {
        assert_eq!(refused_by(&Messages, &body, &unable), param, "{body}");
        for one in able {
            let both = [&unable[..], &[one]].concat();
            to_chat(&Messages, body.as_bytes(), &both).unwrap();
        }
    }
}

#[test]
fn headers_are_carried_or_refused() {
    let chat = |name: &'static str, value: &'static str, speakers: &[Speaker]| {
        let mut headers = HeaderMap::new();
        headers.append(name, HeaderValue::from_static(value));
        let body = with(r#""top_p":0.5"#);
        to_chat_with(&Messages, (body.as_bytes(), &headers), speakers)
    };
    let both = [Speaker::OpenAi, Speaker::Anthropic];
    let betas = |speakers: &[Speaker]| {
        let chat = chat("anthropic-beta", "a, b,,", speakers).unwrap();
        let chat: Value = serde_json::from_slice(&chat).unwrap();
        chat.get("anthropic_beta").cloned()
    };
    assert_eq!(betas(&both), Some(json!(["a", "b"])));
    assert_eq!(betas(&both[..1]), None, "they mean nothing there");
    for name in ["anthropic-user-profile-id", "anthropic-workspace-id"] {
        let error = chat(name, "x", &both).unwrap_err();
        assert_eq!(error.param.as_deref(), Some(name));
    }
}

#[test]
fn a_failed_tool_is_told_as_such_or_in_words() {
    let result = r#"{"type":"tool_result","tool_use_id":"a","is_error":true,"content":"no"}"#;
    let body = saying("user", result);
    for (speakers, expected) in [
        (
            vec![Speaker::OpenAi, Speaker::Gemini],
            json!({"role": "tool", "content": "no", "tool_call_id": "a", "is_error": true}),
        ),
        (
            vec![Speaker::OpenAi, Speaker::ErnieV1],
            json!({"role": "tool", "content": "Error:\nno", "tool_call_id": "a"}),
        ),
    ] {
        let chat = to_chat(&Messages, body.as_bytes(), &speakers).unwrap();
        let chat: Value = serde_json::from_slice(&chat).unwrap();
        assert_eq!(chat["messages"][0], expected);
    }
}

/// Who could say it in a member is no better than who can carry all the rest.
#[test]
fn what_can_be_said_in_words_excludes_nobody_who_is_needed() {
    let result = r#"{"type":"tool_result","tool_use_id":"a","is_error":true,"content":"no"}"#;
    let body = saying("user", result);
    let thinking = r#","thinking":{"type":"enabled","budget_tokens":1024}}"#;
    let body = format!("{}{thinking}", body.strip_suffix('}').unwrap());
    let speakers = [Speaker::Gemini, Speaker::Compatible];
    let chat = to_chat(&Messages, body.as_bytes(), &speakers).unwrap();
    let chat: Value = serde_json::from_slice(&chat).unwrap();
    assert_eq!(chat["messages"][0]["content"], "Error:\nno");
}

/// The order that Anthropic's clients rely on: one block after the other, each begun and ended.
fn is_in_order(events: &[Value]) {
    let (mut open, mut blocks) = (None, 0);
    for (at, event) in events.iter().enumerate() {
        let index = event["index"].as_u64();
        match event["type"].as_str().unwrap() {
            "message_start" => assert_eq!(at, 0),
            "content_block_start" => {
                assert_eq!((open, index), (None, Some(blocks)), "{events:#?}");
                open = index;
                blocks += 1;
            }
            "content_block_delta" => assert!(index.is_some() && index == open, "{events:#?}"),
            "content_block_stop" => assert_eq!(open.take(), index, "{events:#?}"),
            "message_delta" => assert!(open.is_none() && at + 2 == events.len()),
            "message_stop" => assert_eq!(at + 1, events.len()),
            "error" => {}
            other => panic!("{other}"),
        }
    }
}

#[test]
fn events_are_in_order_whatever_a_provider_says() {
    goldens().corrupt(is_in_order);
}

#[test]
fn errors_are_in_anthropics_words() {
    use crate::error::ApiError;
    let id = crate::dialect::testing::asked(b"").id;
    for (error, kind) in [
        (ApiError::missing_key(), "authentication_error"),
        (ApiError::forbidden("no"), "permission_error"),
        (ApiError::model_not_found("m"), "not_found_error"),
        (ApiError::too_large(1), "request_too_large"),
        (
            ApiError::invalid_request(Some("x"), "no"),
            "invalid_request_error",
        ),
        (
            ApiError::unavailable("outbox_full", "no"),
            "overloaded_error",
        ),
        (ApiError::internal("x"), "api_error"),
    ] {
        let body: Value = serde_json::from_slice(&error::of_answer(&error, id)).unwrap();
        let expected = json!({
            "type": "error", "request_id": id,
            "error": {
                "type": kind, "message": error.message, "code": error.code, "param": error.param,
            },
        });
        assert_eq!(body, expected);
    }
}
