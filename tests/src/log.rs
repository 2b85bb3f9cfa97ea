//! The log as it is in the broker, read whole and taken to account.
//!
//! Read with the plain client and as plain JSON, not with the hub's own codec: what the hub wrote is
//! what is under test.
//! Cursors (`nexus.outbox.…`) live in the same streams and are not events; they are left out.

mod account;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use async_nats::jetstream::{self, stream};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::time::timeout;

use crate::broker;
use crate::wait::until;

pub use account::{
    assert_no_duplicates, assert_no_gaps, chunks_by_request, is_terminal, terminals_by_request,
};

/// 1 000 events are fetched at once: about 1 MB.
const FETCH: usize = 1_000;

/// A fetch that brings nothing for so long will bring nothing.
const FETCH_BOUND: Duration = Duration::from_secs(5);

/// A consumer that nobody asks for so long is removed by the broker.
const INACTIVE: Duration = Duration::from_mins(2);

/// So many times a stream is read before its reading is given up.
const READ_TRIES: u32 = 4;

/// How long a test waits for events to be shipped.
const ARRIVAL_BOUND: Duration = Duration::from_secs(30);

/// A stream of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Providers, models, keys and what else is configured.
    Config,
    /// The life of each request.
    Exchanges,
    /// Each streamed chunk.
    Chunks,
    /// Management calls and what else an auditor wants to see.
    Audit,
    /// Closed daily statistics.
    Rollups,
}

/// A connection to the log of one broker.
#[derive(Debug, Clone)]
pub struct Log {
    context: jetstream::Context,
}

/// One event as it is stored.
#[derive(Debug, Clone)]
pub struct Event {
    /// The stream that holds it.
    pub stream: Stream,
    /// Its sequence there.
    pub sequence: u64,
    /// The NATS subject.
    pub nats_subject: String,
    /// The whole event with its envelope.
    pub json: Value,
}

impl Stream {
    /// The streams that outboxes ship into.
    pub const SHIPPED: [Self; 3] = [Self::Exchanges, Self::Chunks, Self::Audit];

    /// The filter that matches its events, and none of the cursors.
    pub fn events(self) -> &'static str {
        match self {
            Self::Config => "nexus.config.>",
            Self::Exchanges => "nexus.exchange.>",
            Self::Chunks => "nexus.chunk.>",
            Self::Audit => "nexus.audit.>",
            Self::Rollups => "nexus.rollup.>",
        }
    }

    /// The stream's name in the broker.
    pub fn name(self) -> &'static str {
        match self {
            Self::Config => "NEXUS_CONFIG",
            Self::Exchanges => "NEXUS_EXCHANGES",
            Self::Chunks => "NEXUS_CHUNKS",
            Self::Audit => "NEXUS_AUDIT",
            Self::Rollups => "NEXUS_ROLLUPS",
        }
    }
}

impl Log {
    /// Connects to the broker at this address.
    ///
    /// # Errors
    ///
    /// When nothing answers there.
    pub async fn connect(nats_url: &str) -> Result<Self> {
        Ok(Self {
            context: jetstream::new(broker::connect(nats_url).await?),
        })
    }

    /// All events of a stream, from the first on, in order.
    ///
    /// # Errors
    ///
    /// When there is no such stream, or one of its messages is not JSON.
    pub async fn events(&self, which: Stream) -> Result<Vec<Event>> {
        let messages = self.messages(which).await?;
        messages
            .into_iter()
            .filter(|message| !message.nats_subject.starts_with("nexus.outbox."))
            .map(RawMessage::into_event)
            .collect()
    }

    /// The sequence of the last event of a stream; 0 when there is none.
    ///
    /// # Errors
    ///
    /// When there is no such stream.
    pub async fn last_sequence(&self, which: Stream) -> Result<u64> {
        let stream = self.context.get_stream(which.name()).await;
        let stream = stream.with_context(|| format!("no stream {}", which.name()))?;
        let last = stream.get_last_raw_message_by_subject(which.events()).await;
        match last {
            Ok(message) => Ok(message.sequence),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(0),
            Err(error) => Err(error).context("no answer about the last event"),
        }
    }

    /// When the broker stored the last message of all streams, as RFC 3339 with nanoseconds.
    ///
    /// # Errors
    ///
    /// When a stream is missing, or nothing was stored yet.
    pub async fn last_stored(&self) -> Result<String> {
        let mut last = None;
        for which in [
            Stream::Config,
            Stream::Exchanges,
            Stream::Chunks,
            Stream::Audit,
        ] {
            let stream = self.context.get_stream(which.name()).await;
            let stream = stream.with_context(|| format!("no stream {}", which.name()))?;
            let state = &stream.cached_info().state;
            if state.last_sequence > 0 {
                last = last.max(Some(state.last_timestamp));
            }
        }
        let last = last.context("nothing was stored yet")?;
        let nanos = i64::try_from(last.unix_timestamp_nanos()).context("a strange time")?;
        Ok(chrono::DateTime::from_timestamp_nanos(nanos).to_rfc3339())
    }

    /// The cursors in a stream: the subject of each and its payload.
    ///
    /// # Errors
    ///
    /// When there is no such stream.
    pub async fn cursors(&self, which: Stream) -> Result<Vec<(String, Vec<u8>)>> {
        let messages = self.messages(which).await?;
        Ok(messages
            .into_iter()
            .filter(|message| message.nats_subject.starts_with("nexus.outbox."))
            .map(|message| (message.nats_subject, message.payload))
            .collect())
    }

    /// All events of one request, exchange events first, then chunks, each in order.
    ///
    /// # Errors
    ///
    /// As [`Log::events`].
    pub async fn events_of_request(&self, request_id: &str) -> Result<Vec<Event>> {
        let mut events = self.events(Stream::Exchanges).await?;
        events.extend(self.events(Stream::Chunks).await?);
        events.retain(|event| event.request_id() == request_id);
        Ok(events)
    }

    /// Waits until the events of a stream are as the test expects them, and returns them.
    ///
    /// # Errors
    ///
    /// When they do not become so in 30 s; with what `state` said last.
    pub async fn until_events<E: std::fmt::Display>(
        &self,
        which: Stream,
        what: &str,
        state: impl Fn(&[Event]) -> Result<(), E>,
    ) -> Result<Vec<Event>> {
        until(what, ARRIVAL_BOUND, async || {
            let events = self.events(which).await?;
            match state(&events) {
                Ok(()) => Ok(events),
                Err(seen) => Err(anyhow::anyhow!("{seen:#} ({} events)", events.len())),
            }
        })
        .await
    }

    /// Waits until every one of these requests has a terminal event.
    ///
    /// # Errors
    ///
    /// When one has none after 30 s.
    pub async fn until_terminal<'a>(
        &self,
        request_ids: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<Event>> {
        let wanted: Vec<&str> = request_ids.into_iter().collect();
        self.until_events(
            Stream::Exchanges,
            "every request has a terminal event",
            |events| {
                let terminals = terminals_by_request(events);
                let open: Vec<_> = wanted
                    .iter()
                    .filter(|id| !terminals.contains_key(**id))
                    .collect();
                if open.is_empty() {
                    Ok(())
                } else {
                    Err(format!("open: {open:?}"))
                }
            },
        )
        .await
    }

    async fn messages(&self, which: Stream) -> Result<Vec<RawMessage>> {
        let mut stream = self
            .context
            .get_stream(which.name())
            .await
            .with_context(|| format!("no stream {}", which.name()))?;
        let state = stream
            .info()
            .await
            .context("no answer about a stream")?
            .state
            .clone();
        if state.messages == 0 {
            return Ok(Vec::new());
        }
        // A consumer is lost with the node of a cluster that held it: then another one reads anew.
        for _ in 1..READ_TRIES {
            if let Ok(read) = read_up_to(&stream, which, state.last_sequence).await {
                return Ok(read);
            }
        }
        read_up_to(&stream, which, state.last_sequence).await
    }
}

/// A message as it is stored.
struct RawMessage {
    stream: Stream,
    sequence: u64,
    nats_subject: String,
    payload: Vec<u8>,
}

impl RawMessage {
    fn into_event(self) -> Result<Event> {
        let json = serde_json::from_slice(&self.payload).with_context(|| {
            format!(
                "message {} of {} is not JSON",
                self.sequence,
                self.stream.name()
            )
        })?;
        let Self {
            stream,
            sequence,
            nats_subject,
            payload: _,
        } = self;
        Ok(Event {
            stream,
            sequence,
            nats_subject,
            json,
        })
    }
}

/// Reads everything that was there when we began, and checks that nothing was skipped on the way.
async fn read_up_to(stream: &stream::Stream, which: Stream, last: u64) -> Result<Vec<RawMessage>> {
    let config = pull::Config {
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::None,
        memory_storage: true,
        // A slow reader must not lose it between two fetches.
        inactive_threshold: INACTIVE,
        ..Default::default()
    };
    let consumer = stream
        .create_consumer(config)
        .await
        .context("failed to create a consumer")?;
    let mut messages: Vec<RawMessage> = Vec::new();
    loop {
        let batch = consumer
            .fetch()
            .max_messages(FETCH)
            .expires(FETCH_BOUND)
            .messages();
        let mut batch = batch.await.context("failed to fetch events")?;
        let mut is_empty = true;
        while let Some(message) = timeout(FETCH_BOUND * 4, batch.next())
            .await
            .with_context(|| format!("{} went silent", which.name()))?
        {
            let message = message
                .map_err(anyhow::Error::from_boxed)
                .context("failed to fetch")?;
            let info = message.info().map_err(anyhow::Error::from_boxed)?;
            is_empty = false;
            let expected = u64::try_from(messages.len())? + 1;
            ensure!(
                info.consumer_sequence == expected,
                "a message was lost on the way to the test"
            );
            let (sequence, pending) = (info.stream_sequence, info.pending);
            messages.push(RawMessage {
                stream: which,
                sequence,
                nats_subject: message.subject.to_string(),
                payload: message.payload.to_vec(),
            });
            if pending == 0 || sequence >= last {
                return Ok(messages);
            }
        }
        ensure!(!is_empty, "{} ended before sequence {last}", which.name());
    }
}

impl Event {
    /// The event's own id.
    pub fn id(&self) -> &str {
        self.text("/id")
    }

    /// The type, for example `ai.nexus.exchange.completed.v1`.
    pub fn kind(&self) -> &str {
        self.text("/type")
    }

    /// The name inside the type, for example `completed`.
    pub fn name(&self) -> &str {
        self.kind().split('.').nth(3).unwrap_or_default()
    }

    /// The CloudEvents subject: of exchange and chunk events, the request id.
    pub fn request_id(&self) -> &str {
        self.text("/subject")
    }

    /// The outbox that it came through, empty if none.
    pub fn outbox(&self) -> &str {
        self.text("/outbox")
    }

    /// Its position in the lane of its outbox.
    pub fn position(&self) -> Option<u64> {
        self.json.get("position")?.as_u64()
    }

    /// What happened.
    pub fn data(&self) -> &Value {
        self.json.get("data").unwrap_or(&Value::Null)
    }

    fn text(&self, pointer: &str) -> &str {
        self.json
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
