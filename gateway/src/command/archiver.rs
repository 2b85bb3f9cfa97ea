//! `nexus archiver`.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use nexus_events::log::Log;

use crate::{
    data_dir::RunFile,
    readiness::Need,
    role::{Process, archiver, name::ARCHIVER},
    settings::{ArchiverSettings, RoleSettings},
    telemetry,
};

/// Runs the archiver role.
#[derive(Args, Debug)]
pub struct ArchiverCommand {
    /// The process.
    #[command(flatten)]
    pub role: RoleSettings,
    /// The archiver.
    #[command(flatten)]
    pub archiver: ArchiverSettings,
}

impl ArchiverCommand {
    /// Runs it until it is told to stop.
    ///
    /// # Errors
    /// It cannot start.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        telemetry::start(self.role.log_format, &self.role.log)?;
        let nats_url = self.role.required_nats_url(ARCHIVER)?;
        let process = Process::begin(ARCHIVER, self.role)?;
        let metrics = process.serve_probes().await?;
        let log = Log::connect(process.settings.log_settings(nats_url.clone(), ARCHIVER))
            .await
            .context("connect to the log")?;
        let backups = self.archiver.backup_dir(&process.settings);
        let run = RunFile {
            backup_dir: RunFile::told(&backups)?,
            ..process.run_file(metrics, &nats_url)?
        };
        let announcement = process.data.announce(ARCHIVER, &run)?;
        let role = archiver::run(process.clone(), log, self.archiver, Need::Always);
        process.life.spawn_role(ARCHIVER, role);
        let code = process.ended().await;
        drop(announcement);
        Ok(code)
    }
}
