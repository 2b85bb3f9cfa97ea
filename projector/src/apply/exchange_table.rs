//! Loads and stores the rows of `exchanges` and `attempts`.

use std::sync::LazyLock;

use nexus_events::id::RequestId;
use sqlx::SqliteConnection;

use super::{
    exchange::AttemptRow,
    exchanges::Attempts,
    upsert::{Upsert, Value},
};
use crate::exchange_row::ExchangeRow;

/// The rows of those requests that have one.
pub(super) async fn load(
    connection: &mut SqliteConnection,
    requests: impl Iterator<Item = &RequestId>,
) -> Result<Vec<ExchangeRow>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM exchanges WHERE request_id IN (SELECT value FROM json_each(?))")
        .bind(super::json_list(requests))
        .fetch_all(connection)
        .await
}

/// All rows of a conversation.
pub(super) async fn of_conversation(
    connection: &mut SqliteConnection,
    conversation: &str,
) -> Result<Vec<ExchangeRow>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM exchanges WHERE conversation_id = ?")
        .bind(conversation)
        .fetch_all(connection)
        .await
}

/// The columns of `exchanges`, in the order of [`values`].
static EXCHANGES: LazyLock<Upsert<50>> = LazyLock::new(|| {
    Upsert::replacing(
        "exchanges",
        [
            "request_id",
            "state",
            "drawn_ms",
            "first_sequence",
            "last_sequence",
            "operation",
            "conversation_id",
            "requested_model",
            "key_id",
            "user",
            "is_received",
            "received_at_ms",
            "stream",
            "route",
            "body_bytes",
            "config_sequence",
            "parent_id",
            "message_ids",
            "terminal_sequence",
            "later_terminals",
            "ended_ms",
            "provider_id",
            "provider_name",
            "model",
            "response_model",
            "response_id",
            "input_tokens",
            "output_tokens",
            "usage_source",
            "usage_raw",
            "attempts",
            "status",
            "received_ms",
            "time_to_first_token_ms",
            "duration_ms",
            "chunks",
            "client_gone",
            "last_message_id",
            "choices",
            "failure_reason",
            "failure_message",
            "counted_input_tokens",
            "counted_output_tokens",
            "counted_vocabulary",
            "audited_input_tokens",
            "audited_output_tokens",
            "audited_vocabulary",
            "presumed_lost_ms",
            "outbox_id",
            "presumed_lost_sequence",
        ],
    )
});

/// Writes rows whole.
pub(super) async fn store(
    connection: &mut SqliteConnection,
    rows: Vec<ExchangeRow>,
) -> Result<(), sqlx::Error> {
    let rows = rows.into_iter().map(values).collect();
    EXCHANGES.write(connection, rows).await
}

fn values(row: ExchangeRow) -> [Value; 50] {
    [
        row.request_id.into(),
        row.state.into(),
        row.drawn_ms.into(),
        row.first_sequence.into(),
        row.last_sequence.into(),
        row.operation.into(),
        row.conversation_id.into(),
        row.requested_model.into(),
        row.key_id.into(),
        row.user.into(),
        row.is_received.into(),
        row.received_at_ms.into(),
        row.stream.into(),
        row.route.into(),
        row.body_bytes.into(),
        row.config_sequence.into(),
        row.parent_id.into(),
        row.message_ids.into(),
        row.terminal_sequence.into(),
        row.later_terminals.into(),
        row.ended_ms.into(),
        row.provider_id.into(),
        row.provider_name.into(),
        row.model.into(),
        row.response_model.into(),
        row.response_id.into(),
        row.input_tokens.into(),
        row.output_tokens.into(),
        row.usage_source.into(),
        row.usage_raw.into(),
        row.attempts.into(),
        row.status.into(),
        row.received_ms.into(),
        row.time_to_first_token_ms.into(),
        row.duration_ms.into(),
        row.chunks.into(),
        row.client_gone.into(),
        row.last_message_id.into(),
        row.choices.into(),
        row.failure_reason.into(),
        row.failure_message.into(),
        row.counted_input_tokens.into(),
        row.counted_output_tokens.into(),
        row.counted_vocabulary.into(),
        row.audited_input_tokens.into(),
        row.audited_output_tokens.into(),
        row.audited_vocabulary.into(),
        row.presumed_lost_ms.into(),
        row.outbox_id.into(),
        row.presumed_lost_sequence.into(),
    ]
}

/// Adds what an event says of an attempt to what the batch knows of it; what was said first stays.
pub(super) fn merge_attempt(attempts: &mut Attempts, key: (RequestId, u32), row: AttemptRow) {
    match attempts.get_mut(&key) {
        None => {
            attempts.insert(key, row);
        }
        Some(known) => {
            known.started_ms = known.started_ms.or(row.started_ms);
            known.ended = known.ended.take().or(row.ended);
        }
    }
}

/// What the table knows of an attempt already stays.
static ATTEMPTS: LazyLock<Upsert<11>> = LazyLock::new(|| {
    Upsert::new(
        "attempts",
        [
            "request_id",
            "attempt",
            "provider_id",
            "provider_name",
            "model",
            "started_ms",
            "ended_ms",
            "status",
            "duration_ms",
            "failure_reason",
            "failure_message",
        ],
        "DO UPDATE SET
             started_ms = coalesce(started_ms, excluded.started_ms),
             ended_ms = coalesce(ended_ms, excluded.ended_ms),
             status = iif(ended_ms IS NULL, excluded.status, status),
             duration_ms = iif(ended_ms IS NULL, excluded.duration_ms, duration_ms),
             failure_reason = iif(ended_ms IS NULL, excluded.failure_reason, failure_reason),
             failure_message = iif(ended_ms IS NULL, excluded.failure_message, failure_message)",
    )
});

/// Writes attempts.
pub(super) async fn store_attempts(
    connection: &mut SqliteConnection,
    attempts: Attempts,
) -> Result<(), sqlx::Error> {
    let rows = attempts
        .into_iter()
        .map(|((request, attempt), row)| {
            let ended = row.ended.unwrap_or_default();
            let (reason, message) = ended.failure.unzip();
            [
                request.to_string().into(),
                i64::from(attempt).into(),
                row.provider_id.into(),
                row.provider_name.into(),
                row.model.into(),
                row.started_ms.into(),
                ended.ended_ms.into(),
                ended.status.into(),
                ended.duration_ms.into(),
                reason.into(),
                message.into(),
            ]
        })
        .collect();
    ATTEMPTS.write(connection, rows).await
}
