//! The chunks of a chat stream as the events of a response.
//!
//! Items come one after the other: whatever says something of another kind closes the item before.

use bytes::BytesMut;
use serde_json::{Value, json};

use super::{
    super::{
        Asked, Events,
        chat::{Call, Calls, Chunk, Usage},
        keepsake,
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
    calls: Calls,
    /// The item of each call.
    call_items: Vec<usize>,
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
            calls: Calls::NONE,
            call_items: Vec::new(),
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
        if text.is_empty() {
            return;
        }
        let goes_on = self.is_open && self.items.last().is_some_and(|last| last.kind == new.kind);
        if !goes_on {
            self.open(new, out);
        }
        self.add(self.items.len().saturating_sub(1), text, out);
    }

    fn add(&mut self, index: usize, text: &str, out: &mut BytesMut) {
        let Some(item) = self.items.get_mut(index) else {
            return;
        };
        item.text.push_str(text);
        if let Some((name, delta)) = item.delta(index, text) {
            self.event(name, delta, out);
        }
    }

    fn call(&mut self, call: &Call<'_>, out: &mut BytesMut) {
        let (place, is_new) = self.calls.place(call);
        if is_new {
            if let Some(encrypted) = keepsake::of(call) {
                let kept = Item::kept(self.head.request, self.items.len(), encrypted);
                self.open(kept, out);
            }
            let index = self.items.len();
            self.open(
                Item::call(self.head.request, index, &call.id, &call.name),
                out,
            );
            self.call_items.push(index);
        }
        if let Some(index) = self.call_items.get(place).copied()
            && !call.arguments.is_empty()
        {
            self.add(index, &call.arguments, out);
        }
    }
}

impl Events for ResponseEvents {
    fn chunk(&mut self, chunk: &Chunk<'_>, out: &mut BytesMut) {
        self.begin(&chunk.model, out);
        let (request, said) = (self.head.request, &chunk.said);
        if let Some((member, text)) = &said.reasoning {
            let new = Item::reasoning(request, self.items.len(), member);
            self.say(new, text, out);
        }
        self.say(Item::text(request, self.items.len()), &said.text, out);
        self.say(Item::refusal(request, self.items.len()), &said.refusal, out);
        for call in &said.calls {
            self.call(call, out);
        }
        if let Some(reason) = &chunk.finish_reason {
            self.finish_reason = Some(reason.clone().into_owned());
        }
        self.usage = chunk.usage.or(self.usage);
    }

    fn done(&mut self, out: &mut BytesMut) {
        self.begin("", out);
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
