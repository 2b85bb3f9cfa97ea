//! Reads the log for the projector: whole batches, with the content that lies elsewhere.

use nexus_events::{
    envelope::Envelope,
    id::RequestId,
    log::{KnownError, Live, Log, LogError, Message, ReadError, Reader},
    subject::Stream,
};
use tokio::time::Duration;

use crate::apply::{Body, Entry, Origin, Writer};

/// Events in one transaction: 1 000 share the cost of a commit, and take some 20 ms to apply.
pub(crate) const BATCH_MAX: usize = 1_000;

/// Fetched content in one transaction: 64 MiB, and at most one body of 32 MiB more.
const CONTENT_BYTES: usize = 64 * 1024 * 1024;

/// Pause between two tries to reach the broker or to fetch a body.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// A stream that is being read.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) origin: Origin,
    reader: Reader,
}

/// A batch of one stream.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) messages: Vec<Message>,
    /// Events of the stream that were still to come.
    pub(crate) pending: u64,
}

/// Why a database and the log do not fit each other.
#[derive(Debug, thiserror::Error)]
pub enum Misfit {
    /// The stream is not the one that the database was built from.
    #[error(
        "stream {stream} was created anew since the read model was built from it; delete the read model to have it built from the new stream"
    )]
    StreamRecreated {
        /// The stream.
        stream: Stream,
    },
    /// The database holds more than the stream.
    #[error(
        "the read model holds {stream} up to {applied}, but the stream ends at {last}: its tail is lost; put the stream back as it was and start again, or delete the read model to have it built from what is left"
    )]
    TailLost {
        /// The stream.
        stream: Stream,
        /// The last sequence that was applied.
        applied: u64,
        /// The last sequence of the stream.
        last: u64,
    },
    /// The database holds events that the stream does not have any more, and the stream has others.
    #[error(
        "the read model holds {stream} up to {applied}, but the stream does not hold that event: its tail is lost, and it has grown again since; put the stream back as it was and start again, or delete the read model to have it built from what is left"
    )]
    TailReplaced {
        /// The stream.
        stream: Stream,
        /// The last sequence that was applied.
        applied: u64,
    },
}

impl From<ReadError> for Misfit {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::StreamRecreated { stream } => Self::StreamRecreated { stream },
            ReadError::TailLost { stream, last, read } => Self::TailLost {
                stream,
                applied: read,
                last,
            },
            ReadError::TailReplaced { stream, read } => Self::TailReplaced {
                stream,
                applied: read,
            },
        }
    }
}

impl Source {
    /// Begins to read a stream after what the database holds of it; waits for the broker.
    ///
    /// # Errors
    /// [`Misfit`].
    pub(crate) async fn open(log: &Log, stream: Stream, writer: &Writer) -> Result<Self, Misfit> {
        let known = writer.checkpoint().known(stream);
        let state = loop {
            match log.known_stream(stream, known).await {
                Ok(state) => break state,
                Err(KnownError::Other(error)) => return Err(error.into()),
                Err(KnownError::Log(error)) => {
                    wait(&error, "the projector waits for the broker").await;
                }
            }
        };
        let created_ns = i64::try_from(state.created_ns).unwrap_or(i64::MAX);
        let reader = log
            .reader(stream, None, known.sequence)
            .of_stream_created(state.created_ns)
            .of_message_stored(known.stored_ns);
        let origin = Origin { stream, created_ns };
        Ok(Self { origin, reader })
    }

    /// Tells whether it would get news.
    pub(crate) fn live(&self) -> Live {
        self.reader.live()
    }

    /// The next events, as soon as there is one.
    ///
    /// # Errors
    /// [`Misfit`].
    ///
    /// # Cancel safety
    /// Cancelled, it gave nothing out.
    pub(crate) async fn next(&mut self) -> Result<Batch, Misfit> {
        let messages = self.reader.next_batch(BATCH_MAX).await?;
        let pending = messages.last().map_or(0, |message| message.pending);
        Ok(Batch { messages, pending })
    }
}

/// Takes messages and adds to each the content that was too large for it; waits for the broker.
///
/// Takes them all, or as many as have [`CONTENT_BYTES`] of such content: the rest is for the next call.
pub(crate) async fn complete(
    log: &Log,
    messages: &mut std::vec::IntoIter<Message>,
    cutoff_ms: i64,
) -> Vec<Entry> {
    let refers = memchr::memmem::Finder::new(br#""dataref""#);
    let mut entries = Vec::with_capacity(messages.len());
    let mut bytes = 0_usize;
    while bytes < CONTENT_BYTES
        && let Some(message) = messages.next()
    {
        // Decoding each envelope to look would cost more than applying it.
        let body = match refers.find(&message.payload) {
            Some(_) => body(log, &message, cutoff_ms).await,
            None => Body::InMessage,
        };
        if let Body::Fetched(content) = &body {
            bytes = bytes.saturating_add(content.len());
        }
        entries.push(Entry { message, body });
    }
    entries
}

async fn body(log: &Log, message: &Message, cutoff_ms: i64) -> Body {
    let Ok(envelope) = Envelope::decode(&message.payload) else {
        return Body::InMessage;
    };
    let expired = envelope
        .subject
        .parse::<RequestId>()
        .is_ok_and(|request| request.drawn_at().as_millis() < cutoff_ms);
    if envelope.dataref.is_none() || expired {
        return Body::InMessage;
    }
    loop {
        match log.body(envelope.id).await {
            Ok(Some(content)) => return Body::Fetched(content),
            Ok(None) => return Body::Missing,
            Err(error) => wait(&error, "the projector waits for the content of an event").await,
        }
    }
}

async fn wait(error: &LogError, what: &str) {
    tracing::debug!(error = error as &dyn std::error::Error, "{what}");
    tokio::time::sleep(RETRY_DELAY).await;
}
