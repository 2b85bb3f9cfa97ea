//! Why an exchange or an attempt failed: a closed list.

use serde::{Deserialize, Serialize};

/// Why an exchange or an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind, from a closed list.
    pub reason: FailureReason,
    /// What the client is told: no content, no secrets.
    pub message: String,
}

/// The closed list of reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// No connection to the provider.
    UpstreamRefused,
    /// No answer within the first-byte time-out.
    UpstreamTimeout,
    /// The provider answered with an error status.
    UpstreamStatus,
    /// The provider's answer is not what its protocol says.
    UpstreamMalformed,
    /// The provider's answer is larger than the hub takes.
    UpstreamTooLarge,
    /// The provider's stream ended before its end mark.
    UpstreamCut,
    /// The provider's stream stood still longer than the idle time-out.
    UpstreamStalled,
    /// The provider sent an error inside its stream.
    UpstreamError,
    /// The client hung up and its key says `cancel`.
    ClientCancelled,
    /// The outbox could take no more.
    OutboxFull,
    /// The hub was told to stop and the answer did not end in time.
    Shutdown,
    /// The gateway that served it died.
    GatewayLost,
    /// The broker did not take how it ended: that lies on the gateway's disk.
    Unshippable,
    /// A fault of the hub itself.
    Internal,
}

impl FailureReason {
    /// The name as it stands in events, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UpstreamRefused => "upstream_refused",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamStatus => "upstream_status",
            Self::UpstreamMalformed => "upstream_malformed",
            Self::UpstreamTooLarge => "upstream_too_large",
            Self::UpstreamCut => "upstream_cut",
            Self::UpstreamStalled => "upstream_stalled",
            Self::UpstreamError => "upstream_error",
            Self::ClientCancelled => "client_cancelled",
            Self::OutboxFull => "outbox_full",
            Self::Shutdown => "shutdown",
            Self::GatewayLost => "gateway_lost",
            Self::Unshippable => "unshippable",
            Self::Internal => "internal",
        }
    }
}
