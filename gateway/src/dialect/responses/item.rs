//! The items of a response's output.

use nexus_events::id::RequestId;
use serde_json::{Value, json};

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
    Text,
    Refusal,
    Call { call_id: String, name: String },
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
            Kind::Reasoning => Some(json!({"type": "reasoning_text", "text": text})),
            Kind::Text => Some(part_of_text(text)),
            Kind::Refusal => Some(json!({"type": "refusal", "refusal": text})),
            Kind::Call { .. } => None,
        }
    }

    /// The item as it ended.
    pub(super) fn ended(&self, status: &str) -> Value {
        let parts: Vec<Value> = self.part().into_iter().collect();
        self.with(&parts, &self.text, status)
    }

    /// The item as it began.
    pub(super) fn begun(&self) -> Value {
        self.with(&[], "", "in_progress")
    }

    fn with(&self, content: &[Value], arguments: &str, status: &str) -> Value {
        match &self.kind {
            Kind::Reasoning => json!({
                "id": self.id, "type": "reasoning", "summary": [], "content": content,
                "status": status,
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
