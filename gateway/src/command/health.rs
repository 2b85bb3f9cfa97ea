//! `nexus health`: asks the metrics address; for container health checks.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::banner;

/// A living process answers within 3 s.
const ANSWER_TIME: Duration = Duration::from_secs(3);

/// The answer of a probe: a few hundred bytes; 64 KiB are a bound.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Asks whether a role lives, or is ready.
#[derive(Args, Debug)]
pub struct Health {
    /// Ask whether it is ready, not only whether it lives
    #[arg(long)]
    pub ready: bool,
    /// Metrics address of the role
    #[arg(long, env = "NEXUS_METRICS_LISTEN", default_value = "127.0.0.1:9464")]
    pub metrics_listen: SocketAddr,
}

impl Health {
    /// Exit code 0 when it does, 1 when it does not.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let path = if self.ready { "/readyz" } else { "/healthz" };
        let (healthy, body) = timeout(ANSWER_TIME, self.ask(path))
            .await
            .context("no answer in time")??;
        banner::out(body.trim())?;
        Ok(if healthy {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    async fn ask(&self, path: &str) -> anyhow::Result<(bool, String)> {
        let address = banner::reachable(self.metrics_listen);
        let mut stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("connect to {address}"))?;
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream
            .take(ANSWER_BYTES_MAX)
            .read_to_string(&mut answer)
            .await?;
        let Some((head, body)) = answer.split_once("\r\n\r\n") else {
            bail!("{address} does not speak HTTP");
        };
        Ok((head.starts_with("HTTP/1.1 200 "), body.to_owned()))
    }
}
