//! Who did what to the hub, as events.

use serde::{Deserialize, Serialize};

use crate::{
    config_event::Actor,
    envelope::{
        Attributes, DecodeError, EncodeError, Envelope, EventData, NO_CONTENT, Record, Stamp,
        encode_direct,
    },
    exchange_event::Unshippable,
    id::ProviderId,
    subject::{self, Lane},
};

/// A management call that changed something, or tried to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagementCall {
    /// Who called.
    pub actor: Actor,
    /// HTTP method.
    #[serde(rename = "http.request.method")]
    pub method: String,
    /// The path as it was asked for, without the query.
    #[serde(rename = "url.path")]
    pub path: String,
    /// HTTP status of the answer.
    #[serde(rename = "http.response.status_code")]
    pub status: u16,
    /// Id of the request, as in `X-Request-Id`.
    #[serde(rename = "nexus.request.id")]
    pub request: String,
}

/// A known key was refused something that it may not do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessRefused {
    /// Who tried.
    pub actor: Actor,
    /// HTTP method.
    #[serde(rename = "http.request.method")]
    pub method: String,
    /// The path as it was asked for, without the query.
    #[serde(rename = "url.path")]
    pub path: String,
    /// HTTP status of the refusal.
    #[serde(rename = "http.response.status_code")]
    pub status: u16,
}

/// Calls without a valid key, counted for a minute instead of told one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnauthenticatedCalls {
    /// Start of the minute, milliseconds since 1970.
    pub minute_ms: i64,
    /// Number of calls in it.
    pub count: u64,
}

/// A backup of the read model was taken, or failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupTaken {
    /// Name of the backup: a folder below the backup directory.
    pub name: String,
    /// Size of the database file in bytes.
    pub bytes: u64,
    /// SHA-256 of the database file, lower-case hexadecimal.
    pub sha256: String,
    /// What went wrong; `None` when it is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Everything that is older than the retention is gone: every read model follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionApplied {
    /// Requests that were drawn before this moment are gone, milliseconds since 1970.
    pub cutoff_ms: i64,
    /// Exchange events below this stream sequence are purged.
    pub exchanges_sequence: u64,
    /// Chunk events below this stream sequence are purged.
    pub chunks_sequence: u64,
    /// Audit events below this stream sequence are purged.
    pub audit_sequence: u64,
}

/// Whether a gateway asks a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// It does.
    Closed,
    /// It asks others, while there are any.
    Open,
    /// It asks with one request at a time, to find out.
    HalfOpen,
}

impl BreakerState {
    /// The name as it stands in events, metrics and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// A gateway has changed its mind about asking a provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerChanged {
    /// Id of the provider.
    #[serde(rename = "nexus.provider.id")]
    pub provider: ProviderId,
    /// Name of the provider.
    #[serde(rename = "gen_ai.provider.name")]
    pub provider_name: String,
    /// What held before.
    pub from: BreakerState,
    /// What holds now.
    pub to: BreakerState,
    /// Why, in one word: `failures_in_a_row`, `failure_rate`, …
    pub reason: String,
}

/// Every event of `NEXUS_AUDIT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditEvent {
    /// See [`ManagementCall`].
    ManagementCall(ManagementCall),
    /// See [`AccessRefused`].
    AccessRefused(AccessRefused),
    /// See [`UnauthenticatedCalls`].
    UnauthenticatedCalls(UnauthenticatedCalls),
    /// See [`BackupTaken`].
    BackupTaken(BackupTaken),
    /// See [`BreakerChanged`].
    BreakerChanged(BreakerChanged),
    /// See [`RetentionApplied`].
    RetentionApplied(RetentionApplied),
    /// See [`Unshippable`].
    Unshippable(Unshippable),
}

macro_rules! kind {
    ($data:ty, $kind:literal) => {
        impl EventData for $data {
            fn kind(&self) -> &'static str {
                $kind
            }
        }
    };
}

kind!(ManagementCall, "ai.nexus.audit.management_call.v1");
kind!(AccessRefused, "ai.nexus.audit.access_refused.v1");
kind!(
    UnauthenticatedCalls,
    "ai.nexus.audit.unauthenticated_calls.v1"
);
kind!(BackupTaken, "ai.nexus.audit.backup_taken.v1");
kind!(BreakerChanged, "ai.nexus.audit.breaker_changed.v1");
kind!(RetentionApplied, "ai.nexus.audit.retention_applied.v1");

/// The NATS subject of an audit event: `nexus.audit.<name>`.
pub fn subject_of(data: &impl EventData) -> String {
    subject::audit(data.kind().split('.').nth(3).unwrap_or("_"))
}

/// Encodes an audit event for the outbox; `about` is what it is about, such as a path.
///
/// # Errors
/// [`EncodeError`].
pub fn record<D: EventData>(
    source: &str,
    stamp: Stamp,
    about: &str,
    data: &D,
) -> Result<Record, EncodeError> {
    let attributes = Attributes {
        stamp,
        source,
        subject: about,
        traceparent: None,
    };
    Record::encode(Lane::Audit, subject_of(data), attributes, data, NO_CONTENT)
}

/// Encodes an audit event for a role without an outbox: its NATS subject and the payload.
///
/// # Errors
/// [`EncodeError`].
pub fn direct<D: EventData>(
    source: &str,
    stamp: Stamp,
    about: &str,
    data: &D,
) -> Result<(String, Vec<u8>), EncodeError> {
    let attributes = Attributes {
        stamp,
        source,
        subject: about,
        traceparent: None,
    };
    Ok((subject_of(data), encode_direct(attributes, data)?))
}

impl AuditEvent {
    /// Reads an event; `None` for a type that this version does not know.
    ///
    /// # Errors
    /// [`DecodeError::Data`].
    pub fn decode(envelope: &Envelope<'_>) -> Result<Option<Self>, DecodeError> {
        let event = match envelope.kind.as_ref() {
            "ai.nexus.audit.management_call.v1" => Self::ManagementCall(envelope.data_as()?),
            "ai.nexus.audit.access_refused.v1" => Self::AccessRefused(envelope.data_as()?),
            "ai.nexus.audit.unauthenticated_calls.v1" => {
                Self::UnauthenticatedCalls(envelope.data_as()?)
            }
            "ai.nexus.audit.backup_taken.v1" => Self::BackupTaken(envelope.data_as()?),
            "ai.nexus.audit.breaker_changed.v1" => Self::BreakerChanged(envelope.data_as()?),
            "ai.nexus.audit.retention_applied.v1" => Self::RetentionApplied(envelope.data_as()?),
            "ai.nexus.log.unshippable.v1" => Self::Unshippable(envelope.data_as()?),
            _ => return Ok(None),
        };
        Ok(Some(event))
    }
}
