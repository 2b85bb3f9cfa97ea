//! Retention: what is older than the cutoff goes, but for closed statistics.
//!
//! The cutoff is the start of a day in UTC, so that it never divides a row of
//! the statistics. Only the greatest one matters; what the log still holds
//! from before it is left aside when it is read.

use nexus_events::audit_event::RetentionApplied;
use sqlx::SqliteConnection;

use super::{
    Known, conversation,
    usage::{self, UsageDelta, day_of},
};
use crate::checkpoint::signed;

/// Follows a retention that was applied to the log.
pub(super) async fn apply(
    connection: &mut SqliteConnection,
    known: &mut Known,
    event: RetentionApplied,
) -> Result<(), sqlx::Error> {
    known.cutoff_ms = known.cutoff_ms.max(day_of(event.cutoff_ms));
    known.exchanges_sequence = known
        .exchanges_sequence
        .max(signed(event.exchanges_sequence));
    known.audit_sequence = known.audit_sequence.max(signed(event.audit_sequence));
    sqlx::query("UPDATE retention SET cutoff_ms = ?, exchanges_sequence = ?, audit_sequence = ?")
        .bind(known.cutoff_ms)
        .bind(known.exchanges_sequence)
        .bind(known.audit_sequence)
        .execute(&mut *connection)
        .await?;
    expire_exchanges(connection, known).await?;
    expire_days(connection, known).await?;
    expire_sequences(connection, known).await
}

/// The text that sorts below every UUIDv7 that was drawn at or after a moment, and above all others.
pub(crate) fn id_bound(moment_ms: i64) -> String {
    let millis = u64::try_from(moment_ms).unwrap_or(0);
    format!("{:08x}-{:04x}", millis >> 16, millis & 0xffff)
}

async fn expire_exchanges(
    connection: &mut SqliteConnection,
    known: &Known,
) -> Result<(), sqlx::Error> {
    let bound = id_bound(known.cutoff_ms);
    for statement in [
        "DELETE FROM exchanges WHERE request_id < ?",
        "DELETE FROM attempts WHERE request_id < ?",
        "DELETE FROM exchange_content WHERE request_id < ?",
        "DELETE FROM chat_stats WHERE request_id < ?",
        "DELETE FROM chat_messages WHERE request_id < ?",
        "DELETE FROM dead_letter WHERE stream = 'NEXUS_EXCHANGES' AND request_id < ?",
    ] {
        sqlx::query(statement)
            .bind(&bound)
            .execute(&mut *connection)
            .await?;
    }
    let mut usage = UsageDelta::default();
    conversation::expire(connection, known, &bound, &mut usage).await?;
    usage.store(connection, known).await
}

/// Removes the statistics of days before the cutoff that have no rollup.
async fn expire_days(connection: &mut SqliteConnection, known: &Known) -> Result<(), sqlx::Error> {
    let days: Vec<i64> = sqlx::query_scalar(
        "SELECT day_ms FROM (
             SELECT DISTINCT hour_ms - ((hour_ms % 86400000) + 86400000) % 86400000 AS day_ms
             FROM usage_hourly WHERE hour_ms < ?1
             UNION SELECT day_ms FROM conversation_days WHERE day_ms < ?1
         ) WHERE day_ms NOT IN (SELECT day_ms FROM closed_days)",
    )
    .bind(known.cutoff_ms)
    .fetch_all(&mut *connection)
    .await?;
    usage::remove_days(connection, &days).await
}

/// Removes what is known by its sequence only.
async fn expire_sequences(
    connection: &mut SqliteConnection,
    known: &Known,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM audit_log WHERE sequence < ?")
        .bind(known.audit_sequence)
        .execute(&mut *connection)
        .await?;
    for (stream, sequence) in [
        ("NEXUS_AUDIT", known.audit_sequence),
        ("NEXUS_EXCHANGES", known.exchanges_sequence),
    ] {
        sqlx::query("DELETE FROM dead_letter WHERE stream = ? AND sequence < ?")
            .bind(stream)
            .bind(sequence)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use nexus_events::{
        clock::{ManualClock, UnixMillis},
        id::RequestId,
    };

    use super::*;

    #[test]
    fn the_bound_parts_ids_by_the_moment_they_were_drawn() {
        let moment = 1_795_132_800_000;
        let bound = id_bound(moment);
        let drawn = |ms| {
            let clock = ManualClock::at(UnixMillis::from_millis(ms));
            RequestId::draw(&clock).to_string()
        };
        assert!(drawn(moment) > bound);
        assert!(drawn(moment + 1) > bound);
        assert!(drawn(moment - 1) < bound);
        assert!(drawn(moment - 100_000_000) < bound);
    }
}
