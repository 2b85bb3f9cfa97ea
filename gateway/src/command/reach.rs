//! How a command finds what the hub uses: by a setting, or by what a running role says in the data
//! directory.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use nexus_events::log::{Log, LogSettings};

use crate::data_dir::{self, RunFile};

/// How long a command waits for the broker: 10 s.
const BROKER_TIME: Duration = Duration::from_secs(10);

/// Where the log can be reached.
#[derive(Args, Clone, Debug)]
pub struct Reach {
    /// Address of the NATS server; unset: that of the role that runs on the data directory
    #[arg(long, env = "NEXUS_NATS_URL", hide_env_values = true)]
    pub nats_url: Option<String>,
    /// Data directory of the running role
    #[arg(long, env = "NEXUS_DATA_DIR", default_value = "./data")]
    pub data_dir: PathBuf,
}

impl Reach {
    /// The address of the broker.
    ///
    /// # Errors
    /// None is given and nothing runs on the data directory.
    pub fn url(&self) -> anyhow::Result<String> {
        if let Some(url) = self.nats_url.as_ref().filter(|url| !url.is_empty()) {
            return Ok(url.clone());
        }
        data_dir::announced(&self.data_dir)
            .into_iter()
            .next()
            .map(|run| run.nats_url)
            .with_context(|| {
                format!(
                    "no hub runs on the data directory {}: start one, or set NEXUS_DATA_DIR or NEXUS_NATS_URL",
                    self.data_dir.display()
                )
            })
    }

    /// The directory of the read model: as the command was told, else that of the running role.
    pub fn read_model_dir(&self, told: Option<&Path>) -> PathBuf {
        self.dir(told, |run| run.read_model_dir, "read_model")
    }

    /// The directory of the backups: as the command was told, else that of the running role.
    pub fn backup_dir(&self, told: Option<&Path>) -> PathBuf {
        self.dir(told, |run| run.backup_dir, "backups")
    }

    fn dir(
        &self,
        told: Option<&Path>,
        announced: impl Fn(RunFile) -> Option<PathBuf>,
        default: &str,
    ) -> PathBuf {
        if let Some(told) = told.filter(|dir| !dir.as_os_str().is_empty()) {
            return told.to_path_buf();
        }
        data_dir::announced(&self.data_dir)
            .into_iter()
            .find_map(announced)
            .unwrap_or_else(|| self.data_dir.join(default))
    }

    /// Connects to the log; it declares nothing, that is the roles' business.
    ///
    /// # Errors
    /// The broker does not answer.
    pub async fn log(&self) -> anyhow::Result<Log> {
        let url = self.url()?;
        let log = Log::connect(LogSettings {
            url: url.clone(),
            name: "nexus-command".to_owned(),
            replicas: 1,
            retention: Duration::ZERO,
        })
        .await
        .context("connect to the log")?;
        let connected = async {
            while !log.is_connected() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(BROKER_TIME, connected)
            .await
            .with_context(|| {
                format!(
                    "no connection to the broker at {}",
                    crate::admin::settings::without_user(&url)
                )
            })?;
        Ok(log)
    }
}
