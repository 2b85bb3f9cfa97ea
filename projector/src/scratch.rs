//! Scratch folders: a whole copy of what was said, which is to be gone when the work is.
//!
//! Whoever works in one holds its lock, which the kernel lets go of when the
//! process dies, however it dies. So a folder that nobody holds was left by one
//! that was killed, and is removed: by the next that makes one beside it, and
//! by the hub when it starts.

use std::{
    ffi::OsStr,
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nexus_events::private;

/// How the name of each begins.
const PREFIX: &str = "verify-";

/// The file in each that its holder locks.
const LOCK_FILE: &str = "lock";

/// Names that are tried; each one lost is a folder that somebody holds or has just removed.
const TRIES: u32 = 100;

/// A file may come in while the folder is emptied, from a connection that is closing.
const REMOVALS: u32 = 10;

/// A folder that is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    dir: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes one in a folder, and removes those there that nobody holds.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn make(parent: &Path) -> io::Result<Self> {
        private::create_dir_all(parent)?;
        clear(parent);
        for number in 1..=TRIES {
            let name = format!("{PREFIX}{}-{number}", std::process::id());
            let dir = parent.join(name);
            match private::create_dir(&dir) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made?,
            }
            // Until it is locked it looks left, so somebody may have removed it.
            if let Some(lock) = lock(&dir)?
                && lock.metadata()?.nlink() > 0
            {
                return Ok(Self { dir, _lock: lock });
            }
        }
        Err(io::Error::other("no name is free for a scratch folder"))
    }

    /// The folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.dir) {
            let path = self.dir.display();
            tracing::warn!(%path, %error, "a scratch folder could not be removed");
        }
    }
}

/// Removes the scratch folders in a folder that nobody holds.
pub fn clear(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        // Not made yet.
        return;
    };
    for entry in entries.flatten() {
        let is_scratch = entry.file_name().to_string_lossy().starts_with(PREFIX)
            && entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_scratch {
            continue;
        }
        let dir = entry.path();
        let path = dir.display();
        match lock(&dir) {
            Ok(None) => {}
            Ok(Some(held)) => {
                match remove(&dir) {
                    Ok(()) => tracing::info!(%path, "a scratch folder that was left was removed"),
                    Err(error) => {
                        tracing::warn!(%path, %error, "a scratch folder that was left could not be removed");
                    }
                }
                drop(held);
            }
            Err(error) => tracing::warn!(%path, %error, "a scratch folder could not be locked"),
        }
    }
}

/// Locks a folder; `None` when somebody holds it or it is gone.
fn lock(dir: &Path) -> io::Result<Option<File>> {
    let mut options = private::options();
    options.create(true).truncate(false).write(true);
    let file = match options.open(dir.join(LOCK_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Removes a folder whose lock is held.
///
/// The lock goes last: whoever makes the folder anew before it is gone has a lock of its own.
fn remove(dir: &Path) -> io::Result<()> {
    let mut removed = Ok(());
    for _try in 0..REMOVALS {
        removed = remove_once(dir);
        let is_filled = removed
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::DirectoryNotEmpty);
        if !is_filled {
            break;
        }
    }
    removed
}

fn remove_once(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name() == OsStr::new(LOCK_FILE) {
            continue;
        }
        absent_or(fs::remove_file(entry.path()))?;
    }
    absent_or(fs::remove_file(dir.join(LOCK_FILE)))?;
    fs::remove_dir(dir)
}

/// What another has removed meanwhile is removed.
fn absent_or(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(parent: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(parent).unwrap();
        let mut names: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_nobody_holds_is_removed_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        // As an older version left one, and what is none.
        let left = parent.path().join("verify-17");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("verify.db"), "what was said").unwrap();
        let other = parent.path().join("verify-notes.txt");
        fs::write(&other, "a file").unwrap();
        let held = Scratch::make(parent.path()).unwrap();
        fs::write(held.dir().join("verify.db"), "what was said").unwrap();
        let mode = fs::metadata(held.dir()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let second = Scratch::make(parent.path()).unwrap();
        assert_ne!(second.dir(), held.dir());
        let there = [held.dir(), second.dir(), &other].map(Path::to_path_buf);
        assert_eq!(names(parent.path()), there);
        drop(second);
        clear(parent.path());
        assert!(held.dir().join("verify.db").exists());
        drop(held);
        assert_eq!(names(parent.path()), [other]);
        clear(&parent.path().join("nowhere"));
    }

    #[test]
    fn makers_and_tidiers_do_not_hinder_each_other() {
        let parent = tempfile::tempdir().unwrap();
        std::thread::scope(|threads| {
            for _maker in 0..4 {
                threads.spawn(|| {
                    for _round in 0..50 {
                        let held = Scratch::make(parent.path()).unwrap();
                        fs::write(held.dir().join("verify.db"), "what was said").unwrap();
                    }
                });
            }
        });
        assert_eq!(names(parent.path()), [] as [PathBuf; 0]);
    }
}
