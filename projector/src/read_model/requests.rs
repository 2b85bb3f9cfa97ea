//! One request: its exchange, its attempts, what was asked and what was answered.
//!
//! What was asked is put together again from the message tree, see `body`.
//! Where a part has expired (its conversation is older than the retention),
//! `request` is `None` and `request_complete` says so.

mod body;

use nexus_events::{
    id::{ConversationId, KeyId, ProviderId, RequestId},
    message_id::MessageId,
};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::{Sqlite, Transaction};

use super::{
    ReadError, ReadModel, as_of, json, optional_count, optional_parsed, parsed, stats::TokensUsage,
};
use crate::{
    exchange_row::{ChoiceRow, ExchangeRow},
    position::AsOf,
};

const TABLE: &str = "exchanges";

/// A request and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Request {
    /// Its id.
    pub request_id: RequestId,
    /// `open` (an event came before `received`), `received`, `presumed_lost`, `completed`,
    /// `failed`, `rejected`.
    pub state: String,
    /// Whether its gateway has not been heard of and it has not ended.
    pub presumed_lost: bool,
    /// What was asked for: `chat`.
    pub operation: Option<String>,
    /// Its conversation.
    pub conversation_id: Option<ConversationId>,
    /// The key that asked.
    pub key_id: Option<KeyId>,
    /// The `user` of the request.
    pub user: Option<String>,
    /// The endpoint's path.
    pub route: Option<String>,
    /// Whether the client asked for a stream.
    pub stream: Option<bool>,
    /// Size of the body in bytes.
    pub body_bytes: Option<u64>,
    /// The model name that the client typed.
    pub requested_model: Option<String>,
    /// The configured model that served it.
    pub model: Option<String>,
    /// The provider that served it, or was asked last.
    pub provider_id: Option<ProviderId>,
    /// The provider's name.
    pub provider: Option<String>,
    /// The model that the provider says it used.
    pub response_model: Option<String>,
    /// The provider's id of the answer.
    pub response_id: Option<String>,
    /// When it came.
    pub received_ms: Option<i64>,
    /// When it ended.
    pub ended_ms: Option<i64>,
    /// HTTP status that the client got, or would have got.
    pub status: Option<u64>,
    /// Tokens, once they are known.
    pub tokens_usage: Option<TokensUsage>,
    /// Who counted them: `provider` or `gateway`.
    pub usage_source: Option<String>,
    /// The provider's usage block as it came.
    pub usage_raw: Option<Box<RawValue>>,
    /// The gateway's own count of an exchange that the provider had counted.
    pub token_check: Option<TokenCheck>,
    /// Milliseconds to the first byte of the answer.
    pub time_to_first_token_ms: Option<u64>,
    /// Milliseconds from the request to the end.
    pub duration_ms: Option<u64>,
    /// Number of chunk events.
    pub chunks: Option<u64>,
    /// Whether the client had hung up before the end.
    pub client_gone: Option<bool>,
    /// Terminal events after the first one; they count for nothing.
    pub later_terminals: u64,
    /// Why it failed or was rejected.
    pub failure: Option<Failure>,
    /// What the providers were asked, in order.
    pub attempts: Vec<Attempt>,
    /// The body as it was sent, but for null and empty members, the spelling of the arguments
    /// of tool calls, and whether a single text stands in a list.
    pub request: Option<Box<RawValue>>,
    /// Whether every part of the request is still there.
    pub request_complete: bool,
    /// The answer's choices.
    pub answer: Vec<Choice>,
    /// How far the log was read.
    pub as_of: AsOf,
}

/// A second count of an exchange's tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenCheck {
    /// The tokens by that count.
    pub tokens_usage: TokensUsage,
    /// The vocabulary they were counted with.
    pub vocabulary: Option<String>,
}

/// Why something failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The kind: from the closed list of failures, or the `code` of a rejection.
    pub reason: String,
    /// What the client was told.
    pub message: String,
}

/// One try of one provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// Its number, from 1.
    pub attempt: u64,
    /// The provider.
    pub provider_id: ProviderId,
    /// Its name.
    pub provider: String,
    /// The configured model.
    pub model: String,
    /// When it began.
    pub started_ms: Option<i64>,
    /// When it ended.
    pub ended_ms: Option<i64>,
    /// The provider's HTTP status.
    pub status: Option<u64>,
    /// How long it took.
    pub duration_ms: Option<u64>,
    /// Why it failed.
    pub failure: Option<Failure>,
}

/// One choice of an answer.
#[derive(Clone, Debug, Serialize)]
pub struct Choice {
    /// Its index.
    pub index: u32,
    /// Why the provider stopped.
    pub finish_reason: Option<String>,
    /// Id of its message.
    pub message_id: Option<MessageId>,
    /// The message; `None` where it expired.
    pub message: Option<Box<RawValue>>,
}

#[derive(sqlx::FromRow)]
struct AttemptRow {
    attempt: i64,
    provider_id: String,
    provider_name: String,
    model: String,
    started_ms: Option<i64>,
    ended_ms: Option<i64>,
    status: Option<i64>,
    duration_ms: Option<i64>,
    failure_reason: Option<String>,
    failure_message: Option<String>,
}

impl ReadModel {
    /// One request; `None` when there is none with that id.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn request(&self, request: RequestId) -> Result<Option<Request>, ReadError> {
        let mut snapshot = self.snapshot().await?;
        let as_of = as_of(&mut snapshot).await?;
        let row: Option<ExchangeRow> =
            sqlx::query_as("SELECT * FROM exchanges WHERE request_id = ?")
                .bind(request.to_string())
                .fetch_optional(&mut *snapshot)
                .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        let attempts = attempts(&mut snapshot, request).await?;
        let body = body::put_together(&mut snapshot, &row).await?;
        let answer = answer(&mut snapshot, &row).await?;
        let mut request = from_row(row, as_of)?;
        request.attempts = attempts;
        request.request_complete = body.is_some();
        request.request = body;
        request.answer = answer;
        Ok(Some(request))
    }

    /// Where `NEXUS_EXCHANGES` holds a request's `received`; `None` while it is not known.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn received_at(&self, request: RequestId) -> Result<Option<u64>, ReadError> {
        let mut snapshot = self.snapshot().await?;
        let sequence: Option<i64> = sqlx::query_scalar(
            "SELECT first_sequence FROM exchanges WHERE request_id = ? AND is_received",
        )
        .bind(request.to_string())
        .fetch_optional(&mut *snapshot)
        .await?;
        optional_count(TABLE, "first_sequence", sequence)
    }
}

/// What the row itself says.
fn from_row(row: ExchangeRow, as_of: AsOf) -> Result<Request, ReadError> {
    let of = |column, value| optional_count(TABLE, column, value);
    let tokens = row.tokens();
    let usage = |prompt: Option<i64>, completion: Option<i64>| -> Result<_, ReadError> {
        let prompt = optional_count(TABLE, "input_tokens", prompt)?;
        let completion = optional_count(TABLE, "output_tokens", completion)?;
        Ok(TokensUsage::new(
            prompt.unwrap_or(0),
            completion.unwrap_or(0),
        ))
    };
    let token_check = match row.audited_input_tokens {
        None => None,
        Some(prompt) => Some(TokenCheck {
            tokens_usage: usage(Some(prompt), row.audited_output_tokens)?,
            vocabulary: row.audited_vocabulary,
        }),
    };
    let presumed_lost = row.presumed_lost_ms.is_some() && row.terminal_sequence.is_none();
    Ok(Request {
        request_id: parsed(TABLE, "request_id", &row.request_id)?,
        state: if presumed_lost {
            "presumed_lost".to_owned()
        } else {
            row.state
        },
        presumed_lost,
        operation: row.operation,
        conversation_id: optional_parsed(TABLE, "conversation_id", row.conversation_id)?,
        key_id: optional_parsed(TABLE, "key_id", row.key_id)?,
        user: row.user,
        route: row.route,
        stream: row.stream,
        body_bytes: of("body_bytes", row.body_bytes)?,
        requested_model: row.requested_model,
        model: row.model,
        provider_id: optional_parsed(TABLE, "provider_id", row.provider_id)?,
        provider: row.provider_name,
        response_model: row.response_model,
        response_id: row.response_id,
        received_ms: row.received_ms.or(row.received_at_ms),
        ended_ms: row.ended_ms,
        status: of("status", row.status)?,
        tokens_usage: tokens
            .map(|tokens| usage(Some(tokens.prompt), Some(tokens.completion)))
            .transpose()?,
        usage_source: tokens.map(|tokens| tokens.source.to_owned()),
        usage_raw: row
            .usage_raw
            .map(|raw| json(TABLE, "usage_raw", &raw))
            .transpose()?,
        token_check,
        time_to_first_token_ms: of("time_to_first_token_ms", row.time_to_first_token_ms)?,
        duration_ms: of("duration_ms", row.duration_ms)?,
        chunks: of("chunks", row.chunks)?,
        client_gone: row.client_gone,
        later_terminals: super::count(TABLE, "later_terminals", row.later_terminals)?,
        failure: failure(row.failure_reason, row.failure_message),
        attempts: Vec::new(),
        request: None,
        request_complete: false,
        answer: Vec::new(),
        as_of,
    })
}

fn failure(reason: Option<String>, message: Option<String>) -> Option<Failure> {
    reason.map(|reason| Failure {
        reason,
        message: message.unwrap_or_default(),
    })
}

async fn attempts(
    snapshot: &mut Transaction<'static, Sqlite>,
    request: RequestId,
) -> Result<Vec<Attempt>, ReadError> {
    const TABLE: &str = "attempts";
    let rows: Vec<AttemptRow> =
        sqlx::query_as("SELECT * FROM attempts WHERE request_id = ? ORDER BY attempt")
            .bind(request.to_string())
            .fetch_all(&mut **snapshot)
            .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Attempt {
                attempt: super::count(TABLE, "attempt", row.attempt)?,
                provider_id: parsed(TABLE, "provider_id", &row.provider_id)?,
                provider: row.provider_name,
                model: row.model,
                started_ms: row.started_ms,
                ended_ms: row.ended_ms,
                status: optional_count(TABLE, "status", row.status)?,
                duration_ms: optional_count(TABLE, "duration_ms", row.duration_ms)?,
                failure: failure(row.failure_reason, row.failure_message),
            })
        })
        .collect()
}

async fn answer(
    snapshot: &mut Transaction<'static, Sqlite>,
    row: &ExchangeRow,
) -> Result<Vec<Choice>, ReadError> {
    let (Some(choices), Some(conversation)) = (&row.choices, &row.conversation_id) else {
        return Ok(Vec::new());
    };
    let choices: Vec<ChoiceRow> = json(TABLE, "choices", choices)?;
    let mut answer = Vec::with_capacity(choices.len());
    for choice in choices {
        let message = match choice.message_id {
            Some(id) => message(snapshot, conversation, id).await?,
            None => None,
        };
        answer.push(Choice {
            index: choice.index,
            finish_reason: choice.finish_reason,
            message_id: choice.message_id,
            message,
        });
    }
    Ok(answer)
}

async fn message(
    snapshot: &mut Transaction<'static, Sqlite>,
    conversation: &str,
    id: MessageId,
) -> Result<Option<Box<RawValue>>, ReadError> {
    let text: Option<String> = sqlx::query_scalar(
        "SELECT message FROM chat_messages WHERE conversation_id = ? AND message_id = ?",
    )
    .bind(conversation)
    .bind(id.to_string())
    .fetch_optional(&mut **snapshot)
    .await?;
    text.map(|text| json("chat_messages", "message", &text))
        .transpose()
}
