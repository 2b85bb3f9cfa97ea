//! Backups and retention of `NexusAI` Hub.
//!
//! *What it is.* A role that takes a checked copy of the read model every hour,
//! and once a day removes from the log what is older than the retention, after
//! its statistics have been published as rollups.
//!
//! *What it promises.* A folder below the backup directory is a whole and sound
//! backup, or it is not there. Nothing is purged unless the read model holds
//! it and its statistics are in the log. Each job is safe to run twice and to
//! be killed anywhere.
//!
//! *What it never does.* It writes no read model, and it purges no cursor.

pub mod backup;
mod keep;
pub mod manifest;
pub mod retention;
mod rollup;
pub mod run;
pub mod status;
mod untold;

pub use backup::{BackupError, Backups};
pub use manifest::Manifest;
pub use run::{ArchiverError, ArchiverSettings, backup_now, run};
pub use status::ArchiverStatus;
