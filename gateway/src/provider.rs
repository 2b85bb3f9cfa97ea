//! Providers: who answers, and how to speak to them.
//!
//! *What it is.* One adapter for each kind of provider turns a chat request
//! into what that provider wants and its answers into OpenAI's form. Adapters
//! are pure: bytes in, bytes out, no clock, no network. [`transport`] is the
//! only place that opens a connection. Providers with a protocol of their own
//! are translated: their answers become OpenAI's form first ([`translate`]) and
//! are then read by the code that reads everybody's.
//!
//! *What it promises.* Members that the hub does not know reach the provider,
//! and the client, as they came; where the provider has a protocol of its own,
//! they are refused by name, never dropped in silence. No header of the client reaches a provider:
//! its `Authorization` is the hub's own.

pub mod anthropic;
pub mod azure;
pub mod base_url;
pub mod echo;
pub mod embeddings;
pub mod ernie;
pub mod ernie_v1;
pub mod error;
pub mod gemini;
pub mod hops;
pub mod openai;
pub mod own_address;
pub mod token;
pub mod translate;
pub mod transport;

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use nexus_events::{clock::UnixMillis, id::RequestId};
use serde_json::value::RawValue;
use url::Url;

pub use self::{
    embeddings::{Embedded, EmbeddingsCall},
    error::{ProviderError, Retry},
    translate::{Asked, Translate},
};
use crate::{
    protocol::openai::{
        request::ChatRequest,
        response::{ChatChunk, ChatResponse},
    },
    stream::sse_decode::SseEvent,
};

/// Where a request is to go.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// The provider's base URL.
    pub server_url: &'a str,
    /// The provider's API key.
    pub server_key: Option<&'a str>,
    /// The name that the provider knows the model by.
    pub model: &'a str,
}

impl fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("server_url", &self.server_url)
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

/// A request as an adapter gets it.
#[derive(Clone, Copy, Debug)]
pub struct ProviderCall<'a> {
    /// The hub's id of the request.
    pub id: RequestId,
    /// When it came.
    pub time: UnixMillis,
    /// The request.
    pub request: &'a ChatRequest<'a>,
    /// The body that it was read from.
    pub body: &'a Bytes,
    /// Where it is to go.
    pub target: Target<'a>,
}

/// What the transport is to do.
pub enum UpstreamRequest {
    /// Send this to the provider.
    Http(HttpRequest),
    /// Send this to the provider, with an access token in its query.
    WithToken(token::TokenRequest),
    /// Answer from within the process, in the form that a provider would.
    Local(LocalAnswer),
}

/// A POST to a provider.
#[derive(Debug)]
pub struct HttpRequest {
    /// Where to.
    pub url: Url,
    /// All headers; those that hold a secret are marked as sensitive.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// An answer that needs no network.
pub struct LocalAnswer {
    /// Its content type.
    pub content_type: &'static str,
    /// Its body, made piece by piece as it is asked for.
    pub body: Box<dyn Iterator<Item = Bytes> + Send>,
}

impl fmt::Debug for LocalAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalAnswer")
            .field("content_type", &self.content_type)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for UpstreamRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(request) => write!(f, "POST {}", request.url),
            Self::WithToken(with) => write!(f, "POST {}", with.request.url),
            Self::Local(answer) => answer.fmt(f),
        }
    }
}

/// A whole answer in OpenAI's form.
#[derive(Debug)]
pub struct Answer<'a> {
    /// The body for the client.
    pub body: Bytes,
    /// What recording needs of it.
    pub response: ChatResponse<'a>,
}

/// What an event of a provider's stream is.
#[derive(Debug)]
pub enum Streamed<'a> {
    /// A chunk of the answer.
    Chunk(Chunk<'a>),
    /// The mark that ends the stream.
    Done,
    /// Nothing that a client of OpenAI's would see.
    Nothing,
}

/// A chunk in OpenAI's form.
#[derive(Debug)]
pub struct Chunk<'a> {
    /// The chunk as it is recorded and given to the client.
    pub json: &'a RawValue,
    /// What recording needs of it.
    pub parsed: ChatChunk<'a>,
}

/// An adapter: pure functions between OpenAI's form and a provider's.
pub trait Provider: Send + Sync + fmt::Debug {
    /// The request as the provider wants it.
    ///
    /// # Errors
    /// [`ProviderError`] of the hub's own making: the provider is configured wrongly, or has no
    /// counterpart for what the client asks for.
    fn encode(&self, call: ProviderCall<'_>) -> Result<UpstreamRequest, ProviderError>;

    /// What turns the events of one stream into OpenAI's before [`Self::decode_chunk`] reads them;
    /// `None` where they are OpenAI's already, and nothing is copied.
    fn translator(&self, asked: Asked<'_>) -> Option<Box<dyn Translate>> {
        let _ = asked;
        None
    }

    /// Turns a whole answer with a success status into OpenAI's form before
    /// [`Self::decode_response`] reads it.
    ///
    /// # Errors
    /// [`ProviderError`]: it is malformed, or an error in disguise.
    fn translate_response(&self, asked: Asked<'_>, body: Bytes) -> Result<Bytes, ProviderError> {
        let _ = asked;
        Ok(body)
    }

    /// Reads a whole answer with a success status.
    ///
    /// # Errors
    /// [`ProviderError`]: it is malformed, or an error in disguise.
    fn decode_response<'a>(&self, body: &'a Bytes) -> Result<Answer<'a>, ProviderError>;

    /// Reads one event of a stream.
    ///
    /// # Errors
    /// [`ProviderError`]: it is malformed, or the provider reports an error.
    fn decode_chunk<'a>(&self, event: &'a SseEvent) -> Result<Streamed<'a>, ProviderError>;

    /// A request for embeddings as the provider wants it.
    ///
    /// # Errors
    /// [`ProviderError`]: the provider is configured wrongly, or offers no embeddings.
    fn encode_embeddings(
        &self,
        call: EmbeddingsCall<'_>,
    ) -> Result<UpstreamRequest, ProviderError> {
        let _ = call;
        let message = "The provider of this model offers no embeddings.";
        Err(ProviderError::unsupported("model", message))
    }

    /// Reads a whole answer to it with a success status.
    ///
    /// # Errors
    /// [`ProviderError`]: it is malformed, or an error in disguise.
    fn decode_embeddings(&self, asked: Asked<'_>, body: Bytes) -> Result<Embedded, ProviderError> {
        let _ = asked;
        embeddings::read(&body)
    }

    /// Reads an answer with an error status.
    fn decode_error(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ProviderError;
}

/// The kinds that an operator may configure.
pub const KINDS: [&str; 7] = [
    "openai",
    "anthropic",
    "gemini",
    "azure",
    "ernie",
    "ernie_v1",
    "echo",
];

/// Where the providers of a kind are that has one address for everybody.
pub fn default_url(kind: &str) -> Option<&'static str> {
    match kind {
        "anthropic" => Some("https://api.anthropic.com"),
        "gemini" => Some("https://generativelanguage.googleapis.com"),
        "ernie" => Some("https://qianfan.baidubce.com/v2"),
        "ernie_v1" => Some("https://aip.baidubce.com"),
        // It has none at all.
        "echo" => Some(""),
        _ => None,
    }
}

/// The adapter for a configured kind; `None` for a kind that this version does not know.
pub fn adapter(kind: &str) -> Option<&'static dyn Provider> {
    match kind {
        "openai" => Some(&openai::OpenAi),
        "anthropic" => Some(&anthropic::Anthropic),
        "gemini" => Some(&gemini::Gemini),
        "azure" => Some(&azure::Azure),
        "ernie" => Some(&ernie::Ernie),
        "ernie_v1" => Some(&ernie_v1::ErnieV1),
        "echo" => Some(&echo::Echo),
        #[cfg(test)]
        "panics" => Some(&crate::exchange::tests::panics::Panics),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_an_adapter_for_each_kind() {
        for kind in KINDS {
            assert!(adapter(kind).is_some(), "{kind}");
        }
    }
}
