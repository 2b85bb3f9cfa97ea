//! Answers as Anthropic sends them, whole or event by event.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::translate::answer;
use crate::protocol::{at_most, openai::Text};

/// Blocks of one message: 4 096. An answer has some ten, and each takes many times its text.
pub(super) const BLOCKS_MAX: usize = 4_096;

/// A message: a whole answer, or the beginning of a streamed one.
#[derive(Deserialize)]
pub(super) struct Message<'a> {
    #[serde(borrow, default)]
    pub(super) error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) model: Option<Text<'a>>,
    #[serde(
        borrow,
        default,
        deserialize_with = "at_most::optional::<_, _, BLOCKS_MAX>"
    )]
    pub(super) content: Option<Vec<Block<'a>>>,
    #[serde(borrow, default)]
    pub(super) stop_reason: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) stop_sequence: Option<Text<'a>>,
    #[serde(default)]
    pub(super) usage: Option<Usage>,
}

/// A block of a message's content, of any kind.
#[derive(Deserialize)]
pub(super) struct Block<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(borrow, default)]
    pub(super) text: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) thinking: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) signature: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) data: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) input: Option<&'a RawValue>,
}

/// An event of a stream, of any kind.
#[derive(Deserialize)]
pub(super) struct Event<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(borrow, default)]
    pub(super) message: Option<Message<'a>>,
    #[serde(default)]
    pub(super) index: Option<u64>,
    #[serde(borrow, default)]
    pub(super) content_block: Option<Block<'a>>,
    #[serde(borrow, default)]
    pub(super) delta: Option<Delta<'a>>,
    #[serde(default)]
    pub(super) usage: Option<Usage>,
    #[serde(borrow, default)]
    pub(super) error: Option<&'a RawValue>,
}

/// What an event adds to a block, or to the message.
#[derive(Deserialize)]
pub(super) struct Delta<'a> {
    #[serde(borrow, default)]
    pub(super) text: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) thinking: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) signature: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) partial_json: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) stop_reason: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) stop_sequence: Option<Text<'a>>,
}

/// The tokens of an answer; each event of a stream tells those that it knows.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the names are Anthropic's")]
pub(super) struct Usage {
    input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    output_tokens: Option<u64>,
}

impl Usage {
    /// Counts are sums: a later one takes the place of an earlier one.
    pub(super) fn update(&mut self, later: Self) {
        for (ours, later) in [
            (&mut self.input_tokens, later.input_tokens),
            (
                &mut self.cache_creation_input_tokens,
                later.cache_creation_input_tokens,
            ),
            (
                &mut self.cache_read_input_tokens,
                later.cache_read_input_tokens,
            ),
            (&mut self.output_tokens, later.output_tokens),
        ] {
            *ours = later.or(*ours);
        }
    }

    /// `input_tokens` leaves out what the cache took or gave; OpenAI counts the whole prompt.
    ///
    /// `None` where the provider did not count: no number is better than zero.
    pub(super) fn to_openai(self) -> Option<answer::Usage> {
        let cached = self.cache_read_input_tokens.unwrap_or(0);
        let created = self.cache_creation_input_tokens.unwrap_or(0);
        let prompt = self
            .input_tokens?
            .saturating_add(created)
            .saturating_add(cached);
        let usage = answer::Usage::new(prompt, cached, self.output_tokens?);
        Some(usage.with_cache_creation(created))
    }
}

/// Why the model stopped, in OpenAI's words.
pub(super) fn finish_reason(stop_reason: &str) -> answer::FinishReason {
    match stop_reason {
        "max_tokens" | "model_context_window_exceeded" => answer::FinishReason::Length,
        "tool_use" => answer::FinishReason::ToolCalls,
        "refusal" => answer::FinishReason::ContentFilter,
        // `end_turn`, `stop_sequence`; whatever comes to be added, the model has stopped.
        _ => answer::FinishReason::Stop,
    }
}
