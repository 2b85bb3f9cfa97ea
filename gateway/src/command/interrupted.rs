//! What a command does until a signal ends it: in order, where something is to be tidied up.

use std::process::ExitCode;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

/// Exit code of a program that SIGINT ended, as shells tell it.
const INTERRUPTED: u8 = 128 + 2;

/// Exit code of a program that SIGTERM ended, as shells tell it.
const TERMINATED: u8 = 128 + 15;

/// Does something to its end, or drops it at SIGINT or SIGTERM; then the exit code of that.
///
/// # Errors
/// The operating system gives no signals.
pub async fn or_interrupted<T>(
    doing: impl Future<Output = T>,
) -> anyhow::Result<Result<T, ExitCode>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    Ok(tokio::select! {
        done = doing => Ok(done),
        _ = interrupt.recv() => Err(ExitCode::from(INTERRUPTED)),
        _ = terminate.recv() => Err(ExitCode::from(TERMINATED)),
    })
}
