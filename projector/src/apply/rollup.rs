//! Rollups: the statistics of a closed day replace what events had given it.
//!
//! A day may come in parts. They wait in `rollup_parts` until the last one is
//! read, and then are applied together: nobody ever sees half a day. Part 1
//! begins anew, because whoever published the parts before it died.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use nexus_events::{
    envelope::Envelope,
    log::Message,
    rollup_event::{Begun, DayClosed, UsageHour},
};
use sqlx::SqliteConnection;

use super::{
    Known, conversation,
    entry::{Reason, explain},
    usage::{self, DAY_MS, Usage, UsageDelta, UsageKey},
};
use crate::checkpoint::signed;

/// Largest sum that a rollup may hold: 2⁵⁶, so that thousands of them still add up.
const SUM_MAX: i64 = 1 << 56;

/// A rollup, or a part of one, checked.
struct Part {
    day_ms: i64,
    number: u32,
    more: bool,
    /// Usage of the same key added up.
    hours: BTreeMap<UsageKey, Usage>,
    conversations: i64,
    begun: Vec<Begun>,
}

/// Applies a rollup; the inner result is the reason why it cannot be.
pub(super) async fn apply(
    connection: &mut SqliteConnection,
    known: &mut Known,
    envelope: &Envelope<'_>,
    message: &Message,
) -> Result<Result<(), Reason>, sqlx::Error> {
    let part = match DayClosed::decode(envelope) {
        Ok(Some(rollup)) => read(rollup),
        Ok(None) => Err(format!("unknown type {}", envelope.kind)),
        Err(error) => Err(explain(&error)),
    };
    let part = match part {
        Ok(part) => part,
        Err(reason) => return Ok(Err(reason)),
    };
    if part.number == 1 {
        forget_parts(connection, part.day_ms).await?;
    }
    let before = parts_before(connection, &part).await?;
    if before + 1 != i64::from(part.number) {
        let number = part.number;
        let reason = format!("part {number} does not follow: {before} parts of the day are here");
        return Ok(Err(reason));
    }
    if part.more {
        keep(connection, &part, envelope.data.get()).await?;
    } else {
        known.closed_days.insert(part.day_ms);
        close(connection, known, &part, signed(message.sequence)).await?;
    }
    Ok(Ok(()))
}

/// How many parts of the day are kept.
async fn parts_before(connection: &mut SqliteConnection, part: &Part) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT count(*) FROM rollup_parts WHERE day_ms = ?")
        .bind(part.day_ms)
        .fetch_one(connection)
        .await
}

async fn keep(
    connection: &mut SqliteConnection,
    part: &Part,
    data: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO rollup_parts (day_ms, part, data) VALUES (?, ?, ?)")
        .bind(part.day_ms)
        .bind(part.number)
        .bind(data)
        .execute(connection)
        .await
        .map(drop)
}

async fn forget_parts(connection: &mut SqliteConnection, day_ms: i64) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM rollup_parts WHERE day_ms = ?")
        .bind(day_ms)
        .execute(connection)
        .await
        .map(drop)
}

/// Replaces the day's statistics by what its parts say, one part in memory at a time.
async fn close(
    connection: &mut SqliteConnection,
    known: &Known,
    last: &Part,
    sequence: i64,
) -> Result<(), sqlx::Error> {
    let day_ms = last.day_ms;
    usage::remove_days(connection, &[day_ms]).await?;
    for number in 1..last.number {
        let data: String =
            sqlx::query_scalar("SELECT data FROM rollup_parts WHERE day_ms = ? AND part = ?")
                .bind(day_ms)
                .bind(number)
                .fetch_one(&mut *connection)
                .await?;
        // It was read before it was kept, so this never fails.
        let rollup = serde_json::from_str(&data).map_err(|error| explain(&error));
        let part = rollup.and_then(read);
        let part = part.map_err(|reason| sqlx::Error::Decode(reason.into()))?;
        add(connection, known, &part).await?;
    }
    add(connection, known, last).await?;
    forget_parts(connection, day_ms).await?;
    sqlx::query("INSERT OR REPLACE INTO closed_days (day_ms, sequence) VALUES (?, ?)")
        .bind(day_ms)
        .bind(sequence)
        .execute(connection)
        .await
        .map(drop)
}

async fn add(
    connection: &mut SqliteConnection,
    known: &Known,
    part: &Part,
) -> Result<(), sqlx::Error> {
    let mut sum = Usage::default();
    for (key, usage) in &part.hours {
        usage::add_hour(connection, key, *usage).await?;
        sum.add(*usage, 1);
    }
    if part.conversations > 0 {
        usage::add_day(connection, part.day_ms, part.conversations).await?;
    }
    usage::add_totals(connection, sum, part.conversations).await?;
    let mut moved = UsageDelta::default();
    for begun in &part.begun {
        conversation::note_begun(connection, known, begun, &mut moved).await?;
    }
    moved.store(connection, known).await
}

fn read(rollup: DayClosed) -> Result<Part, Reason> {
    let day_ms = NaiveDate::parse_from_str(&rollup.day, "%Y-%m-%d")
        .map_err(|error| format!("the day {} is none: {error}", rollup.day))?
        .and_time(chrono::NaiveTime::MIN)
        .and_utc()
        .timestamp_millis();
    if !(0..=SUM_MAX).contains(&rollup.conversations) {
        return Err(format!("{} conversations", rollup.conversations));
    }
    let mut hours: BTreeMap<UsageKey, Usage> = BTreeMap::new();
    for hour in &rollup.usage {
        let (key, usage) = read_hour(day_ms, hour)?;
        hours.entry(key).or_default().add(usage, 1);
    }
    let day = day_ms..day_ms.saturating_add(DAY_MS);
    if let Some(begun) = rollup
        .begun
        .iter()
        .find(|begun| !day.contains(&begun.began_ms))
    {
        return Err(format!("{} began on another day", begun.conversation));
    }
    Ok(Part {
        day_ms,
        number: rollup.part,
        more: rollup.more,
        hours,
        conversations: rollup.conversations,
        begun: rollup.begun,
    })
}

fn read_hour(day_ms: i64, hour: &UsageHour) -> Result<(UsageKey, Usage), Reason> {
    if !(day_ms..day_ms.saturating_add(DAY_MS)).contains(&hour.hour_ms) {
        return Err(format!("the hour {} is not of the day", hour.hour_ms));
    }
    let usage = Usage {
        requests: hour.requests,
        errors: hour.errors,
        prompt: hour.prompt_tokens,
        completion: hour.completion_tokens,
        duration: hour.duration_ms,
    };
    let sums = [
        usage.requests,
        usage.errors,
        usage.prompt,
        usage.completion,
        usage.duration,
    ];
    if let Some(absurd) = sums.into_iter().find(|sum| !(0..=SUM_MAX).contains(sum)) {
        return Err(format!("a sum of {absurd}"));
    }
    let key = UsageKey {
        hour_ms: hour.hour_ms,
        model: hour.model.clone(),
        provider: hour.provider.clone(),
        key: hour.key.clone(),
        user: hour.user.clone(),
    };
    Ok((key, usage))
}
