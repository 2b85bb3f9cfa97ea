//! The chunks of a chat stream as Anthropic's events.
//!
//! Blocks come one after the other ([`Order`]): whatever says something of another kind closes the
//! block before. Why the answer ended is held back until the end mark, because the usage that stands
//! beside it comes last.

use bytes::BytesMut;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    super::{
        Asked, Events,
        chat::{Begin, Chunk, Order, Piece, Thinking, Usage as ChatUsage},
    },
    answer::{Message, OURS, Usage, call_id, stop},
    error,
};
use crate::{protocol::openai::response::ErrorObject, stream::sse_encode};

/// What the open block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Text,
    /// Reasoning in that member, whose name is its signature.
    Reasoning(&'static str),
    /// Anthropic's own, with its number.
    Thinking(Option<u64>),
    /// What goes with the call of that place.
    Kept(usize),
    /// A call with its place.
    Call(usize),
}

/// One message in the making.
pub(super) struct MessageEvents {
    asked: Asked,
    began: bool,
    open: Option<Open>,
    /// Blocks begun so far.
    blocks: usize,
    order: Order,
    finish_reason: Option<String>,
    stop_sequence: Option<String>,
    usage: Option<ChatUsage>,
}

impl MessageEvents {
    pub(super) const fn new(asked: Asked) -> Self {
        Self {
            asked,
            began: false,
            open: None,
            blocks: 0,
            order: Order::NEW,
            finish_reason: None,
            stop_sequence: None,
            usage: None,
        }
    }

    fn begin(&mut self, model: &str, out: &mut BytesMut) {
        if !self.began {
            self.began = true;
            let message = Message::begun(&self.asked, model);
            event(
                out,
                "message_start",
                &json!({"message": to_value(&message)}),
            );
        }
    }

    /// Opens a block unless it is open.
    fn open(&mut self, block: Open, start: impl FnOnce() -> Value, out: &mut BytesMut) {
        if self.open != Some(block) {
            self.close(out);
            self.open = Some(block);
            let started = json!({"index": self.blocks, "content_block": start()});
            event(out, "content_block_start", &started);
            self.blocks += 1;
        }
    }

    fn close(&mut self, out: &mut BytesMut) {
        let Some(open) = self.open.take() else {
            return;
        };
        if let Open::Reasoning(member) = open {
            let signature = format!("{OURS}{member}");
            let delta = json!({"type": "signature_delta", "signature": signature});
            self.delta(&delta, out);
        }
        let stopped = json!({"index": self.last()});
        event(out, "content_block_stop", &stopped);
    }

    /// The block that was begun last.
    const fn last(&self) -> usize {
        self.blocks.saturating_sub(1)
    }

    fn delta(&self, delta: &Value, out: &mut BytesMut) {
        let delta = json!({"index": self.last(), "delta": delta});
        event(out, "content_block_delta", &delta);
    }

    fn text(&mut self, text: &str, out: &mut BytesMut) {
        self.open(Open::Text, || json!({"type": "text", "text": ""}), out);
        self.delta(&json!({"type": "text_delta", "text": text}), out);
    }

    fn reasoning(&mut self, member: &'static str, text: &str, out: &mut BytesMut) {
        self.open(Open::Reasoning(member), || thinking(""), out);
        self.delta(&json!({"type": "thinking_delta", "thinking": text}), out);
    }

    fn thinking(&mut self, block: &Thinking<'_>, out: &mut BytesMut) {
        if !block.data.is_empty() {
            let start = || json!({"type": "redacted_thinking", "data": block.data});
            self.open(Open::Thinking(block.index), start, out);
            return;
        }
        self.open(Open::Thinking(block.index), || thinking(""), out);
        if !block.text.is_empty() {
            let delta = json!({"type": "thinking_delta", "thinking": block.text});
            self.delta(&delta, out);
        }
        if !block.signature.is_empty() {
            let delta = json!({"type": "signature_delta", "signature": block.signature});
            self.delta(&delta, out);
        }
    }

    fn call(&mut self, call: Begin<'_>, out: &mut BytesMut) {
        let place = call.place;
        if let Some(data) = call.kept {
            let start = || json!({"type": "redacted_thinking", "data": data});
            self.open(Open::Kept(place), start, out);
        }
        let id = call_id(&self.asked, place, call.id).into_owned();
        let start = || json!({"type": "tool_use", "id": id, "name": call.name, "input": {}});
        self.open(Open::Call(place), start, out);
    }

    fn say(&mut self, pieces: Vec<Piece<'_>>, out: &mut BytesMut) {
        for piece in pieces {
            match piece {
                Piece::Reasoning { member, text } => self.reasoning(member, &text, out),
                Piece::Thinking(block) => self.thinking(&block, out),
                Piece::Text(text) | Piece::Refusal(text) => self.text(&text, out),
                Piece::Begin(call) => self.call(call, out),
                Piece::Arguments(json) => {
                    let delta = json!({"type": "input_json_delta", "partial_json": json});
                    self.delta(&delta, out);
                }
            }
        }
    }
}

impl Events for MessageEvents {
    fn chunk(&mut self, chunk: &Chunk<'_>, out: &mut BytesMut) {
        self.begin(&chunk.model, out);
        let pieces = self.order.chunk(&chunk.said);
        self.say(pieces, out);
        if let Some(reason) = &chunk.finish_reason {
            self.finish_reason = Some(reason.clone().into_owned());
        }
        if let Some(sequence) = &chunk.stop_sequence {
            self.stop_sequence = Some(sequence.clone().into_owned());
        }
        self.usage = chunk.usage.or(self.usage);
    }

    fn done(&mut self, out: &mut BytesMut) {
        self.begin("", out);
        let rest = self.order.rest();
        self.say(rest, out);
        self.close(out);
        let finish_reason = self.finish_reason.as_deref().unwrap_or_default();
        let stopped_by = self.stop_sequence.as_deref();
        let (stop_reason, stop_sequence) = stop(finish_reason, stopped_by, self.order.has_calls());
        let delta = json!({
            "delta": {"stop_reason": stop_reason, "stop_sequence": stop_sequence},
            "usage": to_value(&Usage::of(self.usage)),
        });
        event(out, "message_delta", &delta);
        event(out, "message_stop", &json!({}));
    }

    fn failed(&mut self, error: &ErrorObject, out: &mut BytesMut) {
        let rest = self.order.rest();
        self.say(rest, out);
        let body = error::of_object(error, self.asked.id);
        event(out, "error", &body);
    }
}

fn thinking(text: &str) -> Value {
    json!({"type": "thinking", "thinking": text, "signature": ""})
}

fn to_value<T: Serialize>(value: &T) -> Value {
    // Texts and numbers: there is nothing in it that JSON could refuse.
    serde_json::to_value(value).unwrap_or_default()
}

/// Appends an event; its name is its `type` as well.
fn event(out: &mut BytesMut, name: &'static str, members: &Value) {
    let mut event = members.clone();
    if let Value::Object(members) = &mut event {
        members.insert("type".to_owned(), Value::from(name));
    }
    sse_encode::named(out, name, event.to_string().as_bytes());
}
