//! `nexus replay`: rebuilds the read model from the log while everything goes on.
//!
//! *How.* A new database is filled beside the live one, under a name that the
//! projector leaves alone; when it has caught up it is offered to the
//! projector, which brings it to exactly where the live one stands and moves
//! the pointer (`handover`). How the statistics alone are rebuilt: `replay::statistics`.
//!
//! *What it promises.* Readers see the old database whole, then the new one
//! whole, and never an older state than before. Interrupted anywhere, SIGKILL
//! included, the live read model is as it was; the next replay goes on where
//! the new database's own checkpoint stands, or starts over when told to.
//! One replay at a time works on a folder.
//!
//! *As of a moment.* [`until`] gives the state after every event that the
//! broker had stored at or before a moment: the broker's clock, not the
//! gateways', so that each stream is cut between two sequences. It goes into a
//! folder of its own and never becomes the live read model, which would lie
//! about the present until the projector had caught up. Events that retention
//! has removed since are missing in it.

mod statistics;

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use nexus_events::{
    clock::UnixMillis,
    log::{Log, LogError},
    private,
};
use tokio::time::{Duration, Instant, sleep};

use crate::{
    apply::{Applied, Writer, WriterError},
    checkpoint::APPLY_VERSION,
    database, handover,
    position::{AsOf, STREAMS},
    read_model::keeping::CopyError,
    rebuild::{self, BuildError},
    run,
};

/// How far behind the log a database is offered: 200 events; the projector does the rest at once.
const LAG_MAX: u64 = 200;

/// How long the projector may take to take over: 1 min, far more than its looks and a catch-up need.
const TAKE_OVER: Duration = Duration::from_mins(1);

/// Pause between two looks whether it has.
const LOOK: Duration = Duration::from_millis(50);

/// What is rebuilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every table.
    Everything,
    /// The tables of statistics; the others stay as they are.
    Statistics,
}

/// How far a replay has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Events applied in this run.
    pub events: u64,
    /// How far the streams have been read.
    pub as_of: AsOf,
    /// How far they are to be read, as known at present.
    pub ends: AsOf,
}

/// What came of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Events applied.
    pub events: u64,
    /// How far the new database had read the streams.
    pub as_of: AsOf,
    /// Whether it is current; if not yet, the projector takes it over as soon as it can.
    pub is_current: bool,
}

/// Why a replay did not end well; the live read model is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Another replay works on the folder.
    #[error("another replay is at work in {dir}")]
    Busy {
        /// The folder.
        dir: PathBuf,
    },
    /// There is a read model already where the state of a moment was to go.
    #[error("{dir} holds a read model already; name an empty directory")]
    Occupied {
        /// The folder.
        dir: PathBuf,
    },
    /// The new database could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The live read model is not what the log says, so nothing of it can be kept.
    #[error(
        "the projector has halted, so no table of the live read model can be kept; replay all of them. It says: {reason}"
    )]
    Halted {
        /// Why it has halted.
        reason: String,
    },
    /// The live read model could not be copied.
    #[error("the live read model could not be copied")]
    Copy(#[from] CopyError),
    /// Retention removed events while they were read.
    #[error("retention removed events while they were read; replay again")]
    Purged,
}

impl From<io::Error> for ReplayError {
    fn from(error: io::Error) -> Self {
        Self::Build(error.into())
    }
}

impl From<LogError> for ReplayError {
    fn from(error: LogError) -> Self {
        Self::Build(error.into())
    }
}

impl From<WriterError> for ReplayError {
    fn from(error: WriterError) -> Self {
        Self::Build(error.into())
    }
}

impl From<sqlx::Error> for ReplayError {
    fn from(error: sqlx::Error) -> Self {
        Self::Build(WriterError::from(error).into())
    }
}

/// Tells how it goes; called after every batch.
pub type Tell<'a> = dyn FnMut(&Progress) + Send + 'a;

/// Rebuilds the read model of a folder and hands it over.
///
/// `fresh`: what an interrupted replay left is thrown away, not gone on with.
///
/// # Errors
/// [`ReplayError`].
pub async fn replay(
    log: &Log,
    dir: &Path,
    (scope, fresh): (Scope, bool),
    tell: &mut Tell<'_>,
) -> Result<Outcome, ReplayError> {
    let held = hold(dir)?;
    let mut told = Told::new(tell);
    let built = match scope {
        Scope::Everything => {
            let path = dir.join(format!("replay-v{APPLY_VERSION}.db"));
            build(log, &path, fresh, &mut told).await?;
            path
        }
        Scope::Statistics => statistics::build_database(log, dir, fresh, &mut told).await?,
    };
    let (events, as_of) = (told.progress.events, told.progress.as_of);
    let is_current = hand_over(log, dir, &built).await?;
    drop(held);
    Ok(Outcome {
        events,
        as_of,
        is_current,
    })
}

/// Builds the read model as of a moment in a folder that holds none.
///
/// # Errors
/// [`ReplayError`].
pub async fn until(
    log: &Log,
    into: &Path,
    moment: UnixMillis,
    tell: &mut Tell<'_>,
) -> Result<Outcome, ReplayError> {
    let held = hold(into)?;
    if database::current(into).is_ok() {
        return Err(ReplayError::Occupied {
            dir: into.to_owned(),
        });
    }
    let after = UnixMillis::from_millis(moment.as_millis().saturating_add(1));
    let mut ends = AsOf::default();
    for stream in STREAMS {
        let first_after = log.sequence_at(stream, after).await?;
        ends.set(stream, first_after.saturating_sub(1));
    }
    let mut told = Told::new(tell);
    told.progress.ends = ends;
    let name = format!("read_model-v{APPLY_VERSION}-until.db");
    let path = into.join(&name);
    // Another moment than that of an interrupted run would not be seen in its checkpoint.
    rebuild::remove_database(&path)?;
    let mut writer = Writer::open(&path).await?;
    rebuild::replay(log, &mut writer, ends, &mut told.apply()).await?;
    let as_of = writer.as_of();
    writer.close().await?;
    database::point_to(into, &name)?;
    drop(held);
    Ok(Outcome {
        events: told.progress.events,
        as_of,
        is_current: false,
    })
}

/// The file that a replay locks.
const LOCK_FILE: &str = "replay.lock";

/// Whether a replay works on the folder.
pub(crate) fn is_at_work(dir: &Path) -> bool {
    let lock = File::open(dir.join(LOCK_FILE));
    lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
}

/// One replay at a time: whoever holds this lock.
pub(crate) fn hold(dir: &Path) -> Result<File, ReplayError> {
    private::create_dir_all(dir)?;
    let lock = private::create(&dir.join(LOCK_FILE))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(ReplayError::Busy {
            dir: dir.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Fills the database at `path` up to the log's end and closes it.
async fn build(
    log: &Log,
    path: &Path,
    fresh: bool,
    told: &mut Told<'_, '_>,
) -> Result<(), ReplayError> {
    if fresh {
        rebuild::remove_database(path)?;
    }
    let goes_on = path.try_exists()?;
    match fill(log, path, told).await {
        // What an earlier run left may be of another version or another log.
        Err(error) if goes_on && rebuild::is_of_no_use(&error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what an earlier replay left is of no use; starting over"
            );
            rebuild::remove_database(path)?;
            Ok(fill(log, path, told).await?)
        }
        filled => Ok(filled?),
    }
}

async fn fill(log: &Log, path: &Path, told: &mut Told<'_, '_>) -> Result<(), BuildError> {
    let mut writer = Writer::open(path).await?;
    told.progress.as_of = writer.as_of();
    loop {
        let ends = rebuild::ends(log).await?;
        told.progress.ends = ends;
        rebuild::replay(log, &mut writer, ends, &mut told.apply()).await?;
        if rebuild::lag(writer.as_of(), rebuild::ends(log).await?) <= LAG_MAX {
            break;
        }
    }
    Ok(writer.close().await?)
}

/// Offers a closed database, and waits until it is current; tells whether it is.
async fn hand_over(log: &Log, dir: &Path, built: &Path) -> Result<bool, ReplayError> {
    let name = handover::offer(dir, built)?;
    let deadline = Instant::now() + TAKE_OVER;
    while Instant::now() < deadline {
        let is_current = database::current(dir).is_ok_and(|current| current.path.ends_with(&name));
        if is_current && handover::offered(dir).is_none() {
            return Ok(true);
        }
        // No projector runs: then nobody else writes, and we may do what it would.
        if let Ok(lock) = run::lock(dir) {
            if let Some((_, writer)) = handover::take(log, dir).await? {
                writer.close().await?;
            }
            drop(lock);
        } else {
            sleep(LOOK).await;
        }
    }
    Ok(false)
}

/// Keeps the progress and tells it.
struct Told<'t, 'f> {
    progress: Progress,
    tell: &'t mut Tell<'f>,
}

impl<'t, 'f> Told<'t, 'f> {
    fn new(tell: &'t mut Tell<'f>) -> Self {
        Self {
            progress: Progress {
                events: 0,
                as_of: AsOf::default(),
                ends: AsOf::default(),
            },
            tell,
        }
    }

    /// What a rebuild calls after each batch.
    fn apply(&mut self) -> impl FnMut(AsOf, Applied) + Send + '_ {
        |as_of, applied: Applied| {
            self.progress.as_of = as_of;
            self.progress.events += applied.events;
            (self.tell)(&self.progress);
        }
    }
}
