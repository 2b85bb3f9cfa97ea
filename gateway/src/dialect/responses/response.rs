//! The response object, and a whole chat answer as one.

use bytes::Bytes;
use nexus_events::id::RequestId;
use serde_json::{Value, json};

use super::{
    super::{
        Asked,
        chat::{Answer, Said, Usage},
        keepsake,
    },
    item::Item,
};

/// Members of the request that a response tells back, with what stands for them where they are
/// absent.
const TOLD_BACK: [(&str, &str); 14] = [
    ("instructions", "null"),
    ("max_output_tokens", "null"),
    ("metadata", "{}"),
    ("parallel_tool_calls", "true"),
    ("reasoning", "null"),
    ("safety_identifier", "null"),
    ("prompt_cache_key", "null"),
    ("store", "false"),
    ("temperature", "null"),
    ("text", r#"{"format":{"type":"text"}}"#),
    ("tool_choice", r#""auto""#),
    ("tools", "[]"),
    ("top_p", "null"),
    ("user", "null"),
];

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Completed,
    /// With the reason.
    Incomplete(&'static str),
}

impl End {
    /// By the reason for which the model stopped.
    pub(super) fn of(finish_reason: &str) -> Self {
        match finish_reason {
            "length" => Self::Incomplete("max_output_tokens"),
            "content_filter" => Self::Incomplete("content_filter"),
            _ => Self::Completed,
        }
    }

    pub(super) const fn status(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Incomplete(_) => "incomplete",
        }
    }
}

/// What every form of a response repeats.
pub(super) struct Head {
    pub(super) request: RequestId,
    object: Value,
}

impl Head {
    pub(super) fn new(asked: &Asked) -> Self {
        let mut object = json!({
            "id": format!("resp_{}", asked.id),
            "object": "response",
            "created_at": asked.time.as_millis() / 1000,
            "background": false,
            "error": null,
            "incomplete_details": null,
            "model": "",
            "output": [],
            "previous_response_id": null,
            "truncation": "disabled",
            "usage": null,
        });
        let request: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
        if let Value::Object(members) = &mut object {
            for (name, absent) in TOLD_BACK {
                let given = request.get(name).filter(|given| !given.is_null());
                let told = given.cloned();
                let told = told.or_else(|| serde_json::from_str(absent).ok());
                members.insert(name.to_owned(), told.unwrap_or_default());
            }
        }
        Self {
            request: asked.id,
            object,
        }
    }

    /// The model as the provider names it.
    pub(super) fn of_model(&mut self, model: &str) {
        self.set("model", json!(model));
    }

    /// The tier of service, where the provider tells which one it gave.
    pub(super) fn of_tier(&mut self, tier: Option<&str>) {
        if let Some(tier) = tier {
            self.set("service_tier", json!(tier));
        }
    }

    fn set(&mut self, name: &str, value: Value) {
        if let Value::Object(members) = &mut self.object {
            members.insert(name.to_owned(), value);
        }
    }

    pub(super) fn in_progress(&mut self) -> &Value {
        self.set("status", json!("in_progress"));
        &self.object
    }

    pub(super) fn ended(&mut self, end: End, items: &[Item], usage: Option<Usage>) -> &Value {
        self.set("status", json!(end.status()));
        if let End::Incomplete(reason) = end {
            self.set("incomplete_details", json!({"reason": reason}));
        }
        self.output(items, end.status());
        self.set("usage", usage.map_or(Value::Null, |usage| told(&usage)));
        &self.object
    }

    pub(super) fn failed(&mut self, error: Value, items: &[Item]) -> &Value {
        self.set("status", json!("failed"));
        self.set("error", error);
        self.output(items, "incomplete");
        &self.object
    }

    /// Only the last item can be cut off.
    fn output(&mut self, items: &[Item], last: &str) {
        let count = items.len();
        let items = items.iter().enumerate().map(|(place, item)| {
            let is_last = place + 1 == count;
            item.ended(if is_last { last } else { "completed" })
        });
        self.set("output", items.collect());
    }
}

fn told(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached()},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning()},
        "total_tokens": usage.prompt.saturating_add(usage.completion),
    })
}

/// The response that says the same as a chat completion.
pub(super) fn of_chat(asked: &Asked, chat: &[u8]) -> Result<Bytes, serde_json::Error> {
    let answer = Answer::read(chat)?;
    let mut head = Head::new(asked);
    head.of_model(&answer.model);
    head.of_tier(answer.service_tier.as_deref());
    let items = items(asked.id, answer.said);
    let response = head.ended(End::of(&answer.finish_reason), &items, answer.usage);
    serde_json::to_vec(response).map(Bytes::from)
}

fn items(request: RequestId, said: Said<'_>) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    if let Some((member, text)) = said.reasoning
        && said.thinking.is_empty()
    {
        items.push(Item::reasoning(request, items.len(), member).saying(text));
    }
    for block in said.thinking {
        let item = Item::thinking(request, items.len(), &block);
        items.push(item.saying(block.text));
    }
    if !said.text.is_empty() {
        items.push(Item::text(request, items.len()).saying(said.text));
    }
    if !said.refusal.is_empty() {
        items.push(Item::refusal(request, items.len()).saying(said.refusal));
    }
    for call in said.calls {
        if let Some(encrypted) = keepsake::of(&call) {
            items.push(Item::kept(request, items.len(), encrypted));
        }
        let item = Item::call(request, items.len(), &call.id, &call.name);
        items.push(item.saying(call.arguments));
    }
    items
}
