//! A database that was built beside the live one becomes the current one.
//!
//! Two processes have a part in it. `nexus replay` builds and *offers*: it
//! closes its database, gives it a name that the projector knows, and writes
//! that name into the file `next`. Whoever holds the projector's lock *takes*
//! it: the running projector, which looks for an offer twice a second and ends
//! its session when there is one, or the replay itself when no projector runs.
//!
//! *What it promises.*
//! - Never two writers: an offered database has been closed by its builder, and
//!   only the holder of the projector's lock opens it.
//! - Readers never go back: the taker first brings the new database to where
//!   the live one stands, from the log, and then moves the pointer. What the
//!   old one was given after that nobody reads any more.
//! - SIGKILL anywhere changes nothing: until the pointer is moved the old
//!   database is current and `next` stays; moved, `next` names what is current
//!   and is removed at the next look.
//! - Nobody tidies away what is on its way: renaming, offering and tidying
//!   happen under one lock, which is held for moments.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use nexus_events::{log::Log, private};

use crate::{
    apply::{Applied, Writer},
    database,
    position::AsOf,
    read_model::ReadModel,
    rebuild::{self, BuildError},
};

/// Name of the file that names the database that is offered.
const NEXT: &str = "next";

/// Name of the lock under which databases are renamed, offered and tidied away.
const SWAP_LOCK: &str = "swap.lock";

/// Holds everybody else off the names of the folder, until it is dropped; waits for moments.
pub(crate) fn hold_names(dir: &Path) -> io::Result<File> {
    let lock = private::create(&dir.join(SWAP_LOCK))?;
    lock.lock()?;
    Ok(lock)
}

/// Offers a closed database of the folder; gives the name that it has from now on.
///
/// # Errors
/// A file cannot be made or renamed; then nothing is offered.
pub(crate) fn offer(dir: &Path, built: &Path) -> io::Result<String> {
    let held = hold_names(dir)?;
    let name = rebuild::free_name(dir)?;
    std::fs::rename(built, dir.join(&name))?;
    let aside = dir.join("next.new");
    let mut file = private::create(&aside)?;
    file.write_all(name.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&aside, dir.join(NEXT))?;
    File::open(dir)?.sync_all()?;
    drop(held);
    Ok(name)
}

/// The name of the database that is offered, if one is.
pub(crate) fn offered(dir: &Path) -> Option<String> {
    let name = std::fs::read_to_string(dir.join(NEXT)).ok()?;
    let name = name.trim();
    let is_plain = !name.is_empty() && !name.contains(['/', '\\']) && !name.starts_with('.');
    is_plain.then(|| name.to_owned())
}

/// Takes the database that is offered, if one is; to be called by the holder of the projector's
/// lock, while nobody writes the live database.
///
/// An offer that is of no use (another version wrote it, it belongs to another log) is withdrawn.
///
/// # Errors
/// What may pass: the broker or the disk. The offer stands, and the live database is current.
pub(crate) async fn take(log: &Log, dir: &Path) -> Result<Option<(PathBuf, Writer)>, BuildError> {
    let Some(name) = offered(dir) else {
        return Ok(None);
    };
    let path = dir.join(&name);
    if database::current(dir).is_ok_and(|current| current.path == path) {
        withdraw(dir, &name)?;
        return Ok(None);
    }
    let taken = match Writer::open(&path).await {
        Ok(writer) => catch_up(log, dir, writer).await,
        Err(error) => Err(error.into()),
    };
    match taken {
        Ok(writer) => {
            database::point_to(dir, &name)?;
            withdraw(dir, &name)?;
            tracing::info!(as_of = %writer.as_of(), name, "a replayed read model is current from now on");
            Ok(Some((path, writer)))
        }
        Err(error) if rebuild::is_of_no_use(&error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "a replayed read model is of no use and left aside"
            );
            withdraw(dir, &name)?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Brings an offered database to where the live one stands.
async fn catch_up(log: &Log, dir: &Path, mut writer: Writer) -> Result<Writer, BuildError> {
    // Without a live one there is nothing to fall behind.
    let live = ReadModel::open(dir).as_of().await;
    let live = live.unwrap_or_else(|_absent| AsOf::default());
    let mut nobody = |_: AsOf, _: Applied| {};
    rebuild::replay(log, &mut writer, live, &mut nobody).await?;
    Ok(writer)
}

/// Withdraws that offer; one that another replay has made meanwhile stands.
fn withdraw(dir: &Path, name: &str) -> io::Result<()> {
    let held = hold_names(dir)?;
    let withdrawn = match offered(dir) {
        Some(other) if other != name => Ok(()),
        _ => match std::fs::remove_file(dir.join(NEXT)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
    };
    drop(held);
    withdrawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_that_came_while_another_was_taken_stands() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let offer = |number: u8| {
            let built = dir.join(format!("built-{number}.db"));
            std::fs::write(&built, [number]).unwrap();
            offer(dir, &built).unwrap()
        };
        let taken = offer(1);
        let newer = offer(2);
        withdraw(dir, &taken).unwrap();
        assert_eq!(offered(dir), Some(newer.clone()));
        withdraw(dir, &newer).unwrap();
        assert_eq!(offered(dir), None);
    }
}
