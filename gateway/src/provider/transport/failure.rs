//! What went wrong on the way, in the words of the events.

use std::{error::Error, time::Duration};

use nexus_events::exchange_event::FailureReason;

use crate::provider::{ProviderError, Retry};

pub(super) fn too_large(bytes_max: usize) -> ProviderError {
    let message = format!("The provider's answer is larger than {bytes_max} bytes.");
    ProviderError::new(FailureReason::UpstreamTooLarge, message)
}

pub(super) fn late(bound: Duration) -> ProviderError {
    let message = format!(
        "The provider did not begin to answer within {}.",
        spelled(bound)
    );
    ProviderError::new(FailureReason::UpstreamTimeout, message)
}

pub(super) fn stalled(bound: Duration) -> ProviderError {
    let message = format!("The provider's answer stood still for {}.", spelled(bound));
    ProviderError::new(FailureReason::UpstreamStalled, message)
}

fn spelled(bound: Duration) -> String {
    match bound.subsec_millis() {
        0 => format!("{} s", bound.as_secs()),
        _ => format!("{} ms", bound.as_millis()),
    }
}

pub(super) fn cut(error: reqwest::Error) -> ProviderError {
    let message = "The provider's answer was cut off.";
    ProviderError::new(FailureReason::UpstreamCut, message).caused_by(error.without_url())
}

pub(super) fn without_answer(error: reqwest::Error) -> ProviderError {
    let (reason, retry, message) = if error.is_connect() {
        let message = "No connection to the provider could be made.";
        (FailureReason::UpstreamRefused, Retry::Now, message)
    } else if is_no_http(&error) {
        let message = "The provider's answer is not HTTP.";
        (FailureReason::UpstreamMalformed, Retry::Now, message)
    } else if is_turned_away(&error) {
        let message = "The provider's server turned the request away before it did anything.";
        (FailureReason::UpstreamCut, Retry::Again, message)
    } else {
        let message = "The provider closed the connection without an answer.";
        (FailureReason::UpstreamCut, Retry::Now, message)
    };
    ProviderError::new(reason, message)
        .with_retry(retry)
        .caused_by(error.without_url())
}

/// Whether an HTTP/2 server says that nothing was done with the request (RFC 9113, section 8.7).
///
/// It ended the connection in an orderly way (GOAWAY) before this stream, or has no room for the
/// stream. Only streams above the last one that a GOAWAY names end with it; those below go on.
fn is_turned_away(error: &reqwest::Error) -> bool {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<h2::Error>())
        .filter(|cause| cause.is_remote())
        .any(|cause| {
            let reason = cause.reason();
            cause.is_go_away() && reason == Some(h2::Reason::NO_ERROR)
                || cause.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM)
        })
}

fn is_no_http(error: &reqwest::Error) -> bool {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<hyper::Error>())
        .any(hyper::Error::is_parse)
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}
