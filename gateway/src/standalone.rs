//! Everything in one process, with a NATS server of its own: how most people meet the hub.
//!
//! The order matters. Sockets are bound and the data directory is held before
//! anything runs, so a second hub fails at once and in a sentence. The broker
//! comes before the roles and goes after them, because the outbox is shipped
//! in between.

use std::process::ExitCode;

use anyhow::Context;
use nexus_events::log::Log;

use crate::{
    admin::settings::without_user,
    command::{banner::Banner, standalone::StandaloneCommand},
    data_dir::RunFile,
    nats_server::NatsServer,
    readiness::Need,
    role::{
        Process, archiver, bind,
        gateway::{Gateway, Start},
        name::{ARCHIVER, GATEWAY, PROJECTOR, STANDALONE},
        projector,
    },
    settings::{GatewaySettings, NatsSync, RoleSettings},
};

/// Runs until it is told to stop.
///
/// # Errors
/// It cannot start.
pub async fn run(command: StandaloneCommand) -> anyhow::Result<ExitCode> {
    let mut role = command.role;
    if role.nats_url().is_none() {
        on_own_server(&mut role)?;
    }
    command.gateway.admin_key()?;
    command.gateway.upstream_roots()?;
    let process = Process::begin(STANDALONE, role)?;
    let (listener, listen) = bind(command.gateway.listen).await?;
    let metrics = process.serve_probes().await?;
    let master_key = command.master_key.or_drawn(process.data.root())?;
    let (server, url) = if let Some(url) = process.settings.nats_url() {
        (None, url.to_owned())
    } else {
        let server = NatsServer::start(process.data.root(), &command.nats_server).await?;
        let url = server.url().to_owned();
        (Some(server), url)
    };
    let nats_url = without_user(&url);
    let log = Log::connect(process.settings.log_settings(url, STANDALONE))
        .await
        .context("connect to the log")?;
    let backups = command.archiver.backup_dir(&process.settings);
    let run = RunFile {
        listen: Some(listen.to_string()),
        backup_dir: RunFile::told(&backups)?,
        ..process.run_file(metrics, &nats_url)?
    };
    // It waits for the streams by itself, so it may begin before the gateway has declared them.
    let projecting = projector::run(process.clone(), log.clone(), Need::AtStart);
    let archiving = archiver::run(
        process.clone(),
        log.clone(),
        command.archiver.clone(),
        Need::AtStart,
    );
    let start = Start {
        settings: GatewaySettings {
            listen,
            ..command.gateway
        },
        master_key,
        log,
    };
    let code = match Gateway::start(&process, start).await {
        Ok(gateway) => {
            let announcement = process.data.announce(STANDALONE, &run)?;
            Banner {
                listen,
                metrics,
                nats_url: &nats_url,
                first_key: gateway.first_key(),
            }
            .print();
            process.life.spawn_role(GATEWAY, gateway.run(listener));
            process.life.spawn_role(PROJECTOR, projecting);
            process.life.spawn_role(ARCHIVER, archiving);
            let code = process.ended().await;
            drop(announcement);
            Ok(code)
        }
        Err(error) => Err(error),
    };
    if let Some(server) = server {
        server.stop().await;
    }
    code
}

/// What the settings are with a server of its own, which is alone and syncs each event.
fn on_own_server(role: &mut RoleSettings) -> anyhow::Result<()> {
    anyhow::ensure!(
        role.stream_replicas <= 1,
        "NEXUS_STREAM_REPLICAS is {}, but the nats-server that this starts is alone: set it to 1, or NEXUS_NATS_URL to a cluster",
        role.stream_replicas
    );
    role.nats_sync = NatsSync::Always;
    Ok(())
}
