//! The projector role: keeps the read model up to date.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use nexus_events::log::Log;
use nexus_projector::{ProjectorSettings, ProjectorStatus, scratch, status::Report};
use tokio::{
    runtime::Handle,
    time::{sleep, timeout},
};

use super::Process;
use crate::readiness::{Need, Part};

/// One round of waiting for the broker.
const BROKER_ROUND: Duration = Duration::from_secs(5);

/// Pause after a broker that was there and could not do what it was asked: 200 ms.
const BROKER_PAUSE: Duration = Duration::from_millis(200);

/// How often the moment of the last contact is told: every 500 ms, as the projector looks.
const LOOK: Duration = Duration::from_millis(500);

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
    let data = Arc::clone(&process.data);
    tokio::task::spawn_blocking(move || scratch::clear(data.root()))
        .await
        .context("remove what a verification left")?;
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
    let told = tell(process.clone(), status.clone(), part);
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
async fn tell(process: Process, status: ProjectorStatus, part: Part) {
    let (figures, mut reports) = (process.metrics.projector.clone(), status.subscribe());
    let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let mut heard_ms = None;
    loop {
        let report = reports.borrow_and_update().clone();
        figures.lag_events.set(gauge(report.pending));
        figures.dead_letters.set(gauge(report.dead_letters));
        figures.log_gaps.set(gauge(report.gaps));
        let now_ms = process.clock.now().as_millis();
        if report.live {
            heard_ms = Some(now_ms);
            figures.last_contact.set(now_ms / 1000);
        }
        match status.not_ready() {
            Some(reason) => part.not_ready(reason),
            None => match remark(&report, heard_ms.map(|heard| now_ms.saturating_sub(heard))) {
                Some(remark) => part.ready_but(remark),
                None => part.ready(),
            },
        }
        // What was heard a while ago grows old without news.
        if let Ok(Err(_)) = timeout(LOOK, reports.changed()).await {
            return;
        }
    }
}

/// What there is to say of a read model that is kept up to date as far as that goes.
fn remark(report: &Report, silence_ms: Option<i64>) -> Option<String> {
    let mut remarks = Vec::new();
    if report.gaps > 0 {
        remarks.push(format!(
            "{} events are missing in the log: the positions have gaps",
            report.gaps
        ));
    }
    if let Some(silence_ms) = silence_ms
        && !report.live
    {
        remarks.push(format!(
            "nothing was heard of the broker for {} s; {} events were to be read then",
            silence_ms / 1000,
            report.pending
        ));
    }
    (!remarks.is_empty()).then(|| remarks.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remark_tells_gaps_and_silence() {
        let mut report = Report {
            live: true,
            ..Report::default()
        };
        assert_eq!(remark(&report, Some(0)), None);
        report.live = false;
        report.pending = 7;
        assert_eq!(remark(&report, None), None, "it has not begun to follow");
        let silent = remark(&report, Some(12_999)).unwrap();
        assert!(silent.contains("for 12 s; 7 events"), "{silent}");
        report.gaps = 3;
        let both = remark(&report, Some(0)).unwrap();
        assert!(
            both.starts_with("3 events") && both.contains("; "),
            "{both}"
        );
    }
}
