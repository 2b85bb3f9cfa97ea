//! The ids of messages: a keyed hash of the parent's id and of what a message says.
//!
//! A chat request repeats its whole history. Under these ids a message that
//! comes back is the node that it was before, whoever wrote it down: a
//! provider's answer and its repetition by the client give one id. So the hash
//! is not over the text but over a *canonical form*:
//!
//! - members in the order of their names, the last one where a name comes twice;
//! - members left out whose value is null, `""`, `[]` or `{}`, at every depth and
//!   from the inside out, because clients write out optional members as null at
//!   every depth. Items of a list stay, empty or not. (Nothing in the protocol
//!   lives by the difference but the arguments of a tool call, which are JSON
//!   in a string and have a form of their own: `arguments.rs`.)
//! - the extras of [`nexus_events::message`] left out: the closed list of
//!   members that clients may or may not send back;
//! - text by its characters, numbers by their value, however they are spelled;
//! - a content that is a single part of text as that text: clients, and the dialects,
//!   write either, and a cache mark that wanders on makes the one of the other.
//!
//! The form is written into the hash with type tags and lengths, so no two
//! forms run into the same bytes. The key belongs to the installation: without
//! it nobody can tell from an id what was said.
//!
//! A message that cannot be read in full (nested deeper than 128 levels, a
//! number beyond all ranges, half a surrogate pair) is hashed as the text it is.

mod arguments;
mod form;

use std::{borrow::Cow, fmt};

use hmac::{Hmac, KeyInit, Mac};
use nexus_events::{message::EXTRAS, message_id::MessageId, raw_object::RawObject};
use serde_json::value::RawValue;
use sha2::Sha256;
use zeroize::Zeroizing;

use self::form::{Form, feed_text, part_extra};
use crate::shared::SystemDigest;

/// Computes message ids under the installation's key.
#[derive(Clone)]
pub struct MessageTree {
    keyed: Hmac<Sha256>,
}

impl fmt::Debug for MessageTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageTree").finish_non_exhaustive()
    }
}

/// A message, read once for its role and its id.
#[derive(Debug)]
pub struct ReadMessage<'a> {
    raw: &'a RawValue,
    form: Option<Form<'a>>,
    role: Option<Cow<'a, str>>,
}

impl<'a> ReadMessage<'a> {
    /// Reads a message.
    pub fn of(raw: &'a RawValue) -> Self {
        let form: Option<Form<'a>> = serde_json::from_str(raw.get()).ok();
        let role = match &form {
            Some(form) => form.text("role").map(|role| Cow::Owned(role.to_owned())),
            // Reading only the outermost level works where the depths do not.
            None => RawObject::parse(raw.get().as_bytes())
                .ok()
                .and_then(|members| members.get("role"))
                .and_then(|role| serde_json::from_str::<String>(role.get()).ok())
                .map(Cow::Owned),
        };
        Self { raw, form, role }
    }

    /// Its text.
    pub const fn raw(&self) -> &'a RawValue {
        self.raw
    }

    /// Whether it stands outside the tree: a system or developer message.
    pub fn is_system(&self) -> bool {
        matches!(self.role.as_deref(), Some("system" | "developer"))
    }

    /// Whether it is an answer.
    pub fn is_answer(&self) -> bool {
        self.role.as_deref() == Some("assistant")
    }

    /// Whether it has members that are no part of its id.
    pub fn has_extras(&self) -> bool {
        let Some(members) = self.form.as_ref().and_then(Form::members) else {
            return false;
        };
        members.iter().any(|(name, value)| {
            EXTRAS.contains(&name.as_ref())
                || part_extra(name).is_some_and(|extra| value.any_item_has(extra))
        })
    }
}

impl MessageTree {
    /// Ids under that key.
    pub fn new(key: &[u8; 32]) -> Self {
        // HMAC fills a short key up with zeros; a full block cannot be refused.
        let mut block = Zeroizing::new([0; 64]);
        for (to, from) in block.iter_mut().zip(key) {
            *to = *from;
        }
        Self {
            keyed: Hmac::new((&*block).into()),
        }
    }

    /// The id of a message below `parent`; `None` for the first of a conversation.
    pub fn id(&self, parent: Option<MessageId>, message: &RawValue) -> MessageId {
        self.id_of(parent, &ReadMessage::of(message))
    }

    /// The same of a message that is read already.
    pub fn id_of(&self, parent: Option<MessageId>, message: &ReadMessage<'_>) -> MessageId {
        let mut hash = self.hash("nexus message v1");
        match parent {
            None => hash.update(&[0]),
            Some(parent) => {
                hash.update(&[1]);
                hash.update(parent.as_bytes());
            }
        }
        match &message.form {
            Some(form) => form.feed_message(&mut hash),
            None => feed_text(&mut hash, b'r', message.raw.get()),
        }
        MessageId::from_bytes(first_half(hash))
    }

    /// What tells one list of system messages from another: their places and every member.
    pub fn system_digest(&self, messages: &[(u32, ReadMessage<'_>)]) -> SystemDigest {
        let mut hash = self.hash("nexus system messages v1");
        for (place, message) in messages {
            hash.update(&place.to_le_bytes());
            match &message.form {
                Some(form) => form.feed(&mut hash),
                None => feed_text(&mut hash, b'r', message.raw.get()),
            }
        }
        SystemDigest::from_bytes(first_half(hash))
    }

    /// A keyed hash for one purpose; hashes for different purposes have nothing in common.
    pub(super) fn hash(&self, purpose: &str) -> Hmac<Sha256> {
        let mut hash = self.keyed.clone();
        feed_text(&mut hash, b'p', purpose);
        hash
    }
}

/// The first 128 bits of a hash.
pub(super) fn first_half(hash: Hmac<Sha256>) -> [u8; 16] {
    let full: [u8; 32] = hash.finalize().into_bytes().into();
    let mut half = [0; 16];
    for (to, from) in half.iter_mut().zip(full) {
        *to = from;
    }
    half
}

#[cfg(test)]
mod tests;
