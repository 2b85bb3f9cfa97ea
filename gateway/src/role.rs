//! The roles: what each runs, from bound sockets to the last event.
//!
//! Each is built on a [`Process`], binds its sockets before anything runs, says
//! in `run/<role>.json` where they are, and ends by the process's
//! [`Lifecycle`]. `standalone` runs all of them in one process.

pub mod archiver;
pub mod gateway;
pub mod projector;

use std::{net::SocketAddr, process::ExitCode, sync::Arc};

use anyhow::Context;
use nexus_events::clock::{SharedClock, SystemClock};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admin::settings::without_user,
    data_dir::{DataDir, RunFile},
    lifecycle::Lifecycle,
    metrics::{Metrics, listener::Probes},
    readiness::Readiness,
    settings::RoleSettings,
};

/// Names of roles, in `run/<role>.json` and in log lines.
pub mod name {
    /// The gateway.
    pub const GATEWAY: &str = "gateway";
    /// The projector.
    pub const PROJECTOR: &str = "projector";
    /// The archiver.
    pub const ARCHIVER: &str = "archiver";
    /// All of them in one process.
    pub const STANDALONE: &str = "standalone";
}

/// What every role has: the process that it runs in.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its life.
    pub life: Lifecycle,
    /// Dates things.
    pub clock: SharedClock,
    /// How it was set up.
    pub settings: Arc<RoleSettings>,
    /// The data directory that it holds.
    pub data: Arc<DataDir>,
    /// Who is ready.
    pub readiness: Readiness,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The metrics address: it goes last.
    probes: TaskTracker,
    probes_end: CancellationToken,
}

impl Process {
    /// Takes the data directory and prepares what all roles use.
    ///
    /// # Errors
    /// Another process holds the data directory, or it cannot be used.
    pub fn begin(role: &'static str, settings: RoleSettings) -> anyhow::Result<Self> {
        // Fails only when there is one already, and then it is this one.
        if rustls::crypto::ring::default_provider()
            .install_default()
            .is_err()
        {
            tracing::debug!("the TLS provider was there already");
        }
        let data = DataDir::hold(&settings.data_dir, role)?;
        let settings = RoleSettings {
            data_dir: data.root().to_path_buf(),
            ..settings
        };
        let life = Lifecycle::default();
        life.watch_signals()?;
        Ok(Self {
            life,
            clock: Arc::new(SystemClock),
            settings: Arc::new(settings),
            data: Arc::new(data),
            readiness: Readiness::default(),
            metrics: Arc::new(Metrics::new().context("register the metrics")?),
            probes: TaskTracker::new(),
            probes_end: CancellationToken::new(),
        })
    }

    /// Binds the metrics address and serves it to the very end; gives the address.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn serve_probes(&self) -> anyhow::Result<SocketAddr> {
        let (listener, address) = bind(self.settings.metrics_listen).await?;
        let probes = Probes {
            metrics: Arc::clone(&self.metrics),
            readiness: self.readiness.clone(),
        };
        let serving = probes.serve(listener, self.probes_end.clone());
        self.probes.spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(error = format!("{error:#}"), "the metrics address failed");
            }
        });
        Ok(address)
    }

    /// What it says of itself in its run file, but for what only some roles have.
    ///
    /// # Errors
    /// There is no working directory.
    pub fn run_file(&self, metrics: SocketAddr, nats_url: &str) -> anyhow::Result<RunFile> {
        Ok(RunFile {
            pid: std::process::id(),
            listen: None,
            metrics: metrics.to_string(),
            nats_url: without_user(nats_url),
            read_model_dir: RunFile::told(&self.settings.read_model_dir())?,
            backup_dir: None,
        })
    }

    /// Waits for the end of every role; gives the exit code.
    pub async fn ended(&self) -> ExitCode {
        let patience = self
            .settings
            .drain
            .saturating_add(gateway::LAST_WORDS)
            .saturating_add(gateway::FLUSH);
        let code = self.life.ended(patience).await;
        self.probes.close();
        self.probes_end.cancel();
        self.probes.wait().await;
        code
    }
}

/// Binds an address; gives the real one, which differs when the port was 0.
///
/// # Errors
/// It cannot be bound; the sentence names it.
pub async fn bind(address: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address}"))?;
    let bound = listener.local_addr().context("read the bound address")?;
    Ok((listener, bound))
}
