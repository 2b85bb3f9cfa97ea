//! Errors as Google's APIs report them.

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use super::super::{ProviderError, Retry, openai::RETRY_AFTER_MAX};
use crate::protocol::{
    at_most,
    openai::{
        Text,
        response::{ERROR_OBJECT_MAX, ErrorObject},
    },
};

/// Details of an error that are looked at: 16; there are three kinds that matter.
const DETAILS_MAX: usize = 16;

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    error: Reported<'a>,
}

/// An error: in the body of an answer, or in place of one.
#[derive(Deserialize)]
pub(super) struct Reported<'a> {
    #[serde(borrow, default)]
    message: Option<Text<'a>>,
    /// A name such as `RESOURCE_EXHAUSTED`.
    #[serde(borrow, default)]
    status: Option<Text<'a>>,
    #[serde(
        borrow,
        default,
        deserialize_with = "at_most::list::<_, _, DETAILS_MAX>"
    )]
    details: Vec<Detail<'a>>,
}

#[derive(Deserialize)]
struct Detail<'a> {
    #[serde(borrow, default)]
    reason: Option<Text<'a>>,
    #[serde(borrow, default, rename = "retryDelay")]
    retry_delay: Option<Text<'a>>,
}

impl Reported<'_> {
    pub(super) fn object(&self) -> ErrorObject {
        let owned = |text: Option<&Text<'_>>| {
            let text = text.map(Text::as_str);
            let text = text.filter(|text| text.len() <= ERROR_OBJECT_MAX);
            text.map(str::to_owned)
        };
        let reasons = self
            .details
            .iter()
            .filter_map(|detail| detail.reason.as_ref());
        ErrorObject {
            message: owned(self.message.as_ref())
                .unwrap_or_else(|| "the provider gave no reason".to_owned()),
            kind: owned(self.status.as_ref()),
            code: owned(reasons.take(1).next()),
            param: None,
        }
    }

    /// The error that it is in an answer with a success status.
    pub(super) fn in_disguise(&self) -> ProviderError {
        self.tell(ProviderError::reported(self.object()))
    }

    fn tell(&self, mut error: ProviderError) -> ProviderError {
        if self.is_about_the_key() {
            error.status = Some(StatusCode::UNAUTHORIZED);
        }
        if let (Retry::Now, Some(delay)) = (error.retry, self.retry_delay()) {
            error.retry = Retry::After(delay);
        }
        error.object = Some(Box::new(self.object()));
        error
    }

    /// A key that is none is reported as a wrong argument, with a status of 400.
    fn is_about_the_key(&self) -> bool {
        let mut reasons = self
            .details
            .iter()
            .filter_map(|detail| detail.reason.as_ref());
        reasons.any(|reason| reason.as_str().starts_with("API_KEY_"))
    }

    fn retry_delay(&self) -> Option<Duration> {
        let mut delays = self
            .details
            .iter()
            .filter_map(|detail| detail.retry_delay.as_ref());
        let seconds = delays.next()?.as_str().strip_suffix('s')?.parse().ok()?;
        let delay = Duration::try_from_secs_f64(seconds).ok()?;
        Some(delay.min(RETRY_AFTER_MAX))
    }
}

/// The error with what Google says in a form of its own.
pub(super) fn decode(error: ProviderError, body: &[u8]) -> ProviderError {
    // What was asked for without `alt=sse` comes as an array.
    let reported = match body.trim_ascii_start().first() {
        Some(b'[') => serde_json::from_slice::<Vec<Body<'_>>>(body).map(|mut all| all.pop()),
        _ => serde_json::from_slice(body).map(Some),
    };
    let Ok(Some(Body { error: reported })) = reported else {
        return error;
    };
    reported.tell(error)
}
