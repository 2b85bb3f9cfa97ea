//! The projector's loop: read, apply with the checkpoint, tell.
//!
//! Four readers, one writer. Whatever has arrived of a stream is applied at
//! once in one transaction, so a lone event is visible within milliseconds and
//! a flood makes its own batches of up to 1 000.
//!
//! A read model that is missing, or was written by another version of the
//! apply code, is built from the log beside whatever is there. When the log is
//! not the one that the read model was built from, the projector halts itself
//! and says why; the process goes on, because traffic does not need it. It goes
//! on when the read model is deleted, or when a replay offers another one.

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use nexus_events::{
    log::{Live, Log},
    private,
};
use tokio::time::{Duration, Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    apply::{Applied, Writer, WriterError},
    database::{self, Identity},
    halt::{self, Another},
    handover, live,
    position::{AsOf, STREAMS},
    read_model::ReadModel,
    rebuild::{self, BuildError},
    soundness,
    source::{self, Batch, Misfit, Source},
    status::{Phase, ProjectorStatus},
};

/// Pause before the projector tries again what failed: 1 s.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// How long somebody else may hold the lock before that is another projector: 5 s.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Pause between two looks at the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// How often the projector looks whether its database is still there: 500 ms.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long a database stays after another became current: 1 min, far longer than any query.
const OLD_DATABASE_KEPT: Duration = Duration::from_mins(1);

/// How the projector is set up.
#[derive(Clone, Debug)]
pub struct ProjectorSettings {
    /// The folder of the read model.
    pub dir: PathBuf,
    /// Redis for live totals; `None`: none are kept there.
    pub redis_url: Option<String>,
}

/// Why the projector did not start.
#[derive(Debug, thiserror::Error)]
pub enum ProjectorError {
    /// Another projector writes this read model.
    #[error("another projector is at work on the read model in {dir}")]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder cannot be used.
    #[error("the folder of the read model, {dir}, cannot be used")]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Projects the log until it is told to stop.
///
/// # Errors
/// [`ProjectorError`]: it could not begin. What comes later is told through `status`.
pub async fn run(
    settings: ProjectorSettings,
    log: Log,
    shutdown: CancellationToken,
    status: ProjectorStatus,
) -> Result<(), ProjectorError> {
    // Boxed, because the caller may hold several roles in one future.
    let project = Box::pin(project_until(&settings.dir, &log, &shutdown, &status));
    match &settings.redis_url {
        None => Box::pin(project).await,
        Some(url) => {
            let live = live::feed(url, ReadModel::open(&settings.dir), status.subscribe());
            tokio::select! {
                outcome = Box::pin(project) => outcome,
                never = live => match never {},
            }
        }
    }
}

/// Sessions, one after the other, until it is told to stop.
async fn project_until(
    dir: &Path,
    log: &Log,
    shutdown: &CancellationToken,
    status: &ProjectorStatus,
) -> Result<(), ProjectorError> {
    let mut held = None;
    loop {
        let Some(lock) = lock_in_time(dir, held.take(), shutdown).await? else {
            return Ok(());
        };
        let outcome = shutdown
            .run_until_cancelled(Box::pin(session(dir, log, status)))
            .await;
        let Some(end) = outcome else {
            return Ok(());
        };
        // Kept from one session to the next, so that nobody gets in between; but with the folder
        // the lock may be gone as well.
        held = (!matches!(end, End::Gone)).then_some(lock);
        match end {
            End::Handover => tracing::info!("a replayed read model is offered"),
            End::Damaged(findings) => {
                tracing::error!(
                    findings,
                    "the read model is damaged; it is built anew from the log"
                );
                // From now on nobody reads it, and the next session finds none.
                if let Err(error) = database::point_to_none(dir) {
                    tracing::error!(%error, "the damaged read model could not be left");
                }
            }
            End::Gone => {
                tracing::warn!("the read model is gone; it is built anew from the log");
            }
            End::Halt(misfit) => {
                let halted = shutdown.run_until_cancelled(halt::halt(dir, &misfit, status));
                match halted.await {
                    None => return Ok(()),
                    Some(Another::Offered) => tracing::info!("a replayed read model is offered"),
                    Some(Another::ToBeBuilt) => {
                        tracing::warn!("the read model is gone; it is built anew from the log");
                        held = None;
                    }
                }
            }
            End::Failed(error) => {
                let reason = crate::apply::explain(&error);
                tracing::error!(reason, "the projector cannot go on for now");
                status.enter(Phase::Waiting { reason });
                let pause = tokio::time::sleep(RETRY_DELAY);
                if shutdown.run_until_cancelled(pause).await.is_none() {
                    return Ok(());
                }
            }
        }
    }
}

/// How a session ended; none ends well, for the log goes on for ever.
enum End {
    /// Another database is ready to take its place.
    Handover,
    /// The database is no longer sound on the disk.
    Damaged(String),
    /// The database was deleted under it.
    Gone,
    /// What trying again cannot mend.
    Halt(Misfit),
    /// What may pass: a full disk, a broker that does not answer.
    Failed(BuildError),
}

impl From<BuildError> for End {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Misfit(misfit) => Self::Halt(misfit),
            BuildError::Writer(_) | BuildError::Folder(_) | BuildError::Log(_) => {
                Self::Failed(error)
            }
        }
    }
}

impl From<WriterError> for End {
    fn from(error: WriterError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Misfit> for End {
    fn from(misfit: Misfit) -> Self {
        Self::Halt(misfit)
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// Only one projector writes a read model: whoever holds this lock.
pub(crate) fn lock(dir: &Path) -> Result<File, ProjectorError> {
    let folder = |source| ProjectorError::Folder {
        dir: dir.to_owned(),
        source,
    };
    private::create_dir_all(dir).map_err(folder)?;
    let file = private::create(&dir.join("lock")).map_err(folder)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ProjectorError::Locked {
            dir: dir.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(folder(source)),
    }
}

/// The lock that is held, or the one that can be had in time; `None` after the stop.
///
/// A replay that finds no projector holds it while it brings its database up to date.
async fn lock_in_time(
    dir: &Path,
    held: Option<File>,
    shutdown: &CancellationToken,
) -> Result<Option<File>, ProjectorError> {
    if held.is_some() {
        return Ok(held);
    }
    let patience = Instant::now() + LOCK_PATIENCE;
    loop {
        match lock(dir) {
            Err(ProjectorError::Locked { .. }) if Instant::now() < patience => {
                let pause = tokio::time::sleep(LOCK_PAUSE);
                if shutdown.run_until_cancelled(pause).await.is_none() {
                    return Ok(None);
                }
            }
            outcome => return outcome.map(Some),
        }
    }
}

/// Opens the database, or builds it, and follows the log as long as it can.
async fn session(dir: &Path, log: &Log, status: &ProjectorStatus) -> End {
    match open(dir, log, status).await {
        Ok((path, writer)) => follow(dir, path, writer, log, status)
            .await
            .unwrap_or_else(|end| end),
        Err(end) => end,
    }
}

async fn open(dir: &Path, log: &Log, status: &ProjectorStatus) -> Result<(PathBuf, Writer), End> {
    if let Some(taken) = handover::take(log, dir).await? {
        return Ok(taken);
    }
    if let Ok(current) = database::current(dir) {
        match Writer::open(&current.path).await {
            Ok(writer) => return Ok((current.path, writer)),
            Err(error) if rebuild::is_outdated(&error) => {
                let reason = crate::apply::explain(&error);
                tracing::warn!(reason, "the read model is built anew from the log");
            }
            Err(error) => return Err(error.into()),
        }
    }
    rebuild::clear(dir, None)?;
    status.enter(Phase::Building);
    let mut progress = |as_of, applied: Applied| {
        status.update(|report| {
            report.as_of = as_of;
            report.dead_letters += applied.dead_letters;
            report.gaps += applied.gaps;
        });
    };
    Ok(rebuild::build(log, dir, &mut progress).await?)
}

/// Applies what the streams bring.
async fn follow(
    dir: &Path,
    path: PathBuf,
    mut writer: Writer,
    log: &Log,
    status: &ProjectorStatus,
) -> Result<End, End> {
    let mut damage = Box::pin(soundness::damage(&path));
    let identity = database::identify(path.clone())?;
    let (mut next, mut lives) = (FuturesUnordered::new(), Vec::new());
    for stream in STREAMS {
        let source = Source::open(log, stream, &writer).await?;
        lives.push(source.live());
        next.push(read(source));
    }
    database::note_halt(dir, None)?;
    status.update(|report| {
        report.as_of = writer.as_of();
        report.gaps = writer.checkpoint().gaps();
        report.phase = Phase::Following;
    });
    tracing::info!(as_of = %writer.as_of(), "the projector follows the log");
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut old_until = Some(Instant::now() + OLD_DATABASE_KEPT);
    let mut pending = AsOf::default();
    loop {
        tokio::select! {
            Some((source, batch)) = next.next() => {
                let batch = batch?;
                pending.set(source.origin.stream, batch.pending);
                project(&mut writer, &source, batch, log)
                    .await
                    .map(|applied| tell(status, &writer, applied, pending))?;
                next.push(read(source));
            }
            findings = &mut damage => return Ok(End::Damaged(findings)),
            _ = look.tick() => {
                status.hears(lives.iter().all(Live::is_live));
                if handover::offered(dir).is_some() {
                    return Ok(End::Handover);
                }
                if !is_current(dir, &identity) {
                    return Ok(End::Gone);
                }
                if old_until.is_some_and(|until| until <= Instant::now()) {
                    rebuild::clear(dir, Some(&identity.path))?;
                    old_until = None;
                }
            }
        }
    }
}

/// Waits for the next batch of a stream and gives the reader back with it.
async fn read(mut source: Source) -> (Source, Result<Batch, Misfit>) {
    let batch = source.next().await;
    (source, batch)
}

async fn project(
    writer: &mut Writer,
    source: &Source,
    batch: Batch,
    log: &Log,
) -> Result<Applied, End> {
    let (mut messages, mut applied) = (batch.messages.into_iter(), Applied::default());
    while messages.len() > 0 {
        let entries = source::complete(log, &mut messages, writer.cutoff_ms()).await;
        applied.add(writer.apply(source.origin, &entries).await?);
    }
    let stream = source.origin.stream;
    tracing::debug!(%stream, events = applied.events, pending = batch.pending, "applied");
    Ok(applied)
}

fn tell(status: &ProjectorStatus, writer: &Writer, applied: Applied, pending: AsOf) {
    status.update(|report| {
        report.as_of = writer.as_of();
        report.dead_letters += applied.dead_letters;
        report.gaps += applied.gaps;
        report.pending = pending.sum();
    });
}

/// Whether the pointer still names the file that is being written.
fn is_current(dir: &Path, identity: &Identity) -> bool {
    database::current(dir).is_ok_and(|current| current == *identity)
}
