//! Merging pieces of JSON; see the parent's doc for the rules.

use std::borrow::Cow;

use nexus_events::raw_object::RawObject;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::value::RawValue;

use super::AnswerTooLarge;
use crate::protocol::openai::{is_null, text};

/// Depth to which pieces are merged: 8; what lies deeper is replaced. Messages nest four deep.
const DEPTH_MAX: u32 = 8;

/// Members of one object: 1 024; a message has some ten. A delta's members are looked for one by one.
const MEMBERS_MAX: usize = 1_024;

/// Items of one list that deltas may go on with: 4 096, more calls than any model makes. They are
/// looked for one by one as well.
const CONTINUED_MAX: usize = 4_096;

/// The member of a call that is a text of JSON, or with some servers the JSON itself.
const ARGUMENTS: &str = "arguments";

/// What a member or a list item costs beside its text: about 96 bytes, so that many tiny ones
/// count as what they take.
const PIECE_BYTES: usize = 96;

/// Members of an object, put together so far, in the order in which they first came.
#[derive(Debug, Default)]
pub(super) struct Members(Vec<(String, Piece)>);

/// A value, put together so far.
#[derive(Debug)]
enum Piece {
    Text(String),
    Object(Members),
    List(Vec<Item>),
    /// A number, a boolean, or what lies too deep.
    Other(Box<RawValue>),
}

/// An item of a list.
#[derive(Debug)]
struct Item {
    /// The index that its pieces name; it says where they belong and is no part of the item.
    index: Option<u64>,
    piece: Piece,
}

/// What merging a delta can cost at most, in bytes.
pub(super) fn size(delta: &RawObject<'_>) -> usize {
    delta
        .iter()
        .map(|(_, raw)| {
            let bytes = raw.get();
            // Plain text is appended; anything else may become pieces, one for each colon or comma.
            if bytes.starts_with('"') {
                bytes.len()
            } else {
                let pieces = memchr::memchr2_iter(b':', b',', bytes.as_bytes()).count();
                bytes.len() + pieces.saturating_add(1).saturating_mul(PIECE_BYTES)
            }
        })
        .fold(0, usize::saturating_add)
}

impl Members {
    /// Merges the members of a delta.
    ///
    /// # Errors
    /// [`AnswerTooLarge`]: what is merged has too many parts; some of them may be merged already.
    pub(super) fn merge(&mut self, delta: &RawObject<'_>) -> Result<(), AnswerTooLarge> {
        self.merge_at(delta, 0)
    }

    fn merge_at(&mut self, delta: &RawObject<'_>, depth: u32) -> Result<(), AnswerTooLarge> {
        for (name, raw) in delta.iter().filter(|(_, raw)| !is_null(raw)) {
            let is_full = self.0.len() >= MEMBERS_MAX;
            match self.0.iter_mut().find(|(known, _)| known == name) {
                Some((_, piece)) => piece.merge(name, raw, depth)?,
                None if is_full => return Err(AnswerTooLarge),
                None => {
                    let piece = Piece::new(name, raw, depth)?;
                    self.0.push((name.to_owned(), piece));
                }
            }
        }
        Ok(())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|(known, piece)| match piece {
            Piece::Text(text) if known == name => Some(text.as_str()),
            Piece::Text(_) | Piece::Object(_) | Piece::List(_) | Piece::Other(_) => None,
        })
    }
}

impl Piece {
    fn new(name: &str, raw: &RawValue, depth: u32) -> Result<Self, AnswerTooLarge> {
        let mut piece = match raw.get().as_bytes().first() {
            Some(b'"') => Self::Text(String::new()),
            // Arguments that come as a value come whole, and null in them says something.
            _ if name == ARGUMENTS => return Ok(Self::Other(raw.to_owned())),
            Some(b'{') if depth < DEPTH_MAX => Self::Object(Members::default()),
            Some(b'[') if depth < DEPTH_MAX => Self::List(Vec::new()),
            _ => return Ok(Self::Other(raw.to_owned())),
        };
        piece.merge(name, raw, depth)?;
        Ok(piece)
    }

    fn merge(&mut self, name: &str, raw: &RawValue, depth: u32) -> Result<(), AnswerTooLarge> {
        match self {
            Self::Text(so_far) => match text(raw) {
                Some(more) => append(so_far, name, &more),
                None => *self = Self::new(name, raw, depth)?,
            },
            Self::Object(members) => match RawObject::parse(raw.get().as_bytes()) {
                Ok(delta) => members.merge_at(&delta, depth + 1)?,
                Err(_) => *self = Self::new(name, raw, depth)?,
            },
            Self::List(items) => match serde_json::from_str::<Vec<&RawValue>>(raw.get()) {
                Ok(more) => {
                    for item in more {
                        merge_item(items, name, item, depth + 1)?;
                    }
                }
                Err(_) => *self = Self::new(name, raw, depth)?,
            },
            // Nothing more, where a value was all of it.
            Self::Other(_) if name == ARGUMENTS && raw.get() == "\"\"" => {}
            Self::Other(_) => *self = Self::new(name, raw, depth)?,
        }
        Ok(())
    }
}

/// Appends text, or replaces it where the member only names a thing.
fn append(so_far: &mut String, name: &str, more: &str) {
    match name {
        "id" | "type" | "role" => {
            if !more.is_empty() {
                more.clone_into(so_far);
            }
        }
        // Some servers repeat a function's name in every chunk.
        "name" if so_far == more => {}
        _ => so_far.push_str(more),
    }
}

/// Merges a list item into the one that it continues, or appends it.
fn merge_item(
    items: &mut Vec<Item>,
    list: &str,
    raw: &RawValue,
    depth: u32,
) -> Result<(), AnswerTooLarge> {
    let Ok(mut delta) = RawObject::parse(raw.get().as_bytes()) else {
        let piece = Piece::new("", raw, depth)?;
        items.push(Item { index: None, piece });
        return Ok(());
    };
    let index = delta.get("index").and_then(|raw| raw.get().parse().ok());
    if index.is_some() {
        delta.retain(|name, _| name != "index");
    }
    // A list whose items nothing goes on with is not looked through, so it may be as long as it is.
    if index.is_some() || list == "tool_calls" {
        let known = items.len();
        let continued = items.iter_mut().rev().find(|item| match index {
            Some(_) => item.index == index,
            None => continues(item, &delta),
        });
        if let Some(Piece::Object(members)) = continued.map(|item| &mut item.piece) {
            return members.merge_at(&delta, depth);
        }
        if known >= CONTINUED_MAX {
            return Err(AnswerTooLarge);
        }
    }
    let mut members = Members::default();
    members.merge_at(&delta, depth)?;
    let piece = Piece::Object(members);
    items.push(Item { index, piece });
    Ok(())
}

/// Whether a piece of a tool call without an index continues that call.
///
/// Some servers leave the index out: a piece without an id goes on with the
/// last call, one with an id with the call of that id.
fn continues(call: &Item, delta: &RawObject<'_>) -> bool {
    let id = delta.get("id").and_then(text).unwrap_or(Cow::Borrowed(""));
    match &call.piece {
        Piece::Object(members) => id.is_empty() || members.text("id") == Some(&id),
        Piece::Text(_) | Piece::List(_) | Piece::Other(_) => false,
    }
}

impl Serialize for Members {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, piece) in &self.0 {
            map.serialize_entry(name, piece)?;
        }
        map.end()
    }
}

impl Serialize for Piece {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Object(members) => members.serialize(serializer),
            Self::List(items) => serializer.collect_seq(items.iter().map(|item| &item.piece)),
            Self::Other(raw) => raw.serialize(serializer),
        }
    }
}
