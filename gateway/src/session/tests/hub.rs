//! A hub's sessions, and a log that keeps what a real one would.

use std::{collections::HashMap, sync::Mutex};

use nexus_events::{
    clock::{ManualClock, UnixMillis},
    exchange_event::SystemMessages,
    message::put_together,
    raw_object::RawObject,
};
use serde_json::{Value, json};

use super::super::*;
use crate::shared::{MemoryState, WINDOW};

/// The owners that the read model would know.
#[derive(Debug, Default)]
pub(super) struct KnownOwners(pub(super) Mutex<HashMap<ConversationId, KeyId>>);

impl ConversationOwners for KnownOwners {
    fn owner(&self, conversation: ConversationId) -> BoxFuture<'_, Option<KeyId>> {
        let owner = self.0.lock().unwrap().get(&conversation).copied();
        Box::pin(std::future::ready(owner))
    }
}

/// A hub's sessions and a log that keeps what a real one would.
pub(super) struct Hub {
    pub(super) clock: Arc<ManualClock>,
    pub(super) owners: Arc<KnownOwners>,
    pub(super) sessions: Sessions,
    pub(super) messages: HashMap<MessageId, (Option<MessageId>, Box<RawValue>)>,
    pub(super) systems: HashMap<RequestId, Vec<(u32, Box<RawValue>)>>,
    pub(super) key: KeyId,
}

/// One request and what came of it.
pub(super) struct Turn {
    pub(super) request: RequestId,
    pub(super) conversation: ConversationId,
    pub(super) is_new: bool,
    /// Number of messages that had to be stored.
    pub(super) carried: usize,
    pub(super) same_system_as: Option<RequestId>,
}

impl Hub {
    pub(super) fn start() -> Self {
        let clock = Arc::new(ManualClock::at(UnixMillis::from_millis(1_795_000_000_000)));
        let owners = Arc::new(KnownOwners::default());
        let key = KeyId::draw(&*clock);
        let sessions = Self::sessions(&clock, &owners);
        Self {
            clock,
            owners,
            sessions,
            messages: HashMap::new(),
            systems: HashMap::new(),
            key,
        }
    }

    pub(super) fn sessions(clock: &Arc<ManualClock>, owners: &Arc<KnownOwners>) -> Sessions {
        let clock: SharedClock = Arc::clone(clock) as SharedClock;
        let shared = MemoryState::new(Arc::clone(&clock), WINDOW);
        Sessions::new(
            &[7; 32],
            Arc::new(shared),
            Arc::clone(owners) as Arc<dyn ConversationOwners>,
            clock,
        )
    }

    pub(super) fn scope<'a>(&self, user: Option<&'a str>) -> Scope<'a> {
        Scope {
            key: self.key,
            user,
        }
    }

    /// Asks, puts the request together again from the log, answers.
    pub(super) async fn ask(&mut self, messages: &[Value], answer: &Value) -> Turn {
        self.ask_as(self.scope(None), None, messages, answer).await
    }

    pub(super) async fn ask_in(
        &mut self,
        given: ConversationId,
        messages: &[Value],
        answer: &Value,
    ) -> Turn {
        self.ask_as(self.scope(None), Some(given), messages, answer)
            .await
    }

    pub(super) async fn ask_as(
        &mut self,
        scope: Scope<'_>,
        conversation: Option<ConversationId>,
        messages: &[Value],
        answer: &Value,
    ) -> Turn {
        let request = RequestId::draw(&*self.clock);
        let raw: Vec<Box<RawValue>> = messages.iter().map(raw).collect();
        let raw: Vec<&RawValue> = raw.iter().map(AsRef::as_ref).collect();
        let asked = Asked {
            request,
            scope,
            messages: &raw,
            conversation,
        };
        let matched = self.sessions.match_request(asked).await;
        self.record(request, &matched);
        assert_eq!(
            self.put_together(&matched),
            messages.iter().map(pruned).collect::<Vec<_>>(),
            "the request is not what was sent"
        );
        let answer = raw_answer(answer);
        let id = self.sessions.answer_id(matched.last_id, &answer);
        self.messages.entry(id).or_insert((matched.last_id, answer));
        self.sessions.answered(&matched.thread(), &[id]).await;
        let content = matched.content(RawObject::default());
        Turn {
            request,
            conversation: matched.conversation,
            is_new: matched.is_new,
            carried: content.messages.len(),
            same_system_as: match content.system {
                SystemMessages::SameAs(request) => Some(request),
                SystemMessages::Full(_) => None,
            },
        }
    }

    /// Keeps the first of each message, as the read model does.
    pub(super) fn record(&mut self, request: RequestId, matched: &Matched<'_>) {
        let content = matched.content(RawObject::default());
        assert_eq!(content.messages.len(), matched.message_ids.len());
        let mut parent = matched.parent;
        for (id, message) in matched.message_ids.iter().zip(&content.messages) {
            self.messages
                .entry(*id)
                .or_insert((parent, (*message).to_owned()));
            parent = Some(*id);
        }
        assert_eq!(parent, matched.last_id);
        if let SystemMessages::Full(system) = &content.system {
            let system = system.iter().map(|(at, raw)| (*at, (*raw).to_owned()));
            self.systems.insert(request, system.collect());
        }
    }

    fn put_together(&self, matched: &Matched<'_>) -> Vec<Value> {
        let mut path = Vec::new();
        let mut at = matched.parent;
        while let Some(id) = at {
            let (parent, message) = &self.messages[&id];
            path.push(message.as_ref());
            at = *parent;
        }
        path.reverse();
        let content = matched.content(RawObject::default());
        let system: Vec<(u32, &RawValue)> = match &content.system {
            SystemMessages::SameAs(request) => self.systems[request]
                .iter()
                .map(|(at, raw)| (*at, raw.as_ref()))
                .collect(),
            SystemMessages::Full(system) => system.clone(),
        };
        let whole = put_together(&path, &system, &content).unwrap();
        whole
            .iter()
            .map(|message| pruned(&serde_json::from_str(message.get()).unwrap()))
            .collect()
    }
}

pub(super) fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap()
}

/// The answer as a provider sends it: with members that no client sends back.
fn raw_answer(answer: &Value) -> Box<RawValue> {
    let mut answer = answer.clone();
    answer["refusal"] = Value::Null;
    answer["annotations"] = json!([]);
    answer["reasoning_content"] = json!("thinking");
    raw(&answer)
}

/// The value without null and empty members.
fn pruned(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (name.clone(), pruned(value)))
            .filter(|(_, value)| {
                !matches!(value.to_string().as_str(), "null" | "\"\"" | "[]" | "{}")
            })
            .collect(),
        Value::Array(items) => items.iter().map(pruned).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// An id that a client drew itself.
pub(super) fn made_up(id: &str) -> ConversationId {
    id.parse().unwrap()
}

pub(super) fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

pub(super) fn assistant(text: &str) -> Value {
    json!({"role": "assistant", "content": text})
}

pub(super) fn system(text: &str) -> Value {
    json!({"role": "system", "content": text})
}
