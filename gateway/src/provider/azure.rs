//! Azure OpenAI: OpenAI's protocol at addresses of its own.
//!
//! Read from `https://learn.microsoft.com/azure/ai-foundry/openai/reference` on
//! 2026-11-28. The model is a deployment and stands in the path, the version of
//! the API in the query, the key in a header of its own. The body goes through
//! raw, as with OpenAI; a first chunk that holds nothing but the verdict on the
//! prompt reaches the client as it came.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use url::Url;

use super::{
    Answer, EmbeddingsCall, HttpRequest, Provider, ProviderCall, ProviderError, Streamed,
    UpstreamRequest,
    base_url::{self, BadBaseUrl},
    openai::{self, OpenAi},
};
use crate::{protocol::openai::request::BOUNDS, stream::sse_decode::SseEvent};

/// The version where the base URL names none: the last one of the API by dates, and stable.
const API_VERSION: &str = "2024-10-21";

const CHAT: &str = "chat/completions";

const KEY: HeaderName = HeaderName::from_static("api-key");

/// The adapter; it keeps no state.
#[derive(Clone, Copy, Debug)]
pub struct Azure;

impl Provider for Azure {
    fn encode(&self, call: ProviderCall<'_>) -> Result<UpstreamRequest, ProviderError> {
        let url = endpoint(call.target.server_url, call.target.model, CHAT)
            .map_err(openai::without_url)?;
        Ok(UpstreamRequest::Http(HttpRequest {
            url,
            headers: openai::headers(call, KEY)?,
            body: {
                let [older, _] = BOUNDS;
                call.request
                    .body_bounded(call.body, call.target.model, older)
            },
        }))
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
        let target = call.target;
        let base = openai::without_chat(target.server_url)?;
        Ok(UpstreamRequest::Http(HttpRequest {
            url: endpoint(&base, target.model, "embeddings").map_err(openai::without_url)?,
            headers: openai::headers_for(target, openai::JSON, KEY)?,
            body: call.request.body_for(call.body, target.model),
        }))
    }

    fn decode_error(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ProviderError {
        OpenAi.decode_error(status, headers, body)
    }
}

/// `<base>/openai/deployments/<model>/<path>?api-version=…`, with as much of it as the
/// base URL has already.
///
/// The newer `<base>/openai/v1` is OpenAI's own form: no deployment, no version in the query.
fn endpoint(base: &str, deployment: &str, path: &str) -> Result<Url, BadBaseUrl> {
    let trimmed = base.trim();
    if trimmed.ends_with('#') {
        return base_url::endpoint(trimmed, path);
    }
    let mut url = base_url::parse(trimmed)?;
    url.set_fragment(None);
    let given = url.path().trim_end_matches('/').to_owned();
    let mut segments = given.split('/');
    if segments.clone().any(|segment| segment == "v1") {
        return base_url::endpoint(trimmed, path);
    }
    if !given.ends_with(path) {
        let in_openai = segments.any(|segment| segment == "openai");
        let in_deployment = given.contains("/deployments/");
        url.set_path(&given);
        // A URL that has a host has a path, too.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty();
            if !in_openai {
                segments.push("openai");
            }
            if !in_deployment {
                segments.extend(["deployments", deployment]);
            }
            segments.extend(path.split('/'));
        }
    }
    if !url.query_pairs().any(|(name, _)| name == "api-version") {
        url.query_pairs_mut()
            .append_pair("api-version", API_VERSION);
    }
    Ok(url)
}

#[cfg(test)]
mod tests;
