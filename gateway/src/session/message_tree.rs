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
//!   lives by the difference: the arguments of a tool call are text.)
//! - the extras of [`nexus_events::message`] left out: the closed list of
//!   members that clients may or may not send back;
//! - text by its characters, numbers by their value, however they are spelled.
//!
//! The form is written into the hash with type tags and lengths, so no two
//! forms run into the same bytes. The key belongs to the installation: without
//! it nobody can tell from an id what was said.
//!
//! A message that cannot be read in full (nested deeper than 128 levels, a
//! number beyond all ranges, half a surrogate pair) is hashed as the text it is.

use std::{borrow::Cow, fmt};

use hmac::{Hmac, KeyInit, Mac};
use nexus_events::{
    message::{EXTRAS, PART_EXTRAS},
    message_id::MessageId,
    raw_object::RawObject,
};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use sha2::Sha256;
use zeroize::Zeroizing;

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

fn part_extra(list: &str) -> Option<&'static str> {
    PART_EXTRAS
        .iter()
        .find(|(name, _)| *name == list)
        .map(|(_, extra)| *extra)
}

/// A JSON value in canonical form.
#[derive(Debug, PartialEq)]
enum Form<'a> {
    Null,
    Bool(bool),
    Integer(i128),
    /// A number with a fraction or an exponent, as the bits of its double.
    Double(u64),
    Text(Cow<'a, str>),
    List(Vec<Self>),
    /// Sorted by name; nothing empty in it.
    Object(Vec<(Cow<'a, str>, Self)>),
}

impl<'a> Form<'a> {
    fn members(&self) -> Option<&[(Cow<'a, str>, Self)]> {
        let Self::Object(members) = self else {
            return None;
        };
        Some(members)
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(_) | Self::Integer(_) | Self::Double(_) => false,
            Self::Text(text) => text.is_empty(),
            Self::List(items) => items.is_empty(),
            Self::Object(members) => members.is_empty(),
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.members()?.iter().find(|(member, _)| member == name)?;
        let Self::Text(text) = value else {
            return None;
        };
        Some(text)
    }

    fn any_item_has(&self, extra: &str) -> bool {
        let Self::List(items) = self else {
            return false;
        };
        items
            .iter()
            .filter_map(Self::members)
            .any(|members| members.iter().any(|(name, _)| name == extra))
    }

    /// The whole value.
    fn feed(&self, hash: &mut Hmac<Sha256>) {
        match self {
            Self::Null => hash.update(b"n"),
            Self::Bool(value) => hash.update(if *value { b"t" } else { b"f" }),
            Self::Integer(value) => {
                hash.update(b"i");
                hash.update(&value.to_le_bytes());
            }
            Self::Double(bits) => {
                hash.update(b"d");
                hash.update(&bits.to_le_bytes());
            }
            Self::Text(text) => feed_text(hash, b's', text),
            Self::List(items) => {
                feed_length(hash, b'l', items.len());
                for item in items {
                    item.feed(hash);
                }
            }
            Self::Object(members) => feed_members(hash, members, None),
        }
    }

    /// A message: the value without the extras of messages and of their parts.
    fn feed_message(&self, hash: &mut Hmac<Sha256>) {
        let Some(members) = self.members() else {
            return self.feed(hash);
        };
        let says = |name: &str| !EXTRAS.contains(&name);
        feed_length(
            hash,
            b'o',
            members.iter().filter(|(name, _)| says(name)).count(),
        );
        for (name, value) in members.iter().filter(|(name, _)| says(name)) {
            feed_text(hash, b'm', name);
            match (part_extra(name), value) {
                (Some(extra), Self::List(items)) => {
                    feed_length(hash, b'l', items.len());
                    for item in items {
                        match item.members() {
                            Some(members) => feed_members(hash, members, Some(extra)),
                            None => item.feed(hash),
                        }
                    }
                }
                _ => value.feed(hash),
            }
        }
    }
}

fn feed_members(
    hash: &mut Hmac<Sha256>,
    members: &[(Cow<'_, str>, Form<'_>)],
    without: Option<&str>,
) {
    let says = |name: &str| Some(name) != without;
    feed_length(
        hash,
        b'o',
        members.iter().filter(|(name, _)| says(name)).count(),
    );
    for (name, value) in members.iter().filter(|(name, _)| says(name)) {
        feed_text(hash, b'm', name);
        value.feed(hash);
    }
}

fn feed_length(hash: &mut Hmac<Sha256>, tag: u8, length: usize) {
    // A length in memory always fits into 64 bits.
    let length = u64::try_from(length).unwrap_or(u64::MAX);
    hash.update(&[tag]);
    hash.update(&length.to_le_bytes());
}

fn feed_text(hash: &mut Hmac<Sha256>, tag: u8, text: &str) {
    feed_length(hash, tag, text.len());
    hash.update(text.as_bytes());
}

impl<'de: 'a, 'a> Deserialize<'de> for Form<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyForm)
    }
}

struct AnyForm;

impl<'de> Visitor<'de> for AnyForm {
    type Value = Form<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Form::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Form::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Form::Integer(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Form::Integer(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Form::Double(value.to_bits()))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Form::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Form::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Form::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members: Vec<(Cow<'de, str>, Form<'de>)> = Vec::new();
        while let Some(Name(name)) = map.next_key()? {
            members.push((name, map.next_value()?));
        }
        // The sort is stable, so the last of equal names is the last that came.
        members.sort_by(|(one, _), (other, _)| one.cmp(other));
        members.reverse();
        members.dedup_by(|(one, _), (kept, _)| one == kept);
        members.reverse();
        members.retain(|(_, value)| !value.is_empty());
        Ok(Form::Object(members))
    }
}

/// A member's name, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests;
