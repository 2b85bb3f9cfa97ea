//! Puts the messages of a conversation into the order in which a person reads them.

use std::collections::{HashMap, HashSet};

use nexus_events::message_id::MessageId;

use super::conversations::ConversationMessage;

/// Each message after its parent, branch by branch; siblings keep the order that they came in.
///
/// A message whose parent is not among them begins a branch of its own.
pub(super) fn in_order(messages: Vec<ConversationMessage>) -> Vec<ConversationMessage> {
    let present: HashSet<MessageId> = messages.iter().map(|message| message.message_id).collect();
    let mut children: HashMap<Option<MessageId>, Vec<ConversationMessage>> = HashMap::new();
    for message in messages {
        let parent = message.parent_id.filter(|parent| present.contains(parent));
        children.entry(parent).or_default().push(message);
    }
    // A stack instead of recursion: a conversation may be thousands of messages deep.
    let mut stack = children.remove(&None).unwrap_or_default();
    stack.reverse();
    let mut ordered = Vec::with_capacity(present.len());
    while let Some(message) = stack.pop() {
        let following = children.remove(&Some(message.message_id));
        stack.extend(following.unwrap_or_default().into_iter().rev());
        ordered.push(message);
    }
    ordered
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    fn message(id: u8, parent: Option<u8>) -> ConversationMessage {
        ConversationMessage {
            message_id: MessageId::from_bytes([id; 16]),
            parent_id: parent.map(|parent| MessageId::from_bytes([parent; 16])),
            role: "user".into(),
            message: RawValue::from_string("{}".into()).unwrap(),
            request_id: "0199c0de-0000-7000-8000-000000000001".parse().unwrap(),
        }
    }

    #[test]
    fn branches_follow_their_parent_one_after_the_other() {
        let messages = vec![
            message(1, None),
            message(2, Some(1)),
            message(5, Some(4)),
            message(3, Some(1)),
            message(4, Some(2)),
            message(9, Some(8)),
        ];
        let order: Vec<u8> = in_order(messages)
            .iter()
            .map(|message| message.message_id.as_bytes()[0])
            .collect();
        assert_eq!(order, [1, 2, 4, 5, 3, 9]);
    }
}
