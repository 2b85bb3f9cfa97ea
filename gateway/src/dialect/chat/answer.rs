//! A chat answer as dialects read it, whole or chunk by chunk.

use std::borrow::Cow;

use nexus_events::raw_object::RawObject;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::protocol::openai::{
    is_null,
    response::{ChatChunk, ChatResponse},
    text,
};

/// The tokens of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(in crate::dialect) struct Usage {
    #[serde(rename = "prompt_tokens")]
    pub(in crate::dialect) prompt: u64,
    #[serde(rename = "completion_tokens")]
    pub(in crate::dialect) completion: u64,
    #[serde(rename = "prompt_tokens_details")]
    prompt_details: Option<PromptDetails>,
    #[serde(rename = "completion_tokens_details")]
    completion_details: Option<CompletionDetails>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
    #[serde(default)]
    cache_creation_tokens: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
struct CompletionDetails {
    #[serde(default)]
    reasoning_tokens: Option<u64>,
}

impl Usage {
    fn read(raw: Option<&RawValue>) -> Option<Self> {
        raw.and_then(|raw| serde_json::from_str(raw.get()).ok())
            .flatten()
    }

    /// Tokens of the prompt that came from a cache.
    pub(in crate::dialect) fn cached(&self) -> u64 {
        let details = self
            .prompt_details
            .and_then(|details| details.cached_tokens);
        details.unwrap_or(0).min(self.prompt)
    }

    /// Tokens of the prompt that a cache took in.
    pub(in crate::dialect) fn cache_creation(&self) -> u64 {
        let details = self.prompt_details;
        let created = details.and_then(|details| details.cache_creation_tokens);
        created.unwrap_or(0).min(self.prompt - self.cached())
    }

    /// Tokens of the answer that were reasoning.
    pub(in crate::dialect) fn reasoning(&self) -> u64 {
        let details = self.completion_details;
        details
            .and_then(|details| details.reasoning_tokens)
            .unwrap_or(0)
    }
}

/// What a message says, or what a chunk adds to it. What cannot be read says nothing.
#[derive(Debug, Default)]
pub(in crate::dialect) struct Said<'a> {
    pub(in crate::dialect) text: Cow<'a, str>,
    pub(in crate::dialect) refusal: Cow<'a, str>,
    /// Reasoning to be read, and the member that it stands in.
    pub(in crate::dialect) reasoning: Option<(&'static str, Cow<'a, str>)>,
    /// Anthropic's reasoning, with the signatures that it wants to see again.
    pub(in crate::dialect) thinking: Vec<Thinking<'a>>,
    pub(in crate::dialect) calls: Vec<Call<'a>>,
}

/// A tool call, or a piece of one.
#[derive(Debug, Default)]
pub(in crate::dialect) struct Call<'a> {
    pub(in crate::dialect) index: Option<u64>,
    pub(in crate::dialect) id: Cow<'a, str>,
    pub(in crate::dialect) name: Cow<'a, str>,
    pub(in crate::dialect) arguments: Cow<'a, str>,
    /// What the provider wants to see again with the call.
    pub(in crate::dialect) extra_content: Option<&'a RawValue>,
}

/// A block of Anthropic's reasoning, or a piece of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::dialect) struct Thinking<'a> {
    pub(in crate::dialect) index: Option<u64>,
    pub(in crate::dialect) text: Cow<'a, str>,
    pub(in crate::dialect) signature: Cow<'a, str>,
    /// Reasoning that only Anthropic can read.
    pub(in crate::dialect) data: Cow<'a, str>,
}

impl<'a> Said<'a> {
    pub(in crate::dialect) fn read(members: &RawObject<'a>) -> Self {
        let reasoning = ["reasoning_content", "reasoning"].into_iter();
        Self {
            text: content(members),
            refusal: member(members, "refusal"),
            reasoning: reasoning
                .map(|name| (name, member(members, name)))
                .find(|(_, text)| !text.is_empty()),
            thinking: items(members, "thinking_blocks")
                .map(|block| Thinking {
                    index: index(&block),
                    text: member(&block, "thinking"),
                    signature: member(&block, "signature"),
                    data: member(&block, "data"),
                })
                .collect(),
            calls: items(members, "tool_calls")
                .map(|call| Call::read(&call))
                .collect(),
        }
    }
}

impl<'a> Call<'a> {
    fn read(call: &RawObject<'a>) -> Self {
        let function = call.get("function");
        let function = function.and_then(|raw| RawObject::parse(raw.get().as_bytes()).ok());
        let function = function.unwrap_or_default();
        let arguments = match function.get("arguments") {
            // Some servers give the object itself.
            Some(raw) if raw.get().starts_with('{') => Cow::Borrowed(raw.get()),
            _ => member(&function, "arguments"),
        };
        Self {
            index: index(call),
            id: member(call, "id"),
            name: member(&function, "name"),
            arguments,
            extra_content: call.get("extra_content").filter(|raw| !is_null(raw)),
        }
    }
}

fn index(members: &RawObject<'_>) -> Option<u64> {
    members.get("index")?.get().parse().ok()
}

fn member<'a>(members: &RawObject<'a>, name: &str) -> Cow<'a, str> {
    members.get(name).and_then(text).unwrap_or_default()
}

/// Text, also where it comes in parts.
fn content<'a>(members: &RawObject<'a>) -> Cow<'a, str> {
    match members.get("content") {
        Some(raw) if raw.get().starts_with('[') => {
            let parts = items(members, "content");
            let texts: String = parts
                .map(|part| member(&part, "text").into_owned())
                .collect();
            texts.into()
        }
        raw => raw.and_then(text).unwrap_or_default(),
    }
}

fn items<'a>(members: &RawObject<'a>, name: &str) -> impl Iterator<Item = RawObject<'a>> + use<'a> {
    let items = members.get(name);
    let items = items.and_then(|raw| serde_json::from_str::<Vec<&'a RawValue>>(raw.get()).ok());
    let items = items.unwrap_or_default().into_iter();
    items.filter_map(|raw| RawObject::parse(raw.get().as_bytes()).ok())
}

/// A whole answer: its first choice, which is all that is asked for.
#[derive(Debug)]
pub(in crate::dialect) struct Answer<'a> {
    pub(in crate::dialect) model: Cow<'a, str>,
    pub(in crate::dialect) said: Said<'a>,
    pub(in crate::dialect) finish_reason: Cow<'a, str>,
    /// The stop sequence that the model stopped at, where the provider tells it.
    pub(in crate::dialect) stop_sequence: Option<Cow<'a, str>>,
    pub(in crate::dialect) service_tier: Option<Cow<'a, str>>,
    pub(in crate::dialect) usage: Option<Usage>,
}

impl<'a> Answer<'a> {
    pub(in crate::dialect) fn read(body: &'a [u8]) -> Result<Self, serde_json::Error> {
        let response: ChatResponse<'a> = serde_json::from_slice(body)?;
        let choice = response.choices.into_iter().next();
        let (said, finish_reason, stop_reason) = match choice {
            Some(choice) => {
                let members = RawObject::parse(choice.message.get().as_bytes());
                let said = Said::read(&members?);
                (said, choice.finish_reason, choice.rest.get("stop_reason"))
            }
            None => (Said::default(), None, None),
        };
        Ok(Self {
            model: response.model.and_then(text).unwrap_or_default(),
            said,
            finish_reason: finish_reason.map(|reason| reason.0).unwrap_or_default(),
            stop_sequence: stop_reason.and_then(text),
            service_tier: response.rest.get("service_tier").and_then(text),
            usage: Usage::read(response.usage),
        })
    }
}

/// A chunk of a stream: what it adds to the first choice.
#[derive(Debug, Default)]
pub(crate) struct Chunk<'a> {
    pub(in crate::dialect) model: Cow<'a, str>,
    pub(in crate::dialect) said: Said<'a>,
    pub(in crate::dialect) finish_reason: Option<Cow<'a, str>>,
    pub(in crate::dialect) stop_sequence: Option<Cow<'a, str>>,
    pub(in crate::dialect) service_tier: Option<Cow<'a, str>>,
    pub(in crate::dialect) usage: Option<Usage>,
}

impl<'a> Chunk<'a> {
    pub(in crate::dialect) fn read(data: &'a [u8]) -> Result<Self, serde_json::Error> {
        let chunk: ChatChunk<'a> = serde_json::from_slice(data)?;
        let choices = chunk.choices.unwrap_or_default().into_iter();
        let choice = choices.into_iter().find(|choice| choice.index == 0);
        let (delta, finish_reason, stop_reason) = choice.map_or((None, None, None), |choice| {
            (choice.delta, choice.finish_reason, choice.stop_reason)
        });
        Ok(Self {
            model: chunk.model.and_then(text).unwrap_or_default(),
            said: delta.as_ref().map(Said::read).unwrap_or_default(),
            finish_reason: finish_reason.map(|reason| reason.0),
            stop_sequence: stop_reason.and_then(text),
            service_tier: chunk.service_tier.and_then(text),
            usage: Usage::read(chunk.usage),
        })
    }
}
