//! A real Redis-compatible server for each test: Valkey, on a port of its own.
//!
//! It keeps nothing on disk, as in production: Redis holds only what can be seeded again.
//! Valkey has no port 0, so a free port is picked and another one tried if it was taken meanwhile.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use redis::aio::MultiplexedConnection;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::Process;
use crate::wait::until;
use crate::{ports, settings};

/// The server starts in some 20 ms.
const START_BOUND: Duration = Duration::from_secs(20);

/// 5 ports are tried: a clash is rare, five in a row mean that something else is wrong.
const ATTEMPTS: usize = 5;

/// A running Valkey server of this test's own.
#[derive(Debug)]
pub struct Redis {
    // Before the folder: the server must be gone when its folder is removed.
    process: Process,
    port: u16,
    folder: TempDir,
}

impl Redis {
    /// Starts an empty server and waits until it answers.
    ///
    /// # Errors
    ///
    /// When there is no `valkey-server`, or it does not come up; with its last words.
    pub async fn start() -> Result<Self> {
        let folder = tempfile::tempdir().context("failed to create a folder for Redis")?;
        let mut attempt = 1;
        loop {
            let port = ports::free()?;
            match launch(folder.path(), port).await {
                Ok(process) => {
                    return Ok(Self {
                        process,
                        port,
                        folder,
                    });
                }
                Err(error) if attempt == ATTEMPTS => return Err(error),
                Err(_port_taken) => attempt += 1,
            }
        }
    }

    /// The address, `redis://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        url(self.port)
    }

    /// The address as `host:port`, for a [`crate::Chaos`] to stand before it.
    pub fn host_port(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A connection of the test's own.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn connection(&self) -> Result<MultiplexedConnection> {
        connect(self.port).await
    }

    /// Forgets everything, as a restart would.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn flush(&self) -> Result<()> {
        let mut connection = self.connection().await?;
        redis::cmd("FLUSHALL")
            .query_async(&mut connection)
            .await
            .context("failed to flush Redis")
    }

    /// Kills the server with SIGKILL.
    ///
    /// # Errors
    ///
    /// When it had died before.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.kill().await?;
        Ok(())
    }

    /// Freezes the server: connections stay open and nothing answers.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn pause(&mut self) -> Result<()> {
        self.process.freeze()
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn resume(&mut self) -> Result<()> {
        self.process.signal(Signal::CONT)
    }

    /// Starts the server again on the same port, empty, killing it first if it still runs.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub async fn restart(&mut self) -> Result<()> {
        if self.process.exit_status()?.is_none() {
            self.process.kill().await?;
        }
        self.process = launch(self.folder.path(), self.port).await?;
        Ok(())
    }
}

async fn launch(folder: &Path, port: u16) -> Result<Process> {
    let mut command = Command::new(settings::valkey_server()?);
    command
        .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
        .args(["--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(folder);
    settings::clear_environment(&mut command);
    let mut process = Process::start("valkey-server", &command, folder)?;
    let answered = until("valkey-server answers", START_BOUND, async || {
        if let Err(died) = process.ensure_running() {
            return Ok(Err(died));
        }
        connect(port).await.map(|_connection| Ok(()))
    })
    .await;
    match answered {
        Ok(Ok(())) => Ok(process),
        Ok(Err(died)) => Err(died),
        Err(silent) => Err(silent.context(process.last_words())),
    }
}

async fn connect(port: u16) -> Result<MultiplexedConnection> {
    let client = redis::Client::open(url(port)).context("failed to parse the Redis address")?;
    let mut connection = client
        .get_multiplexed_async_connection()
        .await
        .context("failed to connect to Redis")?;
    redis::cmd("PING")
        .query_async::<String>(&mut connection)
        .await
        .context("failed to ping Redis")?;
    Ok(connection)
}

fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn get(server: &Redis) -> Option<String> {
        let mut connection = server.connection().await.unwrap();
        redis::cmd("GET")
            .arg("key")
            .query_async(&mut connection)
            .await
            .unwrap()
    }

    async fn set(server: &Redis) {
        let mut connection = server.connection().await.unwrap();
        redis::cmd("SET")
            .arg("key")
            .arg("value")
            .exec_async(&mut connection)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn forgets_on_flush_and_on_restart() {
        let mut server = Redis::start().await.unwrap();
        let url = server.url();
        set(&server).await;
        assert_eq!(get(&server).await.as_deref(), Some("value"));
        server.flush().await.unwrap();
        assert_eq!(get(&server).await, None);

        set(&server).await;
        server.kill().await.unwrap();
        assert!(server.connection().await.is_err());
        server.restart().await.unwrap();
        assert_eq!(server.url(), url);
        assert_eq!(get(&server).await, None);
    }
}
