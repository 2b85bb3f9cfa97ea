//! Statistics: `chat_stats`, `usage_hourly`, `conversation_days`, `usage_totals`.
//!
//! The hour of a request is that in which its id was drawn. A day is *open*
//! until its rollup was read or the retention has passed it; only open days
//! take what events say. So a rollup may come before or after the events that
//! it sums up.

use std::{collections::BTreeMap, sync::LazyLock};

use sqlx::SqliteConnection;

use super::{
    Known,
    exchanges::Slot,
    upsert::{Upsert, Value},
};
use crate::exchange_row::ExchangeRow;

/// Milliseconds of an hour.
const HOUR_MS: i64 = 60 * 60 * 1000;

/// Milliseconds of a day in UTC, which has no leap seconds here.
pub(crate) const DAY_MS: i64 = 24 * HOUR_MS;

/// The start of the day in UTC that a moment lies in.
pub(super) const fn day_of(ms: i64) -> i64 {
    ms - ms.rem_euclid(DAY_MS)
}

/// What usage is counted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct UsageKey {
    pub(super) hour_ms: i64,
    pub(super) model: String,
    pub(super) provider: String,
    pub(super) key: String,
    pub(super) user: String,
}

/// Sums of usage, or a difference of sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) requests: i64,
    pub(super) errors: i64,
    pub(super) prompt: i64,
    pub(super) completion: i64,
    pub(super) duration: i64,
}

impl Usage {
    pub(super) fn add(&mut self, other: Self, sign: i64) {
        self.requests += sign * other.requests;
        self.errors += sign * other.errors;
        self.prompt += sign * other.prompt;
        self.completion += sign * other.completion;
        self.duration += sign * other.duration;
    }
}

/// What a batch changes in the statistics.
#[derive(Debug, Default)]
pub(super) struct UsageDelta {
    hours: BTreeMap<UsageKey, Usage>,
    /// Day → conversations that began on it.
    pub(super) days: BTreeMap<i64, i64>,
}

/// What an exchange contributes: nothing before its terminal event.
fn contribution(row: &ExchangeRow) -> Option<(UsageKey, Usage)> {
    row.terminal_sequence?;
    let key = UsageKey {
        hour_ms: row.drawn_ms - row.drawn_ms.rem_euclid(HOUR_MS),
        model: row.model.clone().unwrap_or_default(),
        provider: row.provider_name.clone().unwrap_or_default(),
        key: row.key_id.clone().unwrap_or_default(),
        user: row.user.clone().unwrap_or_default(),
    };
    let tokens = row.tokens();
    let usage = Usage {
        requests: 1,
        errors: i64::from(row.state == "failed"),
        prompt: tokens.map_or(0, |tokens| tokens.prompt),
        completion: tokens.map_or(0, |tokens| tokens.completion),
        duration: row.duration_ms.unwrap_or(0),
    };
    Some((key, usage))
}

/// The tokens of a row that is there are replaced; nothing else of it changes.
static CHAT_STATS: LazyLock<Upsert<10>> = LazyLock::new(|| {
    Upsert::new(
        "chat_stats",
        [
            "request_id",
            "direction",
            "conversation_id",
            "at_ms",
            "model",
            "provider",
            "key_id",
            "user",
            "tokens",
            "source",
        ],
        "DO UPDATE SET tokens = excluded.tokens, source = excluded.source",
    )
});

/// Counts the differences that a batch made to exchanges, and writes their rows of `chat_stats`.
pub(super) async fn of_exchanges<'a>(
    connection: &mut SqliteConnection,
    slots: impl Iterator<Item = &'a Slot>,
    delta: &mut UsageDelta,
) -> Result<(), sqlx::Error> {
    let mut rows = Vec::new();
    for slot in slots {
        let before = slot.before.as_ref().and_then(contribution);
        let after = contribution(&slot.after);
        if before == after {
            continue;
        }
        for (contributed, sign) in [(before, -1), (after, 1)] {
            if let Some((key, usage)) = contributed {
                delta.hours.entry(key).or_default().add(usage, sign);
            }
        }
        rows.extend(chat_stats(&slot.after));
    }
    CHAT_STATS.write(connection, rows).await
}

/// One row for each direction; without tokens until somebody has counted.
fn chat_stats(row: &ExchangeRow) -> [[Value; 10]; 2] {
    let tokens = row.tokens();
    [
        ("prompt", tokens.map(|tokens| tokens.prompt)),
        ("completion", tokens.map(|tokens| tokens.completion)),
    ]
    .map(|(direction, count)| {
        [
            row.request_id.as_str().into(),
            direction.into(),
            row.conversation_id.as_deref().unwrap_or_default().into(),
            row.drawn_ms.into(),
            row.model.as_deref().unwrap_or_default().into(),
            row.provider_name.as_deref().unwrap_or_default().into(),
            row.key_id.as_deref().unwrap_or_default().into(),
            row.user.as_deref().unwrap_or_default().into(),
            count.into(),
            tokens.map(|tokens| tokens.source).into(),
        ]
    })
}

impl UsageDelta {
    /// Writes the differences of open days, and their sums into the totals.
    pub(super) async fn store(
        self,
        connection: &mut SqliteConnection,
        known: &Known,
    ) -> Result<(), sqlx::Error> {
        let mut sum = Usage::default();
        for (key, usage) in self.hours {
            if known.is_open(day_of(key.hour_ms)) {
                add_hour(connection, &key, usage).await?;
                sum.add(usage, 1);
            }
        }
        let mut conversations = 0;
        for (day, difference) in self.days {
            if known.is_open(day) && difference != 0 {
                add_day(connection, day, difference).await?;
                conversations += difference;
            }
        }
        add_totals(connection, sum, conversations).await
    }
}

/// Adds to a row of `usage_hourly`.
pub(super) async fn add_hour(
    connection: &mut SqliteConnection,
    key: &UsageKey,
    usage: Usage,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO usage_hourly (
             hour_ms, model, provider, key_id, user,
             requests, errors, prompt_tokens, completion_tokens, duration_ms
         ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET
             requests = requests + excluded.requests,
             errors = errors + excluded.errors,
             prompt_tokens = prompt_tokens + excluded.prompt_tokens,
             completion_tokens = completion_tokens + excluded.completion_tokens,
             duration_ms = duration_ms + excluded.duration_ms",
    )
    .bind(key.hour_ms)
    .bind(&key.model)
    .bind(&key.provider)
    .bind(&key.key)
    .bind(&key.user)
    .bind(usage.requests)
    .bind(usage.errors)
    .bind(usage.prompt)
    .bind(usage.completion)
    .bind(usage.duration)
    .execute(connection)
    .await
    .map(drop)
}

/// Adds to a row of `conversation_days`; a row that comes to nothing goes.
pub(super) async fn add_day(
    connection: &mut SqliteConnection,
    day_ms: i64,
    conversations: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO conversation_days (day_ms, conversations) VALUES (?, ?)
         ON CONFLICT DO UPDATE SET conversations = conversations + excluded.conversations",
    )
    .bind(day_ms)
    .bind(conversations)
    .execute(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM conversation_days WHERE day_ms = ? AND conversations = 0")
        .bind(day_ms)
        .execute(connection)
        .await
        .map(drop)
}

/// Adds to the one row of `usage_totals`.
pub(super) async fn add_totals(
    connection: &mut SqliteConnection,
    usage: Usage,
    conversations: i64,
) -> Result<(), sqlx::Error> {
    if usage == Usage::default() && conversations == 0 {
        return Ok(());
    }
    sqlx::query(
        "UPDATE usage_totals SET requests = requests + ?, errors = errors + ?,
             prompt_tokens = prompt_tokens + ?, completion_tokens = completion_tokens + ?,
             duration_ms = duration_ms + ?, conversations = conversations + ?",
    )
    .bind(usage.requests)
    .bind(usage.errors)
    .bind(usage.prompt)
    .bind(usage.completion)
    .bind(usage.duration)
    .bind(conversations)
    .execute(connection)
    .await
    .map(drop)
}

/// Removes the usage of some days, and takes it out of the totals.
pub(super) async fn remove_days(
    connection: &mut SqliteConnection,
    days: &[i64],
) -> Result<(), sqlx::Error> {
    for day in days {
        let (requests, errors, prompt, completion, duration): (i64, i64, i64, i64, i64) =
            sqlx::query_as(
                "SELECT coalesce(sum(requests), 0), coalesce(sum(errors), 0),
                     coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0),
                     coalesce(sum(duration_ms), 0)
                 FROM usage_hourly WHERE hour_ms >= ? AND hour_ms < ?",
            )
            .bind(day)
            .bind(day.saturating_add(DAY_MS))
            .fetch_one(&mut *connection)
            .await?;
        let conversations: Option<i64> =
            sqlx::query_scalar("SELECT conversations FROM conversation_days WHERE day_ms = ?")
                .bind(day)
                .fetch_optional(&mut *connection)
                .await?;
        let gone = Usage {
            requests: -requests,
            errors: -errors,
            prompt: -prompt,
            completion: -completion,
            duration: -duration,
        };
        add_totals(connection, gone, -conversations.unwrap_or(0)).await?;
        sqlx::query("DELETE FROM usage_hourly WHERE hour_ms >= ? AND hour_ms < ?")
            .bind(day)
            .bind(day.saturating_add(DAY_MS))
            .execute(&mut *connection)
            .await?;
        sqlx::query("DELETE FROM conversation_days WHERE day_ms = ?")
            .bind(day)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
