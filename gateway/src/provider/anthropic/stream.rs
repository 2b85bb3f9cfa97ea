//! From a stream of message events to chunks.
//!
//! A message is a sequence of content blocks, each begun, continued and ended by
//! its index. OpenAI's chunks have text in one string and tool calls in a list
//! of their own, so the blocks that are open are kept, with the index that each
//! tool call has in that list.

use std::collections::BTreeMap;

use bytes::Bytes;
use nexus_events::{clock::UnixMillis, id::RequestId};
use serde_json::value::RawValue;

use super::{
    super::{
        Asked, ProviderError, Translate,
        translate::{
            answer::{
                self, FinishReason, FunctionCall, Head, Piece, Said, ThinkingBlock, ToolCall,
            },
            read,
        },
    },
    wire::{Block, Delta, Event, Message, Usage, finish_reason},
};
use crate::{
    protocol::openai::{Text, response::error_value},
    stream::sse_decode::{EVENT_BYTES_MAX, SseEvent},
};

/// Blocks that may be open at a time: 64; Anthropic opens one after the other.
const OPEN_BLOCKS_MAX: usize = 64;

/// Arguments that are kept while their calls are open: as much as one event can bring. They are
/// given where none come piece by piece.
const ARGUMENTS_MAX: usize = EVENT_BYTES_MAX;

/// One stream under way.
pub(super) struct Translator {
    id: RequestId,
    time: UnixMillis,
    model: String,
    /// What each chunk repeats, since the message has begun.
    head: Option<Head>,
    open: BTreeMap<u64, Open>,
    /// The index of the next tool call.
    next_call: u32,
    /// The index of the next block of reasoning.
    next_thinking: u32,
    usage: Usage,
    finish_reason: Option<FinishReason>,
    /// The stop sequence that the model stopped at.
    stop_sequence: Option<String>,
}

/// A block that has begun and not ended.
enum Open {
    Text,
    /// A block of reasoning with its index among its like.
    Thinking(u32),
    /// A tool call, and its arguments while none of them have come.
    Call {
        index: u32,
        arguments: Option<String>,
    },
    /// Nothing that OpenAI's form has a place for.
    Other,
}

impl Translate for Translator {
    fn event(&mut self, event: &SseEvent, out: &mut Vec<SseEvent>) -> Result<(), ProviderError> {
        if event.data.is_empty() {
            return Ok(());
        }
        self.read(&event.data, out)
    }
}

impl Translator {
    pub(super) fn new(asked: Asked<'_>) -> Self {
        Self {
            id: asked.id,
            time: asked.time,
            model: asked.model.to_owned(),
            head: None,
            open: BTreeMap::new(),
            next_call: 0,
            next_thinking: 0,
            usage: Usage::default(),
            finish_reason: None,
            stop_sequence: None,
        }
    }

    fn read(&mut self, data: &[u8], out: &mut Vec<SseEvent>) -> Result<(), ProviderError> {
        let event: Event<'_> = read(data)?;
        self.usage.update(event.usage.unwrap_or_default());
        match event.kind.as_str() {
            "error" => Err(ProviderError::reported(
                event.error.and_then(error_value).unwrap_or_default(),
            )),
            "message_start" => self.begin(event.message, out),
            "content_block_start" => {
                let (index, block) = event.index.zip(event.content_block).ok_or_else(disorder)?;
                self.open(index, &block, out)
            }
            "content_block_delta" => {
                let (index, delta) = event.index.zip(event.delta).ok_or_else(disorder)?;
                self.add(index, &delta, out)
            }
            "content_block_stop" => self.close(event.index.ok_or_else(disorder)?, out),
            "message_delta" => {
                self.head()?;
                if let Some(delta) = event.delta {
                    let reason = delta.stop_reason.as_ref();
                    let reason = reason.map(|reason| finish_reason(reason.as_str()));
                    self.finish_reason = reason.or(self.finish_reason);
                    let sequence = delta.stop_sequence.map(|text| text.0.into_owned());
                    self.stop_sequence = sequence.or_else(|| self.stop_sequence.take());
                }
                Ok(())
            }
            "message_stop" => self.end(out),
            // `ping`, and events that come to be added: the API asks to pass them over.
            _ => Ok(()),
        }
    }

    fn head(&self) -> Result<&Head, ProviderError> {
        self.head.as_ref().ok_or_else(disorder)
    }

    fn begin(
        &mut self,
        message: Option<Message<'_>>,
        out: &mut Vec<SseEvent>,
    ) -> Result<(), ProviderError> {
        let message = message
            .filter(|_| self.head.is_none())
            .ok_or_else(disorder)?;
        self.usage.update(message.usage.unwrap_or_default());
        let asked = Asked {
            id: self.id,
            time: self.time,
            model: &self.model,
            body: &Bytes::new(),
        };
        let id = message.id.as_ref().map(Text::as_str);
        let model = message.model.as_ref().map(Text::as_str);
        self.head = Some(Head::new(asked, id, model));
        self.say(Said::role(), out)
    }

    fn open(
        &mut self,
        index: u64,
        block: &Block<'_>,
        out: &mut Vec<SseEvent>,
    ) -> Result<(), ProviderError> {
        self.head()?;
        if self.open.contains_key(&index) || self.open.len() >= OPEN_BLOCKS_MAX {
            return Err(disorder());
        }
        let open = match block.kind.as_str() {
            "text" => {
                self.text(block.text.as_ref(), Said::content, out)?;
                Open::Text
            }
            "thinking" | "redacted_thinking" => self.thinking(block, out)?,
            "tool_use" => self.call(block, out)?,
            _ => Open::Other,
        };
        self.open.insert(index, open);
        Ok(())
    }

    /// Also a thought that is kept to itself begins with an empty one: it is sent back as it was.
    fn thinking(
        &mut self,
        block: &Block<'_>,
        out: &mut Vec<SseEvent>,
    ) -> Result<Open, ProviderError> {
        let index = self.next_thinking;
        self.next_thinking = index.checked_add(1).ok_or_else(disorder)?;
        let block = ThinkingBlock {
            index: Some(index),
            kind: Some(block.kind.as_str()),
            thinking: block.thinking.as_ref().map(Text::as_str),
            signature: None,
            data: block.data.as_ref().map(Text::as_str),
        };
        self.reason(block, out)?;
        Ok(Open::Thinking(index))
    }

    /// Reasoning is said twice: to be read, and to be sent back with its signature.
    fn reason(
        &self,
        block: ThinkingBlock<'_>,
        out: &mut Vec<SseEvent>,
    ) -> Result<(), ProviderError> {
        // A piece of a kind that may come to be added.
        if block.thinking.or(block.signature).or(block.data).is_none() {
            return Ok(());
        }
        let said = Said {
            reasoning_content: block.thinking.filter(|text| !text.is_empty()),
            thinking_blocks: &[block],
            ..Said::default()
        };
        self.say(said, out)
    }

    fn call(&mut self, block: &Block<'_>, out: &mut Vec<SseEvent>) -> Result<Open, ProviderError> {
        let (id, name) = block
            .id
            .as_ref()
            .zip(block.name.as_ref())
            .ok_or_else(disorder)?;
        let index = self.next_call;
        self.next_call = index.checked_add(1).ok_or_else(disorder)?;
        let call = ToolCall {
            index: Some(index),
            id: Some(id.as_str()),
            kind: Some("function"),
            function: FunctionCall {
                name: Some(name.as_str()),
                arguments: "",
            },
            extra_content: None,
        };
        self.say(Said::tool_calls(&[call]), out)?;
        let arguments = block.input.map_or("{}", RawValue::get);
        let kept = self.open.values().filter_map(|open| match open {
            Open::Call { arguments, .. } => arguments.as_ref().map(String::len),
            Open::Text | Open::Thinking(_) | Open::Other => None,
        });
        if kept.sum::<usize>() + arguments.len() > ARGUMENTS_MAX {
            return Err(ProviderError::too_many_parts());
        }
        let arguments = arguments.to_owned();
        Ok(Open::Call {
            index,
            arguments: Some(arguments),
        })
    }

    fn add(
        &mut self,
        index: u64,
        delta: &Delta<'_>,
        out: &mut Vec<SseEvent>,
    ) -> Result<(), ProviderError> {
        match self.open.get_mut(&index).ok_or_else(disorder)? {
            Open::Text => self.text(delta.text.as_ref(), Said::content, out),
            Open::Thinking(index) => {
                let block = ThinkingBlock {
                    index: Some(*index),
                    thinking: delta.thinking.as_ref().map(Text::as_str),
                    signature: delta.signature.as_ref().map(Text::as_str),
                    ..ThinkingBlock::default()
                };
                self.reason(block, out)
            }
            Open::Call { index, arguments } => {
                let Some(json) = delta
                    .partial_json
                    .as_ref()
                    .filter(|json| !json.0.is_empty())
                else {
                    return Ok(());
                };
                *arguments = None;
                let index = *index;
                self.arguments(index, json.as_str(), out)
            }
            Open::Other => Ok(()),
        }
    }

    /// A call whose arguments did not come piece by piece has them where it began.
    fn close(&mut self, index: u64, out: &mut Vec<SseEvent>) -> Result<(), ProviderError> {
        let closed = self.open.remove(&index).ok_or_else(disorder)?;
        if let Open::Call {
            index,
            arguments: Some(json),
        } = closed
        {
            self.arguments(index, &json, out)?;
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<SseEvent>) -> Result<(), ProviderError> {
        // Held back until now: a choice that says why it stopped is taken for whole.
        let finish_reason = self
            .finish_reason
            .take_if(|_| self.open.is_empty())
            .ok_or_else(disorder)?;
        let head = self.head()?;
        out.push(head.chunk(Piece {
            finish_reason: Some(finish_reason),
            stop_reason: self.stop_sequence.as_deref(),
            ..Piece::default()
        })?);
        if let Some(usage) = self.usage.to_openai() {
            out.push(head.usage(usage)?);
        }
        out.push(answer::done());
        Ok(())
    }

    fn text<'a>(
        &self,
        text: Option<&'a Text<'a>>,
        said: impl Fn(&'a str) -> Said<'a>,
        out: &mut Vec<SseEvent>,
    ) -> Result<(), ProviderError> {
        match text.map(Text::as_str).filter(|text| !text.is_empty()) {
            Some(text) => self.say(said(text), out),
            None => Ok(()),
        }
    }

    fn arguments(
        &self,
        index: u32,
        json: &str,
        out: &mut Vec<SseEvent>,
    ) -> Result<(), ProviderError> {
        let call = ToolCall {
            index: Some(index),
            function: FunctionCall {
                name: None,
                arguments: json,
            },
            ..ToolCall::default()
        };
        self.say(Said::tool_calls(&[call]), out)
    }

    fn say(&self, delta: Said<'_>, out: &mut Vec<SseEvent>) -> Result<(), ProviderError> {
        let piece = Piece {
            delta,
            ..Piece::default()
        };
        out.push(self.head()?.chunk(piece)?);
        Ok(())
    }
}

/// A stream that is not in the order that the API promises.
fn disorder() -> ProviderError {
    ProviderError::malformed("The provider's stream is not in its proper order.")
}
