//! A chat request: checked where the hub depends on it, raw everywhere else.

use std::borrow::Cow;

use bytes::Bytes;
use nexus_events::raw_object::RawObject;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Text, is_null};
use crate::protocol::{at_most::AtMost, readable};

/// Members of a request's body: 128, four times what the API has.
///
/// They are compared with each other to find a name that comes twice.
pub const MEMBERS_MAX: usize = 128;

/// Messages of one request: 10 000.
///
/// The longest agent sessions seen have some hundreds; each message costs a
/// hash, a node of the tree and 35 bytes of `received`.
pub const MESSAGES_MAX: usize = 10_000;

/// Characters of a model's name or of `user`: 256; both are repeated in every event of a request.
pub const NAME_CHARS_MAX: usize = 256;

/// The older and the newer name of the most tokens that an answer may have.
pub const BOUNDS: [&str; 2] = ["max_tokens", "max_completion_tokens"];

/// A chat request that can be routed and recorded.
#[derive(Debug)]
pub struct ChatRequest<'a> {
    /// Every member of the body as it came, `model` and `messages` too.
    pub members: RawObject<'a>,
    /// The model that the client asks for.
    pub model: Cow<'a, str>,
    /// The messages, each an object with a `role`.
    pub messages: Vec<&'a RawValue>,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// Whether the client asked for a chunk with the usage.
    pub include_usage: bool,
    /// The end user that the client names.
    pub user: Option<Cow<'a, str>>,
}

/// A body that is no chat request: what to tell the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read the request: {message}")]
pub struct BadRequest {
    /// The member that is wrong, as a path such as `messages[2].role`.
    pub param: Option<String>,
    /// The sentence for the client.
    pub message: String,
}

impl BadRequest {
    /// A member is wrong.
    pub fn new(param: &str, message: impl Into<String>) -> Self {
        Self {
            param: Some(param.to_owned()),
            message: message.into(),
        }
    }
}

impl<'a> ChatRequest<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// [`BadRequest`]: it is no JSON object, names a member twice, lacks what
    /// is required, holds a wrong type or exceeds a bound.
    pub fn parse(body: &'a [u8]) -> Result<Self, BadRequest> {
        let members = members(body)?;
        let model = model(&members)?;
        let options = stream_options(&members)?;
        let user = member::<Text<'_>>(&members, "user", "a string")?.map(|text| text.0);
        bounded("user", user.as_ref())?;
        Ok(Self {
            messages: messages(&members)?,
            stream: member(&members, "stream", "a boolean")?.unwrap_or(false),
            include_usage: options.and_then(|options| options.include_usage) == Some(true),
            members,
            model,
            user,
        })
    }

    /// The body for a provider that knows the model by another name.
    ///
    /// The very bytes of the client where nothing has to change; else a copy
    /// with the model's name replaced and, for a stream, the usage asked for.
    pub fn body_for(&self, body: &Bytes, model: &str) -> Bytes {
        self.written(body, model, None)
    }

    /// The same for a provider that had better not see one of the [`BOUNDS`]: that one is left out
    /// where the other says the same.
    pub fn body_bounded(&self, body: &Bytes, model: &str, other: &'static str) -> Bytes {
        let [one, another] = BOUNDS.map(|name| self.members.get(name).map(RawValue::get));
        let is_said_twice = one.is_some() && one == another;
        self.written(body, model, is_said_twice.then_some(other))
    }

    fn written(&self, body: &Bytes, model: &str, left_out: Option<&str>) -> Bytes {
        let ask_usage = self.stream && !self.include_usage;
        if model == self.model && !ask_usage && left_out.is_none() {
            return body.clone();
        }
        let mut out = Vec::with_capacity(body.len() + model.len() + 64);
        out.push(b'{');
        for (name, value) in self.members.iter() {
            if (name == "stream_options" && ask_usage) || left_out == Some(name) {
                continue;
            }
            if out.len() > 1 {
                out.push(b',');
            }
            write_json(&mut out, name);
            out.push(b':');
            if name == "model" {
                write_json(&mut out, model);
            } else {
                out.extend_from_slice(value.get().as_bytes());
            }
        }
        if ask_usage {
            out.extend_from_slice(br#","stream_options":"#);
            self.write_stream_options(&mut out);
        }
        out.push(b'}');
        out.into()
    }

    /// The client's stream options with `include_usage` set.
    fn write_stream_options(&self, out: &mut Vec<u8>) {
        let options = self.members.get("stream_options");
        let options = options.and_then(|raw| RawObject::parse(raw.get().as_bytes()).ok());
        out.push(b'{');
        for (name, value) in options.iter().flat_map(RawObject::iter) {
            if name != "include_usage" {
                write_json(out, name);
                out.push(b':');
                out.extend_from_slice(value.get().as_bytes());
                out.push(b',');
            }
        }
        out.extend_from_slice(br#""include_usage":true}"#);
    }
}

/// The members of a request's body.
///
/// # Errors
/// [`BadRequest`]: it is no JSON object, names a member twice, has too many, or
/// holds what some reader could not read.
pub fn members(body: &[u8]) -> Result<RawObject<'_>, BadRequest> {
    let members = readable::object(body).map_err(|message| BadRequest {
        param: None,
        message,
    })?;
    refuse_ambiguity(&members)?;
    refuse_unreadable(&members)?;
    Ok(members)
}

/// The model that a request asks for.
///
/// # Errors
/// [`BadRequest`]: it is absent, empty, too long or no string.
pub fn model<'a>(members: &RawObject<'a>) -> Result<Cow<'a, str>, BadRequest> {
    let model = match member::<Text<'_>>(members, "model", "a string")? {
        Some(Text(model)) if !model.is_empty() => model,
        Some(_) => return Err(BadRequest::new("model", "`model` must not be empty.")),
        None => return Err(BadRequest::new("model", "`model` is required.")),
    };
    bounded("model", Some(&model))?;
    Ok(model)
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

fn stream_options(members: &RawObject<'_>) -> Result<Option<StreamOptions>, BadRequest> {
    match members.get("stream_options") {
        // Serde would read a struct from an array as well.
        Some(raw) if !raw.get().starts_with('{') && !is_null(raw) => Err(BadRequest::new(
            "stream_options",
            "`stream_options` must be an object.",
        )),
        _ => {
            let expected = "an object in which `include_usage` is a boolean";
            member(members, "stream_options", expected)
        }
    }
}

/// Reads a member; `None` when it is absent or null.
pub(super) fn member<'a, T: Deserialize<'a>>(
    members: &RawObject<'a>,
    name: &str,
    expected: &str,
) -> Result<Option<T>, BadRequest> {
    members
        .get(name)
        .filter(|raw| !is_null(raw))
        .map(|raw| serde_json::from_str(raw.get()))
        .transpose()
        .map_err(|_rust_names: serde_json::Error| {
            BadRequest::new(name, format!("`{name}` must be {expected}."))
        })
}

fn messages<'a>(members: &RawObject<'a>) -> Result<Vec<&'a RawValue>, BadRequest> {
    #[derive(Deserialize)]
    struct Role<'a> {
        #[serde(borrow)]
        role: Text<'a>,
    }
    let AtMost::<&'a RawValue, MESSAGES_MAX>(messages) =
        member(members, "messages", "an array of objects")?
            .ok_or_else(|| BadRequest::new("messages", "`messages` is required."))?;
    if messages.is_empty() {
        return Err(BadRequest::new("messages", "`messages` must not be empty."));
    }
    if messages.len() > MESSAGES_MAX {
        let message = format!("`messages` must not have more than {MESSAGES_MAX} entries.");
        return Err(BadRequest::new("messages", message));
    }
    for (index, message) in messages.iter().enumerate() {
        if !message.get().starts_with('{') {
            let message = format!("`messages[{index}]` must be an object.");
            return Err(BadRequest::new(&format!("messages[{index}]"), message));
        }
        let role = serde_json::from_str::<Role<'_>>(message.get());
        if !role.is_ok_and(|role| !role.role.0.is_empty()) {
            let param = format!("messages[{index}].role");
            let message = format!("`{param}` must be a string that is not empty.");
            return Err(BadRequest::new(&param, message));
        }
    }
    Ok(messages)
}

/// A body that names a member twice means one thing to one reader and another to the next: what
/// the hub authorises and records could differ from what the provider does.
fn refuse_ambiguity(members: &RawObject<'_>) -> Result<(), BadRequest> {
    let names: Vec<&str> = members
        .iter()
        .map(|(name, _)| name)
        .take(MEMBERS_MAX + 1)
        .collect();
    if names.len() > MEMBERS_MAX {
        return Err(BadRequest {
            param: None,
            message: format!("The body must not have more than {MEMBERS_MAX} members."),
        });
    }
    for (index, name) in names.iter().enumerate() {
        if names.iter().take(index).any(|earlier| earlier == name) {
            let param: String = name.chars().take(NAME_CHARS_MAX).collect();
            let message = format!("`{param}` is given twice.");
            return Err(BadRequest::new(&param, message));
        }
    }
    Ok(())
}

/// What some reader of the log could not read has no place in it.
fn refuse_unreadable(members: &RawObject<'_>) -> Result<(), BadRequest> {
    for (name, value) in members.iter() {
        if let Err(error) = readable::check(value) {
            let param: String = name.chars().take(NAME_CHARS_MAX).collect();
            let message = format!("`{param}` cannot be read: {}.", readable::words(&error));
            return Err(BadRequest::new(&param, message));
        }
    }
    Ok(())
}

pub(super) fn bounded(name: &str, value: Option<&Cow<'_, str>>) -> Result<(), BadRequest> {
    match value {
        Some(value) if value.chars().nth(NAME_CHARS_MAX).is_some() => {
            let message = format!("`{name}` must not be longer than {NAME_CHARS_MAX} characters.");
            Err(BadRequest::new(name, message))
        }
        _ => Ok(()),
    }
}

fn write_json(out: &mut Vec<u8>, text: &str) {
    // Writing a string to a Vec cannot fail.
    serde_json::to_writer(out, text).unwrap_or_default();
}

#[cfg(test)]
mod tests;
