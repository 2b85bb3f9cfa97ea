//! An answer put together from what a provider sent, whole or as far as it came.
//!
//! Chunks carry pieces: text to be appended, objects to be merged, list items
//! that name the index they continue. The same rules as in the official
//! clients: strings are appended, objects merged, items with an `index` merged
//! into the item of that index, anything else replaced; what only names a thing
//! (`id`, `type`, `role`) is replaced. So members of next year's protocol are
//! put together as well.
//!
//! What comes out has the form of a message that was not streamed: list items
//! without `index`, no nulls. A gateway that relays an answer and whoever
//! recovers it from its chunks use this same code.

mod piece;

use std::collections::BTreeMap;

use nexus_events::{
    exchange_event::{AnswerChoice, AnswerContent},
    raw_object::RawObject,
    usage::TokenUsage,
};
use serde_json::value::{RawValue, to_raw_value};

use self::piece::Members;
use super::bounds::{FINISH_REASON_BYTES_MAX, RESPONSE_NAME_BYTES_MAX, USAGE_BYTES_MAX, shortened};
use crate::{
    protocol::openai::{
        response::{CHOICES_MAX, ChatChunk, ChatResponse, usage},
        text,
    },
    provider::Embedded,
};

/// Bytes of an answer as it is put together: 31 MiB, what one event can hold.
pub const ANSWER_BYTES_MAX: usize = 31 * 1024 * 1024;

/// The answer exceeds [`ANSWER_BYTES_MAX`] or [`CHOICES_MAX`], or has too many parts.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("put the answer together: it is too large")]
pub struct AnswerTooLarge;

/// An answer in the making.
#[derive(Debug, Default)]
pub struct Answer {
    id: Option<String>,
    model: Option<String>,
    choices: BTreeMap<u32, Choice>,
    rest: Option<Box<RawValue>>,
    usage: Option<TokenUsage>,
    usage_raw: Option<Box<RawValue>>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Choice {
    finish_reason: Option<String>,
    message: Message,
    rest: Option<Box<RawValue>>,
}

#[derive(Debug)]
enum Message {
    Whole(Box<RawValue>),
    Pieces(Members),
}

impl Default for Message {
    fn default() -> Self {
        Self::Pieces(Members::default())
    }
}

/// One choice, put together.
#[derive(Clone, Debug)]
pub struct AnsweredChoice {
    /// Its index.
    pub index: u32,
    /// Why the provider stopped, if it said so.
    pub finish_reason: Option<String>,
    /// The assistant's message.
    pub message: Box<RawValue>,
    /// What a whole answer says beside it, an object: `logprobs`, verdicts of content filters.
    pub rest: Option<Box<RawValue>>,
}

/// The choices as the terminal event carries them, and what a whole answer says beside them.
///
/// Of an answer that was streamed the chunks have that.
pub fn content<'a>(choices: &'a [AnsweredChoice], rest: Option<&'a RawValue>) -> AnswerContent<'a> {
    let choices = choices.iter().map(|choice| AnswerChoice {
        index: choice.index,
        finish_reason: choice.finish_reason.as_deref().map(Into::into),
        message: &choice.message,
        rest: members(choice.rest.as_deref()),
    });
    AnswerContent {
        choices: choices.collect(),
        rest: members(rest),
    }
}

fn members(object: Option<&RawValue>) -> RawObject<'_> {
    let members = object.and_then(|object| serde_json::from_str(object.get()).ok());
    members.unwrap_or_default()
}

fn owned(members: &RawObject<'_>) -> Option<Box<RawValue>> {
    let some = (!members.is_empty()).then_some(members);
    some.and_then(|members| to_raw_value(members).ok())
}

impl Answer {
    /// Takes a whole answer.
    ///
    /// # Errors
    /// [`AnswerTooLarge`].
    pub fn take(&mut self, response: &ChatResponse<'_>) -> Result<(), AnswerTooLarge> {
        self.identify(response.id, response.model);
        self.count(response.usage);
        check_choices(response.choices.len())?;
        self.rest = owned(&response.rest);
        for choice in &response.choices {
            self.grow(choice.message.get().len())?;
            let finish_reason = choice.finish_reason.as_ref();
            let taken = Choice {
                finish_reason: finish_reason.map(|reason| finish_reason_of(reason.as_str())),
                message: Message::Whole(choice.message.to_owned()),
                rest: owned(&choice.rest),
            };
            self.choices.insert(choice.index, taken);
        }
        Ok(())
    }

    /// Takes what is recorded of embeddings: the model and the usage.
    pub fn take_embeddings(&mut self, embedded: &Embedded) {
        let model = embedded.model.as_deref();
        self.model = model.map(|model| shortened(model, RESPONSE_NAME_BYTES_MAX).to_owned());
        self.usage = embedded.usage;
        self.usage_raw = embedded.usage_raw.clone().filter(|raw| is_usual(raw));
    }

    /// Adds a chunk.
    ///
    /// # Errors
    /// [`AnswerTooLarge`]; the answer then holds what came before.
    pub fn add(&mut self, chunk: &ChatChunk<'_>) -> Result<(), AnswerTooLarge> {
        self.identify(chunk.id, chunk.model);
        self.count(chunk.usage);
        check_choices(chunk.choices.as_ref().map_or(0, Vec::len))?;
        for piece in chunk.choices.iter().flatten() {
            let size = piece.delta.as_ref().map_or(0, piece::size);
            self.grow(size)?;
            let choice = self.choices.entry(piece.index).or_default();
            if let Some(reason) = &piece.finish_reason {
                choice.finish_reason = Some(finish_reason_of(reason.as_str()));
            }
            if let Some(delta) = &piece.delta {
                choice.add(delta)?;
            }
            check_choices(self.choices.len())?;
        }
        Ok(())
    }

    /// The provider's id of the answer.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The model that the provider says it used.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The provider's token counts.
    pub const fn usage(&self) -> Option<TokenUsage> {
        self.usage
    }

    /// The provider's usage block as it came, unless it is larger than any.
    pub fn usage_raw(&self) -> Option<&RawValue> {
        self.usage_raw.as_deref()
    }

    /// Whether the provider has said of every choice why it stopped.
    pub fn is_finished(&self) -> bool {
        !self.choices.is_empty()
            && self
                .choices
                .values()
                .all(|choice| choice.finish_reason.is_some())
    }

    /// Whether nothing was answered.
    pub fn is_empty(&self) -> bool {
        self.choices.is_empty()
    }

    /// Why the provider stopped, one for each choice; empty while it has not said so of all.
    pub fn finish_reasons(&self) -> Vec<String> {
        let reasons = self
            .choices
            .values()
            .map(|choice| choice.finish_reason.clone());
        reasons.collect::<Option<_>>().unwrap_or_default()
    }

    /// The choices put together, in the order of their index.
    pub fn choices(&self) -> Vec<AnsweredChoice> {
        let choices = self.choices.iter().map(|(index, choice)| AnsweredChoice {
            index: *index,
            finish_reason: choice.finish_reason.clone(),
            message: choice.message.to_raw(),
            rest: choice.rest.clone(),
        });
        choices.collect()
    }

    /// What a whole answer says beside its choices and its usage, an object.
    pub fn rest(&self) -> Option<&RawValue> {
        self.rest.as_deref()
    }

    fn identify(&mut self, id: Option<&RawValue>, model: Option<&RawValue>) {
        if self.id.is_none() {
            self.id = id.and_then(name_of);
        }
        if self.model.is_none() {
            self.model = model.and_then(name_of);
        }
    }

    /// Some providers count on in every chunk: the last block is the sum.
    fn count(&mut self, raw: Option<&RawValue>) {
        let Some(raw) = raw else { return };
        if let Some(tokens) = usage(raw) {
            self.usage = Some(tokens);
            self.usage_raw = is_usual(raw).then(|| raw.to_owned());
        } else if self.usage_raw.is_none() && is_usual(raw) {
            self.usage_raw = Some(raw.to_owned());
        }
    }

    fn grow(&mut self, bytes: usize) -> Result<(), AnswerTooLarge> {
        let grown = self.bytes.saturating_add(bytes);
        if grown > ANSWER_BYTES_MAX {
            return Err(AnswerTooLarge);
        }
        self.bytes = grown;
        Ok(())
    }
}

fn check_choices(choices: usize) -> Result<(), AnswerTooLarge> {
    if choices > CHOICES_MAX {
        return Err(AnswerTooLarge);
    }
    Ok(())
}

/// A name that a provider gives its answer, as events carry it.
fn name_of(raw: &RawValue) -> Option<String> {
    let name = text(raw)?;
    Some(shortened(&name, RESPONSE_NAME_BYTES_MAX).to_owned())
}

fn finish_reason_of(said: &str) -> String {
    shortened(said, FINISH_REASON_BYTES_MAX).to_owned()
}

/// Whether a usage block is of a size that events carry.
fn is_usual(usage: &RawValue) -> bool {
    usage.get().len() <= USAGE_BYTES_MAX
}

impl Choice {
    fn add(&mut self, delta: &RawObject<'_>) -> Result<(), AnswerTooLarge> {
        match &mut self.message {
            Message::Pieces(members) => members.merge(delta),
            Message::Whole(_) => Ok(()),
        }
    }
}

impl Message {
    fn to_raw(&self) -> Box<RawValue> {
        match self {
            Self::Whole(raw) => raw.clone(),
            // What was read as JSON can be written as JSON; `null` stands for what cannot be.
            Self::Pieces(members) => {
                to_raw_value(members).unwrap_or_else(|_| RawValue::NULL.to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests;
