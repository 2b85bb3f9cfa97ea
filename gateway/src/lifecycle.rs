//! The life of the process: what runs in it, how it is told to stop, how it ends.
//!
//! Two tokens. The soft one says that nothing new may begin: readiness goes
//! off, no connection is accepted, answers under way go on. The hard one says
//! that they must end now; it comes with a second signal, or when draining has
//! taken its time. Every task is on the tracker, so the process ends after them.
//!
//! A role that ends without having been told to takes the process down with a
//! failing exit code: whoever supervises it must be able to tell a crash from a stop.

use std::{
    panic::AssertUnwindSafe,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use futures_util::FutureExt;
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// After the hard stop, tasks get this long to write their last events: 5 s.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Shared by everything that runs in the process.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    /// Cancelled when nothing new may begin.
    pub soft: CancellationToken,
    /// Cancelled when what is under way must end.
    pub hard: CancellationToken,
    /// Every task that must end before the process does.
    pub tracker: TaskTracker,
    failed: Arc<AtomicBool>,
}

impl Lifecycle {
    /// Runs a role; if it ends before the soft stop, or fails, the process stops and fails.
    pub fn spawn_role(
        &self,
        name: &'static str,
        role: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let life = self.clone();
        self.tracker.spawn(async move {
            let end = AssertUnwindSafe(role).catch_unwind().await;
            let asked = life.soft.is_cancelled();
            match end {
                Ok(Ok(())) if asked => tracing::info!(role = name, "role ended"),
                Ok(Ok(())) => {
                    tracing::error!(role = name, "role ended without being asked to");
                    life.fail();
                }
                Ok(Err(error)) => {
                    let error: &(dyn std::error::Error + Send + Sync) = error.as_ref();
                    let error = error as &dyn std::error::Error;
                    tracing::error!(role = name, error, "role failed");
                    life.fail();
                }
                Err(_) => {
                    tracing::error!(role = name, "role panicked");
                    life.fail();
                }
            }
        });
    }

    /// Stops the process with a failing exit code.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::SeqCst);
        self.soft.cancel();
    }

    /// Turns SIGINT and SIGTERM into the soft stop, and a second one into the hard stop; SIGXFSZ
    /// does nothing any more.
    ///
    /// # Errors
    /// The operating system gives no signals.
    pub fn watch_signals(&self) -> anyhow::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        // A write beyond the limit on the size of files would kill the process. Once listened for,
        // the signal does not, and the write fails as on a full disk.
        let file_size = SignalKind::from_raw(Signal::XFSZ.as_raw());
        drop(signal(file_size).context("listen for SIGXFSZ")?);
        let life = self.clone();
        // Not on the tracker: it waits for a signal for as long as the process lives.
        let watch = async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if life.soft.is_cancelled() {
                    tracing::warn!("second signal: ending what is under way");
                    life.hard.cancel();
                } else {
                    tracing::info!("signal: stopping; a second one does not wait for answers");
                    life.soft.cancel();
                }
            }
        };
        detach(watch);
        Ok(())
    }

    /// Waits for the soft stop, then for every task, the hard stop after `drain` included.
    pub async fn ended(&self, drain: Duration) -> ExitCode {
        self.soft.cancelled().await;
        self.tracker.close();
        let drained = tokio::select! {
            () = self.tracker.wait() => true,
            () = tokio::time::sleep(drain.saturating_add(LAST_WORDS)) => false,
            () = self.hard.cancelled() => false,
        };
        if !drained {
            self.hard.cancel();
            if tokio::time::timeout(LAST_WORDS, self.tracker.wait())
                .await
                .is_err()
            {
                let tasks = self.tracker.len();
                tracing::error!(tasks, "tasks did not end after the hard stop");
                return ExitCode::FAILURE;
            }
        }
        if self.failed.load(Ordering::SeqCst) {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }
}

/// The one task that nobody waits for.
#[expect(
    clippy::disallowed_methods,
    reason = "it only waits for signals, which may never come, so nothing may wait for it"
)]
fn detach(watch: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(watch));
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn end_of(life: &Lifecycle) -> String {
        format!("{:?}", life.ended(Duration::from_secs(1)).await)
    }

    fn code(code: ExitCode) -> String {
        format!("{code:?}")
    }

    #[tokio::test]
    async fn a_role_that_was_told_to_stop_ends_well() {
        let life = Lifecycle::default();
        let soft = life.soft.clone();
        life.spawn_role("worker", async move {
            soft.cancelled().await;
            Ok(())
        });
        life.soft.cancel();
        assert_eq!(end_of(&life).await, code(ExitCode::SUCCESS));
    }

    #[tokio::test]
    async fn a_role_that_ends_fails_or_panics_unasked_takes_the_process_down() {
        for how in ["end", "fail", "panic"] {
            let life = Lifecycle::default();
            life.spawn_role("worker", async move {
                match how {
                    "end" => Ok(()),
                    "fail" => anyhow::bail!("broken"),
                    _ => panic!("broken"),
                }
            });
            assert_eq!(end_of(&life).await, code(ExitCode::FAILURE), "{how}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_end_is_told_hard_and_then_left_behind() {
        let life = Lifecycle::default();
        let hard = life.hard.clone();
        life.tracker.spawn(async move { hard.cancelled().await });
        life.soft.cancel();
        assert_eq!(end_of(&life).await, code(ExitCode::SUCCESS));

        let life = Lifecycle::default();
        life.tracker.spawn(std::future::pending::<()>());
        life.soft.cancel();
        assert_eq!(end_of(&life).await, code(ExitCode::FAILURE));
    }
}
