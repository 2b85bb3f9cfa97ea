//! What went wrong at a provider: whose fault it is, whether to try again, what to tell the client.

mod disguise;

use std::{error::Error, time::Duration};

use http::StatusCode;
use nexus_events::exchange_event::FailureReason;

use crate::protocol::openai::response::ErrorObject;

/// Whether another provider may be asked in place of the one that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The next one would say the same, or the request may have been carried out.
    Never,
    /// The next one may do better.
    Now,
    /// Nothing was done with it, and nobody is to blame: the same one takes it over another connection.
    Again,
    /// The same provider may do better after that time; another one at once.
    After(Duration),
}

impl Retry {
    /// What a status says of it.
    ///
    /// 408, 429 and 5xx may be mended elsewhere; the rest would be said again. A circle (508) is a
    /// fault of the configuration, which must show.
    pub fn of_status(status: StatusCode) -> Self {
        let passing = matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
        );
        if passing || status.is_server_error() && status != StatusCode::LOOP_DETECTED {
            Self::Now
        } else {
            Self::Never
        }
    }
}

/// A provider failed, or could not be reached.
#[derive(Debug, thiserror::Error)]
#[error("get an answer: {message}")]
pub struct ProviderError {
    /// The kind, as events and metrics name it.
    pub reason: FailureReason,
    /// The provider's HTTP status, where it gave one, or the one that its error stands for.
    pub status: Option<StatusCode>,
    /// Whether to ask another provider.
    pub retry: Retry,
    /// What the client is told: no content, no secrets.
    pub message: String,
    /// The provider's own error object, for the client.
    pub object: Option<Box<ErrorObject>>,
    /// What lies beneath, for the operator.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl ProviderError {
    /// An error that another try would not mend.
    pub fn new(reason: FailureReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            status: None,
            retry: Retry::Never,
            message: message.into(),
            object: None,
            source: None,
        }
    }

    /// An answer that is not what the protocol says.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::new(FailureReason::UpstreamMalformed, message)
    }

    /// An answer with more parts than the hub takes.
    pub fn too_many_parts() -> Self {
        let message = "The provider's answer has more parts than the hub takes.";
        Self::new(FailureReason::UpstreamTooLarge, message)
    }

    /// The same error with what lies beneath.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error, with leave to try elsewhere.
    #[must_use]
    pub const fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// The error that a provider reports inside an answer with a success status.
    ///
    /// It counts as the status that it stands for, where it says so.
    pub fn reported(object: ErrorObject) -> Self {
        let status = disguise::status(&object);
        Self {
            status,
            retry: status.map_or(Retry::Never, Retry::of_status),
            object: Some(Box::new(object)),
            ..Self::new(
                FailureReason::UpstreamError,
                "The provider reported an error in its answer.",
            )
        }
    }

    /// The provider has no counterpart for a member of the request, or cannot take its value.
    ///
    /// It is the hub that says so, before it asks: the status is the client's to know, and the
    /// next provider may well have a counterpart.
    pub fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            status: Some(StatusCode::BAD_REQUEST),
            retry: Retry::Now,
            object: Some(Box::new(ErrorObject {
                message: message.clone(),
                kind: Some("invalid_request_error".to_owned()),
                code: Some("unsupported_parameter".to_owned()),
                param: Some(param.into()),
            })),
            ..Self::new(FailureReason::UpstreamStatus, message)
        }
    }

    /// The status for the client.
    ///
    /// A provider that refuses the hub's key is no reason for the client to
    /// doubt its own, and a redirect is nothing that it could follow: both are
    /// a bad gateway. Any other error status is the client's to know.
    pub fn client_status(&self) -> StatusCode {
        match self.status {
            Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => StatusCode::BAD_GATEWAY,
            Some(status) if status.is_client_error() || status.is_server_error() => status,
            _ if matches!(
                self.reason,
                FailureReason::UpstreamTimeout | FailureReason::UpstreamStalled
            ) =>
            {
                StatusCode::GATEWAY_TIMEOUT
            }
            _ => StatusCode::BAD_GATEWAY,
        }
    }

    /// Whether the provider refused the hub's own credentials.
    pub fn is_our_key(&self) -> bool {
        matches!(
            self.status,
            Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_status(status: u16) -> StatusCode {
        let mut error = ProviderError::new(FailureReason::UpstreamStatus, "x");
        error.status = Some(StatusCode::from_u16(status).unwrap());
        error.client_status()
    }

    #[test]
    fn what_a_provider_cannot_do_is_the_clients_to_know_and_the_next_ones_to_try() {
        let error = ProviderError::unsupported("n", "no");
        assert_eq!(error.client_status(), StatusCode::BAD_REQUEST);
        assert_eq!(error.retry, Retry::Now);
        assert_eq!(error.object.unwrap().param.as_deref(), Some("n"));
    }

    #[test]
    fn the_client_learns_the_status_unless_it_would_mislead() {
        for same in [400, 404, 408, 413, 422, 429, 500, 503, 529] {
            assert_eq!(with_status(same).as_u16(), same);
        }
        for hidden in [200, 302, 401, 403] {
            assert_eq!(with_status(hidden), StatusCode::BAD_GATEWAY);
        }
        let late = ProviderError::new(FailureReason::UpstreamTimeout, "x");
        assert_eq!(late.client_status(), StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(
            ProviderError::malformed("x").client_status(),
            StatusCode::BAD_GATEWAY
        );
    }
}
