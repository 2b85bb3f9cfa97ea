//! OpenAI and every server that speaks its protocol.
//!
//! The body goes through raw: members that the hub does not know reach the
//! provider, and its answers reach the client, as they came. Two things
//! change: the model's name, and for streams `stream_options.include_usage`,
//! because usage is a fact that the log must have.

use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, RETRY_AFTER, USER_AGENT},
};
use nexus_events::exchange_event::FailureReason;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Answer, Chunk, EmbeddingsCall, HttpRequest, Provider, ProviderCall, ProviderError, Retry,
    Streamed, Target, UpstreamRequest, base_url,
};
use crate::{
    protocol::{
        openai::{
            request::BOUNDS,
            response::{ChatChunk, ErrorObject, error_object, error_value},
        },
        readable,
    },
    stream::{sse_decode::SseEvent, sse_encode::DONE},
};

/// The longest `Retry-After` that is believed: an hour.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// `Retry-After` in milliseconds, as OpenAI sends it and its clients read it.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// The content type of every request, and of a whole answer.
pub(super) const JSON: &str = "application/json";

/// The adapter; it keeps no state.
#[derive(Clone, Copy, Debug)]
pub struct OpenAi;

impl Provider for OpenAi {
    fn encode(&self, call: ProviderCall<'_>) -> Result<UpstreamRequest, ProviderError> {
        let url =
            base_url::endpoint(call.target.server_url, "chat/completions").map_err(without_url)?;
        Ok(UpstreamRequest::Http(HttpRequest {
            url,
            headers: headers(call, AUTHORIZATION)?,
            body: call.request.body_bounded(
                call.body,
                call.target.model,
                unknown_bound(call.target.server_url),
            ),
        }))
    }

    fn decode_response<'a>(&self, body: &'a Bytes) -> Result<Answer<'a>, ProviderError> {
        match object(body).and_then(|json| serde_json::from_str(json.get())) {
            Ok(response) => Ok(Answer {
                body: body.clone(),
                response,
            }),
            Err(error) => Err(match error_object(body) {
                Some(object) => ProviderError::reported(object),
                None => ProviderError::malformed("The provider's answer is no chat completion.")
                    .caused_by(error),
            }),
        }
    }

    fn decode_chunk<'a>(&self, event: &'a SseEvent) -> Result<Streamed<'a>, ProviderError> {
        if event.data == DONE {
            return Ok(Streamed::Done);
        }
        if event.data.is_empty() {
            return Ok(Streamed::Nothing);
        }
        let malformed = |error: serde_json::Error| {
            ProviderError::malformed("The provider's stream holds a chunk that is no JSON object.")
                .caused_by(error)
        };
        let json = object(&event.data).map_err(malformed)?;
        let parsed: ChatChunk<'_> = serde_json::from_str(json.get()).map_err(malformed)?;
        if let Some(object) = parsed.error.and_then(error_value) {
            return Err(ProviderError::reported(object));
        }
        if event.name.as_ref() == b"error" {
            let object = error_value(json).unwrap_or_default();
            return Err(ProviderError::reported(object));
        }
        Ok(Streamed::Chunk(Chunk { json, parsed }))
    }

    fn encode_embeddings(
        &self,
        call: EmbeddingsCall<'_>,
    ) -> Result<UpstreamRequest, ProviderError> {
        let base = without_chat(call.target.server_url)?;
        Ok(UpstreamRequest::Http(HttpRequest {
            url: base_url::endpoint(&base, "embeddings").map_err(without_url)?,
            headers: headers_for(call.target, JSON, AUTHORIZATION)?,
            body: call.request.body_for(call.body, call.target.model),
        }))
    }

    fn decode_error(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ProviderError {
        let message = format!("The provider answered with status {}.", status.as_u16());
        ProviderError {
            status: Some(status),
            retry: retry(status, headers),
            object: error_object(body).or_else(|| detail(body)).map(Box::new),
            ..ProviderError::new(FailureReason::UpstreamStatus, message)
        }
    }
}

/// Whether a server is OpenAI's own.
pub fn is_openai(server_url: &str) -> bool {
    server_url.contains("://api.openai.com")
}

/// The name of an answer's bound that a server may not know: OpenAI's newer models refuse the old
/// one, and many a server passes the new one over.
fn unknown_bound(server_url: &str) -> &'static str {
    let [older, newer] = BOUNDS;
    if is_openai(server_url) { older } else { newer }
}

/// A base URL without the path of chat completions, should it be given with it.
pub(super) fn without_chat(base: &str) -> Result<String, ProviderError> {
    if base.trim().ends_with('#') {
        let message = "The provider of this model is set up with the address of chat alone.";
        return Err(ProviderError::unsupported("model", message));
    }
    Ok(base.replacen("/chat/completions", "", 1))
}

/// The headers of a request, with the provider's key in the one that it wants it in.
pub(super) fn headers(
    call: ProviderCall<'_>,
    key_header: HeaderName,
) -> Result<HeaderMap, ProviderError> {
    let accept = if call.request.stream {
        "text/event-stream"
    } else {
        JSON
    };
    headers_for(call.target, accept, key_header)
}

/// The same for a request of any kind.
pub(super) fn headers_for(
    target: Target<'_>,
    accept: &'static str,
    key_header: HeaderName,
) -> Result<HeaderMap, ProviderError> {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    headers.insert(ACCEPT, HeaderValue::from_static(accept));
    headers.insert(
        USER_AGENT,
        HeaderValue::from_static(concat!("nexus/", env!("CARGO_PKG_VERSION"))),
    );
    if let Some(key) = target.server_key {
        let value = if key_header == AUTHORIZATION {
            HeaderValue::try_from(format!("Bearer {key}"))
        } else {
            HeaderValue::try_from(key)
        };
        let mut value =
            value.map_err(|error| misconfigured("its key is no header value").caused_by(error))?;
        value.set_sensitive(true);
        headers.insert(key_header, value);
    }
    Ok(headers)
}

/// The object that the bytes are, if every reader of the log will be able to read it.
fn object(json: &[u8]) -> Result<&RawValue, serde_json::Error> {
    // serde reads a struct from an array as well.
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(serde::de::Error::custom("not an object"));
    }
    let json: &RawValue = serde_json::from_slice(json)?;
    readable::check(json)?;
    Ok(json)
}

pub(super) fn without_url(error: base_url::BadBaseUrl) -> ProviderError {
    misconfigured("its URL cannot be used").caused_by(error)
}

fn misconfigured(what: &str) -> ProviderError {
    let message = format!("The provider is configured wrongly: {what}.");
    ProviderError::new(FailureReason::Internal, message).with_retry(Retry::Now)
}

/// What a status says of another try, and when the provider wants it.
fn retry(status: StatusCode, headers: &HeaderMap) -> Retry {
    if Retry::of_status(status) == Retry::Never {
        return Retry::Never;
    }
    match retry_after(headers) {
        Some(wait) => Retry::After(wait.min(RETRY_AFTER_MAX)),
        None => Retry::Now,
    }
}

/// When the provider wants to be asked again: OpenAI's milliseconds, seconds, or a moment, as proxies write it.
///
/// A moment is compared with the answer's own `Date`, so nobody's clock is compared with another's.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok().map(str::trim);
    let millis = text(RETRY_AFTER_MS).and_then(|millis| millis.parse().ok());
    if let Some(millis) = millis {
        return Some(Duration::from_millis(millis));
    }
    let given = text(RETRY_AFTER)?;
    if let Ok(seconds) = given.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let moment = |text: &str| DateTime::parse_from_rfc2822(text).ok();
    let wait = moment(given)?.signed_duration_since(moment(text(DATE)?)?);
    wait.to_std().ok()
}

/// `{"detail": "…"}`, `{"message": "…"}`: what Python servers say in place of an error object.
fn detail(body: &[u8]) -> Option<ErrorObject> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow, alias = "message")]
        detail: &'a RawValue,
    }
    let body: Body<'_> = serde_json::from_slice(body).ok()?;
    error_value(body.detail)
}

#[cfg(test)]
mod tests;
