//! `nexus gateway`.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use nexus_events::log::Log;

use super::banner::Banner;
use crate::{
    admin::settings::without_user,
    data_dir::RunFile,
    role::{
        Process, bind,
        gateway::{Gateway, Start},
        name::GATEWAY,
    },
    settings::{GatewaySettings, MasterKeySettings, RoleSettings},
    telemetry,
};

/// Runs the gateway role.
#[derive(Args, Debug)]
pub struct GatewayCommand {
    /// The process.
    #[command(flatten)]
    pub role: RoleSettings,
    /// The gateway.
    #[command(flatten)]
    pub gateway: GatewaySettings,
    /// The master key.
    #[command(flatten)]
    pub master_key: MasterKeySettings,
}

impl GatewayCommand {
    /// Runs it until it is told to stop.
    ///
    /// # Errors
    /// It cannot start.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        telemetry::start(self.role.log_format, &self.role.log)?;
        self.gateway.upstream_roots()?;
        let master_key = self.master_key.required()?;
        let nats_url = self.role.required_nats_url(GATEWAY)?;
        let process = Process::begin(GATEWAY, self.role)?;
        let (listener, listen) = bind(self.gateway.listen).await?;
        let metrics = process.serve_probes().await?;
        let log_settings = process.settings.log_settings(nats_url, GATEWAY);
        let nats_url = without_user(&log_settings.url);
        let log = Log::connect(log_settings)
            .await
            .context("connect to the log")?;
        let run = RunFile {
            listen: Some(listen.to_string()),
            ..process.run_file(metrics, &nats_url)?
        };
        let announcement = process.data.announce(GATEWAY, &run)?;
        let start = Start {
            settings: GatewaySettings {
                listen,
                ..self.gateway
            },
            master_key,
            log,
        };
        let gateway = Gateway::start(&process, start).await?;
        Banner {
            listen,
            metrics,
            nats_url: &nats_url,
            first_key: gateway.first_key(),
        }
        .print();
        process.life.spawn_role(GATEWAY, gateway.run(listener));
        let code = process.ended().await;
        drop(announcement);
        Ok(code)
    }
}
