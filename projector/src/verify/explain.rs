//! Which event of the log a row that differs comes from.
//!
//! A row of the dump names what it is about: a request, a sequence of a stream,
//! an hour. From there the way leads to events: those of the request in the
//! order of the log, the one with the sequence, the last request of the hour.

use nexus_events::{
    envelope::Envelope,
    id::RequestId,
    log::{Log, Message, history::HistoryError},
    subject::Stream,
};
use sqlx::SqliteConnection;

use super::Difference;

/// Tells the events that a difference comes from, one line each; empty for sums over everything.
///
/// # Errors
/// The log cannot be searched, or the rebuilt database cannot be read.
pub(super) async fn explain(
    log: &Log,
    rebuilt: &mut SqliteConnection,
    difference: &Difference,
) -> Result<Vec<String>, HistoryError> {
    let row = difference.rebuilt.as_deref().or(difference.live.as_deref());
    let row = row.unwrap_or_default();
    let table = difference.table.as_str();
    if let Some(stream) = stream_of(table, row) {
        let sequence = column(row, "sequence").and_then(|text| text.parse().ok());
        return match sequence {
            Some(sequence) => event_at(log, stream, sequence).await,
            None => Ok(Vec::new()),
        };
    }
    let request = match table {
        "usage_hourly" => last_request_of_hour(rebuilt, row).await,
        "conversations" => column(row, "last_request_id"),
        _ => column(row, "request_id"),
    };
    match request.and_then(|request| request.parse::<RequestId>().ok()) {
        Some(request) => {
            let events = log.messages_of(request).await?;
            let lines = events.iter();
            Ok(lines
                .map(|message| line(Stream::Exchanges, message))
                .collect())
        }
        None => Ok(Vec::new()),
    }
}

/// The stream whose sequence a row of the table holds in its column `sequence`.
fn stream_of(table: &str, row: &str) -> Option<Stream> {
    match table {
        "service_providers" | "provider_models" | "api_keys" | "settings" => Some(Stream::Config),
        "audit_log" => Some(Stream::Audit),
        "closed_days" => Some(Stream::Rollups),
        "dead_letter" => {
            let name = column(row, "stream")?;
            Stream::ALL.into_iter().find(|stream| stream.name() == name)
        }
        _ => None,
    }
}

/// The value of a column in a row of the dump; `None` for null and for none.
fn column(row: &str, name: &str) -> Option<String> {
    let mut rest = row;
    while let Some((column, after)) = rest.split_once('=') {
        let (value, left) = value(after);
        if column == name {
            return value;
        }
        rest = left.trim_start();
    }
    None
}

/// The value at the begin, as SQLite quotes it, and what follows it.
fn value(text: &str) -> (Option<String>, &str) {
    let Some(quoted) = text.strip_prefix('\'') else {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        return ((word != "NULL").then(|| word.to_owned()), rest);
    };
    let mut value = String::new();
    let mut rest = quoted;
    while let Some((part, after)) = rest.split_once('\'') {
        value.push_str(part);
        rest = after;
        // A quote inside the text is written twice.
        match rest.strip_prefix('\'') {
            Some(after) => {
                value.push('\'');
                rest = after;
            }
            None => break,
        }
    }
    (Some(value), rest)
}

async fn last_request_of_hour(rebuilt: &mut SqliteConnection, row: &str) -> Option<String> {
    let hour: i64 = column(row, "hour_ms")?.parse().ok()?;
    let request: Result<Option<String>, _> = sqlx::query_scalar(
        "SELECT request_id FROM chat_stats
         WHERE at_ms >= ?1 AND at_ms < ?1 + 3600000 AND model = ?2 AND provider = ?3
         ORDER BY request_id DESC LIMIT 1",
    )
    .bind(hour)
    .bind(column(row, "model")?)
    .bind(column(row, "provider")?)
    .fetch_optional(rebuilt)
    .await;
    request.ok().flatten()
}

async fn event_at(log: &Log, stream: Stream, sequence: u64) -> Result<Vec<String>, HistoryError> {
    let message = log.message_at(stream, sequence).await?;
    Ok(message
        .iter()
        .map(|message| line(stream, message))
        .collect())
}

fn line(stream: Stream, message: &Message) -> String {
    let (sequence, stored) = (message.sequence, message.time.to_rfc3339());
    match Envelope::decode(&message.payload) {
        Ok(envelope) => format!(
            "event {sequence} of {stream}: {}, about {}, stored at {stored}",
            envelope.kind, envelope.subject
        ),
        Err(_) => format!("event {sequence} of {stream}: unreadable, stored at {stored}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_their_name_and_not_in_what_others_say() {
        let row = "text='it''s request_id=''no'' ' request_id='0199c0de' last_request_id='x y' hour_ms=7 sequence=12 user=NULL";
        assert_eq!(
            column(row, "text").as_deref(),
            Some("it's request_id='no' ")
        );
        assert_eq!(column(row, "request_id").as_deref(), Some("0199c0de"));
        assert_eq!(column(row, "last_request_id").as_deref(), Some("x y"));
        assert_eq!(column(row, "hour_ms").as_deref(), Some("7"));
        assert_eq!(column(row, "sequence").as_deref(), Some("12"));
        assert_eq!(column(row, "user"), None);
        assert_eq!(column(row, "ms"), None);
    }
}
