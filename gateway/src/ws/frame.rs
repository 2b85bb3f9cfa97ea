//! The frames of `/ws/chat`, both ways.
//!
//! From the client: `{"type": "chat", "id", "body", "conversation_id"?}` with a
//! chat request as `body`; `{"type": "cancel", "id"}`; `{"type": "ping"}`; and
//! without a `type` the simple form `{"message", "model_name", "provider_id"?,
//! "conversation_id"?, "id"?}`, which asks for a stream.
//!
//! To the client: `started` with the ids of request and conversation and with
//! what HTTP tells in headers (how the limits stand, what the cache did), then
//! `chunk`s with their number or one `answer`, then `done`; or `error` in place
//! of what is missing, with the status that HTTP would have answered with and
//! when to come back. An error that belongs to no request has no `id`, one that
//! breaks an answer off has no status.

use std::borrow::Cow;

use axum::extract::ws::Utf8Bytes;
use bytes::Bytes;
use nexus_events::{
    id::{ConversationId, RequestId},
    raw_object::RawObject,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{json, value::RawValue};

use super::told::Limits;
use crate::error::ApiError;

/// The `id` of a request has at most 128 characters.
const ID_CHARS_MAX: usize = 128;

/// A frame of the client.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A request.
    Chat(Chat),
    /// The end of one.
    Cancel(String),
    /// A question whether anybody is there.
    Ping,
}

/// A request.
#[derive(Debug)]
pub(super) struct Chat {
    /// What the client calls it; unset: it gets the request's own id.
    pub(super) id: Option<String>,
    /// The chat request.
    pub(super) body: Bytes,
    /// The conversation that it names.
    pub(super) conversation: Option<ConversationId>,
    /// The provider that it names, by id or name.
    pub(super) provider: Option<String>,
}

/// What is wrong with a frame, and which request it was about, as far as that could be read.
#[derive(Debug)]
pub(super) struct BadFrame {
    pub(super) id: Option<String>,
    pub(super) error: Box<ApiError>,
}

impl Incoming {
    /// Reads a frame.
    pub(super) fn parse(text: &str) -> Result<Self, BadFrame> {
        let frame = RawObject::parse(text.as_bytes()).map_err(|error| BadFrame {
            id: None,
            error: Box::new(ApiError::invalid_request(
                None,
                format!("The frame is not a JSON object: {error}."),
            )),
        })?;
        let id = id(&frame).map_err(|error| BadFrame {
            id: None,
            error: Box::new(error),
        })?;
        Self::read(&frame, id.clone()).map_err(|error| BadFrame {
            id,
            error: Box::new(error),
        })
    }

    fn read(frame: &RawObject<'_>, id: Option<String>) -> Result<Self, ApiError> {
        let kind: Option<String> = member(frame, "type", "a string")?;
        match kind.as_deref() {
            Some("chat") => {
                only(
                    frame,
                    &["type", "id", "body", "conversation_id", "provider_id"],
                )?;
                let body = frame
                    .get("body")
                    .ok_or_else(|| wrong("body", "is required: a chat request"))?;
                Ok(Self::Chat(Chat {
                    body: Bytes::copy_from_slice(body.get().as_bytes()),
                    ..Chat::of(frame, id)?
                }))
            }
            Some("cancel") => {
                only(frame, &["type", "id"])?;
                id.map(Self::Cancel)
                    .ok_or_else(|| wrong("id", "is required: which request to cancel"))
            }
            Some("ping") => Ok(Self::Ping),
            Some(_) => Err(wrong("type", "must be one of: chat, cancel, ping")),
            None => {
                only(
                    frame,
                    &[
                        "id",
                        "message",
                        "model_name",
                        "provider_id",
                        "conversation_id",
                    ],
                )?;
                let message: String = member(frame, "message", "a string")?
                    .ok_or_else(|| wrong("message", "is required, or `type` with a `body`"))?;
                let model: String = member(frame, "model_name", "a string")?
                    .ok_or_else(|| wrong("model_name", "is required"))?;
                let body = json!({
                    "model": model,
                    "messages": [{"role": "user", "content": message}],
                    "stream": true,
                });
                Ok(Self::Chat(Chat {
                    body: Bytes::from(body.to_string()),
                    ..Chat::of(frame, id)?
                }))
            }
        }
    }
}

impl Chat {
    fn of(frame: &RawObject<'_>, id: Option<String>) -> Result<Self, ApiError> {
        Ok(Self {
            id,
            body: Bytes::new(),
            conversation: member(frame, "conversation_id", "a UUID")?,
            provider: member(frame, "provider_id", "a string")?,
        })
    }
}

fn id(frame: &RawObject<'_>) -> Result<Option<String>, ApiError> {
    let id: Option<String> = member(frame, "id", "a string")?;
    match &id {
        Some(text) if text.is_empty() || text.chars().count() > ID_CHARS_MAX => {
            Err(wrong("id", "must have 1 to 128 characters"))
        }
        _ => Ok(id),
    }
}

/// A member; `None` when it is not there or `null`.
fn member<T: DeserializeOwned>(
    frame: &RawObject<'_>,
    name: &str,
    what: &str,
) -> Result<Option<T>, ApiError> {
    let Some(raw) = frame.get(name) else {
        return Ok(None);
    };
    serde_json::from_str(raw.get())
        .map_err(|error| wrong(name, &format!("must be {what}")).with_source(error))
}

fn only(frame: &RawObject<'_>, known: &[&str]) -> Result<(), ApiError> {
    let unknown = frame.iter().find(|(name, _)| !known.contains(name));
    unknown.map_or(Ok(()), |(name, _)| {
        Err(wrong(name, "is no member of such a frame"))
    })
}

fn wrong(name: &str, what: &str) -> ApiError {
    ApiError::invalid_request(Some(name), format!("'{name}' {what}."))
}

/// A frame for the client.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Outgoing<'a> {
    /// The request was let in.
    Started {
        id: &'a str,
        request_id: RequestId,
        conversation_id: Option<ConversationId>,
        #[serde(skip_serializing_if = "Limits::is_empty")]
        limits: Limits<'a>,
        /// `hit` or `miss`; left out where the cache is off.
        #[serde(skip_serializing_if = "Option::is_none")]
        cache: Option<&'static str>,
    },
    /// A chunk of the answer, with its number.
    Chunk {
        id: &'a str,
        index: u32,
        chunk: &'a RawValue,
    },
    /// The whole answer.
    Answer { id: &'a str, body: &'a RawValue },
    /// The request has ended well.
    Done { id: &'a str },
    /// It has ended otherwise, or the client's frame was wrong.
    Error {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
        error: &'a RawValue,
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
        #[serde(skip_serializing_if = "Limits::is_empty")]
        limits: Limits<'a>,
    },
    /// Somebody is there.
    Pong,
}

impl Outgoing<'_> {
    /// As it goes over the wire.
    pub(super) fn text(&self) -> Utf8Bytes {
        // What holds no map with strange keys can always be written.
        serde_json::to_string(self).unwrap_or_default().into()
    }
}

/// The error frame of a request, or of a frame that belongs to none.
pub(super) fn error(id: Option<&str>, error: &ApiError, request: RequestId) -> Utf8Bytes {
    let body = error.body(request);
    Outgoing::Error {
        id,
        error: object(&body),
        status: Some(error.status.as_u16()),
        retry_after_ms: (error.retry_after())
            .map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
        limits: Limits(error.headers()),
    }
    .text()
}

/// The error frame of an answer that is broken off, of an error's body as HTTP has it in a stream.
pub(super) fn error_of(id: Option<&str>, body: &[u8]) -> Utf8Bytes {
    Outgoing::Error {
        id,
        error: object(body),
        status: None,
        retry_after_ms: None,
        limits: Limits(None),
    }
    .text()
}

/// The error object of an error's body.
fn object(body: &[u8]) -> &RawValue {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        error: &'a RawValue,
    }
    let parsed: Option<Body<'_>> = serde_json::from_slice(body).ok();
    parsed.map_or(RawValue::NULL, |body| body.error)
}

/// What an event of a streamed answer is, as the engine frames them.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event<'a> {
    /// A chunk with its number.
    Chunk(u32, Cow<'a, str>),
    /// An error object in place of the rest.
    Error(Cow<'a, str>),
    /// The end mark.
    Done,
}

/// The events of a piece of a streamed answer; the engine gives out whole ones.
pub(super) fn events(piece: &str) -> impl Iterator<Item = Event<'_>> {
    piece
        .split("\n\n")
        .filter(|event| !event.is_empty())
        .map(|event| {
            let mut number = None;
            let mut data: Option<Cow<'_, str>> = None;
            for line in event.lines() {
                if let Some(text) = line.strip_prefix("data: ") {
                    data = Some(match data {
                        None => Cow::Borrowed(text),
                        Some(so_far) => Cow::Owned(format!("{so_far}\n{text}")),
                    });
                } else if let Some(text) = line.strip_prefix("id: ") {
                    number = text.parse().ok();
                }
            }
            match (number, data.unwrap_or_default()) {
                (Some(number), data) => Event::Chunk(number, data),
                (None, data) if data == "[DONE]" => Event::Done,
                (None, data) => Event::Error(data),
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (Option<String>, String) {
        let bad = Incoming::parse(text).unwrap_err();
        (bad.id, bad.error.param.unwrap_or_default())
    }

    #[test]
    fn both_forms_of_a_request_are_read() {
        let text = r#"{"type":"chat","id":"a","body":{"model":"m"}}"#;
        let Incoming::Chat(chat) = Incoming::parse(text).unwrap() else {
            panic!("no request")
        };
        assert_eq!(
            (chat.id.as_deref(), &chat.body[..]),
            (Some("a"), &br#"{"model":"m"}"#[..])
        );
        let text = r#"{"message":"hello","model_name":"m","provider_id":"p"}"#;
        let Incoming::Chat(chat) = Incoming::parse(text).unwrap() else {
            panic!("no request")
        };
        assert_eq!(chat.provider.as_deref(), Some("p"));
        let body: serde_json::Value = serde_json::from_slice(&chat.body).unwrap();
        assert_eq!(body["messages"][0]["content"], "hello");
        assert_eq!(body["stream"], true);
    }

    #[test]
    fn a_wrong_frame_is_told_with_the_member_and_its_request() {
        for (text, id, param) in [
            ("[]", None, ""),
            (r#"{"type":1}"#, None, "type"),
            (r#"{"type":"go","id":"a"}"#, Some("a"), "type"),
            (r#"{"type":"chat","id":"a"}"#, Some("a"), "body"),
            (r#"{"type":"chat","id":7,"body":{}}"#, None, "id"),
            (r#"{"type":"cancel"}"#, None, "id"),
            (r#"{"message":"a"}"#, None, "model_name"),
            (r#"{"message":"a","model_name":"m","more":1}"#, None, "more"),
            (
                r#"{"message":"a","model_name":"m","conversation_id":"x"}"#,
                None,
                "conversation_id",
            ),
        ] {
            let (told, member) = refused(text);
            assert_eq!((told.as_deref(), member.as_str()), (id, param), "{text}");
        }
    }

    #[test]
    fn what_the_engine_frames_is_read_back() {
        let piece = "id: 3\ndata: {\"a\":1}\n\nid: 4\ndata: {\ndata: }\n\ndata: {\"error\":{}}\n\ndata: [DONE]\n\n";
        let read: Vec<Event<'_>> = events(piece).collect();
        assert_eq!(
            read,
            [
                Event::Chunk(3, "{\"a\":1}".into()),
                Event::Chunk(4, "{\n}".into()),
                Event::Error("{\"error\":{}}".into()),
                Event::Done,
            ]
        );
    }
}
