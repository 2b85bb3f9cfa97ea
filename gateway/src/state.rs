//! What the handlers share.

use std::sync::Arc;

use nexus_events::{
    audit_event::UnauthenticatedCalls, clock::SharedClock, log::Log, outbox::Outbox,
    seal::MasterKey,
};
use nexus_projector::read_model::ReadModel;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    auth::Unauthenticated,
    configuration::{Commands, Configuration},
    exchange::Engine,
    limits::Limits,
    metrics::Metrics,
    routing::Routing,
    session::Sessions,
    settings::{GatewaySettings, RoleSettings},
    standstill::Standstill,
};

/// The gateway's parts, as handlers see them.
#[derive(Debug)]
pub struct AppState {
    /// Dates things.
    pub clock: SharedClock,
    /// How the gateway was set up.
    pub settings: Arc<GatewaySettings>,
    /// How the process was set up.
    pub role_settings: Arc<RoleSettings>,
    /// Seals secrets.
    pub master_key: MasterKey,
    /// The configuration in force.
    pub configuration: Configuration,
    /// Changes it.
    pub commands: Commands,
    /// Carries exchanges out.
    pub engine: Engine,
    /// Finds providers and knows how they fare.
    pub routing: Routing,
    /// How much may be asked for.
    pub limits: Limits,
    /// Finds conversations.
    pub sessions: Sessions,
    /// Where events are appended.
    pub outbox: Outbox,
    /// Whether the log stands still under it.
    pub standstill: Standstill,
    /// The log, for what is not on a request's path.
    pub log: Log,
    /// What people read.
    pub read_model: ReadModel,
    /// Counts calls without a valid key.
    pub unauthenticated: Unauthenticated,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Every task that must end before the process does.
    pub tracker: TaskTracker,
    /// Cancelled when nothing new may begin.
    pub soft_stop: CancellationToken,
    /// Cancelled when what is under way must end.
    pub hard_stop: CancellationToken,
}

/// The state as handlers take it.
pub type State = Arc<AppState>;

impl AppState {
    /// Who this process is, as the `source` of its events.
    pub fn source(&self) -> String {
        format!("/nexus/gateway/{}", self.outbox.id())
    }

    /// Records a minute's calls without a valid key.
    pub fn tell_unauthenticated(&self, minute: UnauthenticatedCalls) {
        let parts = (&self.outbox, &self.clock, &*self.source());
        self.unauthenticated.tell(parts, minute);
    }
}
