//! What a provider wants to see again, in dialects that have no place for it.
//!
//! Gemini signs its calls and takes them back only with their signature. Both dialects with tools
//! have an opaque text that clients send back as they got it: redacted thinking, and encrypted
//! reasoning. There it travels, with the id of its call.
//!
//! Anthropic signs its reasoning, and with tools it wants that back as it gave it. `/v1/messages` has
//! it as it is; in `/v1/responses` a whole block is the encrypted reasoning of its item, so that it
//! does not matter whether a client keeps the text beside it.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::chat::{Call, Thinking, ToolCall};

/// What tells such a text from what a provider itself has encrypted.
const PREFIX: &str = "nexus.call.";

/// The same of a block of Anthropic's reasoning.
const THINKING: &str = "nexus.thinking.";

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block<'a> {
    Thinking {
        thinking: &'a str,
        signature: &'a str,
    },
    RedactedThinking {
        data: &'a str,
    },
}

#[derive(Serialize)]
struct Wrapped<'a> {
    id: &'a str,
    extra_content: &'a RawValue,
}

/// What belongs to the call of that id.
#[derive(Debug, Deserialize)]
pub(super) struct Keepsake {
    id: String,
    extra_content: Box<RawValue>,
}

/// The text that keeps what came with a call; `None` when nothing did.
pub(super) fn of(call: &Call<'_>) -> Option<String> {
    let wrapped = Wrapped {
        id: &call.id,
        extra_content: call.extra_content?,
    };
    let json = serde_json::to_string(&wrapped).ok()?;
    Some(format!("{PREFIX}{json}"))
}

/// The text that keeps a block of reasoning; `None` of one that nobody has signed.
pub(super) fn of_thinking(block: &Thinking<'_>) -> Option<String> {
    let block = match (&*block.data, &*block.signature) {
        ("", "") => return None,
        ("", signature) => Block::Thinking {
            thinking: &block.text,
            signature,
        },
        (data, _) => Block::RedactedThinking { data },
    };
    let json = serde_json::to_string(&block).ok()?;
    Some(format!("{THINKING}{json}"))
}

/// The block of reasoning that such a text keeps; `None` when it keeps none.
pub(super) fn thinking(text: &str) -> Option<Box<RawValue>> {
    let json = text.strip_prefix(THINKING)?;
    let block = RawValue::from_string(json.to_owned()).ok()?;
    block.get().starts_with('{').then_some(block)
}

/// Reads such a text; `None` when it is none of ours.
pub(super) fn read(text: &str) -> Option<Keepsake> {
    serde_json::from_str(text.strip_prefix(PREFIX)?).ok()
}

/// Gives each of the calls back what was kept of it.
pub(super) fn give_back(kept: Vec<Keepsake>, calls: &mut [ToolCall<'_>]) {
    for keepsake in kept {
        if let Some(call) = calls.iter_mut().find(|call| call.id == keepsake.id) {
            call.extra_content = Some(keepsake.extra_content);
        }
    }
}
