//! An adapter with a fault: it panics over the first chunk.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::{
    provider::{
        Answer, Provider, ProviderCall, ProviderError, Streamed, UpstreamRequest, openai::OpenAi,
    },
    stream::sse_decode::SseEvent,
};

#[derive(Debug)]
pub(crate) struct Panics;

impl Provider for Panics {
    fn encode(&self, call: ProviderCall<'_>) -> Result<UpstreamRequest, ProviderError> {
        OpenAi.encode(call)
    }

    fn decode_response<'a>(&self, body: &'a Bytes) -> Result<Answer<'a>, ProviderError> {
        OpenAi.decode_response(body)
    }

    fn decode_chunk<'a>(&self, _: &'a SseEvent) -> Result<Streamed<'a>, ProviderError> {
        panic!("a fault in the adapter")
    }

    fn decode_error(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ProviderError {
        OpenAi.decode_error(status, headers, body)
    }
}
