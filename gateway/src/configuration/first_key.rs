//! The first admin key, kept until somebody was told.
//!
//! The log holds only its hash, so a process that is killed between storing the
//! key and printing it would take the only admin key with it. The secret is
//! therefore on the disk before the key is in the log, readable by the owner
//! alone, and goes when it has been printed. A start that finds it prints it
//! again: told twice is better than never.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Fold,
    bootstrap::{draw_key, hash},
};
use crate::{data_dir::write_whole, settings::Secret};
use nexus_events::seal::SealError;

/// Name of the file below the data directory.
const FILE: &str = "first-admin-key";

/// Why there is no first key.
#[derive(Debug, thiserror::Error)]
pub enum FirstKeyError {
    /// The file cannot be read or written.
    #[error("the first admin key cannot be kept in {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// No randomness.
    #[error("the first admin key could not be drawn")]
    Secret(#[from] SealError),
}

/// Where the first admin key waits to be told.
#[derive(Clone, Debug)]
pub struct FirstKeyFile {
    path: PathBuf,
}

/// The first admin key, which nobody was told yet.
#[derive(Clone, Debug)]
pub struct FirstKey {
    /// The secret.
    pub secret: Secret,
    file: FirstKeyFile,
}

impl FirstKeyFile {
    /// The file of that data directory.
    pub fn below(data_dir: &Path) -> Self {
        Self {
            path: data_dir.join(FILE),
        }
    }

    /// The secret that is to become the first key; on the disk when this returns.
    ///
    /// # Errors
    /// It cannot be drawn or kept.
    pub fn draw(&self) -> Result<Secret, FirstKeyError> {
        if let Some(secret) = self.read()? {
            return Ok(secret);
        }
        let secret = draw_key()?;
        write_whole(&self.path, secret.expose().as_bytes())
            .map_err(|source| self.failed(source))?;
        Ok(secret)
    }

    /// The first key, if it is in force and nobody was told. One that is void goes.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn untold(&self, fold: &Fold) -> Result<Option<FirstKey>, FirstKeyError> {
        let Some(secret) = self.read()? else {
            return Ok(None);
        };
        let first = FirstKey {
            file: self.clone(),
            secret,
        };
        let hash = hash(&first.secret);
        if fold.keys().any(|(key, _)| key.hash == hash) {
            return Ok(Some(first));
        }
        first.told();
        Ok(None)
    }

    fn read(&self) -> Result<Option<Secret>, FirstKeyError> {
        match fs::read_to_string(&self.path) {
            Ok(text) => Ok(Some(Secret::new(text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(&self, source: io::Error) -> FirstKeyError {
        let path = self.path.clone();
        FirstKeyError::File { path, source }
    }
}

impl FirstKey {
    /// A first key without a file.
    #[cfg(test)]
    pub(crate) fn of(secret: Secret, data_dir: &Path) -> Self {
        let file = FirstKeyFile::below(data_dir);
        Self { secret, file }
    }

    /// The file that holds it until somebody was told.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Somebody was told: forgets it.
    pub fn told(&self) {
        if let Err(error) = fs::remove_file(self.path()) {
            tracing::warn!(path = %self.path().display(), %error, "the first admin key's file could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_waits_for_its_owner_alone_until_somebody_was_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = FirstKeyFile::below(dir.path());
        let secret = file.draw().unwrap();
        assert_eq!(file.draw().unwrap(), secret, "a try that failed drew it");
        let mode = fs::metadata(&file.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        FirstKey::of(secret.clone(), dir.path()).told();
        assert_ne!(file.draw().unwrap(), secret);
    }

    #[test]
    fn a_key_that_is_not_in_force_is_told_to_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let file = FirstKeyFile::below(dir.path());
        file.draw().unwrap();
        assert!(file.untold(&Fold::default()).unwrap().is_none());
        assert!(!file.path.exists());
    }
}
