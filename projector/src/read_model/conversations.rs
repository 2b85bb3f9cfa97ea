//! Conversations: the list, and one with all its messages.

use nexus_events::{
    clock::UnixMillis,
    id::{ConversationId, KeyId, RequestId},
    message_id::MessageId,
};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::{QueryBuilder, Sqlite, Transaction};

use super::{
    ReadError, ReadModel, active_since, as_of, count, json, optional_parsed, parsed,
    stats::TokensUsage, tree,
};
use crate::position::AsOf;

/// Longest page: 200 rows, some 50 KiB of JSON.
pub const PAGE_MAX: u32 = 200;

/// Messages of one conversation that are given out at once: 10 000, more than people read.
const MESSAGES_MAX: u32 = 10_000;

/// Which part of a list is asked for.
#[derive(Clone, Debug, Default)]
pub struct PageRequest {
    /// Cursor of the page before, as [`Page::next`] gave it; `None`: the first page.
    pub after: Option<String>,
    /// Rows wanted, at most [`PAGE_MAX`]; 0 means 50.
    pub limit: u32,
    /// Only what this key may see as its own.
    pub key: Option<KeyId>,
}

/// A part of a list.
#[derive(Clone, Debug, Serialize)]
pub struct Page<T> {
    /// The rows.
    pub data: Vec<T>,
    /// Cursor of the next page; `None` on the last one.
    pub next: Option<String>,
    /// How far the log was read.
    pub as_of: AsOf,
}

/// A conversation in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConversationSummary {
    /// Its id.
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
}

/// A conversation with its messages.
#[derive(Clone, Debug, Serialize)]
pub struct Conversation {
    /// What the list says of it.
    #[serde(flatten)]
    pub summary: ConversationSummary,
    /// Its messages, each after the one that it follows; where several follow the same one (an
    /// edited or regenerated turn), branch by branch, the earlier branch first.
    pub messages: Vec<ConversationMessage>,
    /// Whether there are more messages than are given out.
    pub truncated: bool,
    /// How far the log was read.
    pub as_of: AsOf,
}

/// A message of a conversation: a node of its tree.
#[derive(Clone, Debug, Serialize)]
pub struct ConversationMessage {
    /// Its id.
    pub message_id: MessageId,
    /// The message that it follows; `None` for the first of a branch, or where that one expired.
    pub parent_id: Option<MessageId>,
    /// Who speaks.
    pub role: String,
    /// The message as it was sent.
    pub message: Box<RawValue>,
    /// The latest request that carried it.
    pub request_id: RequestId,
}

/// A row of `conversations`.
#[derive(sqlx::FromRow)]
struct Row {
    conversation_id: String,
    key_id: String,
    user: String,
    began_ms: i64,
    last_active_ms: i64,
    requests: i64,
    errors: i64,
    prompt_tokens: i64,
    completion_tokens: i64,
}

/// A row of `chat_messages`.
#[derive(sqlx::FromRow)]
struct MessageRow {
    message_id: String,
    parent_id: Option<String>,
    role: String,
    message: String,
    request_id: String,
}

impl ReadModel {
    /// Conversations, those that were active last first.
    ///
    /// # Errors
    /// [`ReadError`]; [`ReadError::BadCursor`] is the client's fault.
    pub async fn conversations(
        &self,
        page: &PageRequest,
        now: UnixMillis,
    ) -> Result<Page<ConversationSummary>, ReadError> {
        let mut snapshot = self.snapshot().await?;
        let as_of = as_of(&mut snapshot).await?;
        let limit = match page.limit {
            0 => 50,
            limit => limit.min(PAGE_MAX),
        };
        let mut query = QueryBuilder::<Sqlite>::new("SELECT * FROM conversations WHERE true");
        if let Some(key) = page.key {
            query.push(" AND key_id = ").push_bind(key.to_string());
        }
        if let Some(cursor) = &page.after {
            let (active, id) = read_cursor(cursor).ok_or(ReadError::BadCursor)?;
            query.push(" AND (last_active_ms, conversation_id) < (");
            query
                .push_bind(active)
                .push(", ")
                .push_bind(id.to_string())
                .push(")");
        }
        query.push(" ORDER BY last_active_ms DESC, conversation_id DESC LIMIT ");
        query.push_bind(i64::from(limit) + 1);
        let rows: Vec<Row> = query.build_query_as().fetch_all(&mut *snapshot).await?;
        let mut data = rows
            .into_iter()
            .map(|row| row.summary(now))
            .collect::<Result<Vec<_>, _>>()?;
        let more = data.len() > usize::try_from(limit).unwrap_or(usize::MAX);
        if more {
            data.pop();
        }
        let next = data.last().filter(|_| more).map(write_cursor);
        Ok(Page { data, next, as_of })
    }

    /// One conversation with its messages; `None` when there is none with that id.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn conversation(
        &self,
        conversation: ConversationId,
        now: UnixMillis,
    ) -> Result<Option<Conversation>, ReadError> {
        let mut snapshot = self.snapshot().await?;
        let as_of = as_of(&mut snapshot).await?;
        let row: Option<Row> =
            sqlx::query_as("SELECT * FROM conversations WHERE conversation_id = ?")
                .bind(conversation.to_string())
                .fetch_optional(&mut *snapshot)
                .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        let summary = row.summary(now)?;
        let (messages, truncated) = messages(&mut snapshot, conversation).await?;
        Ok(Some(Conversation {
            summary,
            messages,
            truncated,
            as_of,
        }))
    }
}

/// The messages of a conversation in the order of their tree, and whether there are more.
async fn messages(
    snapshot: &mut Transaction<'static, Sqlite>,
    conversation: ConversationId,
) -> Result<(Vec<ConversationMessage>, bool), ReadError> {
    let rows: Vec<MessageRow> = sqlx::query_as(
        "SELECT message_id, parent_id, role, message, request_id FROM chat_messages
         WHERE conversation_id = ? ORDER BY request_id, choice, message_id LIMIT ?",
    )
    .bind(conversation.to_string())
    .bind(i64::from(MESSAGES_MAX) + 1)
    .fetch_all(&mut **snapshot)
    .await?;
    let mut messages = rows
        .into_iter()
        .map(MessageRow::message)
        .collect::<Result<Vec<_>, _>>()?;
    let truncated = messages.len() > usize::try_from(MESSAGES_MAX).unwrap_or(usize::MAX);
    if truncated {
        messages.pop();
    }
    Ok((tree::in_order(messages), truncated))
}

impl Row {
    fn summary(self, now: UnixMillis) -> Result<ConversationSummary, ReadError> {
        let of = |column, value| count("conversations", column, value);
        Ok(ConversationSummary {
            conversation_id: parsed("conversations", "conversation_id", &self.conversation_id)?,
            key_id: parsed("conversations", "key_id", &self.key_id)?,
            active: self.last_active_ms >= active_since(now),
            began_ms: self.began_ms,
            last_active_ms: self.last_active_ms,
            requests: of("requests", self.requests)?,
            errors: of("errors", self.errors)?,
            tokens_usage: TokensUsage::new(
                of("prompt_tokens", self.prompt_tokens)?,
                of("completion_tokens", self.completion_tokens)?,
            ),
            user: Some(self.user).filter(|user| !user.is_empty()),
        })
    }
}

impl MessageRow {
    fn message(self) -> Result<ConversationMessage, ReadError> {
        const TABLE: &str = "chat_messages";
        Ok(ConversationMessage {
            message_id: parsed(TABLE, "message_id", &self.message_id)?,
            parent_id: optional_parsed(TABLE, "parent_id", self.parent_id)?,
            role: self.role,
            message: json(TABLE, "message", &self.message)?,
            request_id: parsed(TABLE, "request_id", &self.request_id)?,
        })
    }
}

/// `<last active>_<id>`.
fn write_cursor(summary: &ConversationSummary) -> String {
    format!("{}_{}", summary.last_active_ms, summary.conversation_id)
}

fn read_cursor(text: &str) -> Option<(i64, ConversationId)> {
    let (active, id) = text.split_once('_')?;
    Some((active.parse().ok()?, id.parse().ok()?))
}
