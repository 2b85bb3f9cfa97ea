//! The archiver's schedule: by timer and by signal, one job at a time.
//!
//! A backup is due when the newest one, those dated in the future aside, is an
//! hour old, retention when a day in UTC has begun that it has not been applied
//! for. Both follow the clock that is passed in, and neither remembers anything
//! that is not on disk or in the log: so a restart goes on with what is due.

use std::{collections::VecDeque, convert::Infallible, path::PathBuf};

use nexus_events::{
    audit_event::BackupTaken,
    clock::{SharedClock, UnixMillis},
    envelope::Stamp,
    log::Log,
    private,
};
use nexus_projector::ReadModel;
use tokio::time::{Duration, Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    backup::{BackupError, Backups},
    manifest::Manifest,
    retention,
    status::ArchiverStatus,
    untold::Untold,
};

/// Time between two backups.
const BACKUP_EVERY: Duration = Duration::from_hours(1);

/// How often the archiver looks at the clock: each second, which costs nothing.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Pause before a job that failed is tried again: 1 min.
const RETRY_DELAY: Duration = Duration::from_mins(1);

/// A read model that is still being built at the start is no news: for 1 min.
const BUILDING_TIME: Duration = Duration::from_mins(1);

/// Audit events that wait for the broker: 100 backups are four days of them.
const UNTOLD_MAX: usize = 100;

/// How the archiver is set up.
#[derive(Clone, Debug)]
pub struct ArchiverSettings {
    /// The folder of the read model.
    pub read_model_dir: PathBuf,
    /// The folder of the backups.
    pub backup_dir: PathBuf,
    /// How long exchanges, chunks, audit events and daily backups are kept.
    pub retention: Duration,
}

/// Why the archiver did not start.
#[derive(Debug, thiserror::Error)]
pub enum ArchiverError {
    /// The folder of the backups cannot be made or read.
    #[error("the backup directory {dir} cannot be used")]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Takes backups and applies retention until it is told to stop.
///
/// # Errors
/// [`ArchiverError`]: it could not begin. What comes later is told through `status`.
pub async fn run(
    settings: ArchiverSettings,
    log: Log,
    clock: SharedClock,
    shutdown: CancellationToken,
    status: ArchiverStatus,
) -> Result<(), ArchiverError> {
    let backups = Backups::new(&settings.backup_dir);
    let folder = |source| ArchiverError::Folder {
        dir: settings.backup_dir.clone(),
        source,
    };
    private::create_dir_all(&settings.backup_dir).map_err(folder)?;
    let there = backups.list().map_err(folder)?;
    let now_ms = clock.now().as_millis();
    if let Some(ahead) = there.first().filter(|backup| backup.created_ms > now_ms) {
        warn_of_the_future(ahead);
    }
    let last = newest_until(there, now_ms);
    status.update(|report| report.last_backup = last);
    let untold = backups.untold().map_err(folder)?.into();
    let mut archiver = Archiver {
        read_model: ReadModel::open(&settings.read_model_dir),
        backups,
        retention: settings.retention,
        log,
        clock,
        status,
        untold,
        backup_pause: None,
        retention_pause: None,
        begun: Instant::now(),
    };
    match shutdown.run_until_cancelled(archiver.work()).await {
        None => Ok(()),
        Some(never) => match never {},
    }
}

/// Takes one backup now and records it in the log.
///
/// # Errors
/// [`BackupError`]. A backup that could be taken but not recorded is no error; it is logged, and
/// the archiver records it when it starts.
pub async fn backup_now(
    settings: &ArchiverSettings,
    log: &Log,
    clock: &SharedClock,
) -> Result<Manifest, BackupError> {
    let backups = Backups::new(&settings.backup_dir);
    let read_model = ReadModel::open(&settings.read_model_dir);
    let taken = backups.take(&read_model, clock.as_ref()).await;
    if let Some(event) = untold(&backups, &taken, clock)
        && let Err(error) = event.tell(log).await
    {
        let error = explain(&error);
        tracing::warn!(error, "the backup is not recorded in the audit trail yet");
    }
    taken
}

struct Archiver {
    read_model: ReadModel,
    backups: Backups,
    retention: Duration,
    log: Log,
    clock: SharedClock,
    status: ArchiverStatus,
    /// Audit events that the broker has not taken yet.
    untold: VecDeque<Untold>,
    /// A job that failed waits until then.
    backup_pause: Option<Instant>,
    retention_pause: Option<Instant>,
    begun: Instant,
}

impl Archiver {
    async fn work(&mut self) -> Infallible {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let status = self.status.clone();
        loop {
            tokio::select! {
                _ = look.tick() => {
                    self.leave_the_future_aside();
                    if self.is_backup_due() {
                        self.back_up(false).await;
                    }
                    if self.is_retention_due() {
                        self.apply_retention().await;
                    }
                    self.tell().await;
                }
                () = status.backup_requested() => self.back_up(true).await,
            }
        }
    }

    /// A backup that was taken by a clock that was ahead counts as none: the next one would be due
    /// an hour after it, whenever that is.
    fn leave_the_future_aside(&self) {
        let now_ms = self.clock.now().as_millis();
        let last = self.status.current().last_backup;
        let Some(ahead) = last.filter(|backup| backup.created_ms > now_ms) else {
            return;
        };
        warn_of_the_future(&ahead);
        let there = self.backups.list().unwrap_or_else(|error| {
            tracing::warn!(%error, "the backups could not be listed");
            Vec::new()
        });
        let last = newest_until(there, now_ms);
        self.status.update(|report| report.last_backup = last);
    }

    fn is_backup_due(&self) -> bool {
        let last = self.status.current().last_backup;
        let due = last.map_or(i64::MIN, |backup| {
            UnixMillis::from_millis(backup.created_ms)
                .plus(BACKUP_EVERY)
                .as_millis()
        });
        has_passed(self.backup_pause) && self.clock.now().as_millis() >= due
    }

    fn is_retention_due(&self) -> bool {
        let cutoff = retention::cutoff(self.clock.now(), self.retention).as_millis();
        has_passed(self.retention_pause) && cutoff > self.status.current().retention_cutoff_ms
    }

    /// Takes a backup; whoever asked for it is told in any case why there is none.
    async fn back_up(&mut self, asked: bool) {
        let taken = self
            .backups
            .take(&self.read_model, self.clock.as_ref())
            .await;
        self.note(untold(&self.backups, &taken, &self.clock));
        match taken {
            Ok(backup) => {
                tracing::info!(
                    name = backup.name,
                    bytes = backup.bytes,
                    "a backup was taken"
                );
                self.backup_pause = None;
                self.status.update(|report| {
                    report.last_backup = Some(backup);
                    report.backup_failure = None;
                });
                let now = self.clock.now();
                if let Err(error) = self.backups.prune(now, now.minus(self.retention)) {
                    tracing::warn!(%error, "old backups could not be removed");
                }
            }
            Err(error) => {
                let failure = explain(&error);
                if error.is_unavailable() {
                    tracing::debug!(failure, "no backup yet");
                } else {
                    tracing::error!(failure, "no backup could be taken");
                }
                self.backup_pause = Some(Instant::now() + pause_after(error.is_unavailable()));
                if asked || !error.is_unavailable() || !self.waits_for_the_first() {
                    self.status
                        .update(|report| report.backup_failure = Some(failure));
                }
            }
        }
    }

    async fn apply_retention(&mut self) {
        let applied =
            retention::apply(&self.log, &self.read_model, &self.clock, self.retention).await;
        match applied {
            Ok(outcome) => {
                tracing::info!(?outcome, "retention is up to date");
                self.retention_pause = None;
                self.status.update(|report| {
                    report.retention_cutoff_ms = outcome.cutoff_ms;
                    report.retention_failure = None;
                });
            }
            Err(error) => {
                let failure = explain(&error);
                // A hub that starts for the first time has none yet: nobody needs a warning.
                if error.is_unavailable() {
                    tracing::debug!(failure, "retention waits for the read model");
                } else {
                    tracing::warn!(
                        failure,
                        "retention could not be applied; nothing is lost by trying again"
                    );
                }
                self.retention_pause = Some(Instant::now() + pause_after(error.is_unavailable()));
                if !error.is_unavailable() || !self.waits_for_the_first() {
                    self.status
                        .update(|report| report.retention_failure = Some(failure));
                }
            }
        }
    }

    /// Whether the read model may just not have been built yet, which nobody has to be told.
    fn waits_for_the_first(&self) -> bool {
        self.begun.elapsed() < BUILDING_TIME
    }

    fn note(&mut self, event: Option<Untold>) {
        if self.untold.len() >= UNTOLD_MAX
            && let Some(oldest) = self.untold.pop_front()
        {
            tracing::error!(
                name = oldest.name,
                "the audit trail is told of a backup after the next start only: the broker has been away too long"
            );
        }
        self.untold.extend(event);
    }

    /// Publishes what the audit trail does not have yet, oldest first, as far as the broker takes it.
    async fn tell(&mut self) {
        while let Some(event) = self.untold.front() {
            if let Err(error) = event.tell(&self.log).await {
                let error = explain(&error);
                tracing::debug!(error, "the audit trail waits for the broker");
                return;
            }
            self.untold.pop_front();
        }
    }
}

/// A read model that is being built is looked for again at the next tick.
const fn pause_after(is_unavailable: bool) -> Duration {
    if is_unavailable {
        LOOK_EVERY
    } else {
        RETRY_DELAY
    }
}

fn has_passed(pause: Option<Instant>) -> bool {
    pause.is_none_or(|until| until <= Instant::now())
}

/// The newest of the backups, which are ordered so, that is not from the future.
fn newest_until(there: Vec<Manifest>, now_ms: i64) -> Option<Manifest> {
    let mut past = there
        .into_iter()
        .filter(|backup| backup.created_ms <= now_ms);
    past.next()
}

fn warn_of_the_future(backup: &Manifest) {
    tracing::warn!(
        name = backup.name,
        "a backup is dated in the future: the clock was ahead, or is behind; it counts as none"
    );
}

/// What the audit trail is to be told of a try; nothing where there was no read model to copy.
fn untold(
    backups: &Backups,
    taken: &Result<Manifest, BackupError>,
    clock: &SharedClock,
) -> Option<Untold> {
    let error = match taken {
        Ok(backup) => return backups.untold_of(backup),
        Err(error) if error.is_unavailable() => return None,
        Err(error) => error,
    };
    let failed = BackupTaken {
        name: String::new(),
        bytes: 0,
        sha256: String::new(),
        failure: Some(explain(error)),
    };
    let untold = Untold::of(&failed, Stamp::draw(clock.as_ref()));
    untold
        .inspect_err(|error| {
            let error = explain(error);
            tracing::error!(error, "the audit trail is not told that there is no backup");
        })
        .ok()
}

/// What a chain of errors says, in one line.
fn explain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
