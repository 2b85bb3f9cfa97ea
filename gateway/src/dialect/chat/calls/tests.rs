use serde_json::json;

use super::*;
use crate::dialect::chat::Chunk;

/// What is said, chunk by chunk and then at the end, in few letters: text, the call of a place,
/// its arguments.
fn said(deltas: &[serde_json::Value]) -> Vec<String> {
    let mut order = Order::NEW;
    let mut all = Vec::new();
    for delta in deltas {
        let chunk = json!({"choices": [{"index": 0, "delta": delta}]}).to_string();
        let chunk = Chunk::read(chunk.as_bytes()).unwrap();
        all.push(letters(&order.chunk(&chunk.said)));
    }
    all.push(letters(&order.rest()));
    all
}

fn letters(pieces: &[Piece<'_>]) -> String {
    let pieces = pieces.iter().map(|piece| match piece {
        Piece::Reasoning { text, .. } => format!("reasoning {text}"),
        Piece::Thinking(block) => format!("thinking {}", block.text),
        Piece::Text(text) => format!("text {text}"),
        Piece::Refusal(text) => format!("refusal {text}"),
        Piece::Begin(begin) => format!("call {} {}", begin.place, begin.name),
        Piece::Arguments(json) => json.clone().into_owned(),
    });
    pieces.collect::<Vec<_>>().join(" | ")
}

fn call(index: usize, name: &str, arguments: &str) -> serde_json::Value {
    let mut call = json!({"index": index, "function": {"arguments": arguments}});
    if !name.is_empty() {
        call["id"] = json!(format!("id-{index}"));
        call["function"]["name"] = json!(name);
    }
    json!({"tool_calls": [call]})
}

fn text(text: &str) -> serde_json::Value {
    json!({"content": text})
}

#[test]
fn calls_that_come_one_after_the_other_are_not_held_back() {
    let deltas = [
        text("I look."),
        call(0, "f", ""),
        call(0, "", r#"{"a":"}"#),
        call(0, "", r#"\"{"}"#),
        call(1, "g", "{}"),
        call(2, "h", "{"),
        call(2, "", "}"),
        text("so"),
    ];
    assert_eq!(
        said(&deltas),
        [
            "text I look.",
            "call 0 f",
            r#"{"a":"}"#,
            r#"\"{"}"#,
            "call 1 g | {}",
            "call 2 h | {",
            "}",
            "text so",
            ""
        ]
    );
}

#[test]
fn a_later_call_and_a_text_wait_for_the_earlier_call() {
    let deltas = [
        call(0, "f", r#"{"a":"#),
        call(1, "g", r#"{"b":"#),
        text("mean"),
        text("while"),
        call(0, "", "1"),
        call(1, "", "2"),
        call(0, "", "}"),
        call(1, "", "}"),
    ];
    assert_eq!(
        said(&deltas),
        [
            r#"call 0 f | {"a":"#,
            "",
            "",
            "",
            "1",
            "",
            r#"} | call 1 g | {"b":2"#,
            "} | text meanwhile",
            ""
        ]
    );
}

#[test]
fn what_is_held_back_is_said_at_the_end() {
    let deltas = [
        call(0, "f", ""),
        call(1, "g", ""),
        json!({"reasoning_content": "hm", "content": "a", "refusal": "no"}),
        call(1, "", "{}"),
    ];
    assert_eq!(
        said(&deltas),
        [
            "call 0 f",
            "",
            "",
            "",
            "call 1 g | {} | reasoning hm | text a | refusal no"
        ]
    );
}

#[test]
fn a_call_that_is_whole_takes_no_more_once_something_else_was_said() {
    let deltas = [
        call(0, "f", "{}"),
        call(0, "", "\n"),
        text("so"),
        call(0, "", "{}"),
    ];
    assert_eq!(said(&deltas), ["call 0 f | {}", "\n", "text so", "", ""]);
}

#[test]
fn signed_reasoning_is_said_once() {
    let delta = json!({"reasoning_content": "hm", "thinking_blocks": [{"thinking": "hm"}]});
    assert_eq!(said(&[delta]), ["thinking hm", ""]);
}

#[test]
fn pieces_without_an_index_belong_to_the_call_of_their_id_or_to_the_last() {
    let bare = |id: &str, name: &str, arguments: &str| json!({"tool_calls": [{"id": id, "function": {"name": name, "arguments": arguments}}]});
    let deltas = [
        bare("a", "f", "{"),
        bare("", "", "}"),
        bare("b", "g", "{"),
        bare("b", "", "}"),
    ];
    assert_eq!(
        said(&deltas),
        ["call 0 f | {", "}", "call 1 g | {", "}", ""]
    );
}
