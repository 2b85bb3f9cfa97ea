//! The archiver against a real broker and a real read model.

mod expiry;
mod rollups;
mod untold;

use std::{path::PathBuf, sync::Arc, time::Duration};

use nexus_archiver::{ArchiverError, ArchiverSettings, ArchiverStatus, Backups, backup_now};
use nexus_events::{
    clock::{ManualClock, SharedClock, UnixMillis},
    log::Log,
    subject::Stream,
};
use nexus_projector::ReadModel;
use nexus_tests::{Broker, Result, read_model, until};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    running::Running,
    traffic::{self, Exchange, NOON, Traffic, at},
};

/// A loaded two-core machine takes a backup of a few rows in some hundred milliseconds.
const BOUND: Duration = Duration::from_secs(30);

/// How long the tests keep what is old.
const RETENTION: Duration = Duration::from_hours(183 * 24);

struct Setup {
    broker: Broker,
    log: Log,
    traffic: Traffic,
    projector: Running,
    settings: ArchiverSettings,
    folder: TempDir,
}

impl Setup {
    async fn new() -> Result<Self> {
        Self::on(Broker::start().await?).await
    }

    async fn on(broker: Broker) -> Result<Self> {
        let log = traffic::log(&broker).await?;
        let traffic = Traffic::new(&log);
        let folder = tempfile::tempdir()?;
        let settings = ArchiverSettings {
            read_model_dir: folder.path().join("read_model"),
            backup_dir: folder.path().join("backups"),
            retention: RETENTION,
        };
        let projector = Running::start(&settings.read_model_dir, &log);
        Ok(Self {
            broker,
            log,
            traffic,
            projector,
            settings,
            folder,
        })
    }

    async fn exchange(&mut self, drawn_ms: i64, said: &str) -> Result<Exchange> {
        let exchange = self.traffic.exchange(drawn_ms, said).await?;
        self.projector.applied(exchange.sequence).await?;
        Ok(exchange)
    }

    fn read_model(&self) -> ReadModel {
        ReadModel::open(&self.settings.read_model_dir)
    }

    fn dump(&self) -> read_model::ReadModel {
        read_model::ReadModel::at(&self.settings.read_model_dir)
    }

    fn backups(&self) -> Backups {
        Backups::new(&self.settings.backup_dir)
    }

    fn backup_file(&self, name: &str, file: &str) -> PathBuf {
        self.settings.backup_dir.join(name).join(file)
    }
}

fn clock(ms: i64) -> SharedClock {
    Arc::new(at(ms))
}

#[tokio::test]
async fn a_backup_is_a_whole_checked_copy() -> Result<()> {
    let mut setup = Setup::new().await?;
    setup.exchange(NOON, "remember this").await?;
    let backup = backup_now(&setup.settings, &setup.log, &clock(NOON)).await?;
    assert_eq!(backup.name, "20261124T120000.000Z");
    assert_eq!(backup.positions.exchanges, 2);
    assert!(setup.backups().is_intact(&backup)?);
    assert_eq!(setup.backups().list()?, std::slice::from_ref(&backup));

    // The copy holds what the live one held: compared before the backup's own audit event.
    let copy = setup.folder.path().join("copy");
    std::fs::create_dir(&copy)?;
    let file = setup.backup_file(&backup.name, &backup.file);
    std::fs::copy(&file, copy.join("copied.db"))?;
    std::fs::write(copy.join("current"), "copied.db")?;
    let copied = read_model::ReadModel::at(&copy).dump().await?;
    setup
        .dump()
        .until_number(
            "SELECT count(*) FROM audit_log WHERE kind = 'backup_taken'",
            1,
        )
        .await?;
    let live = setup.dump().dump().await?;
    let without_audit = |dump: &str| -> Vec<String> {
        dump.lines()
            .filter(|line| !line.contains("'backup_taken'"))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(without_audit(&copied), without_audit(&live));

    let mut bytes = std::fs::read(&file)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes)?;
    assert!(!setup.backups().is_intact(&backup)?);
    setup.projector.stop().await
}

#[tokio::test]
async fn what_is_not_whole_is_no_backup() -> Result<()> {
    let mut setup = Setup::new().await?;
    setup.exchange(NOON, "remember this").await?;
    let half = setup
        .settings
        .backup_dir
        .join("20261124T110000.000Z.partial");
    std::fs::create_dir_all(&half)?;
    std::fs::write(half.join("read_model.db"), "half a copy")?;
    assert_eq!(setup.backups().list()?, []);
    backup_now(&setup.settings, &setup.log, &clock(NOON)).await?;
    assert!(!half.exists(), "what a crash left is cleared");
    assert_eq!(setup.backups().list()?.len(), 1);
    setup.projector.stop().await
}

#[tokio::test]
async fn without_a_read_model_there_is_no_backup() -> Result<()> {
    let setup = Setup::new().await?;
    let settings = ArchiverSettings {
        read_model_dir: setup.folder.path().join("nowhere"),
        ..setup.settings.clone()
    };
    let error = backup_now(&settings, &setup.log, &clock(NOON))
        .await
        .unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    assert_eq!(setup.backups().list()?, []);
    setup.projector.stop().await
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the test joins the task itself")]
async fn a_read_model_that_is_not_built_yet_is_no_failure_to_back_it_up() -> Result<()> {
    let setup = Setup::new().await?;
    let settings = ArchiverSettings {
        read_model_dir: setup.folder.path().join("nowhere"),
        ..setup.settings.clone()
    };
    let (status, shutdown) = (ArchiverStatus::default(), CancellationToken::new());
    let run = nexus_archiver::run(
        settings,
        setup.log.clone(),
        clock(NOON),
        shutdown.clone(),
        status.clone(),
    );
    let task = tokio::spawn(run);
    // It tries each second.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let report = status.current();
    assert_eq!(report.backup_failure, None);
    assert_eq!(report.retention_failure, None);
    // Who asks is told.
    status.request_backup();
    until("the failure is told", BOUND, async || {
        let report = status.current();
        report.backup_failure.ok_or("no failure").map(drop)
    })
    .await?;
    shutdown.cancel();
    task.await??;
    setup.projector.stop().await
}

/// An archiver by that clock, with what it says and what stops it.
#[expect(clippy::disallowed_methods, reason = "the test joins the task itself")]
fn started(
    setup: &Setup,
    clock: &Arc<ManualClock>,
) -> (
    ArchiverStatus,
    CancellationToken,
    JoinHandle<Result<(), ArchiverError>>,
) {
    let (status, shutdown) = (ArchiverStatus::default(), CancellationToken::new());
    let run = nexus_archiver::run(
        setup.settings.clone(),
        setup.log.clone(),
        Arc::<ManualClock>::clone(clock),
        shutdown.clone(),
        status.clone(),
    );
    let task = tokio::spawn(run);
    (status, shutdown, task)
}

#[tokio::test]
async fn a_backup_is_taken_each_hour_and_when_asked_for() -> Result<()> {
    let mut setup = Setup::new().await?;
    setup.exchange(NOON, "remember this").await?;
    let clock = Arc::new(ManualClock::at(UnixMillis::from_millis(NOON)));
    let start = || started(&setup, &clock);
    let backups = async |count: usize| {
        until("the backups are there", BOUND, async || {
            let list = setup.backups().list().map_err(|error| error.to_string())?;
            if list.len() == count {
                Ok(())
            } else {
                Err(format!("{list:?}"))
            }
        })
        .await
    };
    let (status, shutdown, task) = start();
    backups(1).await?;
    clock.advance(Duration::from_mins(61));
    backups(2).await?;
    shutdown.cancel();
    task.await??;
    drop(status);

    // A restart takes none before the hour has passed.
    let (status, shutdown, task) = start();
    until("retention was applied", BOUND, async || {
        let report = status.current();
        if report.retention_cutoff_ms > 0 {
            Ok(())
        } else {
            Err(format!("{report:?}"))
        }
    })
    .await?;
    backups(2).await?;
    clock.advance(Duration::from_mins(1));
    status.request_backup();
    backups(3).await?;
    setup
        .dump()
        .until_number(
            "SELECT count(*) FROM audit_log WHERE kind = 'backup_taken'",
            3,
        )
        .await?;
    shutdown.cancel();
    task.await??;
    setup.projector.stop().await
}

#[tokio::test]
async fn a_backup_from_the_future_does_not_end_the_hourly_ones() -> Result<()> {
    const DAY_MS: i64 = 24 * 60 * 60 * 1000;
    let mut setup = Setup::new().await?;
    setup.exchange(NOON, "remember this").await?;
    // Left by a clock that was a day ahead.
    let ahead = backup_now(&setup.settings, &setup.log, &clock(NOON + DAY_MS)).await?;
    let clock = Arc::new(ManualClock::at(UnixMillis::from_millis(NOON)));
    let (status, shutdown, task) = started(&setup, &clock);
    let latest = async |expected_ms: i64| {
        until("the latest backup is of this hour", BOUND, async || {
            let last = status.current().last_backup.map(|last| last.created_ms);
            if last == Some(expected_ms) {
                Ok(())
            } else {
                Err(format!("{last:?}"))
            }
        })
        .await
    };
    latest(NOON).await?;
    clock.advance(Duration::from_hours(1));
    let hour_later = NOON + 60 * 60 * 1000;
    latest(hour_later).await?;
    // Set back while it runs: what was taken meanwhile is in the future as well.
    clock.set(UnixMillis::from_millis(NOON + 1000));
    latest(NOON).await?;
    clock.advance(Duration::from_hours(1));
    latest(hour_later + 1000).await?;
    let list = setup.backups().list()?;
    let taken: Vec<i64> = list.iter().map(|backup| backup.created_ms).collect();
    assert_eq!(
        taken,
        [ahead.created_ms, hour_later + 1000, hour_later, NOON]
    );
    shutdown.cancel();
    task.await??;
    setup.projector.stop().await
}

async fn messages(log: &Log, stream: Stream) -> Result<u64> {
    Ok(log.stream_state(stream).await?.messages)
}
