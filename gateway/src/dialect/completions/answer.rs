//! A chat answer, or a chunk of one, as a completion.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;

use super::super::{
    Asked,
    chat::{Answer, Said, Usage as ChatUsage},
};

#[derive(Serialize)]
struct Body<'a> {
    id: String,
    object: &'static str,
    created: i64,
    model: &'a str,
    choices: &'a [Choice<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
pub(super) struct Choice<'a> {
    text: &'a str,
    index: u32,
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are OpenAI's")]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

impl<'a> Choice<'a> {
    pub(super) const fn new(text: &'a str, finish_reason: Option<&'static str>) -> Self {
        Self {
            text,
            index: 0,
            logprobs: None,
            finish_reason,
        }
    }
}

/// The completion that says the same as a chat completion.
pub(super) fn of_chat(asked: &Asked, chat: &[u8]) -> Result<Bytes, serde_json::Error> {
    let answer = Answer::read(chat)?;
    let text = text(&answer.said);
    let choice = Choice::new(&text, Some(finish_reason(&answer.finish_reason)));
    Ok(body(asked, &answer.model, &[choice], answer.usage).into())
}

/// What is said, also where the model would rather not.
pub(super) fn text<'a>(said: &'a Said<'_>) -> Cow<'a, str> {
    if said.refusal.is_empty() {
        Cow::Borrowed(&said.text)
    } else {
        format!("{}{}", said.text, said.refusal).into()
    }
}

/// A completion, or a chunk of one.
pub(super) fn body(
    asked: &Asked,
    model: &str,
    choices: &[Choice<'_>],
    usage: Option<ChatUsage>,
) -> Vec<u8> {
    let body = Body {
        id: format!("cmpl-{}", asked.id),
        object: "text_completion",
        created: asked.time.as_millis() / 1000,
        model,
        choices,
        usage: usage.map(|usage| Usage {
            prompt_tokens: usage.prompt,
            completion_tokens: usage.completion,
            total_tokens: usage.prompt.saturating_add(usage.completion),
        }),
    };
    // Strings and numbers: there is nothing in it that JSON could refuse.
    serde_json::to_vec(&body).unwrap_or_default()
}

/// Why an answer ended: the old API knew no tools.
pub(super) fn finish_reason(reason: &str) -> &'static str {
    match reason {
        "length" => "length",
        "content_filter" => "content_filter",
        _ => "stop",
    }
}
