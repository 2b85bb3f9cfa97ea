//! Reads an answer from the log and gives it to its client.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream as Events, StreamExt, stream};
use nexus_events::{
    chunk_event::{self, Chunk},
    envelope::Envelope,
    exchange_event::ExchangeEvent,
    log::{Log, LogError, Message, ReadError, Reader},
    subject::Stream,
};
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Wanted, late::Late, playback::Playback};
use crate::{error::ApiError, exchange::client::Client};

/// Messages of a shard taken at a time.
const BATCH: usize = 500;

/// An answer that is given out.
#[derive(Debug)]
pub(super) struct Play {
    pub(super) wanted: Wanted,
    pub(super) playback: Playback,
    pub(super) exchanges: Reader,
    pub(super) chunks: Reader,
    pub(super) log: Log,
    pub(super) soft_stop: CancellationToken,
}

/// Why nothing more is given out.
enum Over {
    /// This is the last frame.
    Last(Bytes),
    /// The client hung up.
    Gone,
    /// The log cannot be read; the client is cut off, and can come back.
    Unreadable(Box<dyn std::error::Error + Send + Sync>),
}

impl From<ReadError> for Over {
    fn from(error: ReadError) -> Self {
        Self::Unreadable(error.into())
    }
}

impl From<LogError> for Over {
    fn from(error: LogError) -> Self {
        Self::Unreadable(error.into())
    }
}

/// Reads as long as it is asked to; a batch that is waited for is not lost when something else comes.
fn batches(reader: Reader) -> impl Events<Item = Result<Vec<Message>, ReadError>> {
    stream::unfold(reader, |mut reader| async {
        let batch = reader.next_batch(BATCH).await;
        Some((batch, reader))
    })
}

impl Play {
    pub(super) async fn run(self, mut client: Client) {
        let request = self.wanted.request;
        match Box::pin(self.play(&mut client)).await {
            Over::Last(frame) => client.give_last(frame).await,
            Over::Gone => {}
            Over::Unreadable(error) => {
                let error: &dyn std::error::Error = &*error;
                tracing::warn!(request.id = %request, error, "a resumed answer is broken off");
            }
        }
    }

    async fn play(self, client: &mut Client) -> Over {
        let Self {
            wanted,
            mut playback,
            exchanges,
            chunks,
            log,
            soft_stop,
        } = self;
        let of_exchanges = batches(exchanges).map(|batch| (Stream::Exchanges, batch));
        let of_chunks = batches(chunks).map(|batch| (Stream::Chunks, batch));
        let mut events = std::pin::pin!(stream::select(of_exchanges, of_chunks));
        let mut pace = Pace::new(wanted);
        let mut late = Late::default();
        // The status line goes out at once, whenever the first chunk comes.
        client.give(Bytes::new()).await;
        loop {
            let late_at = late.until().filter(|_| playback.lacks_chunks());
            let (stream, batch) = tokio::select! {
                Some(batch) = events.next() => batch,
                () = client.hung_up() => return Over::Gone,
                () = soft_stop.cancelled() => return Over::Last(playback.error(&stopping())),
                () = sleep_until(late_at.unwrap_or_else(Instant::now)), if late_at.is_some() => {
                    return Over::Last(playback.error(&incomplete()));
                }
            };
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => return error.into(),
            };
            let newest = batch.last().map(|message| (message.time, message.pending));
            for message in batch {
                let taken = take(&mut playback, &mut pace, (wanted, &log), &message, client).await;
                if let Err(over) = taken {
                    return over;
                }
            }
            if let Some(frames) = pace.rest() {
                client.give(frames).await;
            }
            if let Some(last) = playback.last() {
                return Over::Last(last);
            }
            if let Some((stored, pending)) = newest {
                let now = Instant::now();
                if stream == Stream::Chunks && pending > 0 {
                    late.reads_over(stored, now);
                } else if stream == Stream::Exchanges && playback.lacks_chunks() {
                    late.ended(stored, now);
                }
            }
            if stream == Stream::Exchanges
                && newest.is_some_and(|(_, pending)| pending == 0)
                && let Some(last) = playback.given_up()
            {
                return Over::Last(last);
            }
        }
    }
}

/// Takes a message that may be of the request.
async fn take(
    playback: &mut Playback,
    pace: &mut Pace,
    (wanted, log): (Wanted, &Log),
    message: &Message,
    client: &mut Client,
) -> Result<(), Over> {
    let Ok(envelope) = Envelope::decode(&message.payload) else {
        return Ok(());
    };
    if envelope.subject.parse() != Ok(wanted.request) {
        return Ok(());
    }
    let Ok(Some((chunk, content))) = chunk_event::decode(&envelope) else {
        if let Ok(Some(event)) = ExchangeEvent::decode(&envelope) {
            playback.exchange(event);
        }
        return Ok(());
    };
    let moved = match (content, &envelope.dataref) {
        (None, Some(_)) => log.body(envelope.id).await?,
        _ => None,
    };
    let moved = moved
        .as_ref()
        .and_then(|json| serde_json::from_slice::<&RawValue>(json).ok());
    let Some(json) = content.or(moved) else {
        return Ok(());
    };
    let Ok(frame) = playback.chunk(chunk, json) else {
        // What came before the gap is the client's.
        if let Some(frames) = pace.rest() {
            client.give(frames).await;
        }
        return Err(Over::Last(playback.error(&incomplete())));
    };
    if let Some(frame) = frame
        && let Some(frames) = pace.add(frame, chunk)
    {
        tokio::select! {
            () = pace.wait() => {}
            () = client.hung_up() => return Err(Over::Gone),
        }
        client.give(frames).await;
        if client.is_gone() {
            return Err(Over::Gone);
        }
    }
    Ok(())
}

/// Puts frames together, or gives each its time.
struct Pace {
    original: bool,
    /// Number of the first chunk that the client does not have: those before take no time.
    next: u32,
    /// When the first chunk was given out, and its own time.
    began: Option<(Instant, u64)>,
    due: Instant,
    frames: BytesMut,
}

/// Frames are given out together up to this size: 64 KiB.
const FRAMES_BYTES: usize = 64 * 1024;

impl Pace {
    fn new(wanted: Wanted) -> Self {
        Self {
            original: wanted.original_pace,
            next: wanted.next,
            began: None,
            due: Instant::now(),
            frames: BytesMut::new(),
        }
    }

    /// Takes a frame; gives out what is due after [`Self::wait`].
    fn add(&mut self, frame: Bytes, chunk: Chunk) -> Option<Bytes> {
        let elapsed_us = chunk.elapsed_us;
        if self.original {
            if chunk.index >= self.next {
                let (began, first_us) = *self.began.get_or_insert((Instant::now(), elapsed_us));
                self.due = began + Duration::from_micros(elapsed_us.saturating_sub(first_us));
            }
            return Some(frame);
        }
        self.frames.extend_from_slice(&frame);
        (self.frames.len() >= FRAMES_BYTES).then(|| self.frames.split().freeze())
    }

    async fn wait(&self) {
        if self.original {
            sleep_until(self.due).await;
        }
    }

    /// What has been put together.
    fn rest(&mut self) -> Option<Bytes> {
        (!self.frames.is_empty()).then(|| self.frames.split().freeze())
    }
}

fn stopping() -> ApiError {
    let message = "The hub is shutting down; come back with the last id.";
    ApiError::unavailable("shutting_down", message)
}

fn incomplete() -> ApiError {
    let message = "Chunks of this answer are missing in the log.";
    ApiError::unavailable("incomplete", message)
}
