//! The folded configuration on disk, so that a gateway starts while the broker is away.
//!
//! Secrets lie in it as they lie in the events: sealed. It is a copy and never
//! the truth: one that is damaged or of another version is left aside, and the
//! stream is read from its start.

use std::path::{Path, PathBuf};

use anyhow::Context;
use nexus_events::{
    clock::{SharedClock, UnixMillis},
    private,
};
use serde::{Deserialize, Serialize};

use super::Fold;
use crate::data_dir::write_whole;

/// Version of the file's shape; another one is not read.
///
/// 2: with routes, 3: with users and prices, which a version that did not know them has passed over.
const VERSION: u32 = 3;

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
pub struct Stored {
    version: u32,
    /// When the stream was created, nanoseconds since 1970: which stream it is a copy of.
    pub stream_created_ns: i128,
    /// When the broker stored the last event in it, nanoseconds since 1970; `None`: a version wrote
    /// the copy that did not keep that.
    #[serde(default)]
    pub stored_ns: Option<i64>,
    /// When the copy was written.
    pub written_ms: UnixMillis,
    /// The state.
    pub fold: Fold,
}

/// Where the copy lies.
#[derive(Clone, Debug)]
pub struct Disk {
    path: PathBuf,
    clock: SharedClock,
}

impl Disk {
    /// The copy below that data directory.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn below(data_dir: &Path, clock: SharedClock) -> anyhow::Result<Self> {
        let dir = data_dir.join("config");
        private::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(Self {
            path: dir.join("snapshot.json"),
            clock,
        })
    }

    /// The copy, if there is one that can be read.
    pub fn load(&self) -> Option<Stored> {
        let text = std::fs::read(&self.path).ok()?;
        match serde_json::from_slice::<Stored>(&text) {
            Ok(stored) if stored.version == VERSION => Some(stored),
            Ok(stored) => {
                let version = stored.version;
                tracing::info!(
                    version,
                    "left a configuration copy of another version aside"
                );
                None
            }
            Err(error) => {
                tracing::warn!(%error, "left a damaged configuration copy aside");
                None
            }
        }
    }

    /// Writes the copy; a failure is told and costs nothing but the start without a broker.
    pub fn store(&self, stream_created_ns: i128, stored_ns: Option<i64>, fold: &Fold) {
        let stored = Stored {
            version: VERSION,
            stream_created_ns,
            stored_ns,
            written_ms: self.clock.now(),
            fold: fold.clone(),
        };
        let written = serde_json::to_vec(&stored)
            .map_err(std::io::Error::other)
            .and_then(|text| write_whole(&self.path, &text));
        if let Err(error) = written {
            tracing::error!(path = %self.path.display(), %error, "could not write the configuration copy");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nexus_events::clock::ManualClock;

    use super::*;

    #[test]
    fn a_copy_reads_back_and_a_damaged_one_is_left_aside() {
        let dir = tempfile::tempdir().unwrap();
        let now = UnixMillis::from_millis(1_795_000_000_000);
        let disk = Disk::below(dir.path(), Arc::new(ManualClock::at(now))).unwrap();
        assert!(disk.load().is_none());
        let mut fold = Fold::default();
        fold.apply(7, b"garbage").unwrap_err();
        disk.store(11, Some(12), &fold);
        let stored = disk.load().unwrap();
        assert_eq!(
            (stored.fold, stored.stream_created_ns, stored.written_ms),
            (fold, 11, now)
        );
        assert_eq!(stored.stored_ns, Some(12));
        let text = std::fs::read_to_string(&disk.path).unwrap();
        let older = text.replace(r#""stored_ns":12,"#, "");
        assert_ne!(older, text);
        std::fs::write(&disk.path, older).unwrap();
        assert_eq!(
            disk.load().unwrap().stored_ns,
            None,
            "an older one is read, too"
        );
        std::fs::write(dir.path().join("config/snapshot.json"), b"{").unwrap();
        assert!(disk.load().is_none());
    }
}
