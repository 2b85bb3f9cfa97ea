//! The life of a request, as events: the closed list.
//!
//! `received` → (`attempt_started` → `attempt_ended`)+ → `completed` or
//! `failed` → `tokens_counted` where the provider gave no usage. A request
//! that never went to a provider is `rejected` and has no other event. Every
//! `received` has exactly one terminal event that counts: the first one in the
//! stream.
//!
//! Member names follow the OpenTelemetry `GenAI` conventions where one exists.
//! Message content is a member of its own, `content`, apart from everything
//! that statistics need.

mod content;
mod failure;
mod terminal;

use serde::{Deserialize, Serialize};

use crate::{
    envelope::{Attributes, DecodeError, EncodeError, Envelope, EventData, Record, Stamp},
    id::{ConversationId, KeyId, ProviderId, RequestId},
    message_id::MessageId,
    subject::{self, Lane},
};

pub use content::{AnswerChoice, AnswerContent, RequestContent, SystemMessages};
pub use failure::{Failure, FailureReason};
pub use terminal::Terminal;

/// A request was accepted; appended before a provider is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// What was asked for: `chat`, `embeddings`.
    #[serde(rename = "gen_ai.operation.name")]
    pub operation: String,
    /// The conversation that it belongs to; embeddings belong to none.
    #[serde(
        rename = "gen_ai.conversation.id",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub conversation: Option<ConversationId>,
    /// The model name that the client typed.
    #[serde(rename = "gen_ai.request.model")]
    pub model: String,
    /// The key that asked.
    #[serde(rename = "nexus.key.id")]
    pub key: KeyId,
    /// The `user` of the request, as the client gave it.
    #[serde(rename = "user.id", default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Whether the client asked for a stream.
    #[serde(rename = "nexus.request.stream")]
    pub stream: bool,
    /// The endpoint's path.
    #[serde(rename = "http.route")]
    pub route: String,
    /// Size of the request's body in bytes.
    #[serde(rename = "http.request.body.size")]
    pub body_bytes: u64,
    /// Sequence of the configuration that served it.
    #[serde(rename = "nexus.config.sequence")]
    pub config_sequence: u64,
    /// The message that an earlier exchange of the conversation ended with.
    #[serde(
        rename = "nexus.message.parent",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub parent: Option<MessageId>,
    /// Ids of `content.messages`, in order.
    #[serde(rename = "nexus.message.ids")]
    pub messages: Vec<MessageId>,
}

/// A provider is about to be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptStarted {
    /// Number of the attempt, from 1.
    #[serde(rename = "nexus.attempt")]
    pub attempt: u32,
    /// The provider.
    #[serde(rename = "nexus.provider.id")]
    pub provider: ProviderId,
    /// Its configured name.
    #[serde(rename = "gen_ai.provider.name")]
    pub provider_name: String,
    /// The configured model.
    #[serde(rename = "nexus.model")]
    pub model: String,
    /// The name that the provider knows the model by, where that is another.
    #[serde(
        rename = "nexus.upstream_model",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub upstream_model: Option<String>,
}

impl AttemptStarted {
    /// The name that the provider knows the model by.
    pub fn asked_model(&self) -> &str {
        self.upstream_model.as_deref().unwrap_or(&self.model)
    }
}

/// A provider was asked, and this came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptEnded {
    /// Number of the attempt, from 1.
    #[serde(rename = "nexus.attempt")]
    pub attempt: u32,
    /// The provider.
    #[serde(rename = "nexus.provider.id")]
    pub provider: ProviderId,
    /// Its configured name.
    #[serde(rename = "gen_ai.provider.name")]
    pub provider_name: String,
    /// The configured model.
    #[serde(rename = "nexus.model")]
    pub model: String,
    /// The provider's HTTP status, when it answered.
    #[serde(
        rename = "http.response.status_code",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub status: Option<u16>,
    /// Milliseconds from the attempt's start to its end.
    #[serde(rename = "nexus.duration_ms")]
    pub duration_ms: u64,
    /// Why it failed; `None` when it did not.
    #[serde(
        rename = "nexus.failure",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub failure: Option<Failure>,
}

/// A request with a known key that went to no provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// The key that asked.
    #[serde(rename = "nexus.key.id")]
    pub key: KeyId,
    /// The endpoint's path.
    #[serde(rename = "http.route")]
    pub route: String,
    /// HTTP status of the refusal.
    #[serde(rename = "http.response.status_code")]
    pub status: u16,
    /// The error's `code`, as the client got it.
    #[serde(rename = "error.type")]
    pub code: String,
    /// The error's sentence, as the client got it.
    #[serde(rename = "error.message")]
    pub message: String,
    /// The model name that the client typed, where it could be read; cut at 256 characters.
    #[serde(
        rename = "gen_ai.request.model",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub model: Option<String>,
}

/// The gateway that served the request has not been heard of; shown, never counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresumedLost {
    /// The outbox of that gateway.
    #[serde(rename = "nexus.outbox.id")]
    pub outbox: crate::id::OutboxId,
}

/// Tokens of an exchange whose provider gave no usage, or an audit of one that did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokensCounted {
    /// Prompt tokens.
    #[serde(rename = "gen_ai.usage.input_tokens")]
    pub input_tokens: u64,
    /// Answer tokens.
    #[serde(rename = "gen_ai.usage.output_tokens")]
    pub output_tokens: u64,
    /// The vocabulary they were counted with.
    #[serde(rename = "nexus.tokens.vocabulary")]
    pub vocabulary: String,
    /// `true`: a check of the provider's count, which stays the truth.
    #[serde(rename = "nexus.tokens.audit", default)]
    pub audit: bool,
    /// The conversation, if it belongs to one.
    #[serde(
        rename = "gen_ai.conversation.id",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub conversation: Option<ConversationId>,
    /// The key that asked.
    #[serde(rename = "nexus.key.id")]
    pub key: KeyId,
    /// The provider's configured name.
    #[serde(rename = "gen_ai.provider.name")]
    pub provider_name: String,
    /// The configured model.
    #[serde(rename = "nexus.model")]
    pub configured_model: String,
}

/// A record that the broker refused for its own sake; it lies on the gateway's disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unshippable {
    /// Id of the event that could not be shipped.
    #[serde(rename = "nexus.event.id")]
    pub event: crate::id::EventId,
    /// Its subject.
    #[serde(rename = "nexus.event.subject")]
    pub subject: String,
    /// Its size in bytes.
    #[serde(rename = "nexus.event.size")]
    pub bytes: u64,
    /// What the broker said.
    #[serde(rename = "error.message")]
    pub error: String,
}

/// Every event of `NEXUS_EXCHANGES`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "events live for one append or one apply; a box each would cost more"
)]
pub enum ExchangeEvent {
    /// See [`Received`].
    Received(Received),
    /// See [`AttemptStarted`].
    AttemptStarted(AttemptStarted),
    /// See [`AttemptEnded`].
    AttemptEnded(AttemptEnded),
    /// See [`Terminal`]; `completed` or `failed` by whether it carries a failure.
    Terminal(Terminal),
    /// See [`Rejected`].
    Rejected(Rejected),
    /// See [`PresumedLost`].
    PresumedLost(PresumedLost),
    /// See [`TokensCounted`].
    TokensCounted(TokensCounted),
    /// See [`Unshippable`].
    Unshippable(Unshippable),
}

macro_rules! kind {
    ($data:ty, $kind:literal) => {
        impl EventData for $data {
            fn kind(&self) -> &'static str {
                $kind
            }
        }
    };
}

kind!(Received, "ai.nexus.exchange.received.v1");
kind!(AttemptStarted, "ai.nexus.exchange.attempt_started.v1");
kind!(AttemptEnded, "ai.nexus.exchange.attempt_ended.v1");
kind!(Rejected, "ai.nexus.exchange.rejected.v1");
kind!(PresumedLost, "ai.nexus.exchange.presumed_lost.v1");
kind!(TokensCounted, "ai.nexus.exchange.tokens_counted.v1");
kind!(Unshippable, "ai.nexus.log.unshippable.v1");

/// Who writes events, and about which request.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// Source of the events.
    pub source: &'a str,
    /// The request.
    pub request: RequestId,
    /// Its trace context.
    pub traceparent: Option<&'a str>,
}

/// Encodes one event of an exchange: subject, envelope and record.
///
/// `event` is the name in the subject (`received`, …); `provider` and `model`
/// are configured names, `_` where none is known.
///
/// # Errors
/// [`EncodeError`].
pub fn record<D: EventData, C: Serialize + ?Sized>(
    about: About<'_>,
    stamp: Stamp,
    (provider, model): (&str, &str),
    data: &D,
    content: Option<&C>,
) -> Result<Record, EncodeError> {
    let subject = subject::exchange(about.request, name(data.kind()), provider, model);
    let attributes = Attributes {
        stamp,
        source: about.source,
        subject: &about.request.to_string(),
        traceparent: about.traceparent,
    };
    Record::encode(Lane::Exchanges, subject, attributes, data, content)
}

/// The `<name>` of `ai.nexus.<family>.<name>.v<N>`.
fn name(kind: &str) -> &str {
    kind.split('.').nth(3).unwrap_or("_")
}

impl ExchangeEvent {
    /// Reads an event; `None` for a type that this version does not know.
    ///
    /// # Errors
    /// [`DecodeError::Data`] when the data is not what the type promises.
    pub fn decode(envelope: &Envelope<'_>) -> Result<Option<Self>, DecodeError> {
        let event = match envelope.kind.as_ref() {
            "ai.nexus.exchange.received.v1" => Self::Received(envelope.data_as()?),
            "ai.nexus.exchange.attempt_started.v1" => Self::AttemptStarted(envelope.data_as()?),
            "ai.nexus.exchange.attempt_ended.v1" => Self::AttemptEnded(envelope.data_as()?),
            "ai.nexus.exchange.completed.v1" | "ai.nexus.exchange.failed.v1" => {
                Self::Terminal(envelope.data_as()?)
            }
            "ai.nexus.exchange.rejected.v1" => Self::Rejected(envelope.data_as()?),
            "ai.nexus.exchange.presumed_lost.v1" => Self::PresumedLost(envelope.data_as()?),
            "ai.nexus.exchange.tokens_counted.v1" => Self::TokensCounted(envelope.data_as()?),
            "ai.nexus.log.unshippable.v1" => Self::Unshippable(envelope.data_as()?),
            _ => return Ok(None),
        };
        Ok(Some(event))
    }
}
