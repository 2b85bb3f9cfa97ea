//! Setting a hub up before its start.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use super::{FailedStart, Hub, Launch};
use crate::broker::Broker;
use crate::redis::Redis;
use crate::settings;

const NO_RANDOMNESS: &str = "the system has no randomness";

/// A hub that has not been started.
#[derive(Debug)]
#[must_use = "a hub does nothing until it is started"]
pub struct HubBuilder {
    role: String,
    program: Option<PathBuf>,
    env: Vec<(String, String)>,
    admin_key: Option<String>,
    folders: Vec<Arc<TempDir>>,
}

impl HubBuilder {
    pub(super) fn role(role: &str) -> Self {
        Self {
            role: role.to_owned(),
            program: None,
            env: Vec::new(),
            admin_key: None,
            folders: Vec::new(),
        }
    }

    /// Sets an environment variable; the last value given to a name counts.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a test writes a number as a number"
    )]
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.env.push((name.to_owned(), value.to_string()));
        self
    }

    /// Uses this broker instead of one of its own.
    pub fn nats(self, broker: &Broker) -> Self {
        let url = broker.url();
        self.env("NEXUS_NATS_URL", url)
    }

    /// Keeps the shared state in this server.
    pub fn redis(self, redis: &Redis) -> Self {
        let url = redis.url();
        self.env("NEXUS_REDIS_URL", url)
    }

    /// Runs another program than `nexus`.
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    pub(super) fn admin_key(mut self, key: &str) -> Self {
        self.admin_key = Some(key.to_owned());
        self
    }

    pub(super) fn folder(mut self, folder: Arc<TempDir>) -> Self {
        self.folders.push(folder);
        self
    }

    /// Starts the process and waits until it is ready.
    ///
    /// # Errors
    ///
    /// When there is no `nexus` executable, or the process dies or does not become ready.
    pub async fn start(self) -> Result<Hub> {
        let launch = self.launch()?;
        let (process, listening) = launch.start().await?;
        Ok(Hub {
            process,
            listening,
            launch,
        })
    }

    /// Starts the process and waits until it has ended, as a start with bad settings must.
    ///
    /// # Errors
    ///
    /// When the process stays.
    pub async fn fail_to_start(self) -> Result<FailedStart> {
        self.launch()?.fail_to_start().await
    }

    fn launch(self) -> Result<Launch> {
        let program = self.program.map_or_else(settings::nexus, Ok)?;
        let folder = tempfile::tempdir().context("failed to create a folder for the hub")?;
        let data_dir = folder.path().join("data");
        std::fs::create_dir(&data_dir).context("failed to create the data folder")?;
        let admin_key = self.admin_key.map_or_else(random_admin_key, Ok)?;

        let mut env = vec![
            ("NEXUS_LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
            ("NEXUS_METRICS_LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
            ("NEXUS_ADMIN_KEY".to_owned(), admin_key.clone()),
            // An audit comes by chance; a test that is about audits asks for all of them.
            ("NEXUS_TOKEN_AUDIT_PERCENT".to_owned(), "0".to_owned()),
        ];
        // A hub without a nats-server says so itself; that sentence is its own affair.
        if let Ok(nats_server) = settings::nats_server() {
            env.push((
                "NEXUS_NATS_SERVER".to_owned(),
                nats_server.display().to_string(),
            ));
        }
        env.extend(self.env);
        let mut folders = self.folders;
        folders.push(Arc::new(folder));
        Ok(Launch {
            role: self.role,
            program,
            env,
            admin_key,
            data_dir,
            _folders: folders,
        })
    }
}

/// A key of 256 random bits, in the form that the hub gives its own.
pub(super) fn random_admin_key() -> Result<String> {
    let [a, b, c, d] = [random_u64()?, random_u64()?, random_u64()?, random_u64()?];
    Ok(format!("nexus-{a:016x}{b:016x}{c:016x}{d:016x}"))
}

/// 32 random bytes in base64, the form of `NEXUS_MASTER_KEY`.
pub(super) fn random_master_key() -> Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).context(NO_RANDOMNESS)?;
    Ok(STANDARD.encode(bytes))
}

fn random_u64() -> Result<u64> {
    getrandom::u64().context(NO_RANDOMNESS)
}
