//! What the echo provider says, and how it counts: a word is a token.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::protocol::openai::{request::ChatRequest, text};

/// The longest answer: 1 MiB.
///
/// Every model has an output limit; this one keeps the events of one request
/// below a quarter of a million.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// The text to say, and the counts.
#[derive(Debug)]
pub(super) struct Prompt {
    text: String,
    /// Bytes of the text that are said.
    end: usize,
    input_tokens: u64,
}

impl Prompt {
    /// The last user message; the last message of all where no user speaks.
    pub(super) fn read(request: &ChatRequest<'_>) -> Self {
        let messages: Vec<(bool, String)> = request.messages.iter().map(|raw| said(raw)).collect();
        let input_tokens = messages.iter().map(|(_, text)| words(text)).sum();
        let last = messages.iter().rposition(|(is_user, _)| *is_user);
        let last = last.unwrap_or(messages.len().saturating_sub(1));
        let text = messages.into_iter().nth(last).map(|(_, text)| text);
        let text = text.unwrap_or_default();
        let end = end(&text, max_tokens(request));
        Self {
            text,
            end,
            input_tokens,
        }
    }

    /// The whole answer.
    pub(super) fn answer(&self) -> &str {
        self.text.get(..self.end).unwrap_or_default()
    }

    /// The word that begins at a byte, with the blanks after it; `None` at the end.
    pub(super) fn word(&self, at: usize) -> Option<&str> {
        let rest = self.answer().get(at..).filter(|rest| !rest.is_empty())?;
        rest.get(..word_end(rest))
    }

    pub(super) fn finish_reason(&self) -> &'static str {
        if self.end < self.text.len() {
            "length"
        } else {
            "stop"
        }
    }

    pub(super) const fn input_tokens(&self) -> u64 {
        self.input_tokens
    }

    pub(super) fn output_tokens(&self) -> u64 {
        words(self.answer())
    }
}

/// Bytes of the first word: blanks before it, itself, blanks after it.
fn word_end(rest: &str) -> usize {
    let word = rest.len() - rest.trim_start().len();
    let after = rest
        .get(word..)
        .and_then(|rest| rest.find(char::is_whitespace))
        .map_or(rest.len(), |length| word + length);
    let tail = rest.get(after..).unwrap_or_default();
    after + (tail.len() - tail.trim_start().len())
}

fn end(text: &str, tokens_max: u64) -> usize {
    let mut end = 0;
    let mut tokens = 0;
    while tokens < tokens_max && end < text.len() {
        let next = end + text.get(end..).map_or(0, word_end);
        if next > ANSWER_BYTES_MAX {
            break;
        }
        end = next;
        tokens += 1;
    }
    end
}

fn words(text: &str) -> u64 {
    u64::try_from(text.split_whitespace().count()).unwrap_or(u64::MAX)
}

fn max_tokens(request: &ChatRequest<'_>) -> u64 {
    ["max_completion_tokens", "max_tokens"]
        .into_iter()
        .filter_map(|name| request.members.get(name))
        .find_map(|raw| raw.get().parse().ok())
        .unwrap_or(u64::MAX)
}

/// Whether a user says it, and the text of its content.
fn said(raw: &RawValue) -> (bool, String) {
    #[derive(Deserialize)]
    struct Message<'a> {
        role: String,
        #[serde(borrow, default)]
        content: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Part {
        #[serde(default)]
        text: Option<String>,
    }
    let Ok(message) = serde_json::from_str::<Message<'_>>(raw.get()) else {
        return (false, String::new());
    };
    let content = message.content.map(|content| {
        text(content).map_or_else(
            || {
                let parts: Vec<Part> = serde_json::from_str(content.get()).unwrap_or_default();
                parts.into_iter().filter_map(|part| part.text).collect()
            },
            std::borrow::Cow::into_owned,
        )
    });
    (message.role == "user", content.unwrap_or_default())
}
