//! Publishing outside the outbox: with an expected sequence, acknowledged or refused.
//!
//! A publish whose acknowledgement is lost may have been stored. Sent again it
//! would be refused, because the expected sequence is checked first. So a
//! refusal is answered by reading the subject back: when its last event is the
//! one that was sent, the write had succeeded.

use async_nats::{HeaderMap, HeaderValue, RequestErrorKind};
use bytes::Bytes;
use serde::Deserialize;

use crate::{
    envelope::Envelope,
    id::EventId,
    log::{Log, LogError, Message},
    subject::Stream,
};

/// The error code for an expected sequence that is not the last one.
pub(crate) const WRONG_LAST_SEQUENCE: u64 = 10071;

/// What must be true of the stream for a publish to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing; a repetition within the broker's window is recognised by the event's id.
    Any,
    /// The last message of the same subject has this sequence; 0: there is none.
    SubjectAt(u64),
    /// The last message of any subject that the filter matches has this sequence.
    FilterAt {
        /// The filter, such as `nexus.config.provider.>`.
        filter: String,
        /// The sequence; 0: there is none.
        sequence: u64,
    },
}

/// Why something was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Someone else wrote since: read again, decide again.
    #[error("the expected sequence is no longer the last one")]
    Conflict,
    /// The broker is away or did not answer; whether it stored the event is not known.
    #[error("the broker did not acknowledge the event")]
    Unavailable(#[source] async_nats::Error),
    /// The event is larger than the broker's `max_payload`; sending it again does not help.
    #[error("the event has {bytes} bytes, and the broker takes messages of {bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The broker's limit, headers included.
        bytes_max: usize,
    },
    /// The broker refused the event.
    #[error("the broker refused the event: {description} ({code})")]
    Refused {
        /// The broker's error code.
        code: u64,
        /// Its words.
        description: String,
    },
}

/// The broker's answer to a publish.
#[derive(Debug, Deserialize)]
pub(crate) struct Acknowledgement {
    #[serde(default)]
    pub(crate) seq: u64,
    #[serde(default)]
    pub(crate) count: Option<u64>,
    #[serde(default)]
    pub(crate) error: Option<AcknowledgementError>,
}

/// Why the broker stored nothing.
#[derive(Debug, Deserialize)]
pub(crate) struct AcknowledgementError {
    #[serde(default)]
    pub(crate) err_code: u64,
    #[serde(default)]
    pub(crate) description: String,
}

impl Log {
    /// Publishes an event and waits until the broker has stored it; gives its sequence.
    ///
    /// # Errors
    /// By kind, see [`PublishError`].
    pub async fn publish(
        &self,
        subject: String,
        payload: Vec<u8>,
        expected: Expected,
    ) -> Result<u64, PublishError> {
        self.require_connection()?;
        let id = Envelope::decode(&payload).map(|envelope| envelope.id).ok();
        let headers = headers(&expected, id);
        let outcome = self.send(subject.clone(), headers, payload).await;
        match outcome {
            Ok(sequence) => Ok(sequence),
            Err(PublishError::Refused { .. }) => outcome,
            Err(error) => self.was_stored(&subject, id).await.ok_or(error),
        }
    }

    /// Largest message that the broker takes, headers included.
    pub fn message_bytes_max(&self) -> usize {
        self.client().max_payload()
    }

    /// Publishes what is no event, at a sequence of its subject; what became of a write whose
    /// outcome is not known the caller reads back itself.
    ///
    /// # Errors
    /// By kind, see [`PublishError`].
    pub(super) async fn publish_at(
        &self,
        subject: String,
        payload: Vec<u8>,
        sequence: u64,
    ) -> Result<u64, PublishError> {
        self.require_connection()?;
        let headers = headers(&Expected::SubjectAt(sequence), None);
        self.send(subject, headers, payload).await
    }

    /// Publishes what is no event in the place of all that its subject held.
    ///
    /// # Errors
    /// By kind, see [`PublishError`].
    pub(super) async fn publish_in_place(
        &self,
        subject: String,
        payload: Vec<u8>,
    ) -> Result<u64, PublishError> {
        self.require_connection()?;
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Rollup", "sub");
        self.send(subject, headers, payload).await
    }

    /// A command given to a client without a connection would be sent when the
    /// broker is back, long after the caller was told that it failed.
    fn require_connection(&self) -> Result<(), PublishError> {
        if self.is_connected() {
            return Ok(());
        }
        Err(PublishError::Unavailable(Box::new(self.unreachable())))
    }

    async fn send(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Vec<u8>,
    ) -> Result<u64, PublishError> {
        let bytes = payload.len();
        let answer = self
            .client()
            .request_with_headers(subject, headers, payload.into())
            .await;
        match answer {
            Ok(message) => acknowledged(&message.payload),
            Err(error) if error.kind() == RequestErrorKind::MaxPayloadExceeded => {
                Err(PublishError::TooLarge {
                    bytes,
                    bytes_max: self.message_bytes_max(),
                })
            }
            Err(error) => Err(PublishError::Unavailable(Box::new(error))),
        }
    }

    /// The last message of a subject, from the stream's leader.
    ///
    /// # Errors
    /// [`LogError::Broker`].
    pub async fn last_of_subject(
        &self,
        stream: Stream,
        subject: &str,
    ) -> Result<Option<Message>, LogError> {
        self.last_in(stream.name(), subject).await
    }

    /// The last message of a subject of any stream, from its leader.
    ///
    /// # Errors
    /// [`LogError::Broker`].
    pub(super) async fn last_in(
        &self,
        stream: &str,
        subject: &str,
    ) -> Result<Option<Message>, LogError> {
        use async_nats::jetstream::stream::LastRawMessageErrorKind;
        let handle = self.handle_of(stream).await?;
        match handle.get_last_raw_message_by_subject(subject).await {
            Ok(message) => Ok(Some(Message::stored(message))),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(LogError::broker(
                format!("read the last message of {subject}"),
                error,
            )),
        }
    }

    /// The sequence of the event if it is the last of its subject after all.
    async fn was_stored(&self, subject: &str, id: Option<EventId>) -> Option<u64> {
        let id = id?;
        let stream = Stream::ALL.into_iter().find(|stream| {
            let prefix = stream.events().trim_end_matches('>');
            subject.starts_with(prefix)
        })?;
        let last = self.last_of_subject(stream, subject).await.ok()??;
        let stored = Envelope::decode(&last.payload).ok()?;
        (stored.id == id).then_some(last.sequence)
    }
}

fn headers(expected: &Expected, id: Option<EventId>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    match expected {
        Expected::Any => {
            if let Some(id) = id {
                headers.insert("Nats-Msg-Id", id.to_string().as_str());
            }
        }
        Expected::SubjectAt(sequence) => {
            headers.insert(
                "Nats-Expected-Last-Subject-Sequence",
                HeaderValue::from(*sequence),
            );
        }
        Expected::FilterAt { filter, sequence } => {
            headers.insert(
                "Nats-Expected-Last-Subject-Sequence",
                HeaderValue::from(*sequence),
            );
            headers.insert(
                "Nats-Expected-Last-Subject-Sequence-Subject",
                filter.as_str(),
            );
        }
    }
    headers
}

fn acknowledged(payload: &Bytes) -> Result<u64, PublishError> {
    let answer: Acknowledgement = serde_json::from_slice(payload)
        .map_err(|error| PublishError::Unavailable(Box::new(error)))?;
    match answer.error {
        None => Ok(answer.seq),
        Some(error) if error.err_code == WRONG_LAST_SEQUENCE => Err(PublishError::Conflict),
        Some(error) => Err(PublishError::Refused {
            code: error.err_code,
            description: error.description,
        }),
    }
}
