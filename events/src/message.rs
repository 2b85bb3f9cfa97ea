//! What of a message is no part of its id, and how a request is put together again.
//!
//! A message's id stands for what the message says. Some members say nothing:
//! a provider adds them to its answer, and the client may or may not send them
//! back with the history. If they counted, an answer and its repetition would
//! be two nodes of the tree and every turn would store its whole history
//! again. They are the *extras*: a closed list, kept out of the id and out of
//! the stored message, and recorded for each request that carries them.
//!
//! A node may have been stored from an answer, extras and all, so whoever puts
//! a request together takes the node's own extras off first; [`put_together`]
//! does.

use std::borrow::Cow;

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

use crate::{exchange_event::RequestContent, raw_object::RawObject};

/// Members of a message that are extras.
///
/// Reasoning in the spellings of its vendors (most refuse or ignore it when it
/// comes back, so most clients drop it), what a search or a voice added to the
/// text, what a proxy added, and prompt-cache marks, which wander from message
/// to message as a conversation grows.
pub const EXTRAS: [&str; 8] = [
    "annotations",
    "audio",
    "cache_control",
    "provider_specific_fields",
    "reasoning",
    "reasoning_content",
    "reasoning_details",
    "thinking_blocks",
];

/// Extras one level down: the list that the object stands in, and the member.
///
/// A cache mark on a part of the content, and the place of a tool call, which
/// comes with streamed deltas and from some providers' whole answers.
pub const PART_EXTRAS: [(&str, &str); 2] = [("content", "cache_control"), ("tool_calls", "index")];

/// A message and its extras, apart.
#[derive(Clone, Debug)]
pub struct Split<'a> {
    /// The message without extras; the very text where it has none.
    pub message: Cow<'a, RawValue>,
    /// The extras that say something, as an object; those of list items under the list's name
    /// and the item's index.
    pub extras: Option<Box<RawValue>>,
}

/// Why a request cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum PutTogetherError {
    /// A stored message is no JSON object, or its extras are none.
    #[error("read a stored message")]
    Malformed(#[from] serde_json::Error),
    /// A system message stands at a place that the request does not have.
    #[error("the places of the system messages do not fit {messages} messages")]
    Places {
        /// Number of messages that the request has.
        messages: usize,
    },
}

/// Takes the extras off a message.
///
/// # Errors
/// The message is no JSON object.
pub fn split(message: &RawValue) -> Result<Split<'_>, serde_json::Error> {
    let members = RawObject::parse(message.get().as_bytes())?;
    let mut kept = Members::default();
    let mut extras = Members::default();
    let mut changed = false;
    for (name, value) in members.iter() {
        if EXTRAS.contains(&name) {
            changed = true;
            extras.push(name, Cow::Borrowed(value));
        } else if let Some(list) = split_list(name, value)? {
            changed = true;
            kept.push(name, Cow::Owned(list.message));
            if let Some(list_extras) = list.extras {
                extras.push(name, Cow::Owned(list_extras));
            }
        } else {
            kept.push(name, Cow::Borrowed(value));
        }
    }
    let message = if changed {
        Cow::Owned(to_raw_value(&kept)?)
    } else {
        Cow::Borrowed(message)
    };
    Ok(Split {
        message,
        extras: extras.unless_empty()?,
    })
}

/// Puts a message and the extras of one request together; the message's own extras give way.
///
/// # Errors
/// One of them is no JSON object.
pub fn join<'a>(
    message: &'a RawValue,
    extras: Option<&RawValue>,
) -> Result<Cow<'a, RawValue>, serde_json::Error> {
    let bare = split(message)?.message;
    let Some(extras) = extras else {
        return Ok(bare);
    };
    let mut whole: Value = serde_json::from_str(bare.get())?;
    merge(&mut whole, serde_json::from_str(extras.get())?);
    to_raw_value(&whole).map(Cow::Owned)
}

/// The message list of a request, equal to what was sent but for null and empty members.
///
/// The arguments of tool calls are spelled as they came first, and so a single text stands alone or as a part of a
/// list.
///
/// `path` holds the messages from the root to the request's `parent`, `system`
/// the system and developer messages in full (those of the earlier request
/// where `content` only names it).
///
/// # Errors
/// [`PutTogetherError`].
pub fn put_together<'a>(
    path: &[&'a RawValue],
    system: &[(u32, &'a RawValue)],
    content: &RequestContent<'a>,
) -> Result<Vec<Cow<'a, RawValue>>, PutTogetherError> {
    let messages = path.len() + content.messages.len() + system.len();
    let mut others = path.iter().chain(&content.messages);
    let mut request = Vec::with_capacity(messages);
    for place in 0..messages {
        let fixed = system
            .iter()
            .find(|(at, _)| usize::try_from(*at) == Ok(place));
        let whole = if let Some((_, message)) = fixed {
            Cow::Borrowed(*message)
        } else {
            let message = others.next().ok_or(PutTogetherError::Places { messages })?;
            join(message, content.extras.get(&place.to_string()))?
        };
        request.push(whole);
    }
    Ok(request)
}

/// Whether a value says nothing: null, or empty text, list or object.
pub fn is_empty(value: &RawValue) -> bool {
    let text = value.get();
    let inside = |open, close| {
        let inner = text.strip_prefix(open)?.strip_suffix(close)?;
        Some(inner.trim().is_empty())
    };
    text == "null" || text == "\"\"" || inside('[', ']').or_else(|| inside('{', '}')) == Some(true)
}

/// A list without the extras of its items, and those extras.
struct SplitList {
    message: Box<RawValue>,
    extras: Option<Box<RawValue>>,
}

/// `None` where the list has no extras, or is no list.
fn split_list(name: &str, value: &RawValue) -> Result<Option<SplitList>, serde_json::Error> {
    let Some((_, extra)) = PART_EXTRAS.iter().find(|(list, _)| *list == name) else {
        return Ok(None);
    };
    let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(value.get()) else {
        return Ok(None);
    };
    let mut kept: Vec<Cow<'_, RawValue>> = Vec::with_capacity(items.len());
    let mut extras = Members::default();
    let mut changed = false;
    for (index, item) in items.into_iter().enumerate() {
        let found = RawObject::parse(item.get().as_bytes())
            .ok()
            .and_then(|members| members.get(extra).map(|value| (members, value)));
        let Some((mut members, value)) = found else {
            kept.push(Cow::Borrowed(item));
            continue;
        };
        changed = true;
        members.retain(|member, _| member != *extra);
        kept.push(Cow::Owned(to_raw_value(&members)?));
        let mut own = Members::default();
        own.push(extra, Cow::Borrowed(value));
        if let Some(own) = own.unless_empty()? {
            extras.push(&index.to_string(), Cow::Owned(own));
        }
    }
    if !changed {
        return Ok(None);
    }
    Ok(Some(SplitList {
        message: to_raw_value(&kept)?,
        extras: extras.unless_empty()?,
    }))
}

/// Lays `patch` over `target`: objects member by member, lists by the index that names a member.
fn merge(target: &mut Value, patch: Value) {
    match (&mut *target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (name, value) in patch {
                merge(target.entry(name).or_insert(Value::Null), value);
            }
        }
        (Value::Array(target), Value::Object(patch)) => {
            for (index, value) in patch {
                let item = index.parse::<usize>().ok();
                if let Some(item) = item.and_then(|index| target.get_mut(index)) {
                    merge(item, value);
                }
            }
        }
        // The extra of a part, where the text came without a list at first.
        (Value::String(text), Value::Object(patch)) => {
            let part = serde_json::json!({"type": "text", "text": text});
            let mut list = Value::Array(vec![part]);
            merge(&mut list, Value::Object(patch));
            *target = list;
        }
        (_, patch) => *target = patch,
    }
}

/// Members of an object that is being written.
#[derive(Default)]
struct Members<'a>(Vec<(String, Cow<'a, RawValue>)>);

impl<'a> Members<'a> {
    fn push(&mut self, name: &str, value: Cow<'a, RawValue>) {
        self.0.push((name.to_owned(), value));
    }

    /// The object without members that say nothing; `None` where none is left.
    fn unless_empty(mut self) -> Result<Option<Box<RawValue>>, serde_json::Error> {
        self.0.retain(|(_, value)| !is_empty(value));
        if self.0.is_empty() {
            return Ok(None);
        }
        to_raw_value(&self).map(Some)
    }
}

impl Serialize for Members<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::exchange_event::SystemMessages;

    fn raw(value: &Value) -> Box<RawValue> {
        to_raw_value(value).unwrap()
    }

    fn value(raw: &RawValue) -> Value {
        serde_json::from_str(raw.get()).unwrap()
    }

    #[test]
    fn a_message_without_extras_stays_the_very_text() {
        let message =
            RawValue::from_string(r#"{"role": "user", "content":[{"type":"text"}]}"#.into());
        let message = message.unwrap();
        let split = split(&message).unwrap();
        assert!(matches!(split.message, Cow::Borrowed(_)));
        assert!(split.extras.is_none());
    }

    #[test]
    fn extras_come_off_at_both_levels_and_go_back_on() {
        let sent = json!({
            "role": "assistant",
            "content": [{"type": "text", "text": "a"},
                        {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}}],
            "tool_calls": [{"index": 0, "id": "c1", "type": "function"}],
            "reasoning_content": "let me think",
            "annotations": [],
        });
        let message = raw(&sent);
        let split = split(&message).unwrap();
        assert_eq!(
            value(&split.message),
            json!({
                "role": "assistant",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
                "tool_calls": [{"id": "c1", "type": "function"}],
            })
        );
        let extras = split.extras.unwrap();
        assert_eq!(
            value(&extras),
            json!({
                "content": {"1": {"cache_control": {"type": "ephemeral"}}},
                "tool_calls": {"0": {"index": 0}},
                "reasoning_content": "let me think",
            })
        );
        let mut expected = sent;
        expected.as_object_mut().unwrap().remove("annotations");
        assert_eq!(
            value(&join(&split.message, Some(&extras)).unwrap()),
            expected
        );
    }

    #[test]
    fn a_mark_goes_back_on_a_text_that_came_without_a_list() {
        let stored = raw(&json!({"role": "user", "content": "a"}));
        let mark = json!({"content": {"0": {"cache_control": {"type": "ephemeral"}}}});
        let joined = join(&stored, Some(&raw(&mark))).unwrap();
        assert_eq!(
            value(&joined),
            json!({
                "role": "user",
                "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}],
            })
        );
    }

    #[test]
    fn a_request_is_put_together_from_path_messages_system_and_extras() {
        let hello = raw(&json!({"role": "user", "content": "hello"}));
        // Stored from the provider's answer, with reasoning that this request does not send back.
        let answer = raw(&json!({"role": "assistant", "content": "hi", "reasoning": "greet"}));
        let next = raw(&json!({"role": "user", "content": "next"}));
        let rules = raw(&json!({"role": "system", "content": "be kind"}));
        let late = raw(&json!({"role": "developer", "content": "be short"}));
        let mark = raw(&json!({"cache_control": {"type": "ephemeral"}}));
        let mut extras = RawObject::default();
        extras.push("3", &mark);
        let content = RequestContent {
            messages: vec![&next],
            system: SystemMessages::Full(vec![(0, &rules), (4, &late)]),
            extras,
            parameters: RawObject::default(),
        };
        let system: [(u32, &RawValue); 2] = [(0, &rules), (4, &late)];
        let request = put_together(&[&hello, &answer], &system, &content).unwrap();
        let request: Vec<Value> = request.iter().map(|message| value(message)).collect();
        assert_eq!(
            request,
            [
                json!({"role": "system", "content": "be kind"}),
                json!({"role": "user", "content": "hello"}),
                json!({"role": "assistant", "content": "hi"}),
                json!({"role": "user", "content": "next", "cache_control": {"type": "ephemeral"}}),
                json!({"role": "developer", "content": "be short"}),
            ]
        );
        let beyond: [(u32, &RawValue); 1] = [(9, &rules)];
        assert!(matches!(
            put_together(&[&hello], &beyond, &content),
            Err(PutTogetherError::Places { messages: 3 })
        ));
    }

    #[test]
    fn what_says_nothing_is_known_in_every_spelling() {
        for text in ["null", "\"\"", "[]", "[ ]", "{}", "{\n}"] {
            let value = RawValue::from_string(text.into()).unwrap();
            assert!(is_empty(&value), "{text}");
        }
        for text in ["0", "false", "\" \"", "[null]", "{\"a\":null}"] {
            let value = RawValue::from_string(text.into()).unwrap();
            assert!(!is_empty(&value), "{text}");
        }
    }
}
