//! A closed day's statistics: what stays when the day's events expire.
//!
//! A day may have more rows than a message holds, so its rollup is one event or
//! several *parts*, all of one subject, each published with the expectation
//! that the one before is the last. So parts of two tries never interleave: a
//! try that died is followed by part 1 of the next, and after the part that
//! says that no more follow there is nothing. A day is closed when its last
//! part is read; what it says is the sum of its parts from the latest part 1.

use serde::{Deserialize, Serialize};

use crate::{
    clock::UnixMillis,
    envelope::{Attributes, DecodeError, EncodeError, Envelope, EventData, Stamp, encode_direct},
    id::ConversationId,
    subject,
};

/// Usage of one hour by one combination of model, provider, key and user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageHour {
    /// Start of the hour, milliseconds since 1970.
    pub hour_ms: i64,
    /// The configured model; `_` when none was asked.
    pub model: String,
    /// The provider's configured name; `_` when none was asked.
    pub provider: String,
    /// Id of the key.
    pub key: String,
    /// The `user` of the requests; empty when none was given.
    pub user: String,
    /// Requests that ended in the hour's rows, failed ones included.
    pub requests: i64,
    /// Requests that failed.
    pub errors: i64,
    /// Prompt tokens.
    pub prompt_tokens: i64,
    /// Answer tokens.
    pub completion_tokens: i64,
    /// Sum of the requests' durations in milliseconds.
    pub duration_ms: i64,
}

/// A conversation that went on after the day on which it began, and whose id does not tell when.
///
/// When its first requests have expired, nothing else tells that it was counted on that day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// The conversation.
    pub conversation: ConversationId,
    /// When it began: when the id of its first request was drawn, milliseconds since 1970.
    pub began_ms: i64,
}

/// The statistics of one day in UTC, or a part of them.
///
/// Whoever has read all parts replaces the day's rows by their sum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayClosed {
    /// The day, `2026-11-24`.
    pub day: String,
    /// Number of the part, from 1; not written where there is only one.
    #[serde(default = "first_part", skip_serializing_if = "is_first_part")]
    pub part: u32,
    /// Whether another part follows: the day is not closed yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// Its hours.
    pub usage: Vec<UsageHour>,
    /// Conversations that began on it; a part that is not the last one says 0.
    pub conversations: i64,
    /// Those of them that are not to be counted again, see [`Begun`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub begun: Vec<Begun>,
}

const fn first_part() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_first_part(part: &u32) -> bool {
    *part == first_part()
}

/// The day in UTC that a moment lies in, as rollups name it.
pub fn day_name(moment: UnixMillis) -> String {
    moment.to_datetime().format("%Y-%m-%d").to_string()
}

/// The type of a rollup.
pub const KIND: &str = "ai.nexus.rollup.day_closed.v1";

impl EventData for DayClosed {
    fn kind(&self) -> &'static str {
        KIND
    }
}

impl DayClosed {
    /// The NATS subject and the payload.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn encode(&self, stamp: Stamp, source: &str) -> Result<(String, Vec<u8>), EncodeError> {
        let attributes = Attributes {
            stamp,
            source,
            subject: &self.day,
            traceparent: None,
        };
        Ok((subject::rollup(&self.day), encode_direct(attributes, self)?))
    }

    /// Reads an event; `None` for a type that this version does not know.
    ///
    /// # Errors
    /// [`DecodeError::Data`].
    pub fn decode(envelope: &Envelope<'_>) -> Result<Option<Self>, DecodeError> {
        if envelope.kind != KIND {
            return Ok(None);
        }
        envelope.data_as().map(Some)
    }
}
