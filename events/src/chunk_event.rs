//! One streamed chunk, as an event.
//!
//! There are a hundred of these for each answer, so the envelope leaves out
//! what the type implies, and the chunk itself is carried as it came.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    envelope::{Attributes, DecodeError, EncodeError, Envelope, EventData, Record, Stamp},
    exchange_event::About,
    subject::{self, Lane},
};

/// The type of a chunk event.
pub const KIND: &str = "ai.nexus.chunk.streamed.v1";

/// A chunk that a provider streamed; `content` is the chunk's JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Number of the chunk within the answer, from 0.
    pub index: u32,
    /// Microseconds since the request began.
    pub elapsed_us: u64,
}

impl EventData for Chunk {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn brief(&self) -> bool {
        true
    }
}

/// Encodes a chunk event; `subject` is the one of [`subject::chunk`], built once for each answer.
///
/// # Errors
/// [`EncodeError`].
pub fn record(
    about: About<'_>,
    stamp: Stamp,
    nats_subject: &str,
    chunk: Chunk,
    content: &RawValue,
) -> Result<Record, EncodeError> {
    let attributes = Attributes {
        stamp,
        source: about.source,
        subject: &about.request.to_string(),
        traceparent: None,
    };
    let nats_subject = nats_subject.to_owned();
    Record::encode(
        Lane::Chunks,
        nats_subject,
        attributes,
        &chunk,
        Some(content),
    )
}

/// Reads a chunk event; `None` for another type.
///
/// # Errors
/// [`DecodeError::Data`].
pub fn decode<'a>(
    envelope: &Envelope<'a>,
) -> Result<Option<(Chunk, Option<&'a RawValue>)>, DecodeError> {
    if envelope.kind != KIND {
        return Ok(None);
    }
    Ok(Some((envelope.data_as()?, envelope.content_as()?)))
}

/// See [`subject::chunk`].
pub fn subject(about: About<'_>, provider: &str, model: &str) -> String {
    subject::chunk(about.request, provider, model)
}
