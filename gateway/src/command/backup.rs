//! `nexus backup now|list`.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use clap::{Args, Subcommand};
use nexus_archiver::{ArchiverSettings, Backups, Manifest, backup_now};
use nexus_events::clock::{SharedClock, SystemClock, UnixMillis};

use super::{banner, reach::Reach};
use crate::settings::value;

/// What to do with backups.
#[derive(Subcommand, Debug)]
pub enum BackupCommand {
    /// Take a backup of the read model now
    Now(Folders),
    /// List the backups, the newest first
    List(Folders),
}

/// Where things lie.
#[derive(Args, Debug)]
pub struct Folders {
    /// Where the log is.
    #[command(flatten)]
    pub reach: Reach,
    /// Directory of the read model; default: that of the running role, else `read_model` in the data directory
    #[arg(long, env = "NEXUS_READ_MODEL_DIR", value_parser = value::path)]
    pub read_model_dir: Option<PathBuf>,
    /// Directory of the backups; default: that of the running role, else `backups` in the data directory
    #[arg(long, env = "NEXUS_BACKUP_DIR", value_parser = value::path)]
    pub backup_dir: Option<PathBuf>,
}

impl Folders {
    fn backup_dir(&self) -> PathBuf {
        self.reach.backup_dir(self.backup_dir.as_deref())
    }
}

impl BackupCommand {
    /// Does it.
    ///
    /// # Errors
    /// A sentence for the person at the keyboard.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Now(folders) => now(&folders).await,
            Self::List(folders) => list(&folders),
        }?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn now(folders: &Folders) -> anyhow::Result<()> {
    let log = folders.reach.log().await?;
    let settings = ArchiverSettings {
        read_model_dir: folders
            .reach
            .read_model_dir(folders.read_model_dir.as_deref()),
        backup_dir: folders.backup_dir(),
        // Only the running archiver lets backups expire.
        retention: Duration::MAX,
    };
    let clock: SharedClock = Arc::new(SystemClock);
    let manifest = backup_now(&settings, &log, &clock)
        .await
        .context("take a backup")?;
    banner::out(&line(&manifest))?;
    Ok(())
}

fn list(folders: &Folders) -> anyhow::Result<()> {
    let dir = folders.backup_dir();
    let backups = Backups::new(&dir)
        .list()
        .with_context(|| format!("read {}", dir.display()))?;
    for manifest in backups {
        banner::out(&line(&manifest))?;
    }
    Ok(())
}

fn line(manifest: &Manifest) -> String {
    format!(
        "{}  {}  {} bytes  sha256 {}  up to {}",
        manifest.name,
        UnixMillis::from_millis(manifest.created_ms).to_rfc3339(),
        manifest.bytes,
        manifest.sha256,
        manifest.positions
    )
}
