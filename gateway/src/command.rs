//! The subcommands, one file for each.

pub mod apply;
pub mod archiver;
pub mod backup;
pub mod banner;
pub mod events;
pub mod gateway;
pub mod health;
pub mod interrupted;
pub mod keys;
pub mod projector;
pub mod reach;
pub mod replay;
pub mod standalone;
pub mod verify;

use std::process::ExitCode;

use anyhow::Context;

use crate::{cli::Command, settings::LogFormat, telemetry};

/// Runs a command to its end.
///
/// # Errors
/// A sentence for the person at the keyboard.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    // It becomes another program: no runtime, no threads.
    if let Command::NatsExec(exec) = command {
        return exec.run();
    }
    if !is_role(&command) {
        telemetry::start(LogFormat::Text, "warn,async_nats=error")?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        match command {
            Command::Standalone(command) => Box::pin(command.run()).await,
            Command::Gateway(command) => Box::pin(command.run()).await,
            Command::Projector(command) => command.run().await,
            Command::Archiver(command) => command.run().await,
            Command::Backup(command) => command.run().await,
            Command::Verify(command) => command.run().await,
            Command::Replay(command) => Box::pin(command.run()).await,
            Command::Events(command) => command.run().await,
            Command::Apply(command) => Box::pin(command.run()).await,
            Command::Keys(command) => command.run().await,
            Command::Health(command) => command.run().await,
            Command::NatsExec(_) => Ok(ExitCode::FAILURE),
        }
    })
}

/// Whether it is a role, which starts logging as its own settings say.
const fn is_role(command: &Command) -> bool {
    matches!(
        command,
        Command::Standalone(_) | Command::Gateway(_) | Command::Projector(_) | Command::Archiver(_)
    )
}
