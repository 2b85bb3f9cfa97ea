//! From a stream of partial answers to chunks.
//!
//! Each event is an answer of its own with what is new: text, whole function
//! calls, and in the last one of each candidate why it stopped. There is no end
//! mark; the stream has ended when all candidates that were asked for have.

use std::collections::BTreeMap;

use bytes::Bytes;
use nexus_events::{clock::UnixMillis, id::RequestId};
use serde::Deserialize;

use super::{
    super::{
        Asked, ProviderError, Translate,
        translate::answer::{self, FinishReason, Head, Logprobs, Piece, Said, Usage},
    },
    wire::{Candidate, Response, Spoken},
};
use crate::{protocol::openai::response::CHOICES_MAX, stream::sse_decode::SseEvent};

/// One stream under way.
pub(super) struct Translator {
    id: RequestId,
    time: UnixMillis,
    model: String,
    /// How many candidates were asked for.
    asked_for: usize,
    /// What each chunk repeats, since the first event.
    head: Option<Head>,
    candidates: BTreeMap<u32, Progress>,
    usage: Option<Usage>,
}

/// How far a candidate has come.
#[derive(Default)]
struct Progress {
    calls: u32,
    finished: bool,
}

impl Translate for Translator {
    fn event(&mut self, event: &SseEvent, out: &mut Vec<SseEvent>) -> Result<(), ProviderError> {
        if event.data.is_empty() {
            return Ok(());
        }
        self.read(&event.data, out)
    }
}

impl Translator {
    pub(super) fn new(asked: Asked<'_>) -> Self {
        #[derive(Deserialize)]
        struct Body {
            n: Option<usize>,
        }
        let body = serde_json::from_slice::<Body>(asked.body);
        Self {
            id: asked.id,
            time: asked.time,
            model: asked.model.to_owned(),
            asked_for: body.ok().and_then(|body| body.n).unwrap_or(1),
            head: None,
            candidates: BTreeMap::new(),
            usage: None,
        }
    }

    fn read(&mut self, data: &[u8], out: &mut Vec<SseEvent>) -> Result<(), ProviderError> {
        let response = Response::read(data)?;
        let head = self.head(&response);
        self.usage = response.usage().or(self.usage);
        if let Some(refusal) = response.blocked() {
            let delta = Said {
                role: Some("assistant"),
                refusal: Some(&refusal),
                ..Said::default()
            };
            out.push(head.chunk(Piece {
                delta,
                ..Piece::default()
            })?);
            out.push(finish(&head, 0, FinishReason::ContentFilter)?);
            return self.end(&head, out);
        }
        let finished = self.finished();
        for candidate in response.candidates.iter().flatten() {
            self.candidate(&head, candidate, out)?;
        }
        if self.finished() >= self.asked_for {
            return self.end(&head, out);
        }
        // Fewer candidates may come than were asked for: the last one that does brings the sum.
        if let Some(usage) = self.usage.filter(|_| self.finished() > finished) {
            out.push(head.usage(usage)?);
        }
        Ok(())
    }

    fn head(&mut self, response: &Response<'_>) -> Head {
        let asked = Asked {
            id: self.id,
            time: self.time,
            model: &self.model,
            body: &Bytes::new(),
        };
        let head = self.head.get_or_insert_with(|| response.head(asked));
        head.clone()
    }

    fn finished(&self) -> usize {
        let candidates = self.candidates.values();
        candidates.filter(|candidate| candidate.finished).count()
    }

    fn candidate(
        &mut self,
        head: &Head,
        candidate: &Candidate<'_>,
        out: &mut Vec<SseEvent>,
    ) -> Result<(), ProviderError> {
        let index = candidate.index();
        let mut say = |delta: Said<'_>, logprobs: Option<&Logprobs<'_>>| {
            out.push(head.chunk(Piece {
                index,
                delta,
                logprobs,
                ..Piece::default()
            })?);
            Ok::<_, ProviderError>(())
        };
        if !self.candidates.contains_key(&index) {
            if self.candidates.len() >= CHOICES_MAX {
                return Err(disorder());
            }
            say(Said::role(), None)?;
        }
        let progress = self.candidates.entry(index).or_default();
        if progress.finished {
            return Err(disorder());
        }
        let logprobs = candidate.logprobs();
        let mut logprobs = logprobs.as_ref();
        for part in candidate.parts() {
            match part.spoken(self.id, (index, progress.calls))? {
                // The probabilities are those of the event's text, which is mostly one part.
                Spoken::Text(text) => say(Said::content(text), logprobs.take())?,
                Spoken::Thought(text) => say(Said::reasoning(text), None)?,
                Spoken::Call(call) => {
                    let calls = [call.to_openai(Some(progress.calls))];
                    progress.calls = progress.calls.checked_add(1).ok_or_else(disorder)?;
                    say(Said::tool_calls(&calls), None)?;
                }
                Spoken::Nothing => {}
            }
        }
        if logprobs.is_some_and(|logprobs| !logprobs.content.is_empty()) {
            say(Said::default(), logprobs)?;
        }
        if let Some(reason) = candidate.finish_reason(progress.calls > 0)? {
            progress.finished = true;
            out.push(finish(head, index, reason)?);
        }
        Ok(())
    }

    fn end(&self, head: &Head, out: &mut Vec<SseEvent>) -> Result<(), ProviderError> {
        if let Some(usage) = self.usage {
            out.push(head.usage(usage)?);
        }
        out.push(answer::done());
        Ok(())
    }
}

fn finish(head: &Head, index: u32, reason: FinishReason) -> Result<SseEvent, ProviderError> {
    head.chunk(Piece {
        index,
        finish_reason: Some(reason),
        ..Piece::default()
    })
}

/// A stream that says more of a candidate that has ended, or of too many.
fn disorder() -> ProviderError {
    ProviderError::malformed("The provider's stream is not in its proper order.")
}
