//! `nexus standalone`: the default.

use std::process::ExitCode;

use clap::Parser;

use crate::{
    settings::{
        ArchiverSettings, GatewaySettings, MasterKeySettings, NatsServerSettings, RoleSettings,
    },
    standalone, telemetry,
};

/// Runs everything in one process.
#[derive(Parser, Debug)]
pub struct StandaloneCommand {
    /// The process.
    #[command(flatten)]
    pub role: RoleSettings,
    /// The gateway.
    #[command(flatten)]
    pub gateway: GatewaySettings,
    /// The archiver.
    #[command(flatten)]
    pub archiver: ArchiverSettings,
    /// The master key.
    #[command(flatten)]
    pub master_key: MasterKeySettings,
    /// The NATS server.
    #[command(flatten)]
    pub nats_server: NatsServerSettings,
}

impl StandaloneCommand {
    /// Runs it until it is told to stop.
    ///
    /// # Errors
    /// It cannot start.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        telemetry::start(self.role.log_format, &self.role.log)?;
        Box::pin(standalone::run(self)).await
    }
}
