//! Conversation ids that tell whose they are.
//!
//! A client may name the conversation that it goes on with, and must never get
//! into another key's. So every id that the hub draws is marked: 36 of its
//! random bits are keyed hashes of the other bits, 16 without and 20 with the
//! id of the key that it is drawn for. A gateway knows without asking anybody,
//! after a restart and months later, whether an id is the key's own, another
//! key's, or made up by a client. 38 random bits stay beside the millisecond: a
//! key that begins 100 conversations a second draws one twice in a thousand
//! years. A made-up id that looks like another key's (one in 65 536) only gets
//! a stand-in.

use hmac::Mac;
use nexus_events::{
    clock::Clock,
    id::{ConversationId, KeyId},
};
use uuid::{Builder, Uuid};

use super::message_tree::{MessageTree, first_half};

/// Draws a new id of that key.
pub(super) fn draw(tree: &MessageTree, key: KeyId, clock: &dyn Clock) -> ConversationId {
    tagged(tree, key, ConversationId::draw(clock).as_uuid())
}

/// Whose an id is, as far as it tells itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Drawn for that key.
    Own,
    /// Drawn for another key.
    Another,
    /// Made up by a client.
    MadeUp,
}

/// Whose the id is, seen from that key.
pub(super) fn whose(tree: &MessageTree, key: KeyId, id: ConversationId) -> Whose {
    let bits = id.as_uuid().as_u128();
    let marked = marked(tree, key, bits);
    if marked == bits {
        Whose::Own
    } else if marked & !KEY_MARK == bits & !KEY_MARK {
        Whose::Another
    } else {
        Whose::MadeUp
    }
}

/// The id that stands for `given` among that key's own, when `given` is another key's.
///
/// Always the same, so that a client that goes on naming `given` stays in one
/// conversation. A `UUIDv8`: it says nothing about a time.
pub(super) fn stand_in(tree: &MessageTree, key: KeyId, given: ConversationId) -> ConversationId {
    let mut hash = tree.hash("nexus conversation stand-in v1");
    hash.update(key.as_uuid().as_bytes());
    hash.update(given.as_uuid().as_bytes());
    let bits = Builder::from_custom_bytes(first_half(hash)).into_uuid();
    tagged(tree, key, bits)
}

/// The last 20 bits: for which key.
const KEY_MARK: u128 = 0xf_ffff;

/// The 16 bits before: drawn by this hub.
const HUB_MARK: u128 = 0xffff << 20;

fn tagged(tree: &MessageTree, key: KeyId, id: Uuid) -> ConversationId {
    ConversationId::from_uuid(Uuid::from_u128(marked(tree, key, id.as_u128())))
}

/// The id with its last 36 bits replaced by the marks.
fn marked(tree: &MessageTree, key: KeyId, id: u128) -> u128 {
    let bits = id & !(HUB_MARK | KEY_MARK);
    let mut hub = tree.hash("nexus conversation of this hub v1");
    hub.update(&bits.to_be_bytes());
    let mut own = tree.hash("nexus conversation of a key v1");
    own.update(key.as_uuid().as_bytes());
    own.update(&bits.to_be_bytes());
    bits | (u128::from_be_bytes(first_half(hub)) & HUB_MARK)
        | (u128::from_be_bytes(first_half(own)) & KEY_MARK)
}

#[cfg(test)]
mod tests {
    use nexus_events::clock::SystemClock;

    use super::*;

    #[test]
    fn an_id_is_known_by_its_own_key_only() {
        let tree = MessageTree::new(&[7; 32]);
        let (mine, other) = (KeyId::draw(&SystemClock), KeyId::draw(&SystemClock));
        assert_eq!(
            draw(&tree, mine, &SystemClock).as_uuid().get_version_num(),
            7
        );
        let made_up: ConversationId = "6b1f2a34-8f43-4c55-9a52-0c1a9d3b7e11".parse().unwrap();
        let id = tagged(&tree, mine, made_up.as_uuid());
        assert_eq!(whose(&tree, mine, id), Whose::Own);
        assert_eq!(whose(&tree, other, id), Whose::Another);
        assert_eq!(whose(&tree, mine, made_up), Whose::MadeUp);
        let elsewhere = MessageTree::new(&[8; 32]);
        assert_eq!(whose(&elsewhere, mine, id), Whose::MadeUp);
    }

    #[test]
    fn a_stand_in_is_lasting_and_the_keys_own() {
        let tree = MessageTree::new(&[7; 32]);
        let (mine, other) = (KeyId::draw(&SystemClock), KeyId::draw(&SystemClock));
        let given = draw(&tree, other, &SystemClock);
        let id = stand_in(&tree, mine, given);
        assert_eq!(id, stand_in(&tree, mine, given));
        assert_ne!(id, stand_in(&tree, other, given));
        assert_eq!(whose(&tree, mine, id), Whose::Own);
    }
}
