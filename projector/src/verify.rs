//! Rebuilds the read model into a scratch file and compares: is every number really in the log?
//!
//! The live database is pinned by one read transaction; the scratch file is
//! built from the log up to exactly the sequences that the pinned state holds.
//! Then it is looked whether both have the same tables, and the ordered dumps of
//! all of them but `checkpoint` are compared row by row, without holding more
//! than one row of each. The projector goes on meanwhile.

mod explain;

use std::path::Path;

use futures_util::TryStreamExt;
use nexus_events::{
    log::{KnownError, Log, LogError},
    subject::Stream,
};
use serde::Serialize;
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use crate::{
    apply::{Applied, Writer, WriterError},
    checkpoint::Checkpoint,
    database,
    dump::{self, Table},
    position::{AsOf, STREAMS},
    read_model::{ReadError, ReadModel},
    rebuild::{self, BuildError},
    scratch::Scratch,
    source::Misfit,
};

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The position at which both were compared.
    pub as_of: AsOf,
    /// How far the log went when the position was taken.
    pub ends: AsOf,
    /// Events that the rebuild applied.
    pub events: u64,
    /// Rows that were compared.
    pub rows: u64,
    /// The first difference; `None`: there is none.
    pub difference: Option<Difference>,
}

impl Verdict {
    /// About how many events the log went beyond the position: the projector lags, or is dead.
    pub fn beyond(&self) -> u64 {
        rebuild::lag(self.as_of, self.ends)
    }
}

/// The first table that differs as a whole, else the first row that does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The table.
    pub table: String,
    /// Whether it is the table that differs, not one of its rows.
    pub whole_table: bool,
    /// The row in the live read model, or the table's columns; `None`: it has fewer.
    pub live: Option<String>,
    /// The row that the log gives, or the table's columns; `None`: it gives fewer.
    pub rebuilt: Option<String>,
    /// The events that the row comes from, one line each; empty for a sum over everything.
    pub events: Vec<String>,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is no live read model, or it cannot be read.
    #[error(transparent)]
    Live(#[from] ReadError),
    /// The live read model was written by another version of the apply code.
    #[error("the live read model was written by another version of the program")]
    OtherVersion,
    /// The scratch file could not be built.
    #[error("the read model could not be rebuilt from the log")]
    Rebuild(#[from] BuildError),
    /// Retention removed events while the log was read.
    #[error("stream {stream} was purged while it was read; verify again")]
    Purged {
        /// The stream.
        stream: Stream,
    },
}

impl From<sqlx::Error> for VerifyError {
    fn from(error: sqlx::Error) -> Self {
        Self::Live(error.into())
    }
}

impl From<LogError> for VerifyError {
    fn from(error: LogError) -> Self {
        Self::Rebuild(error.into())
    }
}

impl From<std::io::Error> for VerifyError {
    fn from(error: std::io::Error) -> Self {
        Self::Rebuild(error.into())
    }
}

impl From<WriterError> for VerifyError {
    fn from(error: WriterError) -> Self {
        Self::Rebuild(error.into())
    }
}

/// Rebuilds the read model of `dir` in a scratch folder in `scratch`, and compares.
///
/// The scratch folder is gone afterwards, also when this is dropped.
///
/// # Errors
/// [`VerifyError`]: there is no verdict. A difference is a verdict.
pub async fn verify(log: &Log, dir: &Path, scratch: &Path) -> Result<Verdict, VerifyError> {
    let mut live = ReadModel::open(dir).snapshot().await?;
    let checkpoint = Checkpoint::load(&mut live)
        .await?
        .ok_or(VerifyError::OtherVersion)?;
    let as_of = checkpoint.as_of();
    let before = first_sequences(log, &checkpoint).await?;
    let ends = rebuild::ends(log).await?;
    let scratch = Scratch::make(scratch)?;
    let path = scratch.dir().join("verify.db");
    let events = rebuild_until(log, &path, as_of).await?;
    let mut rebuilt = database::reader_options(&path).connect().await?;
    let mut compared = compare(&mut live, &mut rebuilt).await;
    if let Ok((_, Some(difference))) = &mut compared
        && !difference.whole_table
    {
        difference.events = match explain::explain(log, &mut rebuilt, difference).await {
            Ok(events) => events,
            Err(error) => vec![format!("the log could not be searched: {error}")],
        };
    }
    rebuilt.close().await?;
    drop(scratch);
    let (rows, difference) = compared?;
    if difference.is_some() {
        let after = first_sequences(log, &checkpoint).await?;
        let moved = STREAMS
            .into_iter()
            .find(|stream| before.of(*stream) != after.of(*stream));
        if let Some(stream) = moved {
            return Err(VerifyError::Purged { stream });
        }
    }
    Ok(Verdict {
        as_of,
        ends,
        events,
        rows,
        difference,
    })
}

/// Builds the scratch database; tells how many events it applied.
async fn rebuild_until(log: &Log, path: &Path, until: AsOf) -> Result<u64, VerifyError> {
    let mut writer = Writer::open(path).await?;
    let mut events = 0;
    let mut progress = |_, applied: Applied| events += applied.events;
    rebuild::replay(log, &mut writer, until, &mut progress).await?;
    writer.close().await?;
    Ok(events)
}

/// Where each stream begins; refuses a stream that is not the one that was applied.
async fn first_sequences(log: &Log, checkpoint: &Checkpoint) -> Result<AsOf, VerifyError> {
    let mut first = AsOf::default();
    for stream in STREAMS {
        let state = match log.known_stream(stream, checkpoint.known(stream)).await {
            Ok(state) => state,
            Err(KnownError::Other(error)) => {
                return Err(BuildError::Misfit(Misfit::from(error)).into());
            }
            Err(KnownError::Log(error)) => return Err(error.into()),
        };
        first.set(stream, state.first_sequence);
    }
    Ok(first)
}

/// Compares two databases; tells how many rows were the same and the first difference.
async fn compare(
    live: &mut SqliteConnection,
    rebuilt: &mut SqliteConnection,
) -> Result<(u64, Option<Difference>), sqlx::Error> {
    let tables = dump::tables(live).await?;
    let others = dump::tables(rebuilt).await?;
    if let Some(difference) = other_table(&tables, &others) {
        return Ok((0, Some(difference)));
    }
    let mut compared = 0;
    for table in &tables {
        let (rows, difference) = compare_table(table, live, rebuilt).await?;
        compared += rows;
        if difference.is_some() {
            return Ok((compared, difference));
        }
    }
    Ok((compared, None))
}

/// The first table that only one of them has, or that has other columns in the other.
fn other_table(live: &[Table], rebuilt: &[Table]) -> Option<Difference> {
    let differing = |tables: &[Table], others: &[Table]| -> Option<String> {
        let mut differing = tables.iter().filter(|table| !others.contains(table));
        differing.next().map(|table| table.name.clone())
    };
    let (ours, theirs) = (differing(live, rebuilt), differing(rebuilt, live));
    let table = ours.into_iter().chain(theirs).min()?;
    let columns = |tables: &[Table]| {
        let mut named = tables.iter().filter(|other| other.name == table);
        named.next().map(|table| table.columns.clone())
    };
    Some(Difference {
        live: columns(live),
        rebuilt: columns(rebuilt),
        whole_table: true,
        table,
        events: Vec::new(),
    })
}

async fn compare_table(
    table: &Table,
    live: &mut SqliteConnection,
    rebuilt: &mut SqliteConnection,
) -> Result<(u64, Option<Difference>), sqlx::Error> {
    let mut live = dump::rows(live, table);
    let mut rebuilt = dump::rows(rebuilt, table);
    let mut same = 0;
    loop {
        let (live, rebuilt) = (live.try_next().await?, rebuilt.try_next().await?);
        if live != rebuilt {
            let difference = Difference {
                table: table.name.clone(),
                whole_table: false,
                live,
                rebuilt,
                events: Vec::new(),
            };
            return Ok((same, Some(difference)));
        }
        if live.is_none() {
            return Ok((same, None));
        }
        same += 1;
    }
}
