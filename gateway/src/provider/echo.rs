//! The built-in provider: says the last user message again, word by word.
//!
//! It needs no account and no network, so that the main job can be tried on
//! any machine. It answers in OpenAI's wire form and is read by the same code
//! as every other provider; what is measured with it is the real path.

mod vector;
mod words;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use serde::Serialize;

use self::words::Prompt;
use super::{
    Answer, EmbeddingsCall, LocalAnswer, Provider, ProviderCall, ProviderError, Streamed,
    UpstreamRequest, embeddings, openai::OpenAi,
};
use crate::stream::{
    sse_decode::SseEvent,
    sse_encode::{self, DONE},
};

/// The `object` of every chunk.
const CHUNK: &str = "chat.completion.chunk";

/// The adapter; it keeps no state.
#[derive(Clone, Copy, Debug)]
pub struct Echo;

impl Provider for Echo {
    fn encode(&self, call: ProviderCall<'_>) -> Result<UpstreamRequest, ProviderError> {
        let prompt = Prompt::read(call.request);
        let head = Head {
            id: format!("chatcmpl-{}", call.id),
            created: call.time.as_millis() / 1000,
            model: call.target.model.to_owned(),
        };
        Ok(UpstreamRequest::Local(if call.request.stream {
            LocalAnswer {
                content_type: "text/event-stream",
                body: Box::new(Frames {
                    head,
                    prompt,
                    next: Step::Role,
                }),
            }
        } else {
            LocalAnswer {
                content_type: "application/json",
                body: Box::new(std::iter::once(whole(&head, &prompt))),
            }
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
        let (request, dimensions) = (call.request, call.request.dimensions);
        if dimensions.is_some_and(|count| count > vector::DIMENSIONS_MAX) {
            let message = format!("`dimensions` must not exceed {}.", vector::DIMENSIONS_MAX);
            return Err(ProviderError::unsupported("dimensions", message));
        }
        let tokens = request.inputs.iter().map(vector::tokens).sum();
        let vectors = request
            .inputs
            .iter()
            .map(|input| vector::of(input, dimensions));
        let body = embeddings::write(vectors, request.encoding, call.target.model, Some(tokens));
        Ok(UpstreamRequest::Local(LocalAnswer {
            content_type: "application/json",
            body: Box::new(std::iter::once(body)),
        }))
    }

    fn decode_error(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ProviderError {
        OpenAi.decode_error(status, headers, body)
    }
}

/// What every part of an answer repeats.
struct Head {
    id: String,
    created: i64,
    model: String,
}

/// An answer, or a chunk of one, in the order in which `OpenAI` writes its members.
#[derive(Serialize)]
struct Body<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    model: &'a str,
    choices: &'a [Choice<'a>],
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Said<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<Said<'a>>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Said<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are OpenAI's")]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

impl Usage {
    fn of(prompt: &Prompt) -> Self {
        let (input, output) = (prompt.input_tokens(), prompt.output_tokens());
        Self {
            prompt_tokens: input,
            completion_tokens: output,
            total_tokens: input.saturating_add(output),
        }
    }
}

impl Head {
    fn body(&self, object: &'static str, choices: &[Choice<'_>], usage: Option<Usage>) -> Vec<u8> {
        let body = Body {
            id: &self.id,
            object,
            created: self.created,
            model: &self.model,
            choices,
            usage,
        };
        // Strings and numbers: there is nothing in it that JSON could refuse.
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

fn whole(head: &Head, prompt: &Prompt) -> Bytes {
    let choice = Choice {
        index: 0,
        message: Some(Said {
            role: Some("assistant"),
            content: Some(prompt.answer()),
        }),
        delta: None,
        finish_reason: Some(prompt.finish_reason()),
    };
    head.body("chat.completion", &[choice], Some(Usage::of(prompt)))
        .into()
}

/// The frames of a stream, each made when it is asked for.
struct Frames {
    head: Head,
    prompt: Prompt,
    next: Step,
}

/// What comes next in a stream.
#[derive(Clone, Copy)]
enum Step {
    Role,
    /// The word that begins at that byte.
    Word(usize),
    Finish,
    Usage,
    Done,
    Over,
}

impl Iterator for Frames {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let (data, next) = match self.next {
            Step::Role => (self.delta(Some("assistant"), Some("")), Step::Word(0)),
            Step::Word(at) => {
                let Some(word) = self.prompt.word(at) else {
                    self.next = Step::Finish;
                    return self.next();
                };
                (self.delta(None, Some(word)), Step::Word(at + word.len()))
            }
            Step::Finish => (self.delta(None, None), Step::Usage),
            Step::Usage => {
                let usage = Usage::of(&self.prompt);
                (self.head.body(CHUNK, &[], Some(usage)), Step::Done)
            }
            Step::Done => (DONE.to_vec(), Step::Over),
            Step::Over => return None,
        };
        self.next = next;
        let mut out = BytesMut::new();
        sse_encode::frame(&mut out, &data);
        Some(out.freeze())
    }
}

impl Frames {
    /// A chunk that says something; one that says nothing is the last.
    fn delta(&self, role: Option<&'static str>, content: Option<&str>) -> Vec<u8> {
        let finish_reason = content.is_none().then(|| self.prompt.finish_reason());
        let choice = Choice {
            index: 0,
            message: None,
            delta: Some(Said { role, content }),
            finish_reason,
        };
        self.head.body(CHUNK, &[choice], None)
    }
}

#[cfg(test)]
mod tests;
