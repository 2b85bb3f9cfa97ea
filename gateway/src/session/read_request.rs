//! A request's message list, read into nodes of the tree and system messages.

use nexus_events::message_id::MessageId;
use serde_json::value::RawValue;

use super::message_tree::{MessageTree, ReadMessage};
use crate::shared::SystemDigest;

/// A message of the tree, at its place in the request's list.
#[derive(Debug)]
pub(super) struct Node<'a> {
    /// From 0, system messages counted.
    pub(super) place: u32,
    pub(super) id: MessageId,
    pub(super) message: &'a RawValue,
    pub(super) is_answer: bool,
    pub(super) has_extras: bool,
}

/// A request's messages, each read once.
#[derive(Debug)]
pub(super) struct ReadRequest<'a> {
    /// Everything but system and developer messages, each the parent of the next.
    pub(super) nodes: Vec<Node<'a>>,
    /// System and developer messages with their places.
    pub(super) system: Vec<(u32, &'a RawValue)>,
    digest: Option<SystemDigest>,
}

impl<'a> ReadRequest<'a> {
    pub(super) fn of(tree: &MessageTree, messages: &[&'a RawValue]) -> Self {
        let mut nodes: Vec<Node<'a>> = Vec::with_capacity(messages.len());
        let mut system = Vec::new();
        for (place, message) in (0_u32..).zip(messages.iter().copied()) {
            let read = ReadMessage::of(message);
            if read.is_system() {
                system.push((place, read));
                continue;
            }
            nodes.push(Node {
                place,
                id: tree.id_of(nodes.last().map(|parent| parent.id), &read),
                message,
                is_answer: read.is_answer(),
                has_extras: read.has_extras(),
            });
        }
        Self {
            nodes,
            digest: (!system.is_empty()).then(|| tree.system_digest(&system)),
            system: system
                .into_iter()
                .map(|(place, read)| (place, read.raw()))
                .collect(),
        }
    }

    /// What tells its system messages from others; `None` where there are none.
    pub(super) const fn system_digest(&self) -> Option<SystemDigest> {
        self.digest
    }
}
