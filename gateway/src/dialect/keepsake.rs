//! What a provider wants to see again with a tool call, in dialects that have no place for it.
//!
//! Gemini signs its calls and takes them back only with their signature. Both dialects with tools
//! have an opaque text that clients send back as they got it: redacted thinking, and encrypted
//! reasoning. There it travels, with the id of its call.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::chat::{Call, ToolCall};

/// What tells such a text from what a provider itself has encrypted.
const PREFIX: &str = "nexus.call.";

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
