//! Where a request belongs, and what of it has to be stored.

use std::borrow::Cow;

use nexus_events::{
    exchange_event::{RequestContent, SystemMessages},
    id::{ConversationId, RequestId},
    message,
    message_id::MessageId,
    raw_object::RawObject,
};
use serde_json::value::RawValue;

use super::read_request::{Node, ReadRequest};
use crate::shared::{ExchangeEnd, ScopeId};

/// What the matching found out about a request.
#[derive(Debug)]
pub struct Matched<'a> {
    /// Its conversation.
    pub conversation: ConversationId,
    /// Whether nothing is known of that conversation yet.
    pub is_new: bool,
    /// The message that its known prefix ends with.
    pub parent: Option<MessageId>,
    /// Ids of the messages after the prefix, in order.
    pub message_ids: Vec<MessageId>,
    /// The last message of the request, which the answer follows.
    pub last_id: Option<MessageId>,
    messages: Vec<Cow<'a, RawValue>>,
    system: SystemMessages<'a>,
    /// By place, as text.
    extras: Vec<(String, Box<RawValue>)>,
    thread: Thread,
}

/// What has to be known of a request when its answer is there.
#[derive(Clone, Copy, Debug)]
pub struct Thread {
    pub(super) scope: ScopeId,
    pub(super) end: ExchangeEnd,
}

impl<'a> Matched<'a> {
    /// `prefix`: index of the node that the known prefix ends with.
    pub(super) fn new(
        read: ReadRequest<'a>,
        prefix: Option<usize>,
        thread: Thread,
        is_new: bool,
        request: RequestId,
    ) -> Self {
        let known = prefix.map_or(0, |index| index + 1);
        let (before, after) = read
            .nodes
            .split_at_checked(known)
            .unwrap_or((&[], &read.nodes));
        let mut extras: Vec<_> = before
            .iter()
            .filter_map(|node| Some((node.place.to_string(), split(node).1?)))
            .collect();
        let mut messages = Vec::with_capacity(after.len());
        for node in after {
            let (message, own) = split(node);
            messages.push(message);
            extras.extend(own.map(|own| (node.place.to_string(), own)));
        }
        let system = match thread.end.system {
            Some(stored) if stored.full_in != request => SystemMessages::SameAs(stored.full_in),
            Some(_) | None => SystemMessages::Full(read.system),
        };
        Self {
            conversation: thread.end.conversation,
            is_new,
            parent: before.last().map(|node| node.id),
            message_ids: after.iter().map(|node| node.id).collect(),
            last_id: read.nodes.last().map(|node| node.id),
            messages,
            system,
            extras,
            thread,
        }
    }

    /// The content of the request's `received` event; `parameters` is the body without `messages`.
    pub fn content<'m>(&'m self, parameters: RawObject<'m>) -> RequestContent<'m> {
        let mut extras = RawObject::default();
        for (place, members) in &self.extras {
            extras.push(place.as_str(), members);
        }
        RequestContent {
            messages: self.messages.iter().map(AsRef::as_ref).collect(),
            system: self.system.clone(),
            extras,
            parameters,
        }
    }

    /// What [`Sessions::answered`](super::Sessions::answered) needs when the answer is there.
    pub const fn thread(&self) -> Thread {
        self.thread
    }
}

/// A message without its extras, and the extras.
fn split<'a>(node: &Node<'a>) -> (Cow<'a, RawValue>, Option<Box<RawValue>>) {
    let split = node
        .has_extras
        .then(|| message::split(node.message).ok())
        .flatten();
    match split {
        Some(split) => (split.message, split.extras),
        // No extras, or no object: then the id stands for the very text.
        None => (Cow::Borrowed(node.message), None),
    }
}
