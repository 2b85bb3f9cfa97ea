//! Settings: each an environment variable with the prefix `NEXUS_`, and a flag.
//!
//! The structures are what the command line is read into, so that default,
//! unit and explanation stand in one place and `--help` cannot be wrong about
//! them. Nothing else reads the environment.

pub mod master_key;
pub mod role;
pub mod secret;
pub mod value;

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use nexus_events::outbox::{Release, SyncMode};

pub use master_key::MasterKeySettings;
pub use role::{LogFormat, NatsSync, RoleSettings};
pub use secret::Secret;

use crate::provider::transport::Roots;

/// A request's body may have this many bytes: 32 MiB, what the outbox takes as one record.
pub const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A variable that a file refers to; `None` when it is not set.
pub fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Settings of the gateway role.
#[derive(Args, Clone, Debug)]
pub struct GatewaySettings {
    /// Address of the client API and the management API; port 0 takes any free one
    #[arg(long, env = "NEXUS_LISTEN", default_value = "127.0.0.1:8001")]
    pub listen: SocketAddr,
    /// Client connections at once; more wait in the operating system's queue
    #[arg(long, env = "NEXUS_CONNECTIONS_MAX", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections_max: u32,
    /// Time for a client to send its request's body, in seconds
    #[arg(long = "body-seconds", env = "NEXUS_BODY_SECONDS", default_value = "120", value_parser = value::seconds)]
    pub body_time: Duration,
    /// Requests a second that the whole gateway takes; 0 for no limit
    #[arg(long, env = "NEXUS_RATE_LIMIT_RPS", default_value_t = 1000)]
    pub rate_limit_rps: u32,
    /// Time to connect to a provider, in seconds
    #[arg(long = "upstream-connect-seconds", env = "NEXUS_UPSTREAM_CONNECT_SECONDS", default_value = "10", value_parser = value::seconds)]
    pub upstream_connect: Duration,
    /// Time until a provider's first byte, in seconds
    #[arg(long = "upstream-first-byte-seconds", env = "NEXUS_UPSTREAM_FIRST_BYTE_SECONDS", default_value = "300", value_parser = value::seconds)]
    pub upstream_first_byte: Duration,
    /// Time that a provider's answer may stand still, in seconds
    #[arg(long = "upstream-idle-seconds", env = "NEXUS_UPSTREAM_IDLE_SECONDS", default_value = "120", value_parser = value::seconds)]
    pub upstream_idle: Duration,
    /// Certificates (PEM) of authorities that are trusted for providers, besides the system's
    #[arg(long, env = "NEXUS_UPSTREAM_CA_FILE", value_parser = value::path)]
    pub upstream_ca_file: Option<PathBuf>,
    /// How often each provider is looked at whether it can be reached, in seconds; 0: never
    #[arg(long = "health-interval-seconds", env = "NEXUS_HEALTH_INTERVAL_SECONDS", default_value = "30", value_parser = value::seconds_or_never)]
    pub health_interval: Duration,
    /// When a byte may leave the gateway: `local` (it is in the outbox) or `stream` (`JetStream` has acknowledged it)
    #[arg(long, env = "NEXUS_RELEASE", default_value = "local", value_parser = value::release)]
    pub release: Release,
    /// When the outbox is forced to the disk: `os` (survives process crashes), `interval` (each 200 ms) or `always` (before release)
    #[arg(long, env = "NEXUS_OUTBOX_SYNC", default_value = "os", value_parser = value::sync_mode)]
    pub outbox_sync: SyncMode,
    /// Bound of the outbox, in bytes or with a unit such as `512MiB`, at least `1MiB`; when it is reached new requests get 503
    #[arg(long, env = "NEXUS_OUTBOX_MAX_BYTES", default_value = "10GiB", value_parser = value::outbox_bytes)]
    pub outbox_max_bytes: u64,
    /// How long a gateway that is not heard of may take to account for its open requests itself, in seconds; then another one settles them for good
    #[arg(long = "lost-settle-seconds", env = "NEXUS_LOST_SETTLE_SECONDS", default_value = "86400", value_parser = value::seconds)]
    pub lost_settle: Duration,
    /// Share of the answers whose provider counted their tokens that the hub counts as well, to tell how exact its own counts are, in percent; 0 for none
    #[arg(long, env = "NEXUS_TOKEN_AUDIT_PERCENT", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub token_audit_percent: u8,
    /// First admin key, of 32 characters or more; unset: one is drawn at the first start and printed once
    #[arg(long, env = "NEXUS_ADMIN_KEY", hide_env_values = true)]
    pub admin_key: Option<Secret>,
}

/// Characters of an admin key: 32, which is 128 random bits in hexadecimal.
pub(crate) const KEY_CHARS_MIN: usize = 32;

impl GatewaySettings {
    /// The first admin key, if one is configured.
    ///
    /// Checked here and not by the parser, whose errors repeat what was given.
    ///
    /// # Errors
    /// It is so short that it can be guessed.
    pub fn admin_key(&self) -> anyhow::Result<Option<Secret>> {
        let key = self.admin_key.as_ref().filter(|key| !key.is_empty());
        if key.is_some_and(|key| key.expose().chars().count() < KEY_CHARS_MIN) {
            bail!(
                "NEXUS_ADMIN_KEY has fewer than {KEY_CHARS_MIN} characters, so it can be guessed: set a random one (openssl rand -hex 32), or leave it unset and one is drawn"
            );
        }
        Ok(key.cloned())
    }

    /// The authorities that are trusted for providers besides the system's.
    ///
    /// # Errors
    /// The file cannot be read, or holds no certificate of an authority.
    pub fn upstream_roots(&self) -> anyhow::Result<Roots> {
        let file = self.upstream_ca_file.as_ref();
        let Some(path) = file.filter(|path| !path.as_os_str().is_empty()) else {
            return Ok(Roots::default());
        };
        Roots::read(path)
            .with_context(|| format!("read NEXUS_UPSTREAM_CA_FILE, {}", path.display()))
    }
}

/// Settings of the archiver role.
#[derive(Args, Clone, Debug)]
pub struct ArchiverSettings {
    /// Directory of the backups; default: `backups` in the data directory
    #[arg(long, env = "NEXUS_BACKUP_DIR", value_parser = value::path)]
    pub backup_dir: Option<PathBuf>,
}

impl ArchiverSettings {
    /// Where the backups lie; `role`: of the same process.
    pub fn backup_dir(&self, role: &RoleSettings) -> PathBuf {
        role.below_data(self.backup_dir.as_deref(), "backups")
    }
}

/// Settings of the NATS server that `standalone` runs itself.
#[derive(Args, Clone, Debug)]
pub struct NatsServerSettings {
    /// Path of the nats-server binary; unset: beside the executable, in target/tools/bin, or on PATH
    #[arg(long, env = "NEXUS_NATS_SERVER", value_parser = value::path)]
    pub nats_server: Option<PathBuf>,
}
