//! From a whole answer to a chat completion.

use bytes::Bytes;
use nexus_events::id::RequestId;

use super::{
    super::{
        Asked, ProviderError,
        translate::answer::{Choice, Content, FinishReason, Logprobs, Said, ToolCall},
    },
    wire::{Call, Candidate, Response, Spoken},
};

/// The answer in OpenAI's form.
///
/// # Errors
/// [`ProviderError`]: it is none, or an error in disguise.
pub(super) fn translate(asked: Asked<'_>, body: &[u8]) -> Result<Bytes, ProviderError> {
    let response = Response::read(body)?;
    let head = response.head(asked);
    if let Some(refusal) = response.blocked() {
        let choice = Choice {
            index: 0,
            message: Said {
                role: Some("assistant"),
                content: Some(Content::Null),
                refusal: Some(&refusal),
                ..Said::default()
            },
            logprobs: None,
            finish_reason: FinishReason::ContentFilter,
            stop_reason: None,
        };
        return head.whole(&[choice], response.usage());
    }
    let candidates = response.candidates.iter().flatten();
    let answers: Vec<Answered<'_>> = candidates
        .map(|candidate| Answered::of(candidate, asked.id))
        .collect::<Result<_, _>>()?;
    if answers.is_empty() {
        return Err(unfinished());
    }
    let calls: Vec<Vec<ToolCall<'_>>> = answers
        .iter()
        .map(|answer| {
            answer
                .calls
                .iter()
                .map(|call| call.to_openai(None))
                .collect()
        })
        .collect();
    let choices = answers.iter().zip(&calls).map(|(answer, calls)| Choice {
        index: answer.index,
        message: Said::whole(answer.text.as_deref(), answer.thoughts.as_deref(), calls),
        logprobs: answer.logprobs.as_ref(),
        finish_reason: answer.finish_reason,
        stop_reason: None,
    });
    let choices: Vec<Choice<'_>> = choices.collect();
    head.whole(&choices, response.usage())
}

/// A candidate put together.
struct Answered<'a> {
    index: u32,
    text: Option<String>,
    thoughts: Option<String>,
    calls: Vec<Call<'a>>,
    logprobs: Option<Logprobs<'a>>,
    finish_reason: FinishReason,
}

impl<'a> Answered<'a> {
    fn of(candidate: &'a Candidate<'a>, request: RequestId) -> Result<Self, ProviderError> {
        let index = candidate.index();
        let (mut text, mut thoughts): (Option<String>, Option<String>) = (None, None);
        let mut calls = Vec::new();
        for part in candidate.parts() {
            let number = u32::try_from(calls.len()).unwrap_or(u32::MAX);
            match part.spoken(request, (index, number))? {
                Spoken::Text(piece) => *text.get_or_insert_default() += piece,
                Spoken::Thought(piece) => *thoughts.get_or_insert_default() += piece,
                Spoken::Call(call) => calls.push(call),
                Spoken::Nothing => {}
            }
        }
        let finish_reason = candidate
            .finish_reason(!calls.is_empty())?
            .ok_or_else(unfinished)?;
        Ok(Self {
            index,
            text,
            thoughts,
            calls,
            logprobs: candidate.logprobs(),
            finish_reason,
        })
    }
}

fn unfinished() -> ProviderError {
    ProviderError::malformed("The provider's answer holds no finished candidate.")
}
