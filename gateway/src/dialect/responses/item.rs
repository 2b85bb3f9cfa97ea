//! The items of a response's output.

use std::borrow::Cow;

use nexus_events::id::RequestId;
use serde_json::{Value, json};

use super::super::{chat::Thinking, keepsake};

/// What the id of reasoning begins with that came in the member `reasoning`, not in
/// `reasoning_content`.
pub(super) const IN_REASONING: &str = "rs_r_";

/// An item in the making.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) id: String,
    pub(super) kind: Kind,
    /// What was said, or the arguments of a call.
    pub(super) text: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Reasoning,
    /// A block of Anthropic's, with its number and its signature as far as it has come.
    Thinking {
        index: Option<u64>,
        signature: String,
    },
    /// One that only Anthropic can read.
    Redacted(String),
    Text,
    Refusal,
    /// What goes with the call that follows, as encrypted reasoning.
    Kept(String),
    Call {
        call_id: String,
        name: String,
    },
}

impl Item {
    /// Reasoning that came in that member.
    pub(super) fn reasoning(request: RequestId, place: usize, member: &str) -> Self {
        let prefix = match member {
            "reasoning" => IN_REASONING,
            _ => "rs_",
        };
        Self::new(format!("{prefix}{request}_{place}"), Kind::Reasoning)
    }

    /// A block of Anthropic's reasoning, whose text is still to be said.
    pub(super) fn thinking(request: RequestId, place: usize, block: &Thinking<'_>) -> Self {
        let kind = if block.data.is_empty() {
            Kind::Thinking {
                index: block.index,
                signature: block.signature.clone().into_owned(),
            }
        } else {
            Kind::Redacted(block.data.clone().into_owned())
        };
        Self::new(format!("rs_{request}_{place}"), kind)
    }

    /// Takes the signature of a piece of its block; `false` of another's.
    pub(super) fn signed(&mut self, piece: &Thinking<'_>) -> bool {
        if let Kind::Thinking { index, signature } = &mut self.kind
            && *index == piece.index
            && piece.data.is_empty()
        {
            signature.push_str(&piece.signature);
            return true;
        }
        false
    }

    /// What is to come back with the item.
    fn encrypted(&self) -> Option<String> {
        let (signature, data) = match &self.kind {
            Kind::Thinking { signature, .. } => (signature.as_str(), ""),
            Kind::Redacted(data) => ("", data.as_str()),
            Kind::Reasoning | Kind::Text | Kind::Refusal | Kind::Kept(_) | Kind::Call { .. } => {
                return None;
            }
        };
        keepsake::of_thinking(&Thinking {
            index: None,
            text: Cow::Borrowed(&self.text),
            signature: Cow::Borrowed(signature),
            data: Cow::Borrowed(data),
        })
    }

    pub(super) fn text(request: RequestId, place: usize) -> Self {
        Self::new(format!("msg_{request}_{place}"), Kind::Text)
    }

    pub(super) fn refusal(request: RequestId, place: usize) -> Self {
        Self::new(format!("msg_{request}_{place}"), Kind::Refusal)
    }

    pub(super) fn call(request: RequestId, place: usize, call_id: &str, name: &str) -> Self {
        let call_id = if call_id.is_empty() {
            format!("call_{request}_{place}")
        } else {
            call_id.to_owned()
        };
        let name = name.to_owned();
        Self::new(
            format!("fc_{request}_{place}"),
            Kind::Call { call_id, name },
        )
    }

    pub(super) fn kept(request: RequestId, place: usize, encrypted: String) -> Self {
        Self::new(format!("rs_{request}_{place}"), Kind::Kept(encrypted))
    }

    const fn new(id: String, kind: Kind) -> Self {
        Self {
            id,
            kind,
            text: String::new(),
        }
    }

    pub(super) fn saying(mut self, text: impl Into<String>) -> Self {
        self.text = text.into();
        self
    }

    /// The part that its text stands in; none of a call.
    pub(super) fn part(&self) -> Option<Value> {
        let text = &self.text;
        match self.kind {
            Kind::Reasoning | Kind::Thinking { .. } => {
                Some(json!({"type": "reasoning_text", "text": text}))
            }
            Kind::Text => Some(part_of_text(text)),
            Kind::Refusal => Some(json!({"type": "refusal", "refusal": text})),
            Kind::Kept(_) | Kind::Call { .. } | Kind::Redacted(_) => None,
        }
    }

    /// The event that adds to its text; none of an item that has none.
    pub(super) fn delta(&self, index: usize, text: &str) -> Option<(&'static str, Value)> {
        let mut delta = json!({"item_id": self.id, "output_index": index, "delta": text});
        let name = match self.kind {
            Kind::Reasoning | Kind::Thinking { .. } => "response.reasoning_text.delta",
            Kind::Text => "response.output_text.delta",
            Kind::Refusal => "response.refusal.delta",
            Kind::Call { .. } => "response.function_call_arguments.delta",
            Kind::Kept(_) | Kind::Redacted(_) => return None,
        };
        self.place(&mut delta);
        Some((name, delta))
    }

    /// The event that tells its whole text; none of an item that has none.
    pub(super) fn done(&self, index: usize) -> Option<(&'static str, Value)> {
        let (name, member) = match self.kind {
            Kind::Reasoning | Kind::Thinking { .. } => ("response.reasoning_text.done", "text"),
            Kind::Text => ("response.output_text.done", "text"),
            Kind::Refusal => ("response.refusal.done", "refusal"),
            Kind::Call { .. } => ("response.function_call_arguments.done", "arguments"),
            Kind::Kept(_) | Kind::Redacted(_) => return None,
        };
        let mut done = json!({"item_id": self.id, "output_index": index, member: self.text});
        if let (Kind::Call { name, .. }, Value::Object(members)) = (&self.kind, &mut done) {
            members.insert("name".to_owned(), json!(name));
        }
        self.place(&mut done);
        Some((name, done))
    }

    /// What stands in an event about text beside the text; a call has one text only.
    fn place(&self, event: &mut Value) {
        let Value::Object(members) = event else {
            return;
        };
        if !matches!(self.kind, Kind::Call { .. }) {
            members.insert("content_index".to_owned(), json!(0));
        }
        if self.kind == Kind::Text {
            members.insert("logprobs".to_owned(), json!([]));
        }
    }

    /// The item as it ended.
    pub(super) fn ended(&self, status: &str) -> Value {
        let parts: Vec<Value> = self.part().into_iter().collect();
        let mut item = self.with(&parts, &self.text, status);
        if let (Some(encrypted), Value::Object(members)) = (self.encrypted(), &mut item) {
            members.insert("encrypted_content".to_owned(), json!(encrypted));
        }
        item
    }

    /// The item as it began.
    pub(super) fn begun(&self) -> Value {
        self.with(&[], "", "in_progress")
    }

    fn with(&self, content: &[Value], arguments: &str, status: &str) -> Value {
        match &self.kind {
            Kind::Reasoning | Kind::Thinking { .. } | Kind::Redacted(_) => json!({
                "id": self.id, "type": "reasoning", "summary": [], "content": content,
                "status": status,
            }),
            Kind::Kept(encrypted) => json!({
                "id": self.id, "type": "reasoning", "summary": [],
                "encrypted_content": encrypted, "status": status,
            }),
            Kind::Text | Kind::Refusal => json!({
                "id": self.id, "type": "message", "role": "assistant", "content": content,
                "status": status,
            }),
            Kind::Call { call_id, name } => json!({
                "id": self.id, "type": "function_call", "call_id": call_id, "name": name,
                "arguments": arguments, "status": status,
            }),
        }
    }
}

fn part_of_text(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}
