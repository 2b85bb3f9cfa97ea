//! The projector role: keeps the read model up to date.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use nexus_events::log::Log;
use nexus_projector::{ProjectorSettings, ProjectorStatus};
use tokio::{runtime::Handle, time::sleep};

use super::Process;
use crate::{
    metrics::Metrics,
    readiness::{Need, Part},
};

/// One round of waiting for the broker.
const BROKER_ROUND: Duration = Duration::from_secs(5);

/// Pause after a broker that was there and could not do what it was asked: 200 ms.
const BROKER_PAUSE: Duration = Duration::from_millis(200);

/// Projects until the soft stop; `need` says what the read model means to this process.
///
/// # Errors
/// The broker will not do, or another projector writes this read model.
pub fn run(
    process: Process,
    log: Log,
    need: Need,
) -> impl Future<Output = anyhow::Result<()>> + Send {
    // Taken in at once, not at the first poll: nobody is to find the process ready without it.
    let part = process.readiness.part("read_model", need);
    project(process, log, part)
}

async fn project(process: Process, log: Log, part: Part) -> anyhow::Result<()> {
    let stop = process.life.soft.clone();
    tokio::select! {
        ready = broker(log.clone(), part.clone()) => ready?,
        () = stop.cancelled() => return Ok(()),
    }
    let status = ProjectorStatus::default();
    let settings = ProjectorSettings {
        dir: process.settings.read_model_dir(),
        redis_url: process
            .settings
            .redis_url()
            .map(|url| url.expose().to_owned()),
    };
    let told = tell(Arc::clone(&process.metrics), status.clone(), part);
    // A thread of its own: applying a thousand events keeps no request waiting.
    let runtime = Handle::current();
    let projecting = tokio::task::spawn_blocking(move || {
        runtime.block_on(nexus_projector::run(settings, log, stop, status))
    });
    tokio::select! {
        end = projecting => end.context("run the projector's thread")?.context("project the log"),
        () = told => Ok(()),
    }
}

/// Waits until the broker is there and the streams are declared, however long it takes.
pub(super) async fn broker(log: Log, part: Part) -> anyhow::Result<()> {
    loop {
        match log.ready(BROKER_ROUND).await {
            Ok(()) => return Ok(()),
            Err(error) if error.is_passing() => {
                part.not_ready(format!("{:#}", anyhow::Error::from(error)));
                // A broker that refuses at once must not be asked without a pause.
                sleep(BROKER_PAUSE).await;
            }
            Err(error) => return Err(error).context("use the log"),
        }
    }
}

/// Says in readiness and metrics what the projector says of itself.
async fn tell(metrics: Arc<Metrics>, status: ProjectorStatus, part: Part) {
    let mut reports = status.subscribe();
    let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    loop {
        let report = reports.borrow_and_update().clone();
        metrics.projector_lag_events.set(gauge(report.pending));
        metrics.dead_letters.set(gauge(report.dead_letters));
        metrics.log_gaps.set(gauge(report.gaps));
        match status.not_ready() {
            Some(reason) => part.not_ready(reason),
            None if report.gaps > 0 => part.ready_but(format!(
                "{} events are missing in the log: the positions have gaps",
                report.gaps
            )),
            None => part.ready(),
        }
        if reports.changed().await.is_err() {
            return;
        }
    }
}
