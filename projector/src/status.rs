//! What the projector says of itself: to `/readyz`, to the metrics, to tests.

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::watch;

use crate::position::AsOf;

/// What the projector is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// It has not opened its database yet.
    #[default]
    Starting,
    /// It builds a new database from the log; readers still use the one before, if there is one.
    Building,
    /// It follows the log.
    Following,
    /// It cannot go on for now and tries again every second.
    Waiting {
        /// Why.
        reason: String,
    },
    /// It cannot go on at all; someone must act.
    Halted {
        /// Why.
        reason: String,
    },
}

/// The projector at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What it is doing.
    #[serde(flatten)]
    pub phase: Phase,
    /// How far the streams were applied.
    pub as_of: AsOf,
    /// Whether the broker answers for every stream that is read: else `pending` is what was known
    /// last.
    pub live: bool,
    /// Events that were in the streams, and not yet applied, when it looked last.
    pub pending: u64,
    /// Events that could not be applied since the start of the process.
    pub dead_letters: u64,
    /// Positions that are missing in the lanes of outboxes: proof of loss.
    pub gaps: u64,
}

/// A handle on the projector's report. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ProjectorStatus(Arc<watch::Sender<Report>>);

impl Default for ProjectorStatus {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Report::default())))
    }
}

impl ProjectorStatus {
    /// The report of this moment.
    pub fn current(&self) -> Report {
        self.0.borrow().clone()
    }

    /// Follows the reports.
    pub fn subscribe(&self) -> watch::Receiver<Report> {
        self.0.subscribe()
    }

    /// Why the read model is not being kept up to date; `None` when it is.
    pub fn not_ready(&self) -> Option<String> {
        match &self.0.borrow().phase {
            Phase::Following => None,
            Phase::Starting => Some("the projector is starting".to_owned()),
            Phase::Building => Some("the read model is being built from the log".to_owned()),
            Phase::Waiting { reason } => Some(format!("the projector waits: {reason}")),
            Phase::Halted { reason } => Some(format!("the projector has halted: {reason}")),
        }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.0.send_if_modified(|report| {
            let changed = report.phase != phase;
            // Only who follows the log hears from the broker at any time.
            report.live &= phase == Phase::Following;
            report.phase = phase;
            changed
        });
    }

    pub(crate) fn hears(&self, live: bool) {
        self.0.send_if_modified(|report| {
            let changed = report.live != live;
            report.live = live;
            changed
        });
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Report)) {
        self.0.send_modify(change);
    }
}
