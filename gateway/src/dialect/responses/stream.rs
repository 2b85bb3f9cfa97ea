//! The chunks of a chat stream as the events of a response.
//!
//! Items come one after the other ([`Order`]): whatever says something of another kind closes the
//! item before.

use bytes::BytesMut;
use serde_json::{Value, json};

use super::{
    super::{
        Asked, Events,
        chat::{Begin, Chunk, Order, Piece, Thinking, Usage},
    },
    item::Item,
    response::{End, Head},
};
use crate::{error::RATE_LIMIT, protocol::openai::response::ErrorObject, stream::sse_encode};

/// One response in the making.
pub(super) struct ResponseEvents {
    head: Head,
    began: bool,
    sequence: u64,
    items: Vec<Item>,
    /// Whether the last item is open.
    is_open: bool,
    order: Order,
    finish_reason: Option<String>,
    usage: Option<Usage>,
}

impl ResponseEvents {
    pub(super) fn new(asked: &Asked) -> Self {
        Self {
            head: Head::new(asked),
            began: false,
            sequence: 0,
            items: Vec::new(),
            is_open: false,
            order: Order::NEW,
            finish_reason: None,
            usage: None,
        }
    }

    fn begin(&mut self, model: &str, out: &mut BytesMut) {
        if !self.began {
            self.began = true;
            self.head.of_model(model);
            for name in ["response.created", "response.in_progress"] {
                let event = json!({"response": self.head.in_progress()});
                self.event(name, event, out);
            }
        }
    }

    /// Appends an event; its name is its `type` as well.
    fn event(&mut self, name: &str, mut event: Value, out: &mut BytesMut) {
        if let Value::Object(members) = &mut event {
            members.insert("type".to_owned(), json!(name));
            members.insert("sequence_number".to_owned(), json!(self.sequence));
        }
        self.sequence += 1;
        sse_encode::named(out, name, event.to_string().as_bytes());
    }

    fn open(&mut self, item: Item, out: &mut BytesMut) {
        self.close("completed", out);
        let index = self.items.len();
        let added = json!({"output_index": index, "item": item.begun()});
        self.event("response.output_item.added", added, out);
        if let Some(part) = item.part() {
            let added = json!({
                "item_id": item.id, "output_index": index, "content_index": 0, "part": part,
            });
            self.event("response.content_part.added", added, out);
        }
        self.items.push(item);
        self.is_open = true;
    }

    fn close(&mut self, status: &str, out: &mut BytesMut) {
        let index = self.items.len().saturating_sub(1);
        let Some(item) = self.items.last().filter(|_| self.is_open) else {
            return;
        };
        let done = item.done(index);
        let part = item.part().map(|part| {
            json!({
                "item_id": item.id, "output_index": index, "content_index": 0, "part": part,
            })
        });
        let ended = json!({"output_index": index, "item": item.ended(status)});
        if let Some((name, done)) = done {
            self.event(name, done, out);
        }
        if let Some(part) = part {
            self.event("response.content_part.done", part, out);
        }
        self.event("response.output_item.done", ended, out);
        self.is_open = false;
    }

    /// Adds text to the open item, or to a new one where another kind is open.
    fn say(&mut self, new: Item, text: &str, out: &mut BytesMut) {
        let goes_on = self.is_open && self.items.last().is_some_and(|last| last.kind == new.kind);
        if !goes_on {
            self.open(new, out);
        }
        self.add(text, out);
    }

    /// Adds text to the open item.
    fn add(&mut self, text: &str, out: &mut BytesMut) {
        let index = self.items.len().saturating_sub(1);
        let Some(item) = self.items.last_mut() else {
            return;
        };
        item.text.push_str(text);
        if let Some((name, delta)) = item.delta(index, text) {
            self.event(name, delta, out);
        }
    }

    /// Adds to the block of reasoning that is open, or to a new one.
    fn think(&mut self, block: &Thinking<'_>, out: &mut BytesMut) {
        let is_open = self.is_open;
        let last = self.items.last_mut().filter(|_| is_open);
        if !last.is_some_and(|last| last.signed(block)) {
            let item = Item::thinking(self.head.request, self.items.len(), block);
            self.open(item, out);
        }
        if !block.text.is_empty() {
            self.add(&block.text, out);
        }
    }

    fn call(&mut self, call: Begin<'_>, out: &mut BytesMut) {
        let request = self.head.request;
        if let Some(encrypted) = call.kept {
            let kept = Item::kept(request, self.items.len(), encrypted);
            self.open(kept, out);
        }
        let item = Item::call(request, self.items.len(), &call.id, &call.name);
        self.open(item, out);
    }

    fn tell(&mut self, pieces: Vec<Piece<'_>>, out: &mut BytesMut) {
        for piece in pieces {
            let (request, place) = (self.head.request, self.items.len());
            match piece {
                Piece::Reasoning { member, text } => {
                    self.say(Item::reasoning(request, place, member), &text, out);
                }
                Piece::Text(text) => self.say(Item::text(request, place), &text, out),
                Piece::Refusal(text) => self.say(Item::refusal(request, place), &text, out),
                Piece::Begin(call) => self.call(call, out),
                Piece::Arguments(json) => self.add(&json, out),
                Piece::Thinking(block) => self.think(&block, out),
            }
        }
    }
}

impl Events for ResponseEvents {
    fn chunk(&mut self, chunk: &Chunk<'_>, out: &mut BytesMut) {
        self.head.of_tier(chunk.service_tier.as_deref());
        self.begin(&chunk.model, out);
        let pieces = self.order.chunk(&chunk.said);
        self.tell(pieces, out);
        if let Some(reason) = &chunk.finish_reason {
            self.finish_reason = Some(reason.clone().into_owned());
        }
        self.usage = chunk.usage.or(self.usage);
    }

    fn done(&mut self, out: &mut BytesMut) {
        self.begin("", out);
        let rest = self.order.rest();
        self.tell(rest, out);
        let end = End::of(self.finish_reason.as_deref().unwrap_or_default());
        self.close(end.status(), out);
        let response = self.head.ended(end, &self.items, self.usage);
        let event = json!({"response": response});
        let name = match end {
            End::Completed => "response.completed",
            End::Incomplete(_) => "response.incomplete",
        };
        self.event(name, event, out);
    }

    fn failed(&mut self, error: &ErrorObject, out: &mut BytesMut) {
        let rest = self.order.rest();
        self.tell(rest, out);
        // The codes that the API's clients know.
        let code = match error.kind.as_deref() {
            Some(RATE_LIMIT) => "rate_limit_exceeded",
            _ => "server_error",
        };
        let error = json!({"code": code, "message": error.message});
        let event = json!({"response": self.head.failed(error, &self.items)});
        self.event("response.failed", event, out);
    }
}
