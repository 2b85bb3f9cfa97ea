//! From a whole message to a chat completion.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{
    super::{
        Asked, ProviderError,
        translate::{
            answer::{Choice, FunctionCall, Head, Said, ThinkingBlock, ToolCall},
            read,
        },
    },
    wire::{BLOCKS_MAX, Block, Message, Usage, finish_reason},
};
use crate::protocol::openai::{Text, response::error_value};

/// The answer in OpenAI's form.
///
/// # Errors
/// [`ProviderError`]: it is no message, or an error in disguise.
pub(super) fn translate(asked: Asked<'_>, body: &[u8]) -> Result<Bytes, ProviderError> {
    let message: Message<'_> = read(body)?;
    if let Some(object) = message.error.and_then(error_value) {
        return Err(ProviderError::reported(object));
    }
    let malformed = || ProviderError::malformed("The provider's answer is no message.");
    let blocks = message.content.as_deref().ok_or_else(malformed)?;
    if blocks.len() > BLOCKS_MAX {
        return Err(ProviderError::too_many_parts());
    }
    let stop_reason = message.stop_reason.as_ref().ok_or_else(malformed)?;
    let text = joined(blocks, "text", |block| block.text.as_ref());
    let reasoning = joined(blocks, "thinking", |block| block.thinking.as_ref());
    let calls = blocks
        .iter()
        .filter(|block| block.kind.as_str() == "tool_use");
    let calls: Vec<ToolCall<'_>> = calls
        .map(|block| tool_call(block).ok_or_else(malformed))
        .collect::<Result<_, _>>()?;
    let thinking_blocks = thinking_blocks(blocks);
    let choice = Choice {
        index: 0,
        message: Said {
            thinking_blocks: &thinking_blocks,
            ..Said::whole(text.as_deref(), reasoning.as_deref(), &calls)
        },
        logprobs: None,
        finish_reason: finish_reason(stop_reason.as_str()),
        stop_reason: message.stop_sequence.as_ref().map(Text::as_str),
    };
    let id = message.id.as_ref().map(Text::as_str);
    let model = message.model.as_ref().map(Text::as_str);
    Head::new(asked, id, model).whole(&[choice], message.usage.and_then(Usage::to_openai))
}

/// Blocks of one kind put together; blocks of other kinds, which may come to be added, say nothing
/// that OpenAI's form has a place for.
fn joined<'a>(
    blocks: &'a [Block<'a>],
    kind: &str,
    text: impl Fn(&'a Block<'a>) -> Option<&'a Text<'a>>,
) -> Option<String> {
    let blocks = blocks.iter().filter(|block| block.kind.as_str() == kind);
    let texts: Vec<&str> = blocks.filter_map(text).map(Text::as_str).collect();
    (!texts.is_empty()).then(|| texts.concat())
}

fn thinking_blocks<'a>(blocks: &'a [Block<'a>]) -> Vec<ThinkingBlock<'a>> {
    let thinking = blocks
        .iter()
        .filter(|block| matches!(block.kind.as_str(), "thinking" | "redacted_thinking"));
    let thinking = thinking.map(|block| ThinkingBlock {
        index: None,
        kind: Some(block.kind.as_str()),
        thinking: block.thinking.as_ref().map(Text::as_str),
        signature: block.signature.as_ref().map(Text::as_str),
        data: block.data.as_ref().map(Text::as_str),
    });
    thinking.collect()
}

fn tool_call<'a>(block: &'a Block<'a>) -> Option<ToolCall<'a>> {
    Some(ToolCall {
        id: Some(block.id.as_ref()?.as_str()),
        kind: Some("function"),
        function: FunctionCall {
            name: Some(block.name.as_ref()?.as_str()),
            arguments: block.input.map_or("{}", RawValue::get),
        },
        ..ToolCall::default()
    })
}
