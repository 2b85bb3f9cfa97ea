//! From a message of the log to an event that can be applied, or to the reason why it cannot.

use bytes::Bytes;
use nexus_events::{
    envelope::{DecodeError, Envelope},
    exchange_event::{AnswerContent, ExchangeEvent, RequestContent},
    id::{OutboxId, RequestId},
    log::Message,
};

/// A message with the content that it refers to.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The message.
    pub message: Message,
    /// Where its content is.
    pub body: Body,
}

/// Where the content of an event is.
#[derive(Clone, Debug)]
pub enum Body {
    /// In the message, if there is any.
    InMessage,
    /// It was too large for a message and has been fetched from the object store.
    Fetched(Bytes),
    /// It was too large for a message, and the object store does not have it.
    Missing,
}

impl From<Message> for Entry {
    fn from(message: Message) -> Self {
        Self {
            message,
            body: Body::InMessage,
        }
    }
}

/// Why an event cannot be applied: the text that `dead_letter` keeps.
pub(crate) type Reason = String;

/// Where an event came through: an outbox and its position in the lane.
pub(crate) fn lane_of(envelope: &Envelope<'_>) -> Option<(OutboxId, u64)> {
    envelope.outbox.zip(envelope.position)
}

/// An event of an exchange, ready to be applied.
#[derive(Debug)]
pub(crate) struct ExchangeEntry<'a> {
    pub(crate) request: RequestId,
    /// The outbox that it came through.
    pub(crate) outbox: Option<OutboxId>,
    pub(crate) sequence: i64,
    pub(crate) at_ms: i64,
    pub(crate) event: ExchangeEvent,
    pub(crate) content: Content<'a>,
}

/// The message content of an exchange event.
#[derive(Debug)]
pub(crate) enum Content<'a> {
    /// The event carries none.
    None,
    /// What a request said.
    Request(RequestContent<'a>),
    /// What a provider answered.
    Answer(AnswerContent<'a>),
    /// It cannot be read; the event counts without it.
    Unreadable(Reason),
}

/// What a chain of errors says, in one line.
pub(crate) fn explain(error: &(dyn std::error::Error + 'static)) -> Reason {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// The request that an exchange event is about; `None` where the subject is no UUIDv7.
pub(crate) fn request_of(envelope: &Envelope<'_>) -> Option<RequestId> {
    let request: RequestId = envelope.subject.parse().ok()?;
    (request.as_uuid().get_version_num() == 7).then_some(request)
}

/// Reads an exchange event, with what it says if `reads_content`.
///
/// # Errors
/// The reason why it cannot be applied.
pub(crate) fn exchange<'a>(
    envelope: &Envelope<'a>,
    entry: &'a Entry,
    reads_content: bool,
) -> Result<ExchangeEntry<'a>, Reason> {
    let wrong = |error: DecodeError| explain(&error);
    let event = ExchangeEvent::decode(envelope)
        .map_err(wrong)?
        .ok_or_else(|| format!("unknown type {}", envelope.kind))?;
    if let ExchangeEvent::Unshippable(unshippable) = &event {
        return Err(format!("unshippable: {}", unshippable.error));
    }
    let request = request_of(envelope).ok_or("the subject is no request id")?;
    let content = if reads_content {
        content(envelope, entry, &event)
    } else {
        Content::None
    };
    Ok(ExchangeEntry {
        request,
        outbox: envelope.outbox,
        sequence: crate::checkpoint::signed(entry.message.sequence),
        at_ms: envelope.moment().map_err(wrong)?.as_millis(),
        event,
        content,
    })
}

fn content<'a>(envelope: &Envelope<'a>, entry: &'a Entry, event: &ExchangeEvent) -> Content<'a> {
    let unreadable = |error: DecodeError| Content::Unreadable(explain(&error));
    match event {
        ExchangeEvent::Received(received) => match read::<RequestContent<'a>>(envelope, entry) {
            Ok(Some(content)) if content.messages.len() == received.messages.len() => {
                Content::Request(content)
            }
            Ok(Some(_)) => Content::Unreadable("not one id for each message".to_owned()),
            Ok(None) => absent(entry),
            Err(error) => unreadable(error),
        },
        ExchangeEvent::Terminal(terminal) => match read::<AnswerContent<'a>>(envelope, entry) {
            Ok(Some(content)) if content.choices.len() == terminal.messages.len() => {
                Content::Answer(content)
            }
            Ok(Some(_)) => Content::Unreadable("not one id for each choice".to_owned()),
            Ok(None) => absent(entry),
            Err(error) => unreadable(error),
        },
        ExchangeEvent::AttemptStarted(_)
        | ExchangeEvent::AttemptEnded(_)
        | ExchangeEvent::Rejected(_)
        | ExchangeEvent::PresumedLost(_)
        | ExchangeEvent::TokensCounted(_)
        | ExchangeEvent::Unshippable(_) => Content::None,
    }
}

fn absent(entry: &Entry) -> Content<'static> {
    match entry.body {
        Body::Missing => Content::Unreadable("the object store does not have it".to_owned()),
        Body::InMessage | Body::Fetched(_) => Content::None,
    }
}

fn read<'a, T: serde::Deserialize<'a>>(
    envelope: &Envelope<'a>,
    entry: &'a Entry,
) -> Result<Option<T>, DecodeError> {
    match &entry.body {
        Body::Fetched(body) => {
            serde_json::from_slice(body)
                .map(Some)
                .map_err(|source| DecodeError::Data {
                    kind: envelope.kind.clone().into_owned(),
                    source,
                })
        }
        Body::InMessage | Body::Missing => envelope.content_as(),
    }
}
