//! The end of an exchange.

use serde::{Deserialize, Serialize};

use crate::{
    envelope::EventData,
    exchange_event::Failure,
    id::{ConversationId, KeyId, ProviderId},
    message_id::MessageId,
    usage::UsageSource,
};

/// The end of an exchange: `completed`, or `failed` with the reason.
///
/// It says everything that statistics and conversations need, so that neither
/// has to look at another event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// What was asked for: `chat`, `embeddings`.
    #[serde(rename = "gen_ai.operation.name")]
    pub operation: String,
    /// The conversation; embeddings belong to none.
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
    /// The `user` of the request.
    #[serde(rename = "user.id", default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The provider that answered, or was asked last.
    #[serde(
        rename = "nexus.provider.id",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub provider: Option<ProviderId>,
    /// Its configured name; `_` when none was asked.
    #[serde(rename = "gen_ai.provider.name")]
    pub provider_name: String,
    /// The configured model; `_` when none was asked.
    #[serde(rename = "nexus.model")]
    pub configured_model: String,
    /// The model that the provider says it used.
    #[serde(
        rename = "gen_ai.response.model",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub response_model: Option<String>,
    /// The provider's id of the answer.
    #[serde(
        rename = "gen_ai.response.id",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub response_id: Option<String>,
    /// One for each choice, in the order of their index.
    #[serde(rename = "gen_ai.response.finish_reasons", default)]
    pub finish_reasons: Vec<String>,
    /// Prompt tokens, when known.
    #[serde(
        rename = "gen_ai.usage.input_tokens",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub input_tokens: Option<u64>,
    /// Answer tokens, when known.
    #[serde(
        rename = "gen_ai.usage.output_tokens",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub output_tokens: Option<u64>,
    /// Who counted; `None` when nobody has, and `tokens_counted` follows.
    #[serde(
        rename = "nexus.usage.source",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub usage_source: Option<UsageSource>,
    /// The provider's usage block as it came.
    #[serde(
        rename = "nexus.usage.raw",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub usage_raw: Option<serde_json::Value>,
    /// Number of attempts made.
    #[serde(rename = "nexus.attempts")]
    pub attempts: u32,
    /// HTTP status that the client got, or would have got.
    #[serde(rename = "http.response.status_code")]
    pub status: u16,
    /// When the request came, by the gateway's clock, milliseconds since 1970.
    #[serde(rename = "nexus.received_ms")]
    pub received_ms: i64,
    /// Milliseconds to the first byte of the answer, when there was one.
    #[serde(
        rename = "nexus.time_to_first_token_ms",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub time_to_first_token_ms: Option<u64>,
    /// Milliseconds from the request to the end.
    #[serde(rename = "nexus.duration_ms")]
    pub duration_ms: u64,
    /// Number of chunk events.
    #[serde(rename = "nexus.chunks")]
    pub chunks: u32,
    /// Whether the client had hung up before the end.
    #[serde(rename = "nexus.client_gone", default)]
    pub client_gone: bool,
    /// The message that the answers follow: the last of the request.
    #[serde(
        rename = "nexus.message.parent",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub parent: Option<MessageId>,
    /// Ids of the messages in `content.choices`, in order.
    #[serde(rename = "nexus.message.ids", default)]
    pub messages: Vec<MessageId>,
    /// Why it failed; `None` when it completed.
    #[serde(
        rename = "nexus.failure",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub failure: Option<Failure>,
}

/// Finish reasons that a bare event keeps: 8, of a request with a usual number of choices.
const BARE_REASONS_MAX: usize = 8;

/// Characters of a name that a bare event keeps: 256, as many as a client may type.
const BARE_NAME_CHARS_MAX: usize = 256;

impl Terminal {
    /// Takes out what its content goes with, and whatever else may be large.
    ///
    /// What is left says who asked whom for what, how it ended and what was used, in some KiB. An
    /// event that this version wrote has no longer names; one of an earlier version may.
    pub fn strip(&mut self) {
        self.messages.clear();
        self.usage_raw = None;
        if self.finish_reasons.len() > BARE_REASONS_MAX {
            self.finish_reasons.clear();
        }
        let names = [
            Some(&mut self.model),
            self.user.as_mut(),
            self.response_model.as_mut(),
            self.response_id.as_mut(),
        ];
        let message = self.failure.as_mut().map(|failure| &mut failure.message);
        let names = names.into_iter().flatten().chain(message);
        let names = names.chain(&mut self.finish_reasons);
        for name in names {
            if let Some((end, _)) = name.char_indices().nth(BARE_NAME_CHARS_MAX) {
                name.truncate(end);
            }
        }
    }
}

impl EventData for Terminal {
    fn kind(&self) -> &'static str {
        match self.failure {
            None => "ai.nexus.exchange.completed.v1",
            Some(_) => "ai.nexus.exchange.failed.v1",
        }
    }
}
