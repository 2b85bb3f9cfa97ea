//! Looks at the gateway's parts a few times a second and tells: readiness, metrics, the minute's
//! unauthenticated calls.

use std::time::Duration;

use nexus_events::{
    outbox::{Release, Usage},
    subject::Lane,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    readiness::{Need, Part, Readiness},
    standstill::{Lookout, STANDSTILL},
    state::State,
};

/// Five times a second: a look costs microseconds, and a probe sees what is true.
const LOOK: Duration = Duration::from_millis(200);

/// A configuration that was the newest one so long ago is told with its age: 3 s.
const OLD: Duration = Duration::from_secs(3);

/// The voices of the gateway's parts.
#[derive(Debug)]
pub(super) struct Parts {
    accepting: Part,
    configuration: Part,
    outbox: Part,
    broker: Part,
}

impl Parts {
    pub(super) fn of(readiness: &Readiness, configuration: Need) -> Self {
        Self {
            accepting: readiness.part("gateway", Need::Always),
            configuration: readiness.part("configuration", configuration),
            outbox: readiness.part("outbox", Need::Always),
            broker: readiness.part("broker", Need::Told),
        }
    }
}

/// The watching task.
#[derive(Debug)]
pub(super) struct Watch {
    state: State,
    parts: Parts,
    lookout: Lookout,
}

impl Watch {
    pub(super) fn new(state: State, parts: Parts) -> Self {
        let lookout = Lookout::new(Instant::now());
        Self {
            state,
            parts,
            lookout,
        }
    }

    pub(super) async fn run(mut self, over: CancellationToken) {
        if let Some(warning) = self.state.role_settings.power_loss() {
            tracing::warn!("{warning}");
        }
        let looking = async {
            loop {
                self.look();
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    () = self.state.soft_stop.cancelled(), if !self.state.soft_stop.is_cancelled() => {}
                }
            }
        };
        over.run_until_cancelled(looking).await;
    }

    fn look(&mut self) {
        if self.state.soft_stop.is_cancelled() {
            self.parts.accepting.not_ready("stopping");
        } else {
            self.parts.accepting.ready();
        }
        self.broker();
        self.configuration();
        self.outbox();
        if let Some(minute) = self.state.unauthenticated.over(self.state.clock.now()) {
            self.state.tell_unauthenticated(minute);
        }
    }

    fn broker(&self) {
        let part = &self.parts.broker;
        if !self.state.log.is_connected() {
            part.not_ready("no connection");
        } else if let Some(warning) = self.state.role_settings.power_loss() {
            part.ready_but(warning);
        } else {
            part.ready();
        }
    }

    fn configuration(&self) {
        let configuration = &self.state.configuration;
        let sequence = configuration.current().sequence;
        let metric = i64::try_from(sequence).unwrap_or(i64::MAX);
        self.state.metrics.config_sequence.set(metric);
        let part = &self.parts.configuration;
        if let Some(reason) = self.state.commands.halted() {
            part.not_ready(reason);
            return;
        }
        let age_ms = self.state.clock.now().as_millis() - configuration.newest_at().as_millis();
        if u128::try_from(age_ms).is_ok_and(|age_ms| age_ms > OLD.as_millis()) {
            part.ready_but(format!(
                "sequence {sequence}, known to be the newest {} s ago",
                age_ms / 1000
            ));
        } else {
            part.ready();
        }
    }

    fn outbox(&mut self) {
        let usage = self.state.outbox.usage();
        let stands = self.stands(&usage);
        let part = &self.parts.outbox;
        if usage.is_full() {
            part.not_ready(format!(
                "full: {} bytes used, {} reserved, {} at most",
                usage.used_bytes, usage.reserved_bytes, usage.limit_bytes
            ));
            return;
        }
        if self.state.outbox.sync_failed() {
            part.not_ready("a sync failed: what was appended may not be on the disk");
            return;
        }
        if let Some(lane) = stands {
            part.not_ready(format!(
                "lane {lane}: the broker has taken nothing for {} s, and NEXUS_RELEASE is stream",
                STANDSTILL.as_secs()
            ));
            return;
        }
        let alarms: Vec<String> = (self.state.outbox.alarms().iter())
            .map(|(lane, reason)| format!("lane {lane}: {reason}"))
            .collect();
        if alarms.is_empty() {
            part.ready();
        } else {
            part.ready_but(alarms.join("; "));
        }
    }

    /// The lane that stands still, where answers wait for it.
    fn stands(&mut self, usage: &Usage) -> Option<Lane> {
        if self.state.settings.release == Release::Local {
            return None;
        }
        let lane = self.lookout.look(usage, Instant::now());
        self.state.standstill.set(lane.is_some());
        lane
    }
}
