//! Google's Gemini API, `generateContent`.
//!
//! Read from `https://ai.google.dev/api/generate-content` on 2026-11-28. It has
//! contents, parts and finish reasons of its own, so requests and answers are
//! translated. What it has no counterpart for (`logit_bias`, images by their
//! URL, …) is refused by its `request` half.

mod embeddings;
mod error;
mod request;
mod response;
mod stream;
mod wire;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};

use self::stream::Translator;
use super::{
    Answer, Asked, Embedded, EmbeddingsCall, HttpRequest, Provider, ProviderCall, ProviderError,
    Streamed, Translate, UpstreamRequest, base_url,
    openai::{self, OpenAi},
};
use crate::stream::sse_decode::SseEvent;

const KEY: HeaderName = HeaderName::from_static("x-goog-api-key");

/// The adapter; it keeps no state.
#[derive(Clone, Copy, Debug)]
pub struct Gemini;

impl Provider for Gemini {
    fn encode(&self, call: ProviderCall<'_>) -> Result<UpstreamRequest, ProviderError> {
        let method = if call.request.stream {
            "streamGenerateContent"
        } else {
            "generateContent"
        };
        let path = format!("{}:{method}", collected(call.target.model));
        let mut url = base_url::versioned_endpoint(call.target.server_url, "v1beta", &path)
            .map_err(openai::without_url)?;
        if call.request.stream {
            // Without it the stream is one JSON array that grows.
            url.query_pairs_mut().append_pair("alt", "sse");
        }
        Ok(UpstreamRequest::Http(HttpRequest {
            url,
            headers: openai::headers(call, KEY)?,
            body: request::encode(call.request, bare(call.target.model))?,
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

    fn encode_embeddings(
        &self,
        call: EmbeddingsCall<'_>,
    ) -> Result<UpstreamRequest, ProviderError> {
        let (target, model) = (call.target, collected(call.target.model));
        let path = format!("{model}:batchEmbedContents");
        let url = base_url::versioned_endpoint(target.server_url, "v1beta", &path);
        Ok(UpstreamRequest::Http(HttpRequest {
            url: url.map_err(openai::without_url)?,
            headers: openai::headers_for(target, openai::JSON, KEY)?,
            body: embeddings::encode(call.request, &model)?,
        }))
    }

    fn decode_embeddings(&self, asked: Asked<'_>, body: Bytes) -> Result<Embedded, ProviderError> {
        embeddings::translate(asked, &body)
    }

    fn decode_error(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ProviderError {
        error::decode(OpenAi.decode_error(status, headers, body), body)
    }
}

/// The model's name with the collection that it is in: other ones than `models` have their own
/// names in front, as `tunedModels/x`.
fn collected(model: &str) -> String {
    if model.contains('/') {
        model.to_owned()
    } else {
        format!("models/{model}")
    }
}

/// The model's name without the collection that it is in.
fn bare(model: &str) -> &str {
    model.rsplit('/').next().unwrap_or(model)
}

#[cfg(test)]
mod tests;
