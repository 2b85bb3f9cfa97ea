//! From protocols of their own to OpenAI's, and back.
//!
//! *What it is.* What the adapters of such providers share: the client's request
//! read member by member (`request`, `message`), and answers written in OpenAI's form
//! (`answer`). Each adapter brings the two halves between.
//!
//! *What it promises.* A member of the request that has no counterpart is
//! refused by its name, never dropped in silence. Whatever a provider sends, a
//! translation ends in an answer of OpenAI's form or in an error.

pub(super) mod answer;
pub(super) mod data_url;
pub(super) mod members;
pub(super) mod message;
pub(super) mod request;
#[cfg(test)]
pub(crate) mod testing;

use bytes::Bytes;
use nexus_events::{clock::UnixMillis, id::RequestId};
use serde::Deserialize;

use super::ProviderError;
use crate::stream::sse_decode::SseEvent;

/// What a translation of an answer needs of its request.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The hub's id of the request, for what the provider gives no id to.
    pub id: RequestId,
    /// When it came, for `created`.
    pub time: UnixMillis,
    /// The model as the client named it, for a provider that does not name it.
    pub model: &'a str,
    /// The request's body.
    pub body: &'a Bytes,
}

/// Turns the events of one stream into OpenAI's.
///
/// It ends what it makes with `[DONE]` once the provider's own end has come, and only then: a
/// stream without it was cut off.
pub trait Translate: Send {
    /// Takes an event and appends what it says, in OpenAI's form: nothing, or several events.
    ///
    /// # Errors
    /// [`ProviderError`]: it is malformed, or reports an error. What was appended stands.
    fn event(&mut self, event: &SseEvent, out: &mut Vec<SseEvent>) -> Result<(), ProviderError>;
}

/// Reads an object out of a provider's answer.
///
/// # Errors
/// [`ProviderError`]: it is none, or not the one that its protocol says.
pub(super) fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, ProviderError> {
    let malformed = || ProviderError::malformed("The provider's answer is not what it should be.");
    // serde reads a struct from an array as well.
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(malformed());
    }
    serde_json::from_slice(json).map_err(|error| malformed().caused_by(error))
}
