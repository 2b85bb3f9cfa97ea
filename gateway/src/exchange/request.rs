//! What is asked for: a chat, or embeddings.

use std::borrow::Cow;

use bytes::Bytes;
use nexus_events::{exchange_event::FailureReason, id::RequestId, raw_object::RawObject};

use super::entry::Outline;
use crate::{
    configuration::Candidate,
    limits::estimate::Estimate,
    middleware::Arrival,
    protocol::openai::{
        embeddings::EmbeddingsRequest,
        request::{BadRequest, ChatRequest},
    },
    provider::{
        EmbeddingsCall, Provider, ProviderCall, ProviderError, Retry, UpstreamRequest, adapter,
    },
    routing,
};

/// What a request asks for, as its endpoint says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A chat completion.
    Chat,
    /// Embeddings. They belong to no conversation, and the vectors are not recorded: who has the
    /// input can have them again.
    Embeddings,
}

impl Operation {
    /// `gen_ai.operation.name`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Embeddings => "embeddings",
        }
    }
}

/// A request that was read.
pub(super) enum Request<'a> {
    Chat(ChatRequest<'a>),
    Embeddings(EmbeddingsRequest<'a>),
}

impl<'a> Request<'a> {
    pub(super) fn parse(operation: Operation, body: &'a [u8]) -> Result<Self, BadRequest> {
        match operation {
            Operation::Chat => ChatRequest::parse(body).map(Self::Chat),
            Operation::Embeddings => EmbeddingsRequest::parse(body).map(Self::Embeddings),
        }
    }

    pub(super) fn model(&self) -> &str {
        match self {
            Self::Chat(chat) => &chat.model,
            Self::Embeddings(embeddings) => &embeddings.model,
        }
    }

    pub(super) const fn user(&self) -> Option<&Cow<'a, str>> {
        match self {
            Self::Chat(chat) => chat.user.as_ref(),
            Self::Embeddings(embeddings) => embeddings.user.as_ref(),
        }
    }

    pub(super) const fn stream(&self) -> bool {
        match self {
            Self::Chat(chat) => chat.stream,
            Self::Embeddings(_) => false,
        }
    }

    pub(super) const fn include_usage(&self) -> bool {
        match self {
            Self::Chat(chat) => chat.include_usage,
            Self::Embeddings(_) => false,
        }
    }

    /// As much of it as lets it in.
    pub(super) fn outline(&self) -> Outline<'_> {
        Outline {
            model: Cow::Borrowed(self.model()),
            estimate: self.estimate(),
            wants_room: true,
        }
    }

    fn estimate(&self) -> Estimate {
        match self {
            Self::Chat(chat) => Estimate::of(chat),
            Self::Embeddings(embeddings) => Estimate::of_input(&embeddings.members),
        }
    }

    /// Every member of the body but the messages.
    pub(super) fn parameters(&self) -> RawObject<'a> {
        match self {
            Self::Chat(chat) => {
                let mut parameters = chat.members.clone();
                parameters.retain(|name, _| name != "messages");
                parameters
            }
            Self::Embeddings(embeddings) => embeddings.members.clone(),
        }
    }

    /// The request as a candidate's adapter wants it.
    pub(super) fn encode(
        &self,
        (id, arrival, body): (RequestId, Arrival, &Bytes),
        candidate: &Candidate,
    ) -> Result<UpstreamRequest, ProviderError> {
        let (adapter, target) = (adapter_of(candidate)?, routing::target(candidate));
        match self {
            Self::Chat(request) => adapter.encode(ProviderCall {
                id,
                time: arrival.time,
                request,
                body,
                target,
            }),
            Self::Embeddings(request) => adapter.encode_embeddings(EmbeddingsCall {
                id,
                request,
                body,
                target,
            }),
        }
    }
}

pub(super) fn adapter_of(candidate: &Candidate) -> Result<&'static dyn Provider, ProviderError> {
    let kind = &candidate.provider.resource.kind;
    adapter(kind).ok_or_else(|| {
        let message = format!("This version knows no providers of kind '{kind}'.");
        ProviderError::new(FailureReason::Internal, message).with_retry(Retry::Now)
    })
}
