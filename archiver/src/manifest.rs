//! What a backup says of itself: `manifest.json` beside the database file.

use nexus_projector::AsOf;
use serde::{Deserialize, Serialize};

/// Name of the file.
pub const FILE: &str = "manifest.json";

/// A backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Its name: the folder below the backup directory.
    pub name: String,
    /// When it was taken, milliseconds since 1970.
    pub created_ms: i64,
    /// The database file in the folder.
    pub file: String,
    /// Size of that file in bytes.
    pub bytes: u64,
    /// SHA-256 of that file, lower-case hexadecimal.
    pub sha256: String,
    /// How far the log was read: what comes after is in the log.
    pub positions: AsOf,
    /// Version of the code that applied the events.
    pub apply_version: i64,
}
