//! The log: one connection to the broker, and what may be done over it.
//!
//! Nothing here is on a request's path. Traffic reaches the log only through
//! the [`outbox`](crate::outbox); configuration, rollups and the audit events
//! of roles without an outbox are published directly ([`publish`]).
//!
//! [`Log::connect`] does not wait for the broker: a hub starts while it is
//! away. [`Log::ready`] waits, refuses a server that cannot keep the promises,
//! and declares the streams.

pub mod bodies;
pub mod history;
pub mod known;
pub mod lease;
pub mod publish;
pub mod read;
pub mod streams;

use std::time::Duration;

use async_nats::{
    Client, ConnectOptions,
    connection::State,
    jetstream::{self, ErrorCode, context::AccountErrorKind, message::StreamMessage},
};
use bytes::Bytes;

use crate::clock::UnixMillis;

pub use known::{Known, KnownError};
pub use lease::{Holding, Lease, LeaseError, LeaseTimes};
pub use publish::{Expected, PublishError};
pub use read::{Live, ReadError, Reader};

/// Oldest server that shares the syncs of an atomic batch.
const SERVER_VERSION_MIN: (i64, i64, i64) = (2, 15, 0);

/// How long one request to the broker may take: 5 s, as long as a loaded server with fsync needs.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest pause between two tries to reconnect: 250 ms, so that an outage ends when the broker is back.
const RECONNECT_DELAY_MAX: Duration = Duration::from_millis(250);

/// How to reach the log and how its streams are declared.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// Address of the broker, `nats://host:port`; several are separated by commas.
    pub url: String,
    /// Name of this client in the broker's monitoring.
    pub name: String,
    /// JetStream replicas of each stream.
    pub replicas: usize,
    /// How long events are kept; the streams themselves keep 30 days more, as a backstop.
    pub retention: Duration,
}

/// Why the log could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The address is no NATS address.
    #[error("the address of the broker is not usable: {url}")]
    BadAddress {
        /// The address as configured.
        url: String,
        /// What is wrong with it.
        #[source]
        source: async_nats::ConnectError,
    },
    /// No connection within the time given.
    #[error("no connection to the broker at {url}")]
    Unreachable {
        /// The address as configured.
        url: String,
    },
    /// The server is too old.
    #[error(
        "nats-server {version} is too old: 2.15 or newer is required, because older ones do not share syncs between the events of a batch"
    )]
    TooOld {
        /// Its version.
        version: String,
    },
    /// `JetStream` is not enabled.
    #[error("JetStream is off on the broker; start nats-server with a jetstream block or -js")]
    JetStreamOff,
    /// A stream exists and is not as declared.
    #[error("stream {stream} exists but differs from its declaration: {differences}")]
    Drift {
        /// The stream's name.
        stream: String,
        /// What differs: setting, there, declared.
        differences: String,
    },
    /// The broker is a server alone, or of too few.
    #[error(
        "the broker cannot keep {replicas} replicas of stream {stream}: that needs a cluster of as many nats-servers; with a server alone the replicas must be 1"
    )]
    Replicas {
        /// The stream's name.
        stream: String,
        /// How many are asked for.
        replicas: usize,
    },
    /// The broker did not do what it was asked.
    #[error("the broker did not {doing}")]
    Broker {
        /// What was asked.
        doing: String,
        /// What it said.
        #[source]
        source: async_nats::Error,
    },
}

impl LogError {
    /// Whether waiting may mend it: the broker is away, or has no leader or no disk at present.
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broker { .. } => true,
            Self::BadAddress { .. }
            | Self::TooOld { .. }
            | Self::JetStreamOff
            | Self::Drift { .. }
            | Self::Replicas { .. } => false,
        }
    }

    pub(crate) fn broker(
        doing: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::Broker {
            doing: doing.into(),
            source: Box::new(source),
        }
    }
}

/// A message of a stream.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// When the broker stored it.
    pub time: UnixMillis,
    /// The same in nanoseconds: with its sequence, which message it is.
    pub stored_ns: i64,
    /// Its subject.
    pub subject: String,
    /// Its payload: an event's envelope, or a cursor.
    pub payload: Bytes,
    /// How many messages of the same reader are still to come; 0: caught up.
    pub pending: u64,
}

impl Message {
    /// A message as the broker's own interface gives it.
    fn stored(message: StreamMessage) -> Self {
        let stored_ns = nanoseconds(message.time.unix_timestamp_nanos());
        Self {
            sequence: message.sequence,
            time: UnixMillis::from_millis(stored_ns / 1_000_000),
            stored_ns,
            subject: message.subject.to_string(),
            payload: message.payload,
            pending: 0,
        }
    }
}

/// The broker's own times are those of its clock: they fit until the year 2262.
fn nanoseconds(since_1970: i128) -> i64 {
    i64::try_from(since_1970).unwrap_or(0)
}

/// Where a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamState {
    /// When the stream was created, nanoseconds since 1970: its identity.
    pub created_ns: i128,
    /// Sequence of the oldest message that is kept.
    pub first_sequence: u64,
    /// Sequence of the newest message ever stored; 0 when there was none.
    pub last_sequence: u64,
    /// Number of messages kept.
    pub messages: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

/// The log. Cheap to clone; all clones share one connection.
#[derive(Clone, Debug)]
pub struct Log {
    client: Client,
    jetstream: jetstream::Context,
    settings: LogSettings,
}

impl Log {
    /// Starts connecting; does not wait for the broker and goes on trying for ever.
    ///
    /// # Errors
    /// [`LogError::BadAddress`].
    pub async fn connect(settings: LogSettings) -> Result<Self, LogError> {
        let addresses: Vec<&str> = settings.url.split(',').map(str::trim).collect();
        let client = ConnectOptions::new()
            .name(&settings.name)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .connection_timeout(REQUEST_TIMEOUT)
            .ping_interval(Duration::from_secs(5))
            .reconnect_delay_callback(reconnect_delay)
            .event_callback(|event| async move {
                tracing::info!(%event, "broker connection");
            })
            .connect(addresses)
            .await
            .map_err(|source| LogError::BadAddress {
                url: settings.url.clone(),
                source,
            })?;
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(REQUEST_TIMEOUT);
        Ok(Self {
            client,
            jetstream,
            settings,
        })
    }

    /// Waits for the broker, checks it, and declares the streams.
    ///
    /// # Errors
    /// [`LogError::Unreachable`] when it does not answer within `bound`;
    /// [`LogError::TooOld`], [`LogError::JetStreamOff`], [`LogError::Drift`],
    /// which waiting does not mend.
    pub async fn ready(&self, bound: Duration) -> Result<(), LogError> {
        let ready = async {
            // The client says that it is connected a moment before it has the server's INFO.
            while !self.is_connected() || self.client.try_server_info().is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            self.check_server().await?;
            self.declare_streams().await
        };
        tokio::time::timeout(bound, ready)
            .await
            .unwrap_or_else(|_| Err(self.unreachable()))
    }

    /// Whether the broker can be reached at present.
    pub fn is_connected(&self) -> bool {
        matches!(self.client.connection_state(), State::Connected)
    }

    /// The bare client, for what this module has no verb for.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// The address of the broker, as configured.
    pub fn url(&self) -> &str {
        &self.settings.url
    }

    pub(crate) const fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }

    pub(crate) const fn settings(&self) -> &LogSettings {
        &self.settings
    }

    /// What is said when it does not answer in time.
    pub fn unreachable(&self) -> LogError {
        LogError::Unreachable {
            url: self.settings.url.clone(),
        }
    }

    async fn check_server(&self) -> Result<(), LogError> {
        let info = self.client.server_info();
        let (major, minor, patch) = SERVER_VERSION_MIN;
        if !self.client.is_server_compatible(major, minor, patch) {
            return Err(LogError::TooOld {
                version: info.version,
            });
        }
        match self.jetstream.query_account().await {
            Ok(_) => Ok(()),
            Err(error) if jetstream_is_off(error.kind()) => Err(LogError::JetStreamOff),
            Err(error) => Err(LogError::broker("describe its JetStream account", error)),
        }
    }
}

fn jetstream_is_off(kind: AccountErrorKind) -> bool {
    match kind {
        AccountErrorKind::JetStreamUnavailable => true,
        AccountErrorKind::JetStream(error) => matches!(
            error.error_code(),
            ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT
        ),
        AccountErrorKind::TimedOut | AccountErrorKind::Other => false,
    }
}

/// 10 ms, 20 ms, … up to the longest pause, spread so that many gateways do not come at once.
fn reconnect_delay(tries: usize) -> Duration {
    let doubled = Duration::from_millis(10)
        .saturating_mul(1 << tries.min(6))
        .min(RECONNECT_DELAY_MAX);
    let spread = u64::from(std::process::id() % 32);
    doubled.saturating_add(Duration::from_millis(spread))
}
