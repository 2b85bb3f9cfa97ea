//! `nexus projector`.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use nexus_events::log::Log;

use crate::{
    readiness::Need,
    role::{Process, name::PROJECTOR, projector},
    settings::RoleSettings,
    telemetry,
};

/// Runs the projector role.
#[derive(Args, Debug)]
pub struct ProjectorCommand {
    /// The process.
    #[command(flatten)]
    pub role: RoleSettings,
}

impl ProjectorCommand {
    /// Runs it until it is told to stop.
    ///
    /// # Errors
    /// It cannot start.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        telemetry::start(self.role.log_format, &self.role.log)?;
        let nats_url = self.role.required_nats_url(PROJECTOR)?;
        let process = Process::begin(PROJECTOR, self.role)?;
        let metrics = process.serve_probes().await?;
        let log = Log::connect(process.settings.log_settings(nats_url.clone(), PROJECTOR))
            .await
            .context("connect to the log")?;
        let run = process.run_file(metrics, &nats_url)?;
        let announcement = process.data.announce(PROJECTOR, &run)?;
        let role = projector::run(process.clone(), log, Need::Always);
        process.life.spawn_role(PROJECTOR, role);
        let code = process.ended().await;
        drop(announcement);
        Ok(code)
    }
}
