//! The latest ends of exchanges: what a gateway needs to know again after a restart.
//!
//! A request continues a conversation when its messages begin with those that
//! an earlier exchange ended with, within 30 minutes. Gateways keep these ends
//! in memory or in Redis; both may be lost, and then they are read from here.

use std::collections::BTreeMap;

use nexus_events::{
    clock::UnixMillis,
    id::{ConversationId, KeyId, RequestId},
    message_id::MessageId,
};
use serde_json::value::RawValue;
use sqlx::{Sqlite, Transaction};

use super::{ReadError, ReadModel, json, optional_parsed, parsed};
use crate::exchange_row::ChoiceRow;

/// Ends given out at once: 50 000, half an hour at 28 requests/s; the newest ones.
const ENDS_MAX: u32 = 50_000;

/// How many requests may refer to each other's system messages in a row: 10 000 turns.
const REFERENCES_MAX: u32 = 10_000;

/// The latest ends, oldest first, and the system messages that they had.
#[derive(Clone, Debug, Default)]
pub struct RecentEnds {
    /// The ends.
    pub ends: Vec<ExchangeEnd>,
    /// System messages by the request that carried them in full.
    pub systems: BTreeMap<RequestId, Vec<SystemMessage>>,
}

/// What an exchange ended with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExchangeEnd {
    /// The request.
    pub request_id: RequestId,
    /// Its conversation.
    pub conversation_id: ConversationId,
    /// The key that asked.
    pub key_id: KeyId,
    /// The `user` of the request.
    pub user: Option<String>,
    /// When it ended.
    pub ended_ms: i64,
    /// The last message of the request: what the answers follow.
    pub parent: Option<MessageId>,
    /// The answers, one for each choice.
    pub messages: Vec<MessageId>,
    /// The request that carried its system messages in full: itself, or an earlier one.
    /// `None` where that one expired.
    pub system: Option<RequestId>,
}

/// A system or developer message of a request.
#[derive(Clone, Debug)]
pub struct SystemMessage {
    /// Its place in the request's message list, from 0.
    pub place: u32,
    /// The message.
    pub message: Box<RawValue>,
}

#[derive(sqlx::FromRow)]
struct Row {
    request_id: String,
    conversation_id: String,
    key_id: String,
    user: Option<String>,
    ended_ms: i64,
    last_message_id: Option<String>,
    choices: Option<String>,
}

impl ReadModel {
    /// The exchanges that ended since a moment with an answer, oldest first; at most the newest 50 000.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn recent_exchange_ends(&self, since: UnixMillis) -> Result<RecentEnds, ReadError> {
        let mut snapshot = self.snapshot().await?;
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT request_id, conversation_id, key_id, user, ended_ms, last_message_id, choices
             FROM exchanges
             WHERE ended_ms >= ? AND choices IS NOT NULL
                 AND conversation_id IS NOT NULL AND key_id IS NOT NULL
             ORDER BY ended_ms DESC, request_id DESC LIMIT ?",
        )
        .bind(since.as_millis())
        .bind(i64::from(ENDS_MAX))
        .fetch_all(&mut *snapshot)
        .await?;
        let mut recent = RecentEnds::default();
        for row in rows.into_iter().rev() {
            let system = match system_messages(&mut snapshot, &row.request_id).await? {
                Some((carrier, messages)) => {
                    recent.systems.entry(carrier).or_insert(messages);
                    Some(carrier)
                }
                None => None,
            };
            recent.ends.push(row.end(system)?);
        }
        Ok(recent)
    }
}

impl Row {
    fn end(self, system: Option<RequestId>) -> Result<ExchangeEnd, ReadError> {
        const TABLE: &str = "exchanges";
        let choices: Vec<ChoiceRow> = match &self.choices {
            Some(choices) => json(TABLE, "choices", choices)?,
            None => Vec::new(),
        };
        Ok(ExchangeEnd {
            request_id: parsed(TABLE, "request_id", &self.request_id)?,
            conversation_id: parsed(TABLE, "conversation_id", &self.conversation_id)?,
            key_id: parsed(TABLE, "key_id", &self.key_id)?,
            user: self.user,
            ended_ms: self.ended_ms,
            parent: optional_parsed(TABLE, "last_message_id", self.last_message_id)?,
            messages: choices
                .into_iter()
                .filter_map(|choice| choice.message_id)
                .collect(),
            system,
        })
    }
}

/// The system messages of a request and the request that carried them in full.
///
/// `None` where they are not there: the chain of references ends at a request that expired.
pub(super) async fn system_messages(
    snapshot: &mut Transaction<'static, Sqlite>,
    request: &str,
) -> Result<Option<(RequestId, Vec<SystemMessage>)>, ReadError> {
    const TABLE: &str = "exchange_content";
    let found: Option<(String, String)> = sqlx::query_as(
        "WITH RECURSIVE chain (request_id, system_same_as, system, depth) AS (
             SELECT request_id, system_same_as, system, 1 FROM exchange_content
             WHERE request_id = ?1
             UNION ALL
             SELECT next.request_id, next.system_same_as, next.system, depth + 1
             FROM chain JOIN exchange_content AS next ON next.request_id = chain.system_same_as
             WHERE depth < ?2
         )
         SELECT request_id, system FROM chain WHERE system IS NOT NULL",
    )
    .bind(request)
    .bind(i64::from(REFERENCES_MAX))
    .fetch_optional(&mut **snapshot)
    .await?;
    let Some((carrier, system)) = found else {
        return Ok(None);
    };
    let messages: Vec<(u32, Box<RawValue>)> = json(TABLE, "system", &system)?;
    let messages = messages
        .into_iter()
        .map(|(place, message)| SystemMessage { place, message })
        .collect();
    Ok(Some((parsed(TABLE, "request_id", &carrier)?, messages)))
}
