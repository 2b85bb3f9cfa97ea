//! `conversations`: each one as the sum of its exchanges.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use nexus_events::{
    id::{ConversationId, RequestId},
    rollup_event,
};
use sqlx::SqliteConnection;

use super::{
    Known, exchange_table,
    exchanges::Slot,
    upsert::{Upsert, Value},
    usage::{UsageDelta, day_of},
};
use crate::exchange_row::ExchangeRow;

#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct ConversationRow {
    pub(super) conversation_id: String,
    pub(super) began_ms: i64,
    pub(super) first_request_id: String,
    pub(super) last_request_id: String,
    key_id: String,
    user: String,
    last_active_ms: i64,
    requests: i64,
    errors: i64,
    prompt_tokens: i64,
    completion_tokens: i64,
}

/// What one exchange is to its conversation.
struct Part<'a> {
    conversation: &'a str,
    row: &'a ExchangeRow,
    key_id: &'a str,
    active_ms: i64,
    errors: i64,
    prompt: i64,
    completion: i64,
}

impl<'a> Part<'a> {
    /// `None` before anything says which conversation it is, and for rejected requests.
    fn of(row: &'a ExchangeRow) -> Option<Self> {
        let tokens = row.tokens();
        let moments = [row.received_at_ms, row.received_ms, row.ended_ms];
        Some(Self {
            conversation: row.conversation_id.as_deref()?,
            row,
            key_id: row.key_id.as_deref()?,
            active_ms: moments.into_iter().flatten().max().unwrap_or(row.drawn_ms),
            errors: i64::from(row.state == "failed"),
            prompt: tokens.map_or(0, |tokens| tokens.prompt),
            completion: tokens.map_or(0, |tokens| tokens.completion),
        })
    }
}

/// Adds what the batch did to its exchanges to their conversations.
pub(super) async fn apply(
    connection: &mut SqliteConnection,
    known: &Known,
    slots: &BTreeMap<RequestId, Slot>,
    usage: &mut UsageDelta,
) -> Result<(), sqlx::Error> {
    let mut touched: BTreeMap<&str, Option<ConversationRow>> = slots
        .values()
        .filter(|slot| slot.before.as_ref() != Some(&slot.after))
        .filter_map(|slot| slot.after.conversation_id.as_deref())
        .map(|conversation| (conversation, None))
        .collect();
    let rows: Vec<ConversationRow> = sqlx::query_as(
        "SELECT * FROM conversations
         WHERE conversation_id IN (SELECT value FROM json_each(?))",
    )
    .bind(super::json_list(touched.keys()))
    .fetch_all(&mut *connection)
    .await?;
    for row in rows {
        if let Some(slot) = touched.get_mut(row.conversation_id.as_str()) {
            *slot = Some(row);
        }
    }
    let began_before: BTreeMap<&str, i64> = touched
        .iter()
        .filter_map(|(id, row)| Some((*id, row.as_ref()?.began_ms)))
        .collect();
    let begun = Begun::load(connection, timeless(touched.keys().copied())).await?;
    for slot in slots.values() {
        let Some(after) = Part::of(&slot.after) else {
            continue;
        };
        let before = slot.before.as_ref().and_then(Part::of);
        if let Some(row) = touched.get_mut(after.conversation) {
            add(row, &begun, before.as_ref(), &after);
        }
    }
    let mut rows = Vec::with_capacity(touched.len());
    for (id, row) in touched {
        if let Some(row) = row {
            let before = began_before.get(id).copied();
            count_day(known, usage, before, Some(row.began_ms));
            rows.push(values(row));
        }
    }
    CONVERSATIONS.write(connection, rows).await
}

/// Adds the difference that an exchange makes to its conversation.
fn add(
    row: &mut Option<ConversationRow>,
    begun: &Begun,
    before: Option<&Part<'_>>,
    after: &Part<'_>,
) {
    let row = row.get_or_insert_with(|| ConversationRow {
        conversation_id: after.conversation.to_owned(),
        began_ms: begun.began(after),
        first_request_id: after.row.request_id.clone(),
        last_request_id: after.row.request_id.clone(),
        key_id: after.key_id.to_owned(),
        user: after.row.user.clone().unwrap_or_default(),
        last_active_ms: after.active_ms,
        requests: 0,
        errors: 0,
        prompt_tokens: 0,
        completion_tokens: 0,
    });
    if after.row.request_id < row.first_request_id {
        row.first_request_id.clone_from(&after.row.request_id);
        after.key_id.clone_into(&mut row.key_id);
        row.user = after.row.user.clone().unwrap_or_default();
        row.began_ms = begun.began(after);
    }
    if after.row.request_id > row.last_request_id {
        row.last_request_id.clone_from(&after.row.request_id);
    }
    row.last_active_ms = row.last_active_ms.max(after.active_ms);
    row.requests += i64::from(before.is_none());
    row.errors += after.errors - before.map_or(0, |part| part.errors);
    row.prompt_tokens += after.prompt - before.map_or(0, |part| part.prompt);
    row.completion_tokens += after.completion - before.map_or(0, |part| part.completion);
}

/// When a conversation's id was drawn; `None` for one that does not tell.
fn drawn_at(conversation: &str) -> Option<i64> {
    let id: ConversationId = conversation.parse().ok()?;
    Some(id.drawn_at().as_millis()).filter(|drawn| *drawn > 0)
}

/// Those whose ids do not tell when they began.
fn timeless<'a>(conversations: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    conversations
        .filter(|id| drawn_at(id).is_none())
        .map(str::to_owned)
        .collect()
}

/// What closed days say of conversations whose ids do not tell when they began.
struct Begun(BTreeMap<String, i64>);

impl Begun {
    async fn load(
        connection: &mut SqliteConnection,
        timeless: BTreeSet<String>,
    ) -> Result<Self, sqlx::Error> {
        if timeless.is_empty() {
            return Ok(Self(BTreeMap::new()));
        }
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "SELECT conversation_id, began_ms FROM begun_conversations
             WHERE conversation_id IN (SELECT value FROM json_each(?))",
        )
        .bind(super::json_list(timeless.iter()))
        .fetch_all(connection)
        .await?;
        Ok(Self(rows.into_iter().collect()))
    }

    /// When a conversation began.
    ///
    /// Its id tells it even when the first requests have expired, so that it is
    /// counted on one day only, rollup or not. An id that a client made up may
    /// not tell: then the rollup of its first day does, and before there is one
    /// its first request.
    fn began(&self, part: &Part<'_>) -> i64 {
        drawn_at(part.conversation)
            .or_else(|| self.0.get(part.conversation).copied())
            .unwrap_or(part.row.drawn_ms)
    }
}

/// Takes note of a conversation that the rollup of its first day tells of.
///
/// `known` has that day closed already.
pub(super) async fn note_begun(
    connection: &mut SqliteConnection,
    known: &Known,
    begun: &rollup_event::Begun,
    usage: &mut UsageDelta,
) -> Result<(), sqlx::Error> {
    let conversation = begun.conversation.to_string();
    let began_ms: i64 = sqlx::query_scalar(
        "INSERT INTO begun_conversations (conversation_id, began_ms) VALUES (?, ?)
         ON CONFLICT DO UPDATE SET began_ms = min(began_ms, excluded.began_ms)
         RETURNING began_ms",
    )
    .bind(&conversation)
    .bind(begun.began_ms)
    .fetch_one(&mut *connection)
    .await?;
    if drawn_at(&conversation).is_some() {
        return Ok(());
    }
    let before: Option<i64> =
        sqlx::query_scalar("SELECT began_ms FROM conversations WHERE conversation_id = ?")
            .bind(&conversation)
            .fetch_optional(&mut *connection)
            .await?;
    if before.is_none() {
        return Ok(());
    }
    count_day(known, usage, before, Some(began_ms));
    sqlx::query("UPDATE conversations SET began_ms = ? WHERE conversation_id = ?")
        .bind(began_ms)
        .bind(&conversation)
        .execute(connection)
        .await
        .map(drop)
}

/// Counts a conversation on the day on which it began, and no longer where it was counted before.
fn count_day(known: &Known, usage: &mut UsageDelta, before: Option<i64>, after: Option<i64>) {
    for (began, sign) in [(before, -1), (after, 1)] {
        if let Some(day) = began.map(day_of).filter(|day| known.is_open(*day)) {
            *usage.days.entry(day).or_default() += sign;
        }
    }
}

/// Forgets what the conversations had of requests that expired, whose ids sort below `bound`.
///
/// The exchanges themselves are gone already. A conversation of which nothing
/// is left goes; the others are summed up anew.
pub(super) async fn expire(
    connection: &mut SqliteConnection,
    known: &Known,
    bound: &str,
    usage: &mut UsageDelta,
) -> Result<(), sqlx::Error> {
    let rows: Vec<ConversationRow> =
        sqlx::query_as("SELECT * FROM conversations WHERE first_request_id < ?")
            .bind(bound)
            .fetch_all(&mut *connection)
            .await?;
    let ids = rows.iter().map(|row| row.conversation_id.as_str());
    let begun = Begun::load(connection, timeless(ids)).await?;
    for row in rows {
        let mut rest = None;
        if row.last_request_id.as_str() >= bound {
            let exchanges =
                exchange_table::of_conversation(connection, &row.conversation_id).await?;
            for part in exchanges.iter().filter_map(Part::of) {
                add(&mut rest, &begun, None, &part);
            }
        }
        let first = rest.as_ref().map(|rest| rest.began_ms);
        count_day(known, usage, Some(row.began_ms), first);
        match rest {
            Some(rest) => CONVERSATIONS.write(connection, vec![values(rest)]).await?,
            None => remove(connection, &row.conversation_id).await?,
        }
    }
    Ok(())
}

async fn remove(connection: &mut SqliteConnection, conversation: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM conversations WHERE conversation_id = ?")
        .bind(conversation)
        .execute(connection)
        .await
        .map(drop)
}

/// The statements that write `conversations`.
static CONVERSATIONS: LazyLock<Upsert<11>> = LazyLock::new(|| {
    Upsert::replacing(
        "conversations",
        [
            "conversation_id",
            "began_ms",
            "first_request_id",
            "last_request_id",
            "key_id",
            "user",
            "last_active_ms",
            "requests",
            "errors",
            "prompt_tokens",
            "completion_tokens",
        ],
    )
});

fn values(row: ConversationRow) -> [Value; 11] {
    [
        row.conversation_id.into(),
        row.began_ms.into(),
        row.first_request_id.into(),
        row.last_request_id.into(),
        row.key_id.into(),
        row.user.into(),
        row.last_active_ms.into(),
        row.requests.into(),
        row.errors.into(),
        row.prompt_tokens.into(),
        row.completion_tokens.into(),
    ]
}
