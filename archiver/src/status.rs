//! What the archiver says of itself, and how it is asked for a backup.

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::{Notify, watch};

use crate::manifest::Manifest;

/// The archiver at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The latest backup of this process or of one before; one that is dated in the future is none.
    pub last_backup: Option<Manifest>,
    /// Why the latest try to take one failed; `None` when it did not.
    pub backup_failure: Option<String>,
    /// The cutoff that retention has been applied for, milliseconds since 1970; 0: for none yet.
    pub retention_cutoff_ms: i64,
    /// Why the latest try to apply retention failed; `None` when it did not.
    pub retention_failure: Option<String>,
}

/// A handle on the archiver. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ArchiverStatus(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    report: watch::Sender<Report>,
    wanted: Notify,
}

impl Default for ArchiverStatus {
    fn default() -> Self {
        Self(Arc::new(Inner {
            report: watch::Sender::new(Report::default()),
            wanted: Notify::new(),
        }))
    }
}

impl ArchiverStatus {
    /// The report of this moment.
    pub fn current(&self) -> Report {
        self.0.report.borrow().clone()
    }

    /// Asks the archiver to take a backup now; what comes of it is in the report.
    pub fn request_backup(&self) {
        self.0.wanted.notify_one();
    }

    pub(crate) async fn backup_requested(&self) {
        self.0.wanted.notified().await;
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Report)) {
        self.0.report.send_modify(change);
    }
}
