//! A whole chat answer as a message.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::super::{
    Asked,
    chat::{Answer, Said, Usage as ChatUsage},
    keepsake,
};

/// What the signature of reasoning begins with that is not Anthropic's; the member's name follows.
pub(super) const OURS: &str = "nexus.";

#[derive(Serialize)]
pub(super) struct Message<'a> {
    pub(super) id: String,
    pub(super) r#type: &'static str,
    pub(super) role: &'static str,
    pub(super) model: &'a str,
    pub(super) content: Vec<Block<'a>>,
    pub(super) stop_reason: Option<&'static str>,
    pub(super) stop_sequence: Option<&'a str>,
    pub(super) usage: Usage,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Block<'a> {
    Text {
        text: Cow<'a, str>,
    },
    Thinking {
        thinking: Cow<'a, str>,
        signature: Cow<'a, str>,
    },
    RedactedThinking {
        data: Cow<'a, str>,
    },
    ToolUse {
        id: Cow<'a, str>,
        name: Cow<'a, str>,
        input: Box<RawValue>,
    },
}

/// The tokens of an answer; what came from a cache stands apart.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are Anthropic's")]
pub(super) struct Usage {
    input_tokens: u64,
    cache_creation_input_tokens: u64,
    cache_read_input_tokens: u64,
    output_tokens: u64,
}

impl Usage {
    pub(super) fn of(usage: Option<ChatUsage>) -> Self {
        let usage = usage.unwrap_or_default();
        Self {
            input_tokens: usage.prompt - usage.cached() - usage.cache_creation(),
            cache_creation_input_tokens: usage.cache_creation(),
            cache_read_input_tokens: usage.cached(),
            output_tokens: usage.completion,
        }
    }
}

impl<'a> Message<'a> {
    /// A message that has said nothing yet.
    pub(super) fn begun(asked: &Asked, model: &'a str) -> Self {
        Self {
            id: format!("msg_{}", asked.id),
            r#type: "message",
            role: "assistant",
            model,
            content: Vec::new(),
            stop_reason: None,
            stop_sequence: None,
            usage: Usage::default(),
        }
    }
}

/// The message that says the same as a chat completion.
pub(super) fn of_chat(asked: &Asked, chat: &[u8]) -> Result<Bytes, serde_json::Error> {
    let answer = Answer::read(chat)?;
    let calls_tools = !answer.said.calls.is_empty();
    let stopped_by = answer.stop_sequence.as_deref();
    let (stop_reason, stop_sequence) = stop(&answer.finish_reason, stopped_by, calls_tools);
    let message = Message {
        stop_reason: Some(stop_reason),
        stop_sequence,
        usage: Usage::of(answer.usage),
        content: content(asked, answer.said),
        ..Message::begun(asked, &answer.model)
    };
    serde_json::to_vec(&message).map(Bytes::from)
}

fn content<'a>(asked: &Asked, said: Said<'a>) -> Vec<Block<'a>> {
    let mut blocks = Vec::new();
    if said.thinking.is_empty() {
        blocks.extend(said.reasoning.map(|(member, thinking)| Block::Thinking {
            thinking,
            signature: format!("{OURS}{member}").into(),
        }));
    }
    for block in said.thinking {
        blocks.push(if block.data.is_empty() {
            Block::Thinking {
                thinking: block.text,
                signature: block.signature,
            }
        } else {
            Block::RedactedThinking { data: block.data }
        });
    }
    for text in [said.text, said.refusal] {
        if !text.is_empty() {
            blocks.push(Block::Text { text });
        }
    }
    for (place, call) in said.calls.into_iter().enumerate() {
        let kept = keepsake::of(&call).map(Cow::Owned);
        blocks.extend(kept.map(|data| Block::RedactedThinking { data }));
        blocks.push(Block::ToolUse {
            id: call_id(asked, place, call.id),
            name: call.name,
            input: input(&call.arguments),
        });
    }
    blocks
}

/// The id of a tool call, also where the provider gives it none.
pub(super) fn call_id<'a>(asked: &Asked, place: usize, id: Cow<'a, str>) -> Cow<'a, str> {
    if id.is_empty() {
        format!("toolu_{}_{place}", asked.id).into()
    } else {
        id
    }
}

/// The arguments as an object. A model may write what is none: then its text is all there is.
fn input(arguments: &str) -> Box<RawValue> {
    let arguments = match arguments.trim() {
        "" => "{}",
        arguments => arguments,
    };
    let object = RawValue::from_string(arguments.to_owned());
    object
        .ok()
        .filter(|raw| raw.get().starts_with('{'))
        .or_else(|| serde_json::value::to_raw_value(&Malformed { arguments }).ok())
        .unwrap_or_else(|| RawValue::NULL.to_owned())
}

#[derive(Serialize)]
struct Malformed<'a> {
    #[serde(rename = "malformed_arguments")]
    arguments: &'a str,
}

/// Why an answer ended, in Anthropic's words, and the stop sequence where that is why.
///
/// Most providers do not tell whether it was one: then the model has ended its turn.
pub(super) fn stop<'a>(
    finish_reason: &str,
    stopped_by: Option<&'a str>,
    calls_tools: bool,
) -> (&'static str, Option<&'a str>) {
    let stopped_by = stopped_by.filter(|sequence| !sequence.is_empty());
    match finish_reason {
        "length" => ("max_tokens", None),
        "content_filter" => ("refusal", None),
        // Some servers say `stop` beside tool calls as well.
        _ if calls_tools => ("tool_use", None),
        "stop" if stopped_by.is_some() => ("stop_sequence", stopped_by),
        _ => ("end_turn", None),
    }
}
