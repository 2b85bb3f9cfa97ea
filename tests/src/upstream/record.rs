//! What the upstream remembers of each exchange.

use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;

use super::request::Request;
use crate::sse::{Decoder, Event};

/// One request and everything that was sent for it.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// What came.
    pub request: Request,
    /// The number of the connection on which it came, from 0.
    pub connection: usize,
    /// The status that was sent, once it was.
    pub status: Option<u16>,
    /// The pieces of the body as they left, each one TCP write.
    pub sent: Vec<Sent>,
    /// How it ended, once it has.
    pub end: Option<End>,
}

/// A piece of a body that has left.
#[derive(Debug, Clone)]
pub struct Sent {
    /// When the write had returned.
    pub at: Instant,
    /// The bytes, without HTTP framing.
    pub bytes: Bytes,
}

/// How an exchange ended, seen from the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The script was played to its end and the connection can be used again.
    Complete,
    /// The script closed the connection.
    Closed,
    /// The script reset the connection.
    Reset,
    /// The script refused the request before it was processed.
    Refused,
    /// The client went away first.
    ClientLeft,
}

impl Exchange {
    pub(super) fn begun(request: Request, connection: usize) -> Self {
        Self {
            request,
            connection,
            status: None,
            sent: Vec::new(),
            end: None,
        }
    }

    /// The body as far as it was sent.
    pub fn body(&self) -> Vec<u8> {
        self.sent
            .iter()
            .flat_map(|piece| piece.bytes.iter().copied())
            .collect()
    }

    /// The complete Server-Sent Events that were sent.
    pub fn events(&self) -> Vec<Event> {
        Decoder::decode_all(&self.body())
    }

    /// The chunks that were sent: each complete event that is JSON, so without `[DONE]`.
    pub fn chunks(&self) -> Vec<Value> {
        let events = self.events();
        events
            .iter()
            .filter_map(|event| serde_json::from_str(&event.data).ok())
            .collect()
    }

    /// The text of one choice as far as it was sent, in either mode.
    pub fn text(&self, choice: usize) -> String {
        if self.request.wants_stream() {
            text_of_chunks(&self.chunks(), choice)
        } else {
            let answer: Value = serde_json::from_slice(&self.body()).unwrap_or_default();
            let pointer = format!("/choices/{choice}/message/content");
            answer
                .pointer(&pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        }
    }
}

/// The text that streamed chunks add up to for one choice.
pub fn text_of_chunks(chunks: &[Value], choice: usize) -> String {
    chunks
        .iter()
        .filter_map(|chunk| chunk.get("choices")?.as_array())
        .flatten()
        .filter(|part| part.get("index").is_some_and(|index| *index == choice))
        .filter_map(|part| part.pointer("/delta/content")?.as_str())
        .collect()
}
