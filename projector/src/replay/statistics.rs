//! Only the statistics: rebuilt from the log, put into a copy of the live database.
//!
//! 1. The live database is copied at its checkpoint, without disturbing it.
//! 2. A scratch database is filled from the log up to exactly that checkpoint,
//!    without what was said: statistics do not need it.
//! 3. The copy's tables of statistics are replaced by the scratch's, in one
//!    transaction. They are now what the log says, and all others are what they
//!    were.
//! 4. The copy catches up with the log like any other database.
//!
//! Each step can be done again: the copy has its name only when it is whole,
//! the scratch goes on from its own checkpoint, the transaction is whole or
//! was not.

use std::path::{Path, PathBuf};

use nexus_events::log::Log;
use sqlx::{AssertSqlSafe, Connection};

use super::{ReplayError, Told, build};
use crate::{
    apply::Writer,
    checkpoint::APPLY_VERSION,
    database,
    position::{AsOf, STREAMS},
    read_model::ReadModel,
    rebuild,
};

/// The tables that are sums over the log, conversations with their counts among them.
const TABLES: [&str; 8] = [
    "rollup_parts",
    "begun_conversations",
    "chat_stats",
    "usage_hourly",
    "usage_totals",
    "conversation_days",
    "closed_days",
    "conversations",
];

/// Builds a database whose statistics are new; gives its path.
pub(super) async fn build_database(
    log: &Log,
    dir: &Path,
    fresh: bool,
    told: &mut Told<'_, '_>,
) -> Result<PathBuf, ReplayError> {
    if let Some(reason) = database::halt(dir) {
        return Err(ReplayError::Halted { reason });
    }
    let copy = dir.join(format!("replay-copy-v{APPLY_VERSION}.db"));
    let scratch = dir.join(format!("replay-statistics-v{APPLY_VERSION}.db"));
    if fresh {
        rebuild::remove_database(&copy)?;
        rebuild::remove_database(&scratch)?;
    }
    let as_of = match copied(&copy).await? {
        Some(as_of) => as_of,
        None => copy_live(dir, &copy).await?,
    };
    let before = first_sequences(log).await?;
    fill(log, &scratch, as_of, told).await?;
    if was_purged(before, first_sequences(log).await?) {
        return Err(ReplayError::Purged);
    }
    transplant(&copy, &scratch).await?;
    build(log, &copy, false, told).await?;
    rebuild::remove_database(&scratch)?;
    Ok(copy)
}

/// Where the copy of an earlier run stands, if there is one that will do.
async fn copied(copy: &Path) -> Result<Option<AsOf>, ReplayError> {
    if !copy.try_exists()? {
        return Ok(None);
    }
    match Writer::open(copy).await {
        Ok(writer) => {
            let as_of = writer.as_of();
            writer.close().await?;
            Ok(Some(as_of))
        }
        Err(error) if rebuild::is_outdated(&error) => {
            rebuild::remove_database(copy)?;
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

async fn copy_live(dir: &Path, copy: &Path) -> Result<AsOf, ReplayError> {
    let part = copy.with_extension("part");
    rebuild::remove_database(&part)?;
    let taken = ReadModel::open(dir).copy_to(&part).await?;
    std::fs::rename(&part, copy)?;
    Ok(taken.as_of)
}

/// Fills the scratch database up to exactly `as_of`.
async fn fill(
    log: &Log,
    scratch: &Path,
    as_of: AsOf,
    told: &mut Told<'_, '_>,
) -> Result<(), ReplayError> {
    let mut writer = match Writer::open(scratch).await {
        Err(error) if rebuild::is_outdated(&error) => {
            rebuild::remove_database(scratch)?;
            Writer::open(scratch).await?
        }
        opened => opened?,
    };
    if STREAMS
        .into_iter()
        .any(|stream| writer.as_of().of(stream) > as_of.of(stream))
    {
        // Left by a run whose copy is gone.
        writer.close().await?;
        rebuild::remove_database(scratch)?;
        writer = Writer::open(scratch).await?;
    }
    writer.leave_content_aside();
    told.progress.ends = as_of;
    rebuild::replay(log, &mut writer, as_of, &mut told.apply()).await?;
    Ok(writer.close().await?)
}

async fn first_sequences(log: &Log) -> Result<AsOf, ReplayError> {
    let mut first = AsOf::default();
    for stream in STREAMS {
        first.set(stream, log.first_event(stream).await?.unwrap_or(0));
    }
    Ok(first)
}

/// Whether events went from the front of a stream; one that was empty only got its first.
fn was_purged(before: AsOf, after: AsOf) -> bool {
    let mut streams = STREAMS.into_iter();
    streams.any(|stream| before.of(stream) > 0 && after.of(stream) != before.of(stream))
}

/// Replaces the copy's statistics by the scratch's.
async fn transplant(copy: &Path, scratch: &Path) -> Result<(), ReplayError> {
    let opened = database::open_writer(copy).await;
    let mut connection = opened.map_err(crate::apply::WriterError::from)?;
    sqlx::query("ATTACH DATABASE ? AS scratch")
        .bind(scratch.to_string_lossy())
        .execute(&mut connection)
        .await?;
    let mut transaction = connection.begin().await?;
    for table in TABLES {
        for statement in [
            format!("DELETE FROM main.{table}"),
            format!("INSERT INTO main.{table} SELECT * FROM scratch.{table}"),
        ] {
            sqlx::query(AssertSqlSafe(statement))
                .execute(&mut *transaction)
                .await?;
        }
    }
    transaction.commit().await?;
    connection.close().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use nexus_events::subject::Stream;

    use super::*;

    #[test]
    fn the_first_event_of_a_stream_is_no_purge() {
        let firsts = |audit| {
            let mut firsts = AsOf::default();
            firsts.set(Stream::Exchanges, 3);
            firsts.set(Stream::Audit, audit);
            firsts
        };
        assert!(!was_purged(firsts(0), firsts(0)));
        assert!(!was_purged(firsts(0), firsts(1)), "it got its first");
        assert!(!was_purged(firsts(1), firsts(1)));
        assert!(was_purged(firsts(1), firsts(5)));
        assert!(was_purged(firsts(1), firsts(0)), "all are gone");
    }
}
