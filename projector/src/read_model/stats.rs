//! Totals: of the whole hub, and of one conversation.

use nexus_events::{
    clock::UnixMillis,
    id::{ConversationId, KeyId},
};
use serde::Serialize;
use sqlx::{Sqlite, Transaction};

use super::{ReadError, ReadModel, active_since, as_of, count, parsed};
use crate::position::AsOf;

/// Tokens, by direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TokensUsage {
    /// Of the prompts.
    pub prompt: u64,
    /// Of the answers.
    pub completion: u64,
    /// Both together.
    pub total: u64,
}

impl TokensUsage {
    /// Adds the two directions up.
    pub const fn new(prompt: u64, completion: u64) -> Self {
        Self {
            prompt,
            completion,
            total: prompt.saturating_add(completion),
        }
    }
}

/// Totals of the whole hub since its log began, what has expired since included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Conversations ever begun.
    pub total_conversations: u64,
    /// Conversations whose last exchange ended, or still runs, within the last 30 minutes.
    pub active_sessions: u64,
    /// Tokens of all exchanges that ended.
    pub tokens_usage: TokensUsage,
    /// Exchanges that ended, failed ones included.
    pub requests: u64,
    /// Exchanges that failed.
    pub errors: u64,
    /// How far the log was read.
    pub as_of: AsOf,
}

/// Totals of one conversation, of what has not expired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConversationStats {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// The key that began it.
    pub key_id: KeyId,
    /// The `user` that it began with.
    pub user: Option<String>,
    /// Whether its last exchange ended, or still runs, within the last 30 minutes.
    pub active: bool,
    /// When it began.
    pub began_ms: i64,
    /// When its last exchange ended, or began while it runs.
    pub last_active_ms: i64,
    /// Exchanges, running and failed ones included.
    pub requests: u64,
    /// Exchanges that failed.
    pub errors: u64,
    /// Tokens of its exchanges.
    pub tokens_usage: TokensUsage,
    /// How far the log was read.
    pub as_of: AsOf,
}

/// A row of `conversations` as far as statistics need it.
#[derive(sqlx::FromRow)]
struct ConversationRow {
    key_id: String,
    user: String,
    began_ms: i64,
    last_active_ms: i64,
    requests: i64,
    errors: i64,
    prompt_tokens: i64,
    completion_tokens: i64,
}

/// The sums that do not depend on the present moment, with the log that they are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    pub(crate) prompt_tokens: u64,
    pub(crate) completion_tokens: u64,
    pub(crate) conversations: u64,
    pub(crate) as_of: AsOf,
    /// When the newest of the streams was created.
    pub(crate) log_created_ms: i64,
}

async fn totals(snapshot: &mut Transaction<'static, Sqlite>) -> Result<Totals, ReadError> {
    let as_of = as_of(snapshot).await?;
    let (requests, errors, prompt, completion, conversations): (i64, i64, i64, i64, i64) =
        sqlx::query_as(
            "SELECT requests, errors, prompt_tokens, completion_tokens, conversations
             FROM usage_totals",
        )
        .fetch_one(&mut **snapshot)
        .await?;
    let log_created_ms: i64 =
        sqlx::query_scalar("SELECT coalesce(max(created_ns), 0) / 1000000 FROM checkpoint")
            .fetch_one(&mut **snapshot)
            .await?;
    let of = |column, value| count("usage_totals", column, value);
    Ok(Totals {
        requests: of("requests", requests)?,
        errors: of("errors", errors)?,
        prompt_tokens: of("prompt_tokens", prompt)?,
        completion_tokens: of("completion_tokens", completion)?,
        conversations: of("conversations", conversations)?,
        as_of,
        log_created_ms,
    })
}

impl ReadModel {
    /// Totals of the whole hub.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn stats(&self, now: UnixMillis) -> Result<Stats, ReadError> {
        let mut snapshot = self.snapshot().await?;
        let totals = totals(&mut snapshot).await?;
        let active: i64 =
            sqlx::query_scalar("SELECT count(*) FROM conversations WHERE last_active_ms >= ?")
                .bind(active_since(now))
                .fetch_one(&mut *snapshot)
                .await?;
        Ok(Stats {
            total_conversations: totals.conversations,
            active_sessions: count("conversations", "count", active)?,
            tokens_usage: TokensUsage::new(totals.prompt_tokens, totals.completion_tokens),
            requests: totals.requests,
            errors: totals.errors,
            as_of: totals.as_of,
        })
    }

    /// What does not depend on the present moment.
    pub(crate) async fn totals(&self) -> Result<Totals, ReadError> {
        let mut snapshot = self.snapshot().await?;
        totals(&mut snapshot).await
    }

    /// Totals of one conversation; `None` when there is none with that id.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn conversation_stats(
        &self,
        conversation: ConversationId,
        now: UnixMillis,
    ) -> Result<Option<ConversationStats>, ReadError> {
        let mut snapshot = self.snapshot().await?;
        let as_of = as_of(&mut snapshot).await?;
        let row: Option<ConversationRow> =
            sqlx::query_as("SELECT * FROM conversations WHERE conversation_id = ?")
                .bind(conversation.to_string())
                .fetch_optional(&mut *snapshot)
                .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        let of = |column, value| count("conversations", column, value);
        Ok(Some(ConversationStats {
            conversation_id: conversation,
            key_id: parsed("conversations", "key_id", &row.key_id)?,
            user: Some(row.user).filter(|user| !user.is_empty()),
            active: row.last_active_ms >= active_since(now),
            began_ms: row.began_ms,
            last_active_ms: row.last_active_ms,
            requests: of("requests", row.requests)?,
            errors: of("errors", row.errors)?,
            tokens_usage: TokensUsage::new(
                of("prompt_tokens", row.prompt_tokens)?,
                of("completion_tokens", row.completion_tokens)?,
            ),
            as_of,
        }))
    }
}
