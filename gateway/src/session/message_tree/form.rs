//! What of a JSON value is hashed; the parent's documentation has the rules.

use std::{borrow::Cow, fmt};

use hmac::{Hmac, Mac};
use nexus_events::message::{EXTRAS, PART_EXTRAS};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};
use sha2::Sha256;

use super::arguments;

/// The member that is an extra of that list's items.
pub(super) fn part_extra(list: &str) -> Option<&'static str> {
    PART_EXTRAS
        .iter()
        .find(|(name, _)| *name == list)
        .map(|(_, extra)| *extra)
}

/// A JSON value in canonical form.
#[derive(Debug, PartialEq)]
pub(super) enum Form<'a> {
    Null,
    Bool(bool),
    Integer(i128),
    /// A number with a fraction or an exponent, as the bits of its double.
    Double(u64),
    Text(Cow<'a, str>),
    List(Vec<Self>),
    /// Sorted by name; in a message nothing empty is in it.
    Object(Vec<(Cow<'a, str>, Self)>),
}

impl<'a> Form<'a> {
    pub(super) fn members(&self) -> Option<&[(Cow<'a, str>, Self)]> {
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

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.members()?.iter().find(|(member, _)| member == name)?;
        let Self::Text(text) = value else {
            return None;
        };
        Some(text)
    }

    pub(super) fn any_item_has(&self, extra: &str) -> bool {
        let Self::List(items) = self else {
            return false;
        };
        items
            .iter()
            .filter_map(Self::members)
            .any(|members| members.iter().any(|(name, _)| name == extra))
    }

    /// The whole value.
    pub(super) fn feed(&self, hash: &mut Hmac<Sha256>) {
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
            Self::Object(members) => feed_members(hash, members, Place::Value),
        }
    }

    /// A message: the value without extras, with the arguments of tool calls as what they say.
    pub(super) fn feed_message(&self, hash: &mut Hmac<Sha256>) {
        match self.members() {
            Some(members) => feed_members(hash, members, Place::Message),
            None => self.feed(hash),
        }
    }
}

/// What an object is within a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place<'a> {
    /// The message itself.
    Message,
    /// An item of that list of the message.
    Item(&'a str),
    /// What a tool call calls.
    Function,
    /// Anything else.
    Value,
}

impl<'a> Place<'a> {
    /// Whether a member of it is hashed.
    fn says(self, name: &str, value: &Form<'_>) -> bool {
        match (self, value) {
            (Self::Message, _) => !EXTRAS.contains(&name),
            (Self::Item(list), _) => part_extra(list) != Some(name),
            (Self::Function, Form::Text(text)) => {
                name != arguments::NAME || !arguments::are_none(text)
            }
            (Self::Function | Self::Value, _) => true,
        }
    }

    /// What the object in that member is.
    fn inside(self, name: &str) -> Self {
        match (self, name) {
            (Self::Message, "function_call") | (Self::Item("tool_calls"), "function") => {
                Self::Function
            }
            _ => Self::Value,
        }
    }

    /// What the items of the list in that member are.
    fn items(self, name: &'a str) -> Self {
        if self == Self::Message {
            Self::Item(name)
        } else {
            Self::Value
        }
    }
}

fn feed_members(hash: &mut Hmac<Sha256>, members: &[(Cow<'_, str>, Form<'_>)], place: Place<'_>) {
    let said = || {
        let all = members.iter();
        all.filter(|(name, value)| place.says(name, value))
    };
    feed_length(hash, b'o', said().count());
    for (name, value) in said() {
        feed_text(hash, b'm', name);
        match value {
            Form::Text(text) if place == Place::Function && name == arguments::NAME => {
                arguments::feed(hash, text);
            }
            _ if place == Place::Function && name == arguments::NAME => {
                arguments::feed_value(hash, value);
            }
            Form::Object(members) => feed_members(hash, members, place.inside(name)),
            Form::List(items) => match only_text(name, items).filter(|_| place == Place::Message) {
                Some(text) => feed_text(hash, b's', text),
                None => feed_items(hash, items, place.items(name)),
            },
            Form::Null | Form::Bool(_) | Form::Integer(_) | Form::Double(_) | Form::Text(_) => {
                value.feed(hash);
            }
        }
    }
}

fn feed_items(hash: &mut Hmac<Sha256>, items: &[Form<'_>], place: Place<'_>) {
    feed_length(hash, b'l', items.len());
    for item in items {
        match item.members() {
            Some(members) => feed_members(hash, members, place),
            None => item.feed(hash),
        }
    }
}

/// The text of a content that is one part of text and says nothing else.
fn only_text<'a>(name: &str, items: &'a [Form<'_>]) -> Option<&'a str> {
    let [part] = items else { return None };
    let extra = part_extra(name);
    let others = part.members()?.iter().filter(|(member, _)| {
        let member: &str = member;
        member != "type" && member != "text" && Some(member) != extra
    });
    let is_text = name == "content" && part.text("type") == Some("text") && others.count() == 0;
    part.text("text").filter(|_| is_text)
}

fn feed_length(hash: &mut Hmac<Sha256>, tag: u8, length: usize) {
    // A length in memory always fits into 64 bits.
    let length = u64::try_from(length).unwrap_or(u64::MAX);
    hash.update(&[tag]);
    hash.update(&length.to_le_bytes());
}

/// Text, with its length and what it is.
pub(super) fn feed_text(hash: &mut Hmac<Sha256>, tag: u8, text: &str) {
    feed_length(hash, tag, text.len());
    hash.update(text.as_bytes());
}

impl<'de: 'a, 'a> Deserialize<'de> for Form<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Reading::Message.deserialize(deserializer)
    }
}

/// By whose rules a value is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// Those of a message.
    Message,
    /// Those of the arguments of a tool call.
    Arguments,
}

impl<'de> DeserializeSeed<'de> for Reading {
    type Value = Form<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reading {
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
        Ok(match self {
            Self::Message => Form::Double(value.to_bits()),
            Self::Arguments => arguments::number(value),
        })
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Form::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Form::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Form::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members: Vec<(Cow<'de, str>, Form<'de>)> = Vec::new();
        while let Some(Name(name)) = map.next_key()? {
            // Wherever they stand: nothing else of a message has such a member.
            let rules = if name == arguments::NAME {
                Self::Arguments
            } else {
                self
            };
            members.push((name, map.next_value_seed(rules)?));
        }
        // The sort is stable, so the last of equal names is the last that came.
        members.sort_by(|(one, _), (other, _)| one.cmp(other));
        members.reverse();
        members.dedup_by(|(one, _), (kept, _)| one == kept);
        members.reverse();
        if self == Self::Message {
            members.retain(|(_, value)| !value.is_empty());
        }
        Ok(Form::Object(members))
    }
}

/// A member's name, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
