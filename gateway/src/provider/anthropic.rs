//! Anthropic's Messages API.
//!
//! Read from `https://platform.claude.com/docs/en/api/messages` on 2026-11-28.
//! It has roles, content blocks and events of its own, so requests and answers
//! are translated. What it has no counterpart for (`n`, `logprobs`, `seed`, …)
//! is refused by its `request` half.

mod request;
mod response;
mod stream;
mod wire;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use self::stream::Translator;
use super::{
    Answer, Asked, HttpRequest, Provider, ProviderCall, ProviderError, Streamed, Translate,
    UpstreamRequest, base_url,
    openai::{self, OpenAi},
};
use crate::stream::sse_decode::SseEvent;

/// The version of the API; there has been one since 2023.
const VERSION: (HeaderName, HeaderValue) = (
    HeaderName::from_static("anthropic-version"),
    HeaderValue::from_static("2023-06-01"),
);

/// The betas that a request makes use of, separated by commas.
const BETAS: HeaderName = HeaderName::from_static("anthropic-beta");

const KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The adapter; it keeps no state.
#[derive(Clone, Copy, Debug)]
pub struct Anthropic;

impl Provider for Anthropic {
    fn encode(&self, call: ProviderCall<'_>) -> Result<UpstreamRequest, ProviderError> {
        let url =
            base_url::endpoint(call.target.server_url, "messages").map_err(openai::without_url)?;
        let mut headers = openai::headers(call, KEY)?;
        let (name, version) = VERSION;
        headers.insert(name, version);
        let encoded = request::encode(call.request, call.target.model)?;
        if let Some(betas) = encoded.betas {
            let betas = HeaderValue::try_from(betas).map_err(|error| {
                let message = "`anthropic_beta` must hold names that can stand in a header.";
                ProviderError::unsupported("anthropic_beta", message).caused_by(error)
            })?;
            headers.insert(BETAS, betas);
        }
        Ok(UpstreamRequest::Http(HttpRequest {
            url,
            headers,
            body: encoded.body,
        }))
    }

    fn translator(&self, asked: Asked<'_>) -> Option<Box<dyn Translate>> {
        Some(Box::new(Translator::new(asked)))
    }

    fn translate_response(&self, asked: Asked<'_>, body: Bytes) -> Result<Bytes, ProviderError> {
        response::translate(asked, &body)
    }

    fn decode_response<'a>(&self, body: &'a Bytes) -> Result<Answer<'a>, ProviderError> {
        OpenAi.decode_response(body)
    }

    fn decode_chunk<'a>(&self, event: &'a SseEvent) -> Result<Streamed<'a>, ProviderError> {
        OpenAi.decode_chunk(event)
    }

    fn decode_error(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ProviderError {
        // `{"type": "error", "error": {"type", "message"}}`: what is read of it is as OpenAI has
        // it, and `overloaded_error` with its status of 529 is a fault of the server as any.
        OpenAi.decode_error(status, headers, body)
    }
}

#[cfg(test)]
mod tests;
