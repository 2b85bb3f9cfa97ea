//! Anthropic's Messages API, so that Anthropic's clients reach every provider.
//!
//! Read from `https://platform.claude.com/docs/en/api/messages` on 2026-11-28.
//!
//! What stands for what, where it is not plain:
//! - `top_k`, `thinking` that is not disabled, and reasoning with a signature of Anthropic's go on
//!   as they came, to those providers only that understand them (`candidate.rs`); where none
//!   of the model's does, they are refused.
//! - Marks for the cache choose such a provider where there is one. Where there is none they mean
//!   nothing and are left out: clients set them without knowing who answers, and they change what
//!   an answer costs, not what it says.
//! - Reasoning of other providers becomes a block of thinking whose signature names the member
//!   that it came in. A client that sends it back, as the API asks it to, returns it to that member;
//!   where nobody can take it there, it is left out, as the API itself does with older thoughts.
//! - What Gemini wants to see again with a tool call is redacted thinking before that call. It goes
//!   back to Gemini, and means nothing to others.
//! - The result of a tool that failed goes, with its `is_error`, to a provider that has a member for
//!   it (Anthropic, Gemini) where one offers the model; for others it begins with the line `Error:`.
//! - Documents other than PDFs in base64, search results, `context_management` and the service tier
//!   `standard_only` go on as they came, to Anthropic only. Citations are refused, because the form
//!   of chat has no place for those of an answer, and so are edits that compact a conversation.
//! - The betas that the header `anthropic-beta` names choose Anthropic where it offers the model. They
//!   only allow what members of the body ask for, so elsewhere they are left out.
//! - A stream begins before anybody has counted its prompt: `message_start` says 0 tokens, and
//!   `message_delta` says how many there were. Where the provider does not count, that is 0 as
//!   well, and the hub's own count is in the statistics.

mod answer;
mod blocks;
mod document;
pub(crate) mod error;
mod request;
mod stream;

use bytes::Bytes;
use http::HeaderMap;

use super::{Asked, Dialect, Events, candidate::Carriers, fields::Fields};
use crate::{limits::estimate::Estimate, protocol::openai::request::BadRequest};

/// The dialect; it keeps no state.
#[derive(Clone, Copy, Debug)]
pub struct Messages;

impl Dialect for Messages {
    fn route(&self) -> &'static str {
        "/v1/messages"
    }

    fn estimate(&self, body: &Fields<'_>) -> Estimate {
        let read = ["messages", "system", "tools", "output_config"];
        Estimate::of_members(body.members(), &read, "max_tokens")
    }

    fn request(
        &self,
        body: &Fields<'_>,
        headers: &HeaderMap,
        carriers: &mut Carriers,
    ) -> Result<Bytes, BadRequest> {
        request::to_chat(body, headers, carriers)
    }

    fn answer(&self, asked: &Asked, chat: &[u8]) -> Result<Bytes, serde_json::Error> {
        answer::of_chat(asked, chat)
    }

    fn events(&self, mut asked: Asked) -> Box<dyn Events> {
        // Not kept for as long as the stream lasts.
        asked.body = Bytes::new();
        Box::new(stream::MessageEvents::new(asked))
    }
}

#[cfg(test)]
mod tests;
