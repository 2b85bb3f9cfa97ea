//! Anthropic's Messages API.
//!
//! Read from `https://platform.claude.com/docs/en/api/messages` on 2026-11-28.
//! It has roles, content blocks and events of its own, so requests and answers
//! are translated. What it has no counterpart for (`n`, `logprobs`, `seed`, …)
//! is refused by its `request` half.

mod request;
mod response;
mod stream;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;

use self::stream::Translator;
use super::{
    Answer, Asked, HttpRequest, Provider, ProviderCall, ProviderError, Streamed, Translate,
    UpstreamRequest, base_url,
    openai::{self, OpenAi},
    translate::answer,
};
use crate::stream::sse_decode::SseEvent;

/// The version of the API; there has been one since 2023.
const VERSION: (HeaderName, HeaderValue) = (
    HeaderName::from_static("anthropic-version"),
    HeaderValue::from_static("2023-06-01"),
);

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
        Ok(UpstreamRequest::Http(HttpRequest {
            url,
            headers,
            body: request::encode(call.request, call.target.model)?,
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

/// The tokens of an answer; each event of a stream tells those that it knows.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the names are Anthropic's")]
struct Usage {
    input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    output_tokens: Option<u64>,
}

impl Usage {
    /// Counts are sums: a later one takes the place of an earlier one.
    fn update(&mut self, later: Self) {
        for (ours, later) in [
            (&mut self.input_tokens, later.input_tokens),
            (
                &mut self.cache_creation_input_tokens,
                later.cache_creation_input_tokens,
            ),
            (
                &mut self.cache_read_input_tokens,
                later.cache_read_input_tokens,
            ),
            (&mut self.output_tokens, later.output_tokens),
        ] {
            *ours = later.or(*ours);
        }
    }

    /// `input_tokens` leaves out what the cache took or gave; OpenAI counts the whole prompt.
    ///
    /// `None` where the provider did not count: no number is better than zero.
    fn to_openai(self) -> Option<answer::Usage> {
        let cached = self.cache_read_input_tokens.unwrap_or(0);
        let prompt = self
            .input_tokens?
            .saturating_add(self.cache_creation_input_tokens.unwrap_or(0))
            .saturating_add(cached);
        Some(answer::Usage::new(prompt, cached, self.output_tokens?))
    }
}

/// Why the model stopped, in OpenAI's words.
fn finish_reason(stop_reason: &str) -> answer::FinishReason {
    match stop_reason {
        "max_tokens" | "model_context_window_exceeded" => answer::FinishReason::Length,
        "tool_use" => answer::FinishReason::ToolCalls,
        "refusal" => answer::FinishReason::ContentFilter,
        // `end_turn`, `stop_sequence`; whatever comes to be added, the model has stopped.
        _ => answer::FinishReason::Stop,
    }
}

#[cfg(test)]
mod tests;
