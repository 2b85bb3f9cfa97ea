//! Where the log holds a request.

use std::time::Duration;

use nexus_events::{
    clock::UnixMillis,
    envelope::Envelope,
    exchange_event::{ExchangeEvent, Received, RequestContent},
    id::RequestId,
    log::{Log, Message, Reader, history::HistoryError},
    subject::{self, Stream},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::timeout;

/// What is in the outbox reaches the log within milliseconds; a young request is waited for so
/// long: 5 s.
const ARRIVES_WITHIN: Duration = Duration::from_secs(5);

/// A request that began less than a minute ago may still be on its way to the log.
const YOUNG: Duration = Duration::from_mins(1);

/// `received` is stored soon after its id was drawn; past this, in the broker's time, it is not
/// looked for: an hour, what a gateway may have been cut off from the broker.
const STORED_WITHIN: Duration = Duration::from_hours(1);

/// Messages looked at at a time.
const BATCH: usize = 200;

/// A request that was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) received: Received,
    /// Whether its client asked for the chunk that carries the usage.
    pub(super) wants_usage: bool,
    /// Stands where the events after `received` begin.
    pub(super) reader: Reader,
}

/// Looks for the beginning of a request; `None` when the log does not hold it.
pub(super) async fn received(
    log: &Log,
    request: RequestId,
    now: UnixMillis,
) -> Result<Option<Found>, HistoryError> {
    if request.drawn_at().plus(YOUNG) < now {
        return look(log, request, false).await;
    }
    match timeout(ARRIVES_WITHIN, look(log, request, true)).await {
        Ok(found) => found,
        Err(_elapsed) => Ok(None),
    }
}

/// Looks at the stream up to its end, and, for what may still come, beyond.
async fn look(
    log: &Log,
    request: RequestId,
    may_come: bool,
) -> Result<Option<Found>, HistoryError> {
    let shard = subject::exchange_shard(subject::shard(request));
    let stretch = log
        .stretch_since(Stream::Exchanges, request.drawn_at())
        .await?;
    let mut reader = log.reader(Stream::Exchanges, Some(shard.clone()), stretch.after);
    let last = log.last_of_subject(Stream::Exchanges, &shard).await?;
    let end = last.map_or(0, |message| message.sequence);
    while may_come || reader.position() < end {
        for message in reader.next_batch(BATCH).await? {
            if let Some((received, wants_usage)) = is_it(log, &message, request).await? {
                let reader = log.reader(Stream::Exchanges, Some(shard), message.sequence);
                return Ok(Some(Found {
                    received,
                    wants_usage,
                    reader,
                }));
            }
            if message.time > request.drawn_at().plus(STORED_WITHIN) {
                return Ok(None);
            }
        }
    }
    Ok(None)
}

async fn is_it(
    log: &Log,
    message: &Message,
    request: RequestId,
) -> Result<Option<(Received, bool)>, HistoryError> {
    let Ok(envelope) = Envelope::decode(&message.payload) else {
        return Ok(None);
    };
    if envelope.subject.parse() != Ok(request) {
        return Ok(None);
    }
    let Ok(Some(ExchangeEvent::Received(received))) = ExchangeEvent::decode(&envelope) else {
        return Ok(None);
    };
    let wants_usage = match envelope.dataref {
        Some(_) => {
            let content = log.body(envelope.id).await?;
            content.is_some_and(|content| {
                serde_json::from_slice(&content).is_ok_and(|content| wants_usage(&content))
            })
        }
        None => matches!(envelope.content_as(), Ok(Some(content)) if wants_usage(&content)),
    };
    Ok(Some((received, wants_usage)))
}

fn wants_usage(content: &RequestContent<'_>) -> bool {
    #[derive(Deserialize)]
    struct Options {
        #[serde(default)]
        include_usage: bool,
    }
    let options: Option<&RawValue> = content.parameters.get("stream_options");
    options
        .and_then(|raw| serde_json::from_str::<Options>(raw.get()).ok())
        .is_some_and(|options| options.include_usage)
}

/// A reader that stands before the first chunk that the request can have.
pub(super) async fn chunks(log: &Log, request: RequestId) -> Result<Reader, HistoryError> {
    let shard = subject::chunk_shard(subject::shard(request));
    let stretch = log
        .stretch_since(Stream::Chunks, request.drawn_at())
        .await?;
    Ok(log.reader(Stream::Chunks, Some(shard), stretch.after))
}
