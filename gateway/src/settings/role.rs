//! Settings that every role has.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::{Args, ValueEnum};
use nexus_events::log::LogSettings;

use super::{Secret, value};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// Elastic Common Schema, one object a line.
    Json,
}

/// What is known of when the broker forces to its disk what it acknowledges.
///
/// A client cannot ask it: neither the greeting nor the `JetStream` API tells `sync_interval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NatsSync {
    /// Nobody said.
    Unknown,
    /// Before it acknowledges (`sync_interval: always`).
    Always,
}

/// Settings of the process, whatever its role.
#[derive(Args, Clone, Debug)]
pub struct RoleSettings {
    /// Directory of everything that must survive a restart
    #[arg(long, env = "NEXUS_DATA_DIR", default_value = "./data")]
    pub data_dir: PathBuf,
    /// Directory of the read model; default: `read_model` in the data directory
    #[arg(long, env = "NEXUS_READ_MODEL_DIR", value_parser = value::path)]
    pub read_model_dir: Option<PathBuf>,
    /// Address of the metrics endpoint with /metrics, /healthz and /readyz; port 0 takes any free one
    #[arg(long, env = "NEXUS_METRICS_LISTEN", default_value = "127.0.0.1:9464")]
    pub metrics_listen: SocketAddr,
    /// Address of the NATS server, several separated by commas; unset: `standalone` runs its own
    #[arg(long, env = "NEXUS_NATS_URL", hide_env_values = true)]
    pub nats_url: Option<String>,
    /// Redis that several processes share; unset: shared state is kept in process (one gateway only)
    #[arg(long, env = "NEXUS_REDIS_URL", hide_env_values = true)]
    pub redis_url: Option<Secret>,
    /// `JetStream` replicas of each stream
    #[arg(long, env = "NEXUS_STREAM_REPLICAS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub stream_replicas: u8,
    /// What the broker does before it acknowledges: `always` when its `sync_interval` is; with `unknown` and one replica the hub warns of what a power loss may cost
    #[arg(long, env = "NEXUS_NATS_SYNC", value_enum, default_value_t = NatsSync::Unknown)]
    pub nats_sync: NatsSync,
    /// How long exchanges, chunks, audit, messages and archives are kept, in days; statistics stay
    #[arg(long, env = "NEXUS_RETENTION_DAYS", default_value_t = 183, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub retention_days: u32,
    /// Time that answers under way may take after a stop signal, in seconds
    #[arg(long = "drain-seconds", env = "NEXUS_DRAIN_SECONDS", default_value = "30", value_parser = value::seconds)]
    pub drain: Duration,
    /// Log lines as text, or as JSON after the Elastic Common Schema
    #[arg(long, env = "NEXUS_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What is logged: a level, or rules such as `info,nexus_gateway=debug`; of libraries nothing finer than `debug`
    #[arg(long, env = "NEXUS_LOG", default_value = "info,async_nats=warn")]
    pub log: String,
}

impl RoleSettings {
    /// Where the read model lies.
    pub fn read_model_dir(&self) -> PathBuf {
        self.below_data(self.read_model_dir.as_deref(), "read_model")
    }

    /// That directory, or its default below the data directory.
    pub fn below_data(&self, configured: Option<&Path>, default: &str) -> PathBuf {
        configured
            .filter(|dir| !dir.as_os_str().is_empty())
            .map_or_else(|| self.data_dir.join(default), Path::to_path_buf)
    }

    /// The broker's address, if one is configured.
    pub fn nats_url(&self) -> Option<&str> {
        self.nats_url.as_deref().filter(|url| !url.is_empty())
    }

    /// The broker's address, for a role that runs no server of its own.
    ///
    /// # Errors
    /// None is configured.
    pub fn required_nats_url(&self, role: &str) -> anyhow::Result<String> {
        self.nats_url().map(str::to_owned).with_context(|| {
            format!("the {role} role needs the address of the broker: set NEXUS_NATS_URL, such as nats://127.0.0.1:4222")
        })
    }

    /// The Redis to share state through, if there is one.
    pub fn redis_url(&self) -> Option<&Secret> {
        self.redis_url.as_ref().filter(|url| !url.is_empty())
    }

    /// How long events are kept.
    pub fn retention(&self) -> Duration {
        Duration::from_hours(24).saturating_mul(self.retention_days)
    }

    /// What can be lost of what the broker has acknowledged, in a sentence; `None`: nothing by a single power loss.
    pub fn power_loss(&self) -> Option<&'static str> {
        (self.stream_replicas == 1 && self.nats_sync == NatsSync::Unknown).then_some(
            "the streams have one replica on a broker that is not known to sync before it acknowledges: \
             a power loss of its host may lose the last two minutes of acknowledged events; \
             set `sync_interval: always` there and NEXUS_NATS_SYNC=always here, or NEXUS_STREAM_REPLICAS=3",
        )
    }

    /// How to reach the log at that address; `role` names the client to the broker.
    pub fn log_settings(&self, url: String, role: &str) -> LogSettings {
        LogSettings {
            url,
            name: format!("nexus-{role}"),
            replicas: usize::from(self.stream_replicas),
            retention: self.retention(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Process {
        #[command(flatten)]
        role: RoleSettings,
    }

    fn power_loss(flags: &[&str]) -> Option<&'static str> {
        let arguments = ["nexus"].iter().chain(flags);
        Process::parse_from(arguments).role.power_loss()
    }

    #[test]
    fn one_replica_without_a_sync_is_warned_of_and_nothing_else() {
        assert!(power_loss(&[]).unwrap().contains("two minutes"));
        assert_eq!(power_loss(&["--nats-sync", "always"]), None);
        assert_eq!(power_loss(&["--stream-replicas", "3"]), None);
    }
}
