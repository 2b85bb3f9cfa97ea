//! Reading a stream in order, without a hole.
//!
//! The reader makes its own consumer: ephemeral, without acknowledgements, from
//! the sequence after the last one that it gave out. Consumer sequences must
//! grow by exactly one (stream sequences may jump: other subjects, purges). On
//! a gap, an error or a missed heartbeat the consumer is thrown away and a new
//! one starts after the last message that was given out. So a message is given
//! out once and in order, or not at all and then again later; nothing is ever
//! skipped. A durable consumer with acknowledgements would redeliver out of
//! order, and "skip what is at or below the checkpoint" would then lose events.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, DeliverPolicy, ReplayPolicy, pull},
    stream::ConsumerErrorKind,
};
use futures_util::{FutureExt, StreamExt};

use crate::{
    clock::UnixMillis,
    log::{Known, KnownError, Log, LogError, Message, nanoseconds},
    subject::Stream,
};

/// Messages asked for at a time: 2 000 keeps a replay at full speed within a few MiB.
const PULL_MESSAGES: usize = 2_000;

/// Bytes asked for at a time: 16 MiB. Messages may have a MiB each, and 2 000 of them would be 2 GiB.
const PULL_BYTES: usize = 16 * 1024 * 1024;

/// Bytes in a batch: at most 16 MiB and one message.
const BATCH_BYTES: usize = 16 * 1024 * 1024;

/// A pull is renewed after 5 s, so a lost one costs no more than that.
const PULL_EXPIRES: Duration = Duration::from_secs(5);

/// A silent broker is noticed after two of these.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Pause before a consumer is made anew after an error.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// An idle consumer is removed by the broker after a minute; the reader then makes a new one.
const INACTIVE_THRESHOLD: Duration = Duration::from_mins(1);

/// What waiting cannot mend.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The stream is not the one that was read before: its sequences mean other events.
    #[error("stream {stream} was created anew; what was read from it before is void")]
    StreamRecreated {
        /// The stream.
        stream: Stream,
    },
    /// The stream ends before the sequence that was read last: its tail is lost.
    #[error("stream {stream} ends at {last}, but {read} was read from it: its tail is lost")]
    TailLost {
        /// The stream.
        stream: Stream,
        /// Its last sequence now.
        last: u64,
        /// The sequence that was read last.
        read: u64,
    },
    /// The stream has another message where the last one was read: its tail is lost, and it grew again.
    #[error(
        "stream {stream} does not hold the event {read} that was read from it: its tail is lost, and it has grown again since"
    )]
    TailReplaced {
        /// The stream.
        stream: Stream,
        /// The sequence that was read last.
        read: u64,
    },
}

/// Reads one stream in order.
#[derive(Debug)]
pub struct Reader {
    log: Log,
    stream: Stream,
    filter: String,
    /// The last stream sequence given out; the next consumer starts after it.
    after: u64,
    /// When the message with that sequence was stored, if it is known.
    after_ns: Option<i64>,
    created_ns: Option<i128>,
    source: Option<Source>,
    live: Live,
}

/// Whether a reader has a consumer that the broker answers for; a cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Live(Arc<AtomicBool>);

impl Live {
    /// Whether news would come: an answer of the broker is at most two heartbeats, 2 s, old.
    pub fn is_live(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, live: bool) {
        self.0.store(live, Ordering::Relaxed);
    }
}

struct Source {
    messages: pull::Stream,
    /// The consumer sequence that the next message must have.
    next: u64,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl Log {
    /// A reader of the stream's events after a sequence; 0: from the start.
    ///
    /// Without a filter it reads every event and no cursor.
    pub fn reader(&self, stream: Stream, filter: Option<String>, after: u64) -> Reader {
        Reader {
            log: self.clone(),
            stream,
            filter: filter.unwrap_or_else(|| stream.events().to_owned()),
            after,
            after_ns: None,
            created_ns: None,
            source: None,
            live: Live::default(),
        }
    }
}

impl Reader {
    /// Refuses to go on when the stream was created at another moment.
    #[must_use]
    pub const fn of_stream_created(mut self, created_ns: i128) -> Self {
        self.created_ns = Some(created_ns);
        self
    }

    /// Refuses to go on when the message after which it reads was stored at another moment.
    #[must_use]
    pub const fn of_message_stored(mut self, stored_ns: Option<i64>) -> Self {
        self.after_ns = stored_ns;
        self
    }

    /// The stream.
    pub const fn stream(&self) -> Stream {
        self.stream
    }

    /// Which of its messages are read.
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// The sequence of the last message that was given out.
    pub const fn position(&self) -> u64 {
        self.after
    }

    /// Tells whether the reader would get news, while it waits for them.
    pub fn live(&self) -> Live {
        self.live.clone()
    }

    /// At least one message, at most `max` and 16 MiB, in order and without a hole.
    ///
    /// Waits as long as it takes, and reconnects by itself.
    ///
    /// # Errors
    /// Only what waiting cannot mend, see [`ReadError`].
    ///
    /// # Cancel safety
    /// Cancelled, it gave nothing out; the next call goes on where the last one that returned ended.
    pub async fn next_batch(&mut self, max: usize) -> Result<Vec<Message>, ReadError> {
        loop {
            if self.source.is_none() {
                match self.open().await {
                    Ok(source) => {
                        self.source = Some(source);
                        self.live.set(true);
                    }
                    Err(OpenError::Final(error)) => return Err(error),
                    Err(OpenError::Passing(error)) => {
                        tracing::debug!(stream = %self.stream, error = &error as &dyn std::error::Error, "reader waits for the broker");
                        tokio::time::sleep(RETRY_DELAY).await;
                        continue;
                    }
                }
            }
            let batch = self.fill(max).await;
            if let Some(last) = batch.last() {
                (self.after, self.after_ns) = (last.sequence, Some(last.stored_ns));
                return Ok(batch);
            }
            self.forget();
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    fn forget(&mut self) {
        self.source = None;
        self.live.set(false);
    }

    /// Waits for one message and takes those that are there; empty when the source is spent.
    async fn fill(&mut self, max: usize) -> Vec<Message> {
        let Some(source) = self.source.as_mut() else {
            return Vec::new();
        };
        let (mut batch, mut bytes) = (Vec::new(), 0_usize);
        let mut item = source.messages.next().await;
        loop {
            let Some(Ok(message)) = item else {
                tracing::debug!(stream = %self.stream, item = ?item.map(Result::err), "reader starts again");
                self.forget();
                break;
            };
            match message.info() {
                Ok(info) if info.consumer_sequence == source.next => {
                    source.next += 1;
                    bytes = bytes.saturating_add(message.payload.len());
                    let stored_ns = nanoseconds(info.published.unix_timestamp_nanos());
                    batch.push(Message {
                        sequence: info.stream_sequence,
                        time: UnixMillis::from_millis(stored_ns / 1_000_000),
                        stored_ns,
                        pending: info.pending,
                        subject: message.subject.to_string(),
                        payload: message.payload.clone(),
                    });
                }
                _ => {
                    tracing::debug!(stream = %self.stream, "reader saw a gap and starts again");
                    self.forget();
                    break;
                }
            }
            if batch.len() >= max || bytes >= BATCH_BYTES {
                break;
            }
            match source.messages.next().now_or_never() {
                Some(next) => item = next,
                None => break,
            }
        }
        batch
    }

    async fn open(&mut self) -> Result<Source, OpenError> {
        let known = Known {
            created_ns: self.created_ns,
            sequence: self.after,
            stored_ns: self.after_ns,
        };
        let state = self.log.known_stream(self.stream, known).await?;
        self.created_ns = Some(state.created_ns);
        let config = pull::Config {
            ack_policy: AckPolicy::None,
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: self.after.saturating_add(1),
            },
            replay_policy: ReplayPolicy::Instant,
            filter_subject: self.filter.clone(),
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: INACTIVE_THRESHOLD,
            ..pull::Config::default()
        };
        let handle = self.log.handle(self.stream).await?;
        let consumer: jetstream::consumer::Consumer<pull::Config> =
            handle.create_consumer(config).await.map_err(|error| {
                tracing::debug!(kind = %ConsumerErrorKind::to_string(&error.kind()), "no consumer");
                LogError::broker(format!("make a consumer on {}", self.stream), error)
            })?;
        let messages = consumer
            .stream()
            .max_messages_per_batch(PULL_MESSAGES)
            .max_bytes_per_batch(PULL_BYTES)
            .expires(PULL_EXPIRES)
            .heartbeat(HEARTBEAT)
            .messages()
            .await
            .map_err(|error| LogError::broker(format!("read {}", self.stream), error))?;
        Ok(Source { messages, next: 1 })
    }
}

enum OpenError {
    Final(ReadError),
    Passing(LogError),
}

impl From<KnownError> for OpenError {
    fn from(error: KnownError) -> Self {
        match error {
            KnownError::Other(error) => Self::Final(error),
            KnownError::Log(error) => Self::Passing(error),
        }
    }
}

impl From<LogError> for OpenError {
    fn from(error: LogError) -> Self {
        Self::Passing(error)
    }
}
