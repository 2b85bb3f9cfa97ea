//! The archiver role: backups of the read model, and retention.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use nexus_archiver::ArchiverStatus;
use nexus_events::log::Log;
use tokio::runtime::Handle;

use super::{Process, projector::broker};
use crate::{
    metrics::Metrics,
    readiness::{Need, Part},
    settings::ArchiverSettings,
};

/// How often readiness and metrics follow the archiver's report: 1 s.
const LOOK: Duration = Duration::from_secs(1);

/// Archives until the soft stop; `need` says what the archiver means to this process.
///
/// # Errors
/// The broker will not do, or the folder of the backups cannot be used.
pub async fn run(
    process: Process,
    log: Log,
    settings: ArchiverSettings,
    need: Need,
) -> anyhow::Result<()> {
    let part = process.readiness.part("archiver", need);
    let stop = process.life.soft.clone();
    tokio::select! {
        ready = broker(log.clone(), part.clone()) => ready?,
        () = stop.cancelled() => return Ok(()),
    }
    let status = ArchiverStatus::default();
    let settings = nexus_archiver::ArchiverSettings {
        read_model_dir: process.settings.read_model_dir(),
        backup_dir: settings.backup_dir(&process.settings),
        retention: process.settings.retention(),
    };
    let told = tell(Arc::clone(&process.metrics), status.clone(), part);
    // A thread of its own: copying a database keeps no request waiting.
    let (runtime, clock) = (Handle::current(), Arc::clone(&process.clock));
    let archiving = tokio::task::spawn_blocking(move || {
        runtime.block_on(nexus_archiver::run(settings, log, clock, stop, status))
    });
    tokio::select! {
        end = archiving => end.context("run the archiver's thread")?.context("archive the log"),
        () = told => Ok(()),
    }
}

/// Says in readiness and metrics what the archiver says of itself; a backup that failed leaves
/// it ready, for it tries again.
async fn tell(metrics: Arc<Metrics>, status: ArchiverStatus, part: Part) {
    loop {
        let report = status.current();
        let last_ms = report.last_backup.map_or(0, |backup| backup.created_ms);
        metrics.last_backup_seconds.set(last_ms.div_euclid(1000));
        let failures = [
            report
                .backup_failure
                .map(|why| format!("the latest backup failed: {why}")),
            report
                .retention_failure
                .map(|why| format!("retention failed: {why}")),
        ];
        let failures: Vec<String> = failures.into_iter().flatten().collect();
        if failures.is_empty() {
            part.ready();
        } else {
            part.ready_but(failures.join("; "));
        }
        tokio::time::sleep(LOOK).await;
    }
}
