//! Who is ready, and why the others are not.
//!
//! Each part of a role says so itself: it holds a [`Part`] and sets it. The
//! metrics address answers `/readyz` from what they said last. A part that the
//! role can do without (a gateway without the broker, once it has its
//! configuration) is told there, but does not make the role unready: a load
//! balancer must not take every gateway away because the broker is.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

/// How much the role needs a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The role is not ready while the part is not.
    Always,
    /// The role is not ready before the part has been ready once.
    AtStart,
    /// The part is only told.
    Told,
}

/// What the parts of the process say about themselves; a cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<Vec<Report>>>);

/// What one part says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The part's name.
    pub part: &'static str,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether the role is unready because of it.
    pub blocks: bool,
    /// Why it is not ready, or what there is to say although it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip)]
    need: Need,
}

/// What `/readyz` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Whether there are parts, and none blocks.
    pub ready: bool,
    /// What all parts say, in the order in which they were taken in.
    pub parts: Vec<Report>,
}

/// The voice of one part.
#[derive(Clone, Debug)]
pub struct Part {
    all: Readiness,
    name: &'static str,
}

impl Readiness {
    /// Takes a part in, not ready for now.
    pub fn part(&self, name: &'static str, need: Need) -> Part {
        self.0.lock().push(Report {
            part: name,
            ready: false,
            blocks: need != Need::Told,
            reason: Some("starting".to_owned()),
            need,
        });
        Part {
            all: self.clone(),
            name,
        }
    }

    /// What all parts say.
    pub fn summary(&self) -> Summary {
        let parts = self.0.lock().clone();
        Summary {
            // A process that has no parts yet has only just begun.
            ready: !parts.is_empty() && parts.iter().all(|part| !part.blocks),
            parts,
        }
    }
}

impl Part {
    /// It is ready.
    pub fn ready(&self) {
        self.set(true, None);
    }

    /// It is ready, and there is something to say.
    pub fn ready_but(&self, remark: impl Into<String>) {
        self.set(true, Some(remark.into()));
    }

    /// It is not ready, and this is why.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.set(false, Some(reason.into()));
    }

    fn set(&self, ready: bool, reason: Option<String>) {
        let mut reports = self.all.0.lock();
        let Some(report) = reports.iter_mut().find(|report| report.part == self.name) else {
            return;
        };
        if report.ready != ready {
            tracing::info!(part = self.name, ready, reason, "readiness changed");
        }
        report.blocks = match report.need {
            Need::Always => !ready,
            Need::AtStart => report.blocks && !ready,
            Need::Told => false,
        };
        report.ready = ready;
        report.reason = reason;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_ready_when_no_part_that_it_needs_stands_against_it() {
        let readiness = Readiness::default();
        let outbox = readiness.part("outbox", Need::Always);
        let read_model = readiness.part("read_model", Need::AtStart);
        let broker = readiness.part("broker", Need::Told);
        outbox.ready();
        assert!(!readiness.summary().ready, "the read model is starting");
        read_model.ready();
        assert!(readiness.summary().ready);
        read_model.not_ready("halted");
        broker.not_ready("no connection");
        let summary = readiness.summary();
        assert!(summary.ready, "traffic goes on without them");
        assert_eq!(summary.parts[1].reason.as_deref(), Some("halted"));
        assert!(!summary.parts[1].ready);
        outbox.not_ready("full");
        assert!(!readiness.summary().ready);
        outbox.ready_but("nearly full");
        assert!(readiness.summary().ready);
    }
}
