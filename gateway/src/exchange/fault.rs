//! Why an exchange failed: for the log, and for the client.

use std::borrow::Cow;

use http::StatusCode;
use nexus_events::{
    exchange_event::{Failure, FailureReason},
    outbox::{AppendError, ReleaseError},
};

use super::bounds;
use crate::{
    configuration::Candidate,
    error::ApiError,
    provider::{ProviderError, Retry, ernie_v1},
    routing::Failing,
    settings::Secret,
};

/// What a client would have got that hung up: 499, as proxies log it.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Half of a key that is taken out of messages by itself: 8 characters or more.
const HALF_CHARS_MIN: usize = 8;

/// The end of an exchange that failed.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) reason: FailureReason,
    pub(super) error: Box<ApiError>,
    /// How the provider failed; `None` where it is not at fault.
    pub(super) upstream: Option<Failing>,
}

impl Fault {
    /// The client hung up, and its key says that nobody is to pay for the rest.
    pub(super) fn client_cancelled() -> Self {
        let status = StatusCode::from_u16(CLIENT_CLOSED_REQUEST);
        let mut error = ApiError::unavailable("client_cancelled", "The client hung up.");
        error.status = status.unwrap_or(StatusCode::BAD_REQUEST);
        Self {
            reason: FailureReason::ClientCancelled,
            error: Box::new(error),
            upstream: None,
        }
    }

    /// The hub was told to stop.
    pub(super) fn shutdown() -> Self {
        let message = "The hub is shutting down; the request can be sent again.";
        Self {
            reason: FailureReason::Shutdown,
            error: Box::new(ApiError::unavailable("shutting_down", message)),
            upstream: None,
        }
    }

    /// The hub itself is at fault.
    pub(super) fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            reason: FailureReason::Internal,
            error: Box::new(ApiError::internal(source)),
            upstream: None,
        }
    }

    /// The same without the provider's key, should the provider have quoted it.
    pub(super) fn without_key(self, candidate: Option<&Candidate>) -> Self {
        let key = candidate.and_then(|candidate| candidate.provider.server_key.as_ref());
        match key.map(Secret::expose).filter(|key| !key.is_empty()) {
            Some(key) => self.without(key),
            None => self,
        }
    }

    fn without(mut self, key: &str) -> Self {
        // The halves of a pair are secrets as well; what is so short is none, and a word perhaps.
        let halves = ernie_v1::key_pair(key).map_or(["", ""], |(one, other)| [one, other]);
        let halves = halves
            .into_iter()
            .filter(|half| half.len() >= HALF_CHARS_MIN);
        for secret in std::iter::once(key).chain(halves) {
            self.error.message = self.error.message.replace(secret, "[key]");
        }
        self
    }

    /// The same of a stream that has said nothing: who breaks off then may as well not have begun.
    pub(super) fn before_the_answer(mut self) -> Self {
        if let Some(failing) = &mut self.upstream
            && failing.reason == FailureReason::UpstreamCut
        {
            failing.retry = Retry::Now;
        }
        self
    }

    /// As the events tell it: of a long message the beginning.
    pub(super) fn failure(&self) -> Failure {
        bounds::failure(self.reason, &self.error.message)
    }
}

impl From<ProviderError> for Fault {
    fn from(mut error: ProviderError) -> Self {
        let reason = error.reason;
        let status = error.client_status();
        if reason == FailureReason::Internal {
            return Self {
                upstream: Some(Failing::from(&error)),
                ..Self::internal(error)
            };
        }
        let object = error.object.take().filter(|_| !error.is_our_key());
        let mut told = match object {
            Some(object) => {
                let code = object
                    .code
                    .map_or(Cow::Borrowed(reason.as_str()), Cow::Owned);
                let mut told = ApiError::upstream(status, Some(code), object.message).quoting();
                if let Some(kind) = object.kind {
                    told.kind = Cow::Owned(kind);
                }
                told.param = object.param;
                told
            }
            None if error.is_our_key() => {
                let message = "The provider refused the hub's credentials.";
                ApiError::upstream(status, Some(Cow::Borrowed("upstream_credentials")), message)
            }
            None => {
                let code = Some(Cow::Borrowed(reason.as_str()));
                ApiError::upstream(status, code, error.message.clone())
            }
        };
        if let Retry::After(wait) = error.retry {
            told = told.with_retry_after(wait);
        }
        Self {
            reason,
            upstream: Some(Failing::from(&error)),
            error: Box::new(told.with_source(error)),
        }
    }
}

impl From<AppendError> for Fault {
    fn from(error: AppendError) -> Self {
        if error.is_full() || matches!(error, AppendError::TooLarge { .. }) {
            return Self {
                reason: FailureReason::OutboxFull,
                error: Box::new(outbox_full().with_source(error)),
                upstream: None,
            };
        }
        Self::internal(error)
    }
}

impl From<ReleaseError> for Fault {
    fn from(error: ReleaseError) -> Self {
        Self::internal(error)
    }
}

/// 503: what cannot be recorded is not begun.
pub(super) fn outbox_full() -> ApiError {
    let message = "The hub can record no more events at the moment; try again later.";
    ApiError::unavailable("outbox_full", message)
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;
    use crate::protocol::openai::response::ErrorObject;

    fn answered(status: u16) -> ProviderError {
        ProviderError {
            status: Some(StatusCode::from_u16(status).unwrap()),
            object: Some(Box::new(ErrorObject {
                message: "no sk-1".to_owned(),
                kind: Some("insufficient_quota".to_owned()),
                code: None,
                param: Some("n".to_owned()),
            })),
            ..ProviderError::new(FailureReason::UpstreamStatus, "The provider answered.")
        }
    }

    #[test]
    fn the_providers_error_is_passed_on() {
        let fault =
            Fault::from(answered(429).with_retry(Retry::After(std::time::Duration::from_secs(3))));
        assert_eq!(fault.reason, FailureReason::UpstreamStatus);
        assert_eq!(fault.error.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(fault.error.kind, "insufficient_quota");
        assert_eq!(fault.error.code.as_deref(), Some("upstream_status"));
        assert_eq!(fault.error.param.as_deref(), Some("n"));
        assert_eq!(fault.failure().message, "no sk-1");
        assert!(!fault.error.to_string().contains("sk-1"), "{}", fault.error);
        assert!(fault.error.source().is_some());
    }

    #[test]
    fn a_provider_that_refuses_the_hubs_key_is_not_quoted() {
        let fault = Fault::from(answered(401));
        assert_eq!(fault.error.status, StatusCode::BAD_GATEWAY);
        assert!(!fault.error.message.contains("sk-1"));
    }

    #[test]
    fn both_halves_of_a_pair_of_keys_are_taken_out() {
        for (key, told, left) in [
            ("sk-1", "sk-1 is no key", "[key] is no key"),
            (
                "first-key:other-key",
                "other-key, first-key",
                "[key], [key]",
            ),
            ("a:b", "a big a:b", "a big [key]"),
        ] {
            let mut fault = Fault::from(answered(400));
            fault.error.message = told.to_owned();
            assert_eq!(fault.without(key).error.message, left);
        }
    }

    #[test]
    fn a_full_outbox_is_no_fault_of_the_hub() {
        assert_eq!(
            Fault::from(AppendError::Full).reason,
            FailureReason::OutboxFull
        );
        let disk_full = AppendError::Io(std::io::ErrorKind::StorageFull.into());
        assert_eq!(
            Fault::from(disk_full).error.status,
            StatusCode::SERVICE_UNAVAILABLE
        );
        let broken = Fault::from(AppendError::Io(std::io::Error::other("disk")));
        assert_eq!(broken.reason, FailureReason::Internal);
    }
}
