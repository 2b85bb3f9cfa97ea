//! Looking back: where in a stream a moment is, and what the log says of some requests.

use std::{collections::HashMap, time::Duration};

use async_nats::jetstream::stream::LastRawMessageErrorKind;
use bytes::Bytes;
use tokio::time::timeout;

use crate::{
    clock::UnixMillis,
    envelope::Envelope,
    id::{OutboxId, RequestId},
    log::{Log, LogError, Message, ReadError, Reader},
    subject::{self, Stream},
};

/// How far a gateway's clock may be ahead of the broker's: ten minutes.
///
/// A request's id carries the gateway's time, messages the broker's; the search
/// begins this much earlier. A clock that was further ahead costs a longer search.
const CLOCK_MARGIN: Duration = Duration::from_mins(10);

/// Messages taken from a stream at a time.
const BATCH: usize = 1_000;

/// A message that was announced is waited for so long before the end is asked for again: 10 s.
const QUIET: Duration = Duration::from_secs(10);

/// A stretch of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The sequence before its first one.
    pub after: u64,
    /// Its last sequence; `u64::MAX`: it goes to the stream's end.
    pub upto: u64,
}

impl Stretch {
    /// Nothing at all.
    pub const EMPTY: Self = Self { after: 0, upto: 0 };

    /// The stream from its beginning to its end.
    pub const WHOLE: Self = Self {
        after: 0,
        upto: u64::MAX,
    };
}

/// What the log holds of one request, in the order of the streams: envelopes.
#[derive(Clone, Debug, Default)]
pub struct RequestEvents {
    /// Of `NEXUS_EXCHANGES`.
    pub exchange: Vec<Bytes>,
    /// Of `NEXUS_CHUNKS`.
    pub chunks: Vec<Bytes>,
}

/// Why the log could not be searched.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The broker did not answer.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A stream cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Log {
    /// Sequence of the first event of a stream that the broker stored at or after a moment.
    ///
    /// One more than the last sequence when there is none.
    ///
    /// # Errors
    /// [`LogError::Broker`].
    pub async fn sequence_at(&self, stream: Stream, moment: UnixMillis) -> Result<u64, LogError> {
        self.sequence_of(stream, stream.events(), moment).await
    }

    /// The same of the messages that a filter matches.
    pub(crate) async fn sequence_of(
        &self,
        stream: Stream,
        filter: &str,
        moment: UnixMillis,
    ) -> Result<u64, LogError> {
        let state = self.stream_state(stream).await?;
        let (mut low, mut high) = (state.first_sequence, state.last_sequence.saturating_add(1));
        while low < high {
            let middle = low + (high - low) / 2;
            match self.first_from(stream, filter, middle).await? {
                Some((sequence, time)) if time < moment => low = sequence.max(middle) + 1,
                Some(_) | None => high = middle,
            }
        }
        // The sequence found may be that of another message; the one that matches is behind it.
        let found = self.first_from(stream, filter, low).await?;
        Ok(
            found.map_or(state.last_sequence.saturating_add(1), |(sequence, _)| {
                sequence
            }),
        )
    }

    /// What the log holds of some requests at this moment.
    ///
    /// Reads the streams once from the time of the oldest request; only one
    /// shard of them when all requests are of the same. A request that is not
    /// there was drawn by a clock that was far ahead, or never came: for those
    /// the streams are read whole.
    ///
    /// # Errors
    /// See [`HistoryError`].
    pub async fn events_of(
        &self,
        requests: &[RequestId],
    ) -> Result<HashMap<RequestId, RequestEvents>, HistoryError> {
        let exchanges = self.stretch_of(Stream::Exchanges, requests).await?;
        let chunks = self.stretch_of(Stream::Chunks, requests).await?;
        let mut found = self.events_within(requests, exchanges, chunks).await?;
        let missing: Vec<RequestId> = found
            .iter()
            .filter(|(_, events)| events.exchange.is_empty())
            .map(|(request, _)| *request)
            .collect();
        if !missing.is_empty() {
            let rest = self.events_within(&missing, Stretch::WHOLE, Stretch::WHOLE);
            found.extend(rest.await?);
        }
        Ok(found)
    }

    /// The exchange events of one request, in the stream's order.
    ///
    /// # Errors
    /// See [`HistoryError`].
    pub async fn messages_of(&self, request: RequestId) -> Result<Vec<Message>, HistoryError> {
        let near = self.stretch_of(Stream::Exchanges, &[request]).await?;
        let mut messages = Vec::new();
        for stretch in [near, Stretch::WHOLE] {
            let shard = subject::exchange_shard(subject::shard(request));
            let reader = self.reader(Stream::Exchanges, Some(shard), stretch.after);
            self.walk(reader, stretch.upto, |message| {
                messages.extend((request_of(&message) == Some(request)).then_some(message));
            })
            .await?;
            if !messages.is_empty() {
                break;
            }
        }
        Ok(messages)
    }

    /// Where the events of some requests can be, by the time of the oldest: from there to the end.
    async fn stretch_of(
        &self,
        stream: Stream,
        requests: &[RequestId],
    ) -> Result<Stretch, LogError> {
        let Some(oldest) = requests.iter().map(|request| request.drawn_at()).min() else {
            return Ok(Stretch::EMPTY);
        };
        self.stretch_since(stream, oldest).await
    }

    /// From a little before a moment to the stream's end.
    ///
    /// # Errors
    /// [`LogError::Broker`].
    pub async fn stretch_since(
        &self,
        stream: Stream,
        moment: UnixMillis,
    ) -> Result<Stretch, LogError> {
        let first = self.sequence_at(stream, moment.minus(CLOCK_MARGIN)).await?;
        Ok(Stretch {
            after: first.saturating_sub(1),
            upto: u64::MAX,
        })
    }

    /// What the log holds of some requests in a stretch of each stream.
    ///
    /// # Errors
    /// See [`HistoryError`].
    pub async fn events_within(
        &self,
        requests: &[RequestId],
        exchanges: Stretch,
        chunks: Stretch,
    ) -> Result<HashMap<RequestId, RequestEvents>, HistoryError> {
        let mut found: HashMap<RequestId, RequestEvents> = requests
            .iter()
            .map(|request| (*request, RequestEvents::default()))
            .collect();
        let mut shards = requests.iter().map(|request| subject::shard(*request));
        let first = shards.next().unwrap_or(0);
        let shard = shards.all(|shard| shard == first).then_some(first);

        let filter = shard.map(subject::exchange_shard);
        let reader = self.reader(Stream::Exchanges, filter, exchanges.after);
        self.walk(reader, exchanges.upto, |message| {
            if let Some(events) = request_of(&message).and_then(|id| found.get_mut(&id)) {
                events.exchange.push(message.payload);
            }
        })
        .await?;
        let filter = shard.map(subject::chunk_shard);
        let reader = self.reader(Stream::Chunks, filter, chunks.after);
        self.walk(reader, chunks.upto, |message| {
            if let Some(events) = request_of(&message).and_then(|id| found.get_mut(&id)) {
                events.chunks.push(message.payload);
            }
        })
        .await?;
        Ok(found)
    }

    /// The last position of an outbox's lane among the events of a stream; 0 when it has none.
    ///
    /// Reads the stream from the time when the outbox began.
    ///
    /// # Errors
    /// See [`HistoryError`].
    pub async fn last_position_of(
        &self,
        stream: Stream,
        outbox: OutboxId,
    ) -> Result<u64, HistoryError> {
        let since = outbox.drawn_at().minus(CLOCK_MARGIN);
        let first = self.sequence_at(stream, since).await?;
        let stretch = Stretch {
            after: first.saturating_sub(1),
            upto: u64::MAX,
        };
        self.last_position_within(stream, outbox, stretch).await
    }

    /// The same in a stretch of the stream.
    ///
    /// # Errors
    /// See [`HistoryError`].
    pub async fn last_position_within(
        &self,
        stream: Stream,
        outbox: OutboxId,
        stretch: Stretch,
    ) -> Result<u64, HistoryError> {
        let reader = self.reader(stream, None, stretch.after);
        let mut last = 0;
        self.walk(reader, stretch.upto, |message| {
            if let Ok(envelope) = Envelope::decode(&message.payload)
                && envelope.outbox == Some(outbox)
            {
                last = envelope.position.unwrap_or(0).max(last);
            }
        })
        .await?;
        Ok(last)
    }

    /// Gives every message of a reader up to a sequence, or to the stream's present end, to `take`.
    ///
    /// # Errors
    /// See [`HistoryError`].
    pub async fn walk(
        &self,
        mut reader: Reader,
        upto: u64,
        mut take: impl FnMut(Message),
    ) -> Result<(), HistoryError> {
        loop {
            let last = self.last_event(reader.stream(), reader.filter()).await?;
            let end = last.unwrap_or(0).min(upto);
            if reader.position() >= end {
                return Ok(());
            }
            // Retention may take what is waited for; then the end is asked for again.
            while reader.position() < end
                && let Ok(batch) = timeout(QUIET, reader.next_batch(BATCH)).await
            {
                let within = |message: &Message| message.sequence <= upto;
                batch?.into_iter().filter(within).for_each(&mut take);
            }
        }
    }

    /// The message of a stream with that sequence; `None` when there is none (any more).
    ///
    /// # Errors
    /// [`LogError::Broker`].
    pub async fn message_at(
        &self,
        stream: Stream,
        sequence: u64,
    ) -> Result<Option<Message>, LogError> {
        match self.handle(stream).await?.get_raw_message(sequence).await {
            Ok(message) => Ok(Some(Message::stored(message))),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(LogError::broker(
                format!("read message {sequence} of {stream}"),
                error,
            )),
        }
    }

    /// Sequence of the first event that a stream still holds; none in an empty one.
    ///
    /// # Errors
    /// [`LogError::Broker`].
    pub async fn first_event(&self, stream: Stream) -> Result<Option<u64>, LogError> {
        let first = self.first_from(stream, stream.events(), 1).await?;
        Ok(first.map(|(sequence, _)| sequence))
    }

    /// Sequence and time of the first message at or after a sequence that a filter matches.
    async fn first_from(
        &self,
        stream: Stream,
        filter: &str,
        sequence: u64,
    ) -> Result<Option<(u64, UnixMillis)>, LogError> {
        let handle = self.handle(stream).await?;
        let found = handle
            .get_first_raw_message_by_subject(filter, sequence)
            .await;
        match found {
            Ok(message) => {
                let message = Message::stored(message);
                Ok(Some((message.sequence, message.time)))
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(LogError::broker(format!("look into {stream}"), error)),
        }
    }

    /// Sequence of the last message that a filter matches.
    async fn last_event(&self, stream: Stream, filter: &str) -> Result<Option<u64>, LogError> {
        let last = self.last_of_subject(stream, filter).await?;
        Ok(last.map(|message| message.sequence))
    }
}

/// The request that a message is about.
fn request_of(message: &Message) -> Option<RequestId> {
    let envelope = Envelope::decode(&message.payload).ok()?;
    envelope.subject.parse().ok()
}
