//! From an answer of version 1 to a chat completion, whole or chunk by chunk.

use bytes::Bytes;
use nexus_events::{clock::UnixMillis, id::RequestId};
use serde::Deserialize;

use super::super::{
    Asked, ProviderError, Translate, ernie,
    translate::{
        self,
        answer::{self, Choice, FinishReason, FunctionCall, Head, Piece, Said, ToolCall, Usage},
    },
};
use crate::{protocol::openai::Text, stream::sse_decode::SseEvent};

/// An answer, or an event of a stream.
#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
    #[serde(borrow, default)]
    result: Option<Text<'a>>,
    #[serde(borrow, default)]
    function_call: Option<Called<'a>>,
    #[serde(borrow, default)]
    finish_reason: Option<Text<'a>>,
    #[serde(default)]
    is_truncated: Option<bool>,
    /// The input was found unsafe: `result` says so, and the conversation should end.
    #[serde(default)]
    need_clear_history: Option<bool>,
    #[serde(default)]
    sentence_id: Option<u64>,
    #[serde(default)]
    is_end: Option<bool>,
    #[serde(default)]
    usage: Option<Tokens>,
}

#[derive(Deserialize)]
struct Called<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow, default)]
    arguments: Option<Text<'a>>,
    #[serde(borrow, default)]
    thoughts: Option<Text<'a>>,
}

#[derive(Clone, Copy, Deserialize)]
struct Tokens {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
}

impl<'a> Response<'a> {
    fn read(json: &'a [u8]) -> Result<Self, ProviderError> {
        if let Some(error) = ernie::object(json) {
            return Err(ernie::reported(error));
        }
        translate::read(json)
    }

    fn text(&self) -> Option<&str> {
        let text = self.result.as_ref().map(Text::as_str);
        text.filter(|text| !text.is_empty())
    }

    fn usage(&self) -> Option<Usage> {
        let usage = self.usage?;
        Some(Usage::new(usage.prompt_tokens, 0, usage.completion_tokens))
    }

    fn head(&self, asked: Asked<'_>) -> Head {
        Head::new(asked, self.id.as_ref().map(Text::as_str), None)
    }

    /// Why it ended; `called`: whether it called a function.
    fn finish(&self, called: bool) -> FinishReason {
        let reason = self.finish_reason.as_ref().map(Text::as_str);
        match reason {
            _ if self.need_clear_history == Some(true) => FinishReason::ContentFilter,
            Some("content_filter") => FinishReason::ContentFilter,
            Some("length") => FinishReason::Length,
            _ if self.is_truncated == Some(true) => FinishReason::Length,
            _ if called => FinishReason::ToolCalls,
            _ => FinishReason::Stop,
        }
    }
}

impl Called<'_> {
    fn to_openai<'a>(&'a self, id: &'a str, index: Option<u32>) -> ToolCall<'a> {
        ToolCall {
            index,
            id: Some(id),
            kind: Some("function"),
            function: FunctionCall {
                name: Some(self.name.as_str()),
                arguments: self.arguments.as_ref().map_or("{}", Text::as_str),
            },
            extra_content: None,
        }
    }

    fn thoughts(&self) -> Option<&str> {
        let thoughts = self.thoughts.as_ref().map(Text::as_str);
        thoughts.filter(|thoughts| !thoughts.is_empty())
    }
}

/// The provider gives calls no id; an answer holds one at most.
fn call_id(request: RequestId) -> String {
    format!("call_{request}")
}

/// Whether an answer begins with an error that says so of the access token: 110 is one that is
/// not valid, 111 one that has expired.
pub(super) fn refuses_token(beginning: &[u8]) -> bool {
    let json = beginning.trim_ascii();
    let json = json.strip_prefix(b"data:").unwrap_or(json);
    let code = ernie::object(json.trim_ascii()).and_then(|error| error.code);
    matches!(code.as_deref(), Some("110" | "111"))
}

/// The answer in OpenAI's form.
///
/// # Errors
/// [`ProviderError`]: it is none, or an error in disguise.
pub(super) fn translate(asked: Asked<'_>, body: &[u8]) -> Result<Bytes, ProviderError> {
    let response = Response::read(body)?;
    let called = response.function_call.as_ref();
    if response.result.is_none() && called.is_none() {
        let message = "The provider's answer holds no result.";
        return Err(ProviderError::malformed(message));
    }
    let id = call_id(asked.id);
    let calls: Vec<ToolCall<'_>> = called
        .map(|call| call.to_openai(&id, None))
        .into_iter()
        .collect();
    let thoughts = called.and_then(Called::thoughts);
    let choice = Choice {
        index: 0,
        message: Said::whole(response.text(), thoughts, &calls),
        logprobs: None,
        finish_reason: response.finish(called.is_some()),
        stop_reason: None,
    };
    response.head(asked).whole(&[choice], response.usage())
}

/// One stream under way.
pub(super) struct Translator {
    id: RequestId,
    time: UnixMillis,
    model: String,
    /// What each chunk repeats, since the first event.
    head: Option<Head>,
    /// The number of the last event.
    sentence: Option<u64>,
    called: bool,
    ended: bool,
    usage: Option<Usage>,
}

impl Translator {
    pub(super) fn new(asked: Asked<'_>) -> Self {
        Self {
            id: asked.id,
            time: asked.time,
            model: asked.model.to_owned(),
            head: None,
            sentence: None,
            called: false,
            ended: false,
            usage: None,
        }
    }

    fn read(&mut self, data: &[u8], out: &mut Vec<SseEvent>) -> Result<(), ProviderError> {
        let response = Response::read(data)?;
        let is_earlier = |number| self.sentence.is_some_and(|last| number <= last);
        if self.ended || response.sentence_id.is_some_and(is_earlier) {
            let message = "The provider's stream is not in its proper order.";
            return Err(ProviderError::malformed(message));
        }
        self.sentence = response.sentence_id.or(self.sentence);
        self.usage = response.usage().or(self.usage);
        let is_first = self.head.is_none();
        let asked = Asked {
            id: self.id,
            time: self.time,
            model: &self.model,
            body: &Bytes::new(),
        };
        let head = self
            .head
            .get_or_insert_with(|| response.head(asked))
            .clone();
        let mut say = |delta: Said<'_>| {
            let piece = Piece {
                delta,
                ..Piece::default()
            };
            out.push(head.chunk(piece)?);
            Ok::<_, ProviderError>(())
        };
        if is_first {
            say(Said::role())?;
        }
        if let Some(text) = response.text() {
            say(Said::content(text))?;
        }
        if let Some(call) = response.function_call.as_ref().filter(|_| !self.called) {
            self.called = true;
            if let Some(thoughts) = call.thoughts() {
                say(Said::reasoning(thoughts))?;
            }
            let id = call_id(self.id);
            say(Said::tool_calls(&[call.to_openai(&id, Some(0))]))?;
        }
        if response.is_end == Some(true) {
            self.ended = true;
            out.push(head.chunk(Piece {
                finish_reason: Some(response.finish(self.called)),
                ..Piece::default()
            })?);
            out.extend(self.usage.map(|usage| head.usage(usage)).transpose()?);
            out.push(answer::done());
        }
        Ok(())
    }
}

impl Translate for Translator {
    fn event(&mut self, event: &SseEvent, out: &mut Vec<SseEvent>) -> Result<(), ProviderError> {
        if event.data.is_empty() {
            return Ok(());
        }
        self.read(&event.data, out)
    }
}
