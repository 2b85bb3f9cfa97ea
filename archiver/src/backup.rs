//! Backups: checked copies of the read model, one folder each.
//!
//! A copy is made with `VACUUM INTO`, which reads one consistent state while
//! the projector goes on. It is checked, hashed and synced in a folder whose
//! name ends in `.partial`, which is then renamed: so a folder without that
//! ending is a whole backup, whatever died when. Its own checkpoint says where
//! the log goes on, so a backup and the log after it lose nothing.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
};

use nexus_events::{
    audit_event::BackupTaken,
    clock::{Clock, UnixMillis},
    envelope::Stamp,
    private,
};
use nexus_projector::{
    ReadModel,
    read_model::{CopyError, ReadError},
};
use sha2::{Digest, Sha256};

use crate::{
    keep,
    manifest::{self, Manifest},
    untold::Untold,
};

/// Name of the database file of a backup.
const DATABASE: &str = "read_model.db";

/// Ending of a folder that is not whole.
const PARTIAL: &str = ".partial";

/// Bytes hashed at a time: 256 KiB.
const HASH_BLOCK: usize = 256 * 1024;

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The copy could not be taken or is not sound.
    #[error("the read model could not be copied")]
    Copy(#[from] CopyError),
    /// A file or folder could not be written or read.
    #[error("the backup directory cannot be used")]
    Folder(#[from] io::Error),
    /// Another job is at work on the same directory.
    #[error("another backup is being taken in the same directory")]
    Busy,
}

impl BackupError {
    /// Whether there is just no read model yet.
    pub const fn is_unavailable(&self) -> bool {
        matches!(
            self,
            Self::Copy(CopyError::Read(ReadError::Unavailable { .. }))
        )
    }
}

/// The backup directory.
#[derive(Clone, Debug)]
pub struct Backups {
    dir: PathBuf,
}

impl Backups {
    /// The backups in a folder, which is made when the first is taken.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The backups that are there, the newest first.
    ///
    /// # Errors
    /// The directory cannot be read; one that is not there has no backups.
    pub fn list(&self) -> io::Result<Vec<Manifest>> {
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut backups = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if is_partial(&path) || !path.is_dir() {
                continue;
            }
            match read_manifest(&path) {
                Ok(manifest) => backups.push(manifest),
                Err(error) => {
                    let path = path.display();
                    tracing::warn!(%path, %error, "a folder among the backups is none");
                }
            }
        }
        backups.sort_by_key(|backup| std::cmp::Reverse(backup.created_ms));
        Ok(backups)
    }

    /// What the audit trail was not told yet of the backups that are there, the oldest first.
    pub(crate) fn untold(&self) -> io::Result<Vec<Untold>> {
        let mut backups = self.list()?;
        backups.reverse();
        let untold = backups.iter().filter_map(|backup| self.untold_of(backup));
        Ok(untold.collect())
    }

    /// What the audit trail was not told yet of one of them.
    pub(crate) fn untold_of(&self, backup: &Manifest) -> Option<Untold> {
        let folder = self.dir.join(&backup.name);
        Untold::read(&folder).unwrap_or_else(|error| {
            tracing::warn!(name = backup.name, %error, "what the audit trail is to be told of a backup cannot be read");
            None
        })
    }

    /// Takes a backup of the read model as it is now.
    ///
    /// What the audit trail is to be told of it lies in its folder (`untold.json`).
    ///
    /// # Errors
    /// [`BackupError`]; nothing that looks like a backup is left then.
    pub async fn take(
        &self,
        read_model: &ReadModel,
        clock: &dyn Clock,
    ) -> Result<Manifest, BackupError> {
        let now = clock.now();
        private::create_dir_all(&self.dir)?;
        let lock = self.lock()?;
        self.clear_partial()?;
        let name = now.to_datetime().format("%Y%m%dT%H%M%S%.3fZ").to_string();
        let partial = self.dir.join(format!("{name}{PARTIAL}"));
        private::create_dir(&partial)?;
        let file = partial.join(DATABASE);
        let copy = read_model.copy_to(&file).await?;
        let (bytes, sha256) = tokio::task::spawn_blocking(move || hash_and_sync(&file))
            .await
            .map_err(io::Error::other)??;
        let manifest = Manifest {
            name: name.clone(),
            created_ms: now.as_millis(),
            file: DATABASE.to_owned(),
            bytes,
            sha256,
            positions: copy.as_of,
            apply_version: copy.apply_version,
        };
        write_manifest(&partial, &manifest)?;
        let told = Untold::of(&taken(&manifest), Stamp::draw(clock)).map_err(io::Error::other)?;
        told.write(&partial)?;
        File::open(&partial)?.sync_all()?;
        std::fs::rename(&partial, self.dir.join(&name))?;
        File::open(&self.dir)?.sync_all()?;
        drop(lock);
        Ok(manifest)
    }

    /// Reads a backup again and tells whether it is still what its manifest says.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn is_intact(&self, backup: &Manifest) -> io::Result<bool> {
        let (bytes, sha256) = hash(&self.dir.join(&backup.name).join(&backup.file))?;
        Ok(bytes == backup.bytes && sha256 == backup.sha256)
    }

    /// Removes the backups that need not stay: all but the newest 48 and one a day since `oldest`.
    ///
    /// # Errors
    /// A folder cannot be removed.
    pub fn prune(&self, now: UnixMillis, oldest: UnixMillis) -> io::Result<()> {
        let backups = self.list()?;
        for backup in keep::superfluous(&backups, now.as_millis(), oldest.as_millis()) {
            // Renamed first, so that a crash in between leaves no half backup that looks whole.
            let partial = self.dir.join(format!("{}{PARTIAL}", backup.name));
            std::fs::rename(self.dir.join(&backup.name), &partial)?;
            std::fs::remove_dir_all(&partial)?;
            tracing::info!(name = backup.name, "a backup was removed");
        }
        Ok(())
    }

    /// One job at a time, in this process or another.
    fn lock(&self) -> Result<File, BackupError> {
        let file = private::create(&self.dir.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => Err(BackupError::Busy),
            Err(std::fs::TryLockError::Error(error)) => Err(error.into()),
        }
    }

    /// Removes what a crash left.
    fn clear_partial(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if is_partial(&path) {
                std::fs::remove_dir_all(path)?;
            }
        }
        Ok(())
    }
}

/// What the audit trail says of a backup.
fn taken(backup: &Manifest) -> BackupTaken {
    BackupTaken {
        name: backup.name.clone(),
        bytes: backup.bytes,
        sha256: backup.sha256.clone(),
        failure: None,
    }
}

fn is_partial(path: &Path) -> bool {
    path.to_string_lossy().ends_with(PARTIAL)
}

fn read_manifest(folder: &Path) -> io::Result<Manifest> {
    let text = std::fs::read(folder.join(manifest::FILE))?;
    serde_json::from_slice(&text).map_err(io::Error::other)
}

fn write_manifest(folder: &Path, manifest: &Manifest) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(manifest).map_err(io::Error::other)?;
    let mut file = private::create(&folder.join(manifest::FILE))?;
    file.write_all(&text)?;
    file.sync_all()
}

fn hash_and_sync(path: &Path) -> io::Result<(u64, String)> {
    File::open(path)?.sync_all()?;
    hash(path)
}

/// Size and SHA-256 of a file.
fn hash(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; HASH_BLOCK];
    let mut bytes = 0;
    loop {
        let read = file.read(&mut block)?;
        if read == 0 {
            break;
        }
        hasher.update(block.get(..read).unwrap_or_default());
        bytes += u64::try_from(read).unwrap_or(0);
    }
    let mut digest = String::with_capacity(64);
    for byte in hasher.finalize() {
        // Writing to a String cannot fail.
        write!(digest, "{byte:02x}").unwrap_or_default();
    }
    Ok((bytes, digest))
}
