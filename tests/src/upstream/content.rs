//! What a polite upstream says: the shapes of the OpenAI chat completions API.
//!
//! Shapes from the vendor's API reference (platform.openai.com/docs/api-reference/chat, read
//! 2026-11-24).
//! Everything is a function of the request and the script; nothing is random, nothing is dated.

use serde_json::{Value, json};

use super::request::Request;
use super::script::{Answer, ToolCall, Usage};

/// The words that answers are made of; some are not ASCII, so that splits inside a character occur.
const WORDS: [&str; 12] = [
    "amber", "birch", "cédille", "delta", "ember", "河流", "gravel", "harbour", "ivory", "jäger",
    "kelp", "🌊",
];

/// 6 characters of a tool call's arguments in each chunk, about as providers do it.
const TOOL_ARGUMENT_PIECE: usize = 6;

/// A fixed moment: 2026-01-01T00:00:00Z in seconds.
const CREATED_S: u64 = 1_767_225_600;

/// The text of chunk `number` (from 0) of a choice: `<tag>:<number> <word> `.
///
/// Choices after the first carry their index in the tag, `<tag>/<choice>`.
pub fn word(tag: &str, choice: usize, number: usize) -> String {
    let word = WORDS.get(number % WORDS.len()).copied().unwrap_or_default();
    if choice == 0 {
        format!("{tag}:{number} {word} ")
    } else {
        format!("{tag}/{choice}:{number} {word} ")
    }
}

/// The whole text of a choice of `count` chunks.
pub fn text(tag: &str, choice: usize, count: usize) -> String {
    (0..count).map(|number| word(tag, choice, number)).collect()
}

/// The texts of the chunks of one choice, as the script has it.
pub(super) fn words(answer: &Answer, request: &Request, choice: usize) -> Vec<String> {
    if let Some(texts) = &answer.saying {
        return texts.clone();
    }
    let tag = request.tag();
    (0..answer.chunks)
        .map(|number| word(&tag, choice, number))
        .collect()
}

/// The usage block: one token for each word of the prompt, one for each chunk.
pub(super) fn usage(answer: &Answer, request: &Request) -> Value {
    let prompt = request.prompt().split_whitespace().count();
    let completion = words(answer, request, 0).len() * request.choices();
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    })
}

/// The body of a non-stream answer.
pub(super) fn completion(answer: &Answer, request: &Request) -> Value {
    let choices: Vec<Value> = (0..request.choices())
        .map(|choice| {
            let mut message = json!({
                "role": "assistant",
                "content": words(answer, request, choice).concat(),
                "refusal": null,
            });
            if let Some(call) = &answer.tool_call {
                set(&mut message, "content", Value::Null);
                set(
                    &mut message,
                    "tool_calls",
                    json!([{
                        "id": format!("call_{}", request.tag()),
                        "type": "function",
                        "function": {"name": call.name, "arguments": call.arguments},
                    }]),
                );
            }
            json!({
                "index": choice,
                "message": message,
                "logprobs": null,
                "finish_reason": answer.finish_reason(),
            })
        })
        .collect();
    let mut body = envelope("chat.completion", request);
    set(&mut body, "choices", Value::Array(choices));
    if answer.usage != Usage::Never {
        set(&mut body, "usage", usage(answer, request));
    }
    body
}

/// A chunk of a stream with one choice in it.
pub(super) fn chunk(
    request: &Request,
    choice: usize,
    delta: &Value,
    finish: Option<&str>,
) -> Value {
    let mut body = envelope("chat.completion.chunk", request);
    set(
        &mut body,
        "choices",
        json!([{
            "index": choice,
            "delta": delta,
            "logprobs": null,
            "finish_reason": finish,
        }]),
    );
    body
}

/// The chunks of a tool call: the name first, then the arguments in pieces.
pub(super) fn tool_call_deltas(call: &ToolCall, tag: &str) -> impl Iterator<Item = Value> {
    let opening = json!({"tool_calls": [{
        "index": 0,
        "id": format!("call_{tag}"),
        "type": "function",
        "function": {"name": call.name, "arguments": ""},
    }]});
    let characters: Vec<char> = call.arguments.chars().collect();
    let pieces: Vec<Value> = characters
        .chunks(TOOL_ARGUMENT_PIECE)
        .map(|piece| {
            let arguments: String = piece.iter().collect();
            json!({"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]})
        })
        .collect();
    std::iter::once(opening).chain(pieces)
}

/// The last chunk of a stream whose usage was asked for: no choice, only the usage.
pub(super) fn usage_chunk(answer: &Answer, request: &Request) -> Value {
    let mut body = envelope("chat.completion.chunk", request);
    set(&mut body, "choices", json!([]));
    set(&mut body, "usage", usage(answer, request));
    body
}

/// The answer to `GET …/models`.
pub(super) fn models() -> Value {
    json!({"object": "list", "data": [
        {"id": "gpt-test", "object": "model", "created": CREATED_S, "owned_by": "upstream"},
    ]})
}

/// An error object as OpenAI sends it.
pub fn error(message: &str, kind: &str, code: Option<&str>) -> Value {
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}

fn envelope(object: &str, request: &Request) -> Value {
    json!({
        "id": format!("chatcmpl-{}", request.tag()),
        "object": object,
        "created": CREATED_S,
        "model": request.model(),
        "system_fingerprint": "fp_upstream",
    })
}

fn set(object: &mut Value, field: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(field.to_owned(), value);
    }
}
