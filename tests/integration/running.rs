//! A projector that runs inside a test.

use std::{path::Path, time::Duration};

use nexus_events::log::Log;
use nexus_projector::{ProjectorError, ProjectorSettings, ProjectorStatus, status::Phase};
use nexus_tests::{Result, until};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A loaded two-core machine applies some thousand events a second; the tests write some dozens.
const BOUND: Duration = Duration::from_secs(30);

/// A projector at work.
pub(crate) struct Running {
    pub(crate) status: ProjectorStatus,
    shutdown: CancellationToken,
    pub(crate) task: JoinHandle<Result<(), ProjectorError>>,
}

impl Running {
    pub(crate) fn start(dir: &Path, log: &Log) -> Self {
        Self::start_with(dir, log, None)
    }

    /// The same with live totals in that Redis.
    #[expect(clippy::disallowed_methods, reason = "the test joins the task itself")]
    pub(crate) fn start_with(dir: &Path, log: &Log, redis_url: Option<String>) -> Self {
        let settings = ProjectorSettings {
            dir: dir.to_owned(),
            redis_url,
        };
        let (status, shutdown) = (ProjectorStatus::default(), CancellationToken::new());
        let run = nexus_projector::run(settings, log.clone(), shutdown.clone(), status.clone());
        let task = tokio::spawn(run);
        Self {
            status,
            shutdown,
            task,
        }
    }

    /// Waits until the projector has applied the exchanges up to a sequence.
    pub(crate) async fn applied(&self, sequence: u64) -> Result<()> {
        until("the exchanges are applied", BOUND, async || {
            let report = self.status.current();
            if report.phase == Phase::Following && report.as_of.exchanges >= sequence {
                Ok(())
            } else {
                Err(format!("{report:?}"))
            }
        })
        .await
    }

    pub(crate) async fn stop(self) -> Result<()> {
        self.shutdown.cancel();
        Ok(self.task.await??)
    }
}
