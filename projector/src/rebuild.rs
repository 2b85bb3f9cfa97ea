//! Builds a database from the log, beside the live one.
//!
//! A new file is filled up to what the log holds; then the pointer is swapped.
//! Retention and rollups are read before the exchanges, because they tell
//! which exchanges need not be stored at all.

use std::{
    io,
    path::{Path, PathBuf},
};

use nexus_events::{
    log::{Log, LogError},
    private,
    subject::Stream,
};
use tokio::time::{Duration, timeout};

use crate::{
    apply::{Applied, Writer, WriterError},
    checkpoint::APPLY_VERSION,
    database::{self, OpenError},
    handover,
    position::{AsOf, STREAMS},
    replay,
    source::{self, Misfit, Source},
};

/// How far behind the log a new database may be when it becomes the live one: 5 000 events, a
/// tenth of a second of work.
const LAG_MAX: u64 = 5_000;

/// How long to wait for an event before asking the stream whether there is one: 2 s.
///
/// The last event may be purged by retention while it is waited for.
const QUIET: Duration = Duration::from_secs(2);

/// Why a database could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The log and the database do not fit each other.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// The database could not be written.
    #[error(transparent)]
    Writer(#[from] WriterError),
    /// A file could not be made or removed.
    #[error("the folder of the read model cannot be used")]
    Folder(#[from] io::Error),
    /// The broker did not answer.
    #[error("the log could not be asked how far it goes")]
    Log(#[from] LogError),
}

/// Builds a new database and makes it the current one.
///
/// # Errors
/// [`BuildError`]; what was there before stays current.
pub(crate) async fn build(
    log: &Log,
    dir: &Path,
    progress: &mut (dyn FnMut(AsOf, Applied) + Send),
) -> Result<(PathBuf, Writer), BuildError> {
    private::create_dir_all(dir)?;
    let name = free_name(dir)?;
    let path = dir.join(&name);
    let mut writer = Writer::open(&path).await?;
    loop {
        replay(log, &mut writer, ends(log).await?, progress).await?;
        if lag(writer.as_of(), ends(log).await?) <= LAG_MAX {
            break;
        }
    }
    database::point_to(dir, &name)?;
    Ok((path, writer))
}

/// Applies each stream up to a sequence and not further, one stream after the other.
///
/// # Errors
/// [`BuildError`].
pub(crate) async fn replay(
    log: &Log,
    writer: &mut Writer,
    until: AsOf,
    progress: &mut (dyn FnMut(AsOf, Applied) + Send),
) -> Result<(), BuildError> {
    for stream in STREAMS {
        // A database that holds enough is held against the log as well: it may hold too much.
        let source = Source::open(log, stream, writer).await?;
        if writer.as_of().of(stream) < until.of(stream) {
            replay_stream(log, writer, (source, until.of(stream)), progress).await?;
        }
    }
    Ok(())
}

async fn replay_stream(
    log: &Log,
    writer: &mut Writer,
    (mut source, until): (Source, u64),
    progress: &mut (dyn FnMut(AsOf, Applied) + Send),
) -> Result<(), BuildError> {
    let stream = source.origin.stream;
    while writer.as_of().of(stream) < until {
        let Ok(batch) = timeout(QUIET, source.next()).await else {
            if end(log, stream).await? <= writer.as_of().of(stream) {
                return Ok(());
            }
            continue;
        };
        let mut messages = batch?.messages;
        let wanted = messages.partition_point(|message| message.sequence <= until);
        let passed = wanted < messages.len();
        messages.truncate(wanted);
        let mut messages = messages.into_iter();
        while messages.len() > 0 {
            let entries = if writer.leaves_content_aside() {
                messages.by_ref().map(Into::into).collect()
            } else {
                source::complete(log, &mut messages, writer.cutoff_ms()).await
            };
            let applied = writer.apply(source.origin, &entries).await?;
            progress(writer.as_of(), applied);
        }
        if passed {
            return Ok(());
        }
    }
    Ok(())
}

/// The last event of each stream.
pub(crate) async fn ends(log: &Log) -> Result<AsOf, LogError> {
    let mut ends = AsOf::default();
    for stream in STREAMS {
        ends.set(stream, end(log, stream).await?);
    }
    Ok(ends)
}

/// The sequence of a stream's last event; cursors are none.
async fn end(log: &Log, stream: Stream) -> Result<u64, LogError> {
    let last = log.last_of_subject(stream, stream.events()).await?;
    Ok(last.map_or(0, |message| message.sequence))
}

/// Events between two positions, and what else lies between them.
pub(crate) fn lag(as_of: AsOf, ends: AsOf) -> u64 {
    STREAMS
        .into_iter()
        .map(|stream| ends.of(stream).saturating_sub(as_of.of(stream)))
        .sum()
}

/// Whether a database will never do: another version wrote it, it is damaged, or it belongs to
/// another log.
pub(crate) fn is_of_no_use(error: &BuildError) -> bool {
    match error {
        BuildError::Misfit(_) => true,
        BuildError::Writer(error) => is_outdated(error),
        BuildError::Folder(_) | BuildError::Log(_) => false,
    }
}

/// Whether a database is to be replaced by one that is built anew: another version wrote it, or
/// it is no sound database.
pub(crate) fn is_outdated(error: &WriterError) -> bool {
    match error {
        WriterError::OtherVersion | WriterError::Open(OpenError::Migrate { .. }) => true,
        WriterError::Open(OpenError::Open { source, .. }) | WriterError::Database(source) => {
            database::is_unsound(source)
        }
    }
}

/// A name that no file of the folder has.
pub(crate) fn free_name(dir: &Path) -> io::Result<String> {
    for number in 1..=u32::MAX {
        let name = format!("read_model-v{APPLY_VERSION}-{number}.db");
        if !dir.join(&name).try_exists()? {
            return Ok(name);
        }
    }
    Err(io::Error::other("no name is free"))
}

/// Removes a database with its write-ahead log, if it is there.
///
/// # Errors
/// A file cannot be removed.
pub(crate) fn remove_database(path: &Path) -> io::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Removes the databases that are neither current nor `kept`: left by a swap, by a build that did
/// not end, or by a replay of another version that nobody will go on with.
///
/// # Errors
/// The folder cannot be read or written.
pub(crate) fn clear(dir: &Path, kept: Option<&Path>) -> io::Result<()> {
    let held = handover::hold_names(dir)?;
    let replays = replay::is_at_work(dir);
    let current = database::current(dir).ok().map(|current| current.path);
    let offered = handover::offered(dir).map(|name| dir.join(name));
    for file in std::fs::read_dir(dir)? {
        let path = file?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let Some(database) = name.find(".db").and_then(|end| name.get(..end + 3)) else {
            continue;
        };
        let database = dir.join(database);
        let in_use = Some(&database) == current.as_ref()
            || Some(&database) == offered.as_ref()
            || Some(database.as_path()) == kept;
        let is_of_other_replay = !replays
            && name.starts_with("replay-")
            && !name.contains(&format!("-v{APPLY_VERSION}.db"));
        if (name.starts_with("read_model") || is_of_other_replay) && !in_use {
            std::fs::remove_file(&path)?;
        }
    }
    drop(held);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_a_replay_of_another_version_left_is_cleared_away() {
        let dir = tempfile::tempdir().unwrap();
        let ours = format!("replay-v{APPLY_VERSION}.db");
        let names = [
            ours.as_str(),
            "replay-v1.db",
            "replay-copy-v1.db-wal",
            "read_model-v1-1.db",
        ];
        let left = || {
            let is_there = |name: &&str| dir.path().join(name).exists();
            names.into_iter().filter(is_there).collect::<Vec<_>>()
        };
        for name in names {
            fs::write(dir.path().join(name), "what was said").unwrap();
        }
        let at_work = replay::hold(dir.path()).unwrap();
        clear(dir.path(), None).unwrap();
        assert_eq!(left(), names[..3]);
        drop(at_work);
        clear(dir.path(), None).unwrap();
        assert_eq!(left(), [ours.as_str()], "it can be gone on with");
    }
}
