//! Reads the read model; writes nothing.
//!
//! *What it is.* A handle on the folder that holds the database. Each query
//! looks at the pointer file and opens the database that it names, so the
//! handle can be made before there is a read model, follows a swap, and finds
//! a database that was deleted and built anew. What depends on the present
//! moment (active sessions) takes it as an argument.
//!
//! A projector that has halted leaves a note in the folder, and then nothing is
//! answered: numbers that no longer follow from the log are worse than none.
//!
//! *What it promises.* Each answer comes from one read transaction: it is the
//! state after some prefix of each stream, never half of a commit.

pub mod conversations;
pub mod keeping;
pub mod recent;

pub mod requests;
pub mod spending;
pub mod stats;
mod tree;
pub mod unsettled;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use nexus_events::clock::UnixMillis;
use sqlx::{Sqlite, SqlitePool, Transaction, sqlite::SqlitePoolOptions};
use tokio::sync::RwLock;

use crate::{
    database::{self, Identity},
    position::AsOf,
};

pub use conversations::{
    Conversation, ConversationMessage, ConversationSummary, Page, PageRequest,
};
pub use keeping::{Copy, CopyError, Day, Retention};
pub use recent::{ExchangeEnd, RecentEnds, SystemMessage};
pub use requests::{Attempt, Choice, Failure, Request, TokenCheck};
pub use spending::UsedTokens;
pub use stats::{ConversationStats, Stats, TokensUsage};
pub use unsettled::{ReadUpTo, Unsettled, UnsettledRequest, Wanted};

/// A conversation is active for 30 minutes after its last exchange ended: the window of §6 in
/// which a request continues it.
pub const ACTIVE_WINDOW: std::time::Duration = std::time::Duration::from_mins(30);

/// Connections of one handle: 4 readers keep two cores busy, and SQLite needs no more.
const CONNECTIONS_MAX: u32 = 4;

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no read model (yet); asking again later may help.
    #[error("the read model is not available: {reason}")]
    Unavailable {
        /// What is missing.
        reason: String,
    },
    /// The cursor of a page is none that a page gave.
    #[error("the cursor is not one that this list gave")]
    BadCursor,
    /// A row breaks the schema's own rules: a defect of the projector.
    #[error("column {column} of table {table} holds what it never should")]
    Inconsistent {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
    },
    /// The database failed.
    #[error("the read model could not be read")]
    Database(#[from] sqlx::Error),
}

/// The read model. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ReadModel {
    dir: Arc<Path>,
    open: Arc<RwLock<Option<Open>>>,
}

/// The database that the last query used.
#[derive(Clone, Debug)]
struct Open {
    identity: Identity,
    pool: SqlitePool,
}

impl ReadModel {
    /// A handle on the read model in a folder; opens nothing yet.
    pub fn open(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into().into(),
            open: Arc::default(),
        }
    }

    /// The last sequence of each stream that the read model holds.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn as_of(&self) -> Result<AsOf, ReadError> {
        let mut snapshot = self.snapshot().await?;
        as_of(&mut snapshot).await
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Begins a read transaction on the current database.
    pub(crate) async fn snapshot(&self) -> Result<Transaction<'static, Sqlite>, ReadError> {
        let pool = self.pool().await?;
        pool.begin().await.map_err(|error| {
            if database::is_absent(&error) {
                let reason = "the database of the read model is gone".to_owned();
                ReadError::Unavailable { reason }
            } else {
                ReadError::Database(error)
            }
        })
    }

    /// The pool of the database that the pointer names now.
    async fn pool(&self) -> Result<SqlitePool, ReadError> {
        if let Some(reason) = database::halt(&self.dir) {
            return Err(ReadError::Unavailable { reason });
        }
        let current = database::current(&self.dir).map_err(|error| ReadError::Unavailable {
            reason: error.to_string(),
        })?;
        if let Some(open) = self.open.read().await.as_ref()
            && open.identity == current
        {
            return Ok(open.pool.clone());
        }
        let mut open = self.open.write().await;
        if let Some(open) = open.as_ref()
            && open.identity == current
        {
            return Ok(open.pool.clone());
        }
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .connect_lazy_with(database::reader_options(&current.path));
        // The pool of the database before is closed when its last query ends.
        *open = Some(Open {
            identity: current,
            pool: pool.clone(),
        });
        Ok(pool)
    }
}

/// The checkpoint that a read transaction sees.
pub(crate) async fn as_of(snapshot: &mut Transaction<'static, Sqlite>) -> Result<AsOf, ReadError> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("SELECT stream, sequence FROM checkpoint WHERE outbox = ''")
            .fetch_all(&mut **snapshot)
            .await?;
    let mut as_of = AsOf::default();
    for (name, sequence) in rows {
        let stream = crate::position::STREAMS
            .into_iter()
            .find(|stream| stream.name() == name);
        if let Some(stream) = stream {
            as_of.set(stream, count("checkpoint", "sequence", sequence)?);
        }
    }
    Ok(as_of)
}

/// A count that the schema keeps at or above 0.
fn count(table: &'static str, column: &'static str, value: i64) -> Result<u64, ReadError> {
    u64::try_from(value).or(Err(ReadError::Inconsistent { table, column }))
}

/// An optional count.
fn optional_count(
    table: &'static str,
    column: &'static str,
    value: Option<i64>,
) -> Result<Option<u64>, ReadError> {
    value.map(|value| count(table, column, value)).transpose()
}

/// Text that the projector wrote in a known form: an id, a JSON text.
fn parsed<T: std::str::FromStr>(
    table: &'static str,
    column: &'static str,
    text: &str,
) -> Result<T, ReadError> {
    text.parse()
        .or(Err(ReadError::Inconsistent { table, column }))
}

/// Optional text in a known form.
fn optional_parsed<T: std::str::FromStr>(
    table: &'static str,
    column: &'static str,
    text: Option<String>,
) -> Result<Option<T>, ReadError> {
    text.map(|text| parsed(table, column, &text)).transpose()
}

/// JSON that the projector wrote.
fn json<T: serde::de::DeserializeOwned>(
    table: &'static str,
    column: &'static str,
    text: &str,
) -> Result<T, ReadError> {
    serde_json::from_str(text).or(Err(ReadError::Inconsistent { table, column }))
}

/// Whether a conversation whose last exchange ended then is active now.
const fn active_since(now: UnixMillis) -> i64 {
    now.as_millis().saturating_sub(30 * 60 * 1000)
}
