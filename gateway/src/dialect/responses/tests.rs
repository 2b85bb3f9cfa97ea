use serde_json::Value;

use super::*;
use crate::dialect::testing::{Goldens, refused};

fn goldens() -> Goldens {
    Goldens::of("responses", &Responses)
}

#[test]
fn what_goes_in_and_out_is_as_the_goldens_say() {
    let goldens = goldens();
    goldens.requests();
    goldens.answers();
    goldens.streams();
}

#[test]
fn what_has_no_counterpart_is_refused_by_its_name() {
    for (member, param) in [
        (r#""previous_response_id":"resp_1""#, "previous_response_id"),
        (r#""conversation":"conv_1""#, "conversation"),
        (r#""background":true"#, "background"),
        (r#""prompt":{"id":"p"}"#, "prompt"),
        (r#""max_tool_calls":1"#, "max_tool_calls"),
        (r#""truncation":"auto""#, "truncation"),
        (r#""top_logprobs":2"#, "top_logprobs"),
        (r#""include":["file_search_call.results"]"#, "include"),
        (r#""tools":[{"type":"web_search"}]"#, "tools[0].type"),
        (r#""tools":[{"type":"function"}]"#, "tools[0].name"),
        (r#""tool_choice":{"type":"mcp"}"#, "tool_choice.type"),
        (r#""tool_choice":"some""#, "tool_choice"),
        (
            r#""text":{"format":{"type":"grammar"}}"#,
            "text.format.type",
        ),
        (
            r#""text":{"format":{"type":"json_schema","name":"a"}}"#,
            "text.format.schema",
        ),
        (r#""reasoning":{"summary":"detailed"}"#, "reasoning.summary"),
        (r#""reasoning":{"novel":1}"#, "reasoning.novel"),
        (
            r#""stream_options":{"include_obfuscation":true}"#,
            "stream_options.include_obfuscation",
        ),
        (r#""max_output_tokens":0"#, "max_output_tokens"),
        (r#""novel":1"#, "novel"),
    ] {
        let body = format!(r#"{{"model":"m","input":"hi",{member}}}"#);
        assert_eq!(refused(&Responses, &body), param, "{member}");
    }
    assert_eq!(refused(&Responses, r#"{"input":"hi"}"#), "model");
    assert_eq!(refused(&Responses, r#"{"model":"m"}"#), "input");
}

#[test]
fn items_without_counterpart_are_refused_by_their_place() {
    for (item, param) in [
        (r#"{"type":"item_reference","id":"x"}"#, "input[0].type"),
        (r#"{"type":"web_search_call","id":"x"}"#, "input[0].type"),
        (r#"{"role":"critic","content":"x"}"#, "input[0].role"),
        (r#"{"role":"user"}"#, "input[0].content"),
        (r#"{"role":"user","content":7}"#, "input[0].content"),
        (
            r#"{"role":"user","content":[{"type":"input_audio"}]}"#,
            "input[0].content[0].type",
        ),
        (
            r#"{"role":"user","content":[{"type":"input_image","file_id":"f"}]}"#,
            "input[0].content[0].file_id",
        ),
        (
            r#"{"role":"user","content":[{"type":"input_file","file_url":"u"}]}"#,
            "input[0].content[0].file_url",
        ),
        (
            r#"{"type":"function_call","name":"f","arguments":"{}"}"#,
            "input[0].call_id",
        ),
        (
            r#"{"type":"function_call_output","call_id":"c"}"#,
            "input[0].output",
        ),
        (
            r#"{"type":"reasoning","id":"r","encrypted_content":"x"}"#,
            "input[0].encrypted_content",
        ),
        (
            r#"{"type":"reasoning","summary":[{"text":"a"}],"content":[{"text":"b"}]}"#,
            "input[0].summary",
        ),
    ] {
        let body = format!(r#"{{"model":"m","input":[{item}]}}"#);
        assert_eq!(refused(&Responses, &body), param, "{item}");
    }
    for empty in ["[]", "7", "{}"] {
        let body = format!(r#"{{"model":"m","input":{empty}}}"#);
        assert_eq!(refused(&Responses, &body), "input", "{empty}");
    }
}

/// The order that the clients rely on: each item begun and ended before the next, one end.
fn is_in_order(events: &[Value]) {
    let (mut open, mut items) = (None, 0);
    for (at, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], at);
        let index = event["output_index"].as_u64();
        match event["type"].as_str().unwrap() {
            "response.created" => assert_eq!(at, 0),
            "response.in_progress" => assert_eq!(at, 1),
            "response.output_item.added" => {
                assert_eq!((open, index), (None, Some(items)), "{events:#?}");
                open = index;
                items += 1;
            }
            "response.output_item.done" => assert_eq!(open.take(), index, "{events:#?}"),
            "response.completed" | "response.incomplete" => {
                assert!(open.is_none() && at + 1 == events.len(), "{events:#?}");
                let output = event["response"]["output"].as_array().unwrap();
                assert_eq!(u64::try_from(output.len()).unwrap(), items);
            }
            "response.failed" => assert_eq!(at + 1, events.len()),
            _ => assert!(index.is_some() && index == open, "{events:#?}"),
        }
    }
}

#[test]
fn events_are_in_order_whatever_a_provider_says() {
    goldens().corrupt(is_in_order);
}
