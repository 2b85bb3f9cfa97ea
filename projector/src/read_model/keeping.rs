//! What the archiver asks for: a copy of the database, the days to close, what may be purged.

use std::{collections::VecDeque, path::Path};

use nexus_events::{
    clock::UnixMillis,
    id::ConversationId,
    rollup_event::{Begun, UsageHour},
};
use sqlx::{ConnectOptions, Connection, Sqlite, Transaction};

use super::{ReadError, ReadModel, count};
use crate::{
    apply::id_bound,
    checkpoint::{APPLY_VERSION, Checkpoint},
    database,
    position::AsOf,
};

/// A copy of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// How far the log was read when it was taken.
    pub as_of: AsOf,
    /// Version of the code that applied the events.
    pub apply_version: i64,
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// There is no read model, or it cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The copy is not sound.
    #[error("the copy of the read model is damaged: {findings}")]
    Damaged {
        /// What SQLite found.
        findings: String,
    },
    /// The copy was written by another version of the program.
    #[error("the read model was written by another version of the program")]
    OtherVersion,
}

impl From<sqlx::Error> for CopyError {
    fn from(error: sqlx::Error) -> Self {
        Self::Read(error.into())
    }
}

/// The retention that the read model has followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Requests that were drawn before this are gone, milliseconds since 1970; 0: none are.
    pub cutoff_ms: i64,
    /// Exchange events below this sequence may be purged.
    pub exchanges_sequence: u64,
    /// Audit events below this sequence may be purged.
    pub audit_sequence: u64,
}

/// Rows of a day that are read at a time: 1 000, some hundred KiB.
const PAGE: u32 = 1_000;

/// The statistics of one day, row by row, all as they were at one moment.
#[derive(Debug)]
pub struct Day {
    snapshot: Transaction<'static, Sqlite>,
    begin_ms: i64,
    end_ms: i64,
    conversations: i64,
    hours: VecDeque<UsageRow>,
    /// The key of the last row that was read.
    after: (i64, [String; 4]),
}

impl Day {
    /// Conversations that began on it.
    pub const fn conversations(&self) -> i64 {
        self.conversations
    }

    /// The next row of its usage; `None` after the last.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn next_hour(&mut self) -> Result<Option<UsageHour>, ReadError> {
        if self.hours.is_empty() {
            self.read_page().await?;
        }
        Ok(self.hours.pop_front().map(UsageRow::hour))
    }

    /// The next conversations that a rollup must tell of, after the one that began with the
    /// request `after`; with the first request of the last of them, `None` after the last.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn begun(&mut self, after: &str) -> Result<Option<(Vec<Begun>, String)>, ReadError> {
        let end = id_bound(self.end_ms);
        // What began before is told by the rollup of an earlier day.
        let rows: Vec<(String, i64, String)> = sqlx::query_as(
            "SELECT conversation_id, began_ms, first_request_id FROM conversations
             WHERE first_request_id > max(?, ?) AND first_request_id < ?
                 AND last_request_id >= ? AND began_ms >= ?
             ORDER BY first_request_id LIMIT ?",
        )
        .bind(after)
        .bind(id_bound(self.begin_ms))
        .bind(&end)
        .bind(&end)
        .bind(self.begin_ms)
        .bind(PAGE)
        .fetch_all(&mut *self.snapshot)
        .await?;
        let Some((_, _, last)) = rows.last() else {
            return Ok(None);
        };
        let last = last.clone();
        let begun = rows.into_iter().filter_map(|(conversation, began_ms, _)| {
            let conversation: ConversationId = conversation.parse().ok()?;
            let is_timeless = conversation.drawn_at().as_millis() == 0;
            is_timeless.then_some(Begun {
                conversation,
                began_ms,
            })
        });
        Ok(Some((begun.collect(), last)))
    }

    async fn read_page(&mut self) -> Result<(), ReadError> {
        let (hour_ms, [model, provider, key, user]) = &self.after;
        // It begins with a key that no row has: the id of an API key is never empty.
        let rows: Vec<UsageRow> = sqlx::query_as(
            "SELECT * FROM usage_hourly
             WHERE (hour_ms, model, provider, key_id, user) > (?, ?, ?, ?, ?) AND hour_ms < ?
             ORDER BY hour_ms, model, provider, key_id, user LIMIT ?",
        )
        .bind(hour_ms)
        .bind(model)
        .bind(provider)
        .bind(key)
        .bind(user)
        .bind(self.end_ms)
        .bind(PAGE)
        .fetch_all(&mut *self.snapshot)
        .await?;
        if let Some(last) = rows.last() {
            self.after = (last.hour_ms, last.names());
        }
        self.hours = rows.into();
        Ok(())
    }
}

#[derive(Debug, sqlx::FromRow)]
struct UsageRow {
    hour_ms: i64,
    model: String,
    provider: String,
    key_id: String,
    user: String,
    requests: i64,
    errors: i64,
    prompt_tokens: i64,
    completion_tokens: i64,
    duration_ms: i64,
}

impl ReadModel {
    /// Writes a consistent copy of the database to `path`, which must not exist, and checks it.
    ///
    /// # Errors
    /// [`CopyError`]; a file may then be left at `path`.
    pub async fn copy_to(&self, path: &Path) -> Result<Copy, CopyError> {
        let current = database::current(self.dir()).map_err(|error| ReadError::Unavailable {
            reason: error.to_string(),
        })?;
        database::create(path).map_err(sqlx::Error::from)?;
        let mut source = database::copier_options(&current.path).connect().await?;
        sqlx::query("VACUUM INTO ?")
            .bind(path.to_string_lossy())
            .execute(&mut source)
            .await?;
        source.close().await?;
        let mut copy = database::reader_options(path).connect().await?;
        let findings: Vec<String> = sqlx::query_scalar("PRAGMA integrity_check")
            .fetch_all(&mut copy)
            .await?;
        if findings != ["ok"] {
            return Err(CopyError::Damaged {
                findings: findings.join("; "),
            });
        }
        let checkpoint = Checkpoint::load(&mut copy).await?;
        copy.close().await?;
        let as_of = checkpoint.ok_or(CopyError::OtherVersion)?.as_of();
        Ok(Copy {
            as_of,
            apply_version: APPLY_VERSION,
        })
    }

    /// The days before `cutoff` that have statistics and no rollup yet, oldest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn days_to_close(&self, cutoff: UnixMillis) -> Result<Vec<UnixMillis>, ReadError> {
        let mut snapshot = self.snapshot().await?;
        let days: Vec<i64> = sqlx::query_scalar(
            "SELECT day_ms FROM (
                 SELECT DISTINCT hour_ms - ((hour_ms % 86400000) + 86400000) % 86400000 AS day_ms
                 FROM usage_hourly WHERE hour_ms < ?1
                 UNION SELECT day_ms FROM conversation_days WHERE day_ms < ?1
             ) WHERE day_ms NOT IN (SELECT day_ms FROM closed_days) ORDER BY day_ms",
        )
        .bind(cutoff.as_millis())
        .fetch_all(&mut *snapshot)
        .await?;
        Ok(days.into_iter().map(UnixMillis::from_millis).collect())
    }

    /// The statistics of a day, as they are at this moment.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn day(&self, day: UnixMillis) -> Result<Day, ReadError> {
        let mut snapshot = self.snapshot().await?;
        let conversations =
            sqlx::query_scalar("SELECT conversations FROM conversation_days WHERE day_ms = ?")
                .bind(day.as_millis())
                .fetch_optional(&mut *snapshot)
                .await?;
        Ok(Day {
            snapshot,
            begin_ms: day.as_millis(),
            end_ms: day.as_millis().saturating_add(crate::apply::DAY_MS),
            conversations: conversations.unwrap_or(0),
            hours: VecDeque::new(),
            after: (day.as_millis(), [const { String::new() }; 4]),
        })
    }

    /// The retention that the read model has followed.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn retention(&self) -> Result<Retention, ReadError> {
        const TABLE: &str = "retention";
        let mut snapshot = self.snapshot().await?;
        let (cutoff_ms, exchanges, audit): (i64, i64, i64) =
            sqlx::query_as("SELECT cutoff_ms, exchanges_sequence, audit_sequence FROM retention")
                .fetch_one(&mut *snapshot)
                .await?;
        Ok(Retention {
            cutoff_ms,
            exchanges_sequence: count(TABLE, "exchanges_sequence", exchanges)?,
            audit_sequence: count(TABLE, "audit_sequence", audit)?,
        })
    }

    /// The lowest sequence of an event of a request that was drawn at or after `cutoff`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn first_sequence_since(&self, cutoff: UnixMillis) -> Result<Option<u64>, ReadError> {
        let mut snapshot = self.snapshot().await?;
        let first: Option<i64> = sqlx::query_scalar(
            "SELECT first_sequence FROM exchanges WHERE drawn_ms >= ?
             ORDER BY first_sequence LIMIT 1",
        )
        .bind(cutoff.as_millis())
        .fetch_optional(&mut *snapshot)
        .await?;
        super::optional_count("exchanges", "first_sequence", first)
    }
}

impl UsageRow {
    /// The rest of its key.
    fn names(&self) -> [String; 4] {
        [&self.model, &self.provider, &self.key_id, &self.user].map(Clone::clone)
    }

    fn hour(self) -> UsageHour {
        UsageHour {
            hour_ms: self.hour_ms,
            model: self.model,
            provider: self.provider,
            key: self.key_id,
            user: self.user,
            requests: self.requests,
            errors: self.errors,
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
            duration_ms: self.duration_ms,
        }
    }
}
