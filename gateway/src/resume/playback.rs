//! What a client of an answer in the log gets, event by event. Pure.

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use nexus_events::{
    chunk_event::Chunk,
    exchange_event::{ExchangeEvent, FailureReason, Terminal},
    id::RequestId,
};
use serde_json::value::RawValue;

use crate::{
    error::{ApiError, SERVER, UPSTREAM},
    protocol::openai::response::ChatChunk,
    stream::sse_encode::{self, DONE},
};

/// A chunk is missing before the one that came: the log has lost it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap;

/// How far an answer has been given out.
#[derive(Debug)]
pub(super) struct Playback {
    request: RequestId,
    /// Number of the first chunk that the client does not have.
    next: u32,
    wants_usage: bool,
    /// Number of chunks that the log has shown, or that the client has already.
    seen: u32,
    end: Option<Terminal>,
    presumed_lost: bool,
}

impl Playback {
    pub(super) const fn new(request: RequestId, next: u32, wants_usage: bool) -> Self {
        Self {
            request,
            next,
            wants_usage,
            seen: next,
            end: None,
            presumed_lost: false,
        }
    }

    /// The frame of a chunk; `None` when the client has it, or did not ask for such.
    ///
    /// # Errors
    /// [`Gap`]: the chunks of one request lie in the log in order, so what is missing now is missing.
    pub(super) fn chunk(&mut self, chunk: Chunk, json: &RawValue) -> Result<Option<Bytes>, Gap> {
        if chunk.index > self.seen {
            return Err(Gap);
        }
        self.seen = self.seen.max(chunk.index.saturating_add(1));
        if chunk.index < self.next {
            return Ok(None);
        }
        self.next = chunk.index.saturating_add(1);
        let is_usage_only = || {
            serde_json::from_str::<ChatChunk<'_>>(json.get())
                .is_ok_and(|parsed| parsed.is_usage_only())
        };
        if !self.wants_usage && is_usage_only() {
            return Ok(None);
        }
        let mut frame = BytesMut::new();
        sse_encode::numbered(&mut frame, chunk.index, json.get().as_bytes());
        Ok(Some(frame.freeze()))
    }

    /// Takes note of an event of the exchange; the first end counts.
    pub(super) fn exchange(&mut self, event: ExchangeEvent) {
        if let ExchangeEvent::Terminal(terminal) = event {
            self.end.get_or_insert(terminal);
        } else if let ExchangeEvent::PresumedLost(_) = event {
            self.presumed_lost = true;
        }
    }

    /// Whether the exchange has ended and chunks of it are missing still.
    pub(super) fn lacks_chunks(&self) -> bool {
        (self.end.as_ref()).is_some_and(|end| self.seen < end.chunks)
    }

    /// The last frame, once the client has all that came before it.
    pub(super) fn last(&self) -> Option<Bytes> {
        let end = self.end.as_ref()?;
        if self.lacks_chunks() {
            return None;
        }
        Some(match &end.failure {
            None => frame(DONE),
            Some(failure) => {
                let kind = if is_ours(failure.reason) {
                    SERVER
                } else {
                    UPSTREAM
                };
                let status = StatusCode::from_u16(end.status);
                self.error(&ApiError::new(
                    status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                    kind,
                    failure.reason.as_str(),
                    failure.message.clone(),
                ))
            }
        })
    }

    /// The last frame of an answer whose gateway is presumed lost and has not ended it yet.
    pub(super) fn given_up(&self) -> Option<Bytes> {
        let is_open = self.presumed_lost && self.end.is_none();
        is_open.then(|| {
            self.error(&ApiError::unavailable(
                FailureReason::GatewayLost.as_str(),
                "The gateway that served this request is presumed lost; how it ended shows when that one is back.",
            ))
        })
    }

    /// An error as the last frame.
    pub(super) fn error(&self, error: &ApiError) -> Bytes {
        frame(&error.body(self.request))
    }
}

/// Whether the hub is at fault, and not the provider.
const fn is_ours(reason: FailureReason) -> bool {
    matches!(
        reason,
        FailureReason::GatewayLost
            | FailureReason::Internal
            | FailureReason::OutboxFull
            | FailureReason::Shutdown
            | FailureReason::Unshippable
    )
}

fn frame(data: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    sse_encode::frame(&mut out, data);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use nexus_events::{
        clock::SystemClock,
        exchange_event::{Failure, PresumedLost},
        id::{ConversationId, KeyId, OutboxId},
    };
    use serde_json::value::to_raw_value;

    use super::*;

    fn playback(next: u32, wants_usage: bool) -> Playback {
        Playback::new(RequestId::draw(&SystemClock), next, wants_usage)
    }

    fn see(playback: &mut Playback, index: u32, json: &serde_json::Value) -> Option<String> {
        let chunk = Chunk {
            index,
            elapsed_us: 0,
        };
        let frame = playback.chunk(chunk, &to_raw_value(json).unwrap());
        frame
            .unwrap()
            .map(|frame| String::from_utf8(frame.to_vec()).unwrap())
    }

    fn end(chunks: u32, failure: Option<FailureReason>) -> ExchangeEvent {
        ExchangeEvent::Terminal(Terminal {
            operation: "chat".to_owned(),
            conversation: Some(ConversationId::draw(&SystemClock)),
            model: "m".to_owned(),
            key: KeyId::draw(&SystemClock),
            user: None,
            provider: None,
            provider_name: "_".to_owned(),
            configured_model: "_".to_owned(),
            response_model: None,
            response_id: None,
            finish_reasons: Vec::new(),
            input_tokens: None,
            output_tokens: None,
            usage_source: None,
            usage_raw: None,
            attempts: 1,
            status: 200,
            received_ms: 0,
            time_to_first_token_ms: None,
            duration_ms: 0,
            chunks,
            client_gone: false,
            parent: None,
            messages: Vec::new(),
            failure: failure.map(|reason| Failure {
                reason,
                message: "said".to_owned(),
            }),
        })
    }

    #[test]
    fn each_chunk_is_given_once_and_the_usage_to_whoever_asked() {
        let word = serde_json::json!({"choices": [{"index": 0, "delta": {"content": "a"}}]});
        let usage = serde_json::json!({"choices": [], "usage": {"prompt_tokens": 1}});
        let mut without = playback(1, false);
        assert_eq!(see(&mut without, 0, &word), None, "the client has it");
        let frame = see(&mut without, 1, &word).unwrap();
        assert!(frame.starts_with("id: 1\ndata: {"), "{frame}");
        assert_eq!(see(&mut without, 1, &word), None, "it came twice");
        assert_eq!(see(&mut without, 2, &usage), None);
        assert!(see(&mut playback(2, true), 2, &usage).is_some());
    }

    #[test]
    fn a_gap_is_passed_over_only_where_the_client_has_what_is_missing() {
        let json = to_raw_value(&serde_json::json!({})).unwrap();
        let chunk = |index| Chunk {
            index,
            elapsed_us: 0,
        };
        let mut whole = playback(0, false);
        assert!(whole.chunk(chunk(0), &json).unwrap().is_some());
        assert_eq!(whole.chunk(chunk(2), &json), Err(Gap));
        let mut rest = playback(2, false);
        assert!(rest.chunk(chunk(2), &json).unwrap().is_some());
        assert_eq!(rest.chunk(chunk(4), &json), Err(Gap));
    }

    #[test]
    fn the_end_waits_for_the_chunks_and_the_first_one_counts() {
        let word = serde_json::json!({});
        let mut playback = playback(0, false);
        assert_eq!(playback.last(), None);
        playback.exchange(end(2, None));
        playback.exchange(end(1, Some(FailureReason::GatewayLost)));
        see(&mut playback, 0, &word);
        assert!(playback.lacks_chunks() && playback.last().is_none());
        see(&mut playback, 1, &word);
        assert_eq!(playback.last().unwrap(), "data: [DONE]\n\n");
    }

    #[test]
    fn who_is_presumed_lost_is_given_up_and_who_is_back_is_not() {
        let mut playback = playback(0, false);
        assert_eq!(playback.given_up(), None);
        playback.exchange(ExchangeEvent::PresumedLost(PresumedLost {
            outbox: OutboxId::draw(&SystemClock),
        }));
        let told = String::from_utf8(playback.given_up().unwrap().to_vec()).unwrap();
        assert!(told.contains("\"gateway_lost\""), "{told}");
        playback.exchange(end(0, Some(FailureReason::GatewayLost)));
        assert_eq!(playback.given_up(), None);
        let told = String::from_utf8(playback.last().unwrap().to_vec()).unwrap();
        assert!(
            told.contains("said") && told.contains("gateway_lost"),
            "{told}"
        );
    }
}
