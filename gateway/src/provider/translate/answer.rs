//! Answers written in OpenAI's form.

use bytes::Bytes;
use serde::Serialize;

use super::Asked;
use crate::{
    provider::ProviderError,
    stream::{sse_decode::SseEvent, sse_encode::DONE},
};

/// What every part of an answer repeats.
#[derive(Clone, Debug)]
pub(in crate::provider) struct Head {
    id: String,
    created: i64,
    model: String,
}

/// Why an answer ended, in OpenAI's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::provider) enum FinishReason {
    Stop,
    Length,
    ToolCalls,
    ContentFilter,
}

/// The tokens of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(in crate::provider) struct Usage {
    /// All of the prompt, what came from a cache included.
    pub(in crate::provider) prompt_tokens: u64,
    /// All of the answer, reasoning included.
    pub(in crate::provider) completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptTokensDetails,
    #[serde(skip_serializing_if = "Option::is_none")]
    completion_tokens_details: Option<CompletionTokensDetails>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct PromptTokensDetails {
    cached_tokens: u64,
    /// What the cache took in; not OpenAI's, but other gateways have it under this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_creation_tokens: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct CompletionTokensDetails {
    reasoning_tokens: u64,
}

impl Usage {
    pub(in crate::provider) fn new(prompt: u64, cached: u64, completion: u64) -> Self {
        Self {
            prompt_tokens: prompt,
            completion_tokens: completion,
            total_tokens: prompt.saturating_add(completion),
            prompt_tokens_details: PromptTokensDetails {
                cached_tokens: cached,
                cache_creation_tokens: None,
            },
            completion_tokens_details: None,
        }
    }

    /// The same, where a part of the prompt was put into a cache.
    pub(in crate::provider) fn with_cache_creation(mut self, tokens: u64) -> Self {
        self.prompt_tokens_details.cache_creation_tokens = Some(tokens).filter(|&some| some > 0);
        self
    }

    /// The same, where the provider says how much of the answer was reasoning.
    pub(in crate::provider) fn with_reasoning(mut self, tokens: Option<u64>) -> Self {
        let details = |reasoning_tokens| CompletionTokensDetails { reasoning_tokens };
        self.completion_tokens_details = tokens.map(details);
        self
    }
}

/// What is said: a message, or what a chunk adds to one.
#[derive(Debug, Default, Serialize)]
pub(in crate::provider) struct Said<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::provider) role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::provider) content: Option<Content<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::provider) reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::provider) refusal: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(in crate::provider) tool_calls: &'a [ToolCall<'a>],
    /// Anthropic's reasoning with the signatures that it wants to see again.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(in crate::provider) thinking_blocks: &'a [ThinkingBlock<'a>],
}

/// A block of reasoning as Anthropic has it, or what a chunk adds to one.
///
/// The member is no part of OpenAI's form; other gateways have it under the same name, and their
/// clients send it back.
#[derive(Debug, Default, Serialize)]
pub(in crate::provider) struct ThinkingBlock<'a> {
    /// Which one it is; in chunks only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::provider) index: Option<u32>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(in crate::provider) kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::provider) thinking: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::provider) signature: Option<&'a str>,
    /// Reasoning that only Anthropic can read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::provider) data: Option<&'a str>,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub(in crate::provider) enum Content<'a> {
    Text(&'a str),
    /// What stands in a message beside tool calls.
    Null,
}

impl<'a> Said<'a> {
    /// A whole message; its text is null where tool calls stand in for it.
    pub(in crate::provider) fn whole(
        text: Option<&'a str>,
        reasoning: Option<&'a str>,
        tool_calls: &'a [ToolCall<'a>],
    ) -> Self {
        let content = match text {
            Some(text) => Content::Text(text),
            None if tool_calls.is_empty() => Content::Text(""),
            None => Content::Null,
        };
        Self {
            role: Some("assistant"),
            content: Some(content),
            reasoning_content: reasoning,
            tool_calls,
            ..Self::default()
        }
    }

    /// The beginning of a streamed message.
    pub(in crate::provider) fn role() -> Self {
        Self {
            role: Some("assistant"),
            ..Self::content("")
        }
    }

    pub(in crate::provider) fn content(text: &'a str) -> Self {
        Self {
            content: Some(Content::Text(text)),
            ..Self::default()
        }
    }

    pub(in crate::provider) fn reasoning(text: &'a str) -> Self {
        Self {
            reasoning_content: Some(text),
            ..Self::default()
        }
    }

    pub(in crate::provider) fn tool_calls(tool_calls: &'a [ToolCall<'a>]) -> Self {
        Self {
            tool_calls,
            ..Self::default()
        }
    }
}

/// A tool call, or what a chunk adds to one.
#[derive(Debug, Default, Serialize)]
pub(in crate::provider) struct ToolCall<'a> {
    /// Which one it is; in chunks only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::provider) index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::provider) id: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(in crate::provider) kind: Option<&'static str>,
    pub(in crate::provider) function: FunctionCall<'a>,
    /// What the provider wants to see again when the call is sent back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::provider) extra_content: Option<ExtraContent<'a>>,
}

#[derive(Debug, Default, Serialize)]
pub(in crate::provider) struct FunctionCall<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::provider) name: Option<&'a str>,
    pub(in crate::provider) arguments: &'a str,
}

#[derive(Debug, Serialize)]
pub(in crate::provider) struct ExtraContent<'a> {
    pub(in crate::provider) google: GoogleContent<'a>,
}

#[derive(Debug, Serialize)]
pub(in crate::provider) struct GoogleContent<'a> {
    pub(in crate::provider) thought_signature: &'a str,
}

/// One choice of a whole answer.
#[derive(Debug, Serialize)]
pub(in crate::provider) struct Choice<'a> {
    pub(in crate::provider) index: u32,
    pub(in crate::provider) message: Said<'a>,
    pub(in crate::provider) logprobs: Option<&'a Logprobs<'a>>,
    pub(in crate::provider) finish_reason: FinishReason,
    /// The stop sequence that the model stopped at; vLLM's servers have the same member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::provider) stop_reason: Option<&'a str>,
}

/// What a chunk adds to one choice.
#[derive(Debug, Default, Serialize)]
pub(in crate::provider) struct Piece<'a> {
    pub(in crate::provider) index: u32,
    pub(in crate::provider) delta: Said<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::provider) logprobs: Option<&'a Logprobs<'a>>,
    pub(in crate::provider) finish_reason: Option<FinishReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::provider) stop_reason: Option<&'a str>,
}

/// The probabilities of an answer's tokens.
#[derive(Debug, Default, Serialize)]
pub(in crate::provider) struct Logprobs<'a> {
    pub(in crate::provider) content: Vec<TokenLogprob<'a>>,
}

#[derive(Debug, Serialize)]
pub(in crate::provider) struct TokenLogprob<'a> {
    pub(in crate::provider) token: &'a str,
    pub(in crate::provider) logprob: f64,
    pub(in crate::provider) bytes: &'a [u8],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::provider) top_logprobs: Option<Vec<TokenLogprob<'a>>>,
}

/// An answer, or a chunk of one, in the order in which OpenAI writes its members.
#[derive(Serialize)]
struct Body<'a, C> {
    id: &'a str,
    object: &'static str,
    created: i64,
    model: &'a str,
    choices: &'a [C],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

impl Head {
    /// The provider's own id and name of the model, as far as it tells them.
    pub(in crate::provider) fn new(
        asked: Asked<'_>,
        id: Option<&str>,
        model: Option<&str>,
    ) -> Self {
        let id = id.filter(|id| !id.is_empty());
        let model = model.filter(|model| !model.is_empty());
        Self {
            id: id.map_or_else(|| format!("chatcmpl-{}", asked.id), str::to_owned),
            created: asked.time.as_millis() / 1000,
            model: model.unwrap_or(asked.model).to_owned(),
        }
    }

    pub(in crate::provider) fn whole(
        &self,
        choices: &[Choice<'_>],
        usage: Option<Usage>,
    ) -> Result<Bytes, ProviderError> {
        self.write("chat.completion", choices, usage)
    }

    pub(in crate::provider) fn chunk(&self, piece: Piece<'_>) -> Result<SseEvent, ProviderError> {
        self.write(CHUNK, &[piece], None).map(event)
    }

    /// The chunk without choices that carries the usage.
    pub(in crate::provider) fn usage(&self, usage: Usage) -> Result<SseEvent, ProviderError> {
        self.write::<Piece<'_>>(CHUNK, &[], Some(usage)).map(event)
    }

    fn write<C: Serialize>(
        &self,
        object: &'static str,
        choices: &[C],
        usage: Option<Usage>,
    ) -> Result<Bytes, ProviderError> {
        let body = Body {
            id: &self.id,
            object,
            created: self.created,
            model: &self.model,
            choices,
            usage,
        };
        let written = serde_json::to_vec(&body).map_err(|error| {
            ProviderError::malformed("The provider's answer cannot be written.").caused_by(error)
        })?;
        Ok(written.into())
    }
}

const CHUNK: &str = "chat.completion.chunk";

/// The event that ends a stream.
pub(in crate::provider) fn done() -> SseEvent {
    event(Bytes::from_static(DONE))
}

fn event(data: Bytes) -> SseEvent {
    SseEvent {
        name: Bytes::new(),
        data,
    }
}
