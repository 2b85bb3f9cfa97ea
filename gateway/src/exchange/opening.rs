//! The opening of a stream: what a provider sends before its answer says anything.
//!
//! A stream begins with a chunk that names the role, and some providers find out only after it
//! that they cannot answer. As long as nothing was said another one can be asked. So such chunks
//! are kept back, neither recorded nor given, until one comes that says something: a stream that
//! fails before that has begun for nobody, and its client gets the next try, or a status.
//!
//! That must not keep a client waiting that only wants to see its stream begin, nor hold whatever
//! a provider sends: after [`HELD_MAX`], or beyond [`CHUNKS_MAX`] or [`BYTES_MAX`], the opening is
//! over all the same.

use std::time::Duration;

use bytes::Bytes;
use nexus_events::{message, raw_object::RawObject};
use tokio::time::{Instant, timeout_at};

use crate::{
    protocol::openai::response::ChatChunk,
    provider::{ProviderError, transport::UpstreamBody},
    stream::sse_decode::SseEvent,
};

/// How long chunks are kept back: 1 s; what fails at the start fails sooner, and a model that
/// thinks for long is not to look dead.
const HELD_MAX: Duration = Duration::from_secs(1);

/// Chunks that are kept back: 16; an opening has one for each choice, and one or two more.
const CHUNKS_MAX: usize = 16;

/// Bytes that are kept back: 64 KiB; a chunk without words has some hundred.
const BYTES_MAX: usize = 64 * 1024;

/// How far a stream has opened.
#[derive(Default)]
pub(super) struct Opening {
    held: Vec<Held>,
    bytes: usize,
    /// When the first one was kept back.
    since: Option<Instant>,
    is_over: bool,
}

/// A chunk that says nothing.
pub(super) struct Held {
    pub(super) event: SseEvent,
    /// When it came.
    pub(super) at: Instant,
}

/// What came of a wait for the provider.
pub(super) enum Read {
    Bytes(Bytes),
    End,
    /// The opening has taken too long.
    TimeUp,
}

impl Opening {
    /// Keeps a chunk back if it says nothing and nothing was said before; `false` ends the opening.
    pub(super) fn keeps(&mut self, event: &SseEvent, chunk: &ChatChunk<'_>, at: Instant) -> bool {
        let bytes = self.bytes + event.data.len();
        let is_full = self.held.len() >= CHUNKS_MAX || bytes > BYTES_MAX;
        if self.is_over || is_full || says_something(chunk) {
            return false;
        }
        self.bytes = bytes;
        self.since.get_or_insert(at);
        let event = event.clone();
        self.held.push(Held { event, at });
        true
    }

    /// Ends it; gives what was kept back, in order.
    pub(super) fn end(&mut self) -> Vec<Held> {
        self.is_over = true;
        std::mem::take(&mut self.held)
    }

    /// Reads on, for as long as what is kept back may wait.
    ///
    /// # Errors
    /// Those of [`UpstreamBody::read`].
    ///
    /// # Cancel safety
    /// No bytes are lost when it is dropped half-way.
    pub(super) async fn read(&self, body: &mut UpstreamBody) -> Result<Read, ProviderError> {
        let read = match self.since.filter(|_| !self.is_over) {
            None => body.read().await,
            Some(since) => match timeout_at(since + HELD_MAX, body.read()).await {
                Ok(read) => read,
                Err(_elapsed) => return Ok(Read::TimeUp),
            },
        };
        read.map(|bytes| bytes.map_or(Read::End, Read::Bytes))
    }
}

/// Whether a chunk adds to the answer, or says why it ended.
fn says_something(chunk: &ChatChunk<'_>) -> bool {
    let mut choices = chunk.choices.iter().flatten();
    let ends = choices.any(|choice| {
        let finish_reason = choice.finish_reason.as_ref();
        finish_reason.is_some_and(|reason| !reason.as_str().is_empty())
    });
    ends || adds_something(chunk)
}

/// Whether a chunk adds to the answer.
pub(super) fn adds_something(chunk: &ChatChunk<'_>) -> bool {
    let mut choices = chunk.choices.iter().flatten();
    choices.any(|choice| {
        let mut members = choice.delta.iter().flat_map(RawObject::iter);
        members.any(|(name, value)| name != "role" && !message::is_empty(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(json: &str) -> SseEvent {
        SseEvent {
            data: Bytes::from(json.to_owned()),
            ..SseEvent::default()
        }
    }

    fn keeps(opening: &mut Opening, json: &str) -> bool {
        let event = event(json);
        let chunk = serde_json::from_slice(&event.data).unwrap();
        opening.keeps(&event, &chunk, Instant::now())
    }

    const ROLE: &str = r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":"",
        "refusal":null,"tool_calls":[]},"finish_reason":null}]}"#;

    #[tokio::test]
    async fn what_says_nothing_is_kept_back_until_something_is_said() {
        for first_words in [
            r#"{"choices":[{"delta":{"content":"a"}}]}"#,
            r#"{"choices":[{"delta":{"reasoning_content":"a"}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
        ] {
            let mut opening = Opening::default();
            assert!(keeps(&mut opening, ROLE));
            assert!(keeps(
                &mut opening,
                r#"{"choices":[],"prompt_filter_results":[]}"#
            ));
            assert!(!keeps(&mut opening, first_words), "{first_words}");
            assert_eq!(opening.end().len(), 2);
            assert!(!keeps(&mut opening, ROLE), "it is over");
        }
    }

    #[tokio::test]
    async fn what_is_kept_back_is_bounded() {
        let mut opening = Opening::default();
        for _ in 0..CHUNKS_MAX {
            assert!(keeps(&mut opening, ROLE));
        }
        assert!(!keeps(&mut opening, ROLE));
        let large = format!(r#"{{"choices":[],"pad":"{}"}}"#, "x".repeat(BYTES_MAX));
        assert!(!keeps(&mut Opening::default(), &large));
    }
}
