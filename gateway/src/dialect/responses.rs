//! OpenAI's Responses API.
//!
//! Read from `https://platform.openai.com/docs/api-reference/responses` on 2026-11-28.
//!
//! What stands for what, where it is not plain:
//! - The hub keeps no responses to be referred to: `previous_response_id`, `conversation` and
//!   references to items are refused. `store` and `metadata` are told back and change nothing:
//!   every exchange is recorded.
//! - `truncation`, `background`, `top_logprobs` and obfuscation are taken with the value that asks
//!   for nothing, and refused otherwise; `max_tool_calls` is about tools that run at OpenAI.
//! - `text.verbosity` and `service_tier` go on as chat has them, and the tier that was given comes
//!   back. `parallel_tool_calls` says nothing without tools.
//! - Of `include`, encrypted reasoning is taken and changes nothing: whatever must come back to a
//!   provider stands in the items anyway.
//! - `reasoning.summary` is `auto` or refused: nobody but OpenAI writes summaries to order. One that a
//!   client sends back stands for the reasoning where there is no other.
//! - Tools other than functions run at OpenAI and are refused.
//! - Reasoning that a provider gives in plain text is an item with `reasoning_text`, and goes back
//!   as it came. What is encrypted is what Gemini wants to see again with a function call, or a block of
//!   Anthropic's reasoning with its signature; that goes back to Anthropic, or is refused where it does
//!   not offer the model.

mod input;
mod item;
mod request;
mod response;
mod stream;

use bytes::Bytes;
use http::HeaderMap;

use super::{Asked, Dialect, Events, candidate::Carriers, fields::Fields};
use crate::{limits::estimate::Estimate, protocol::openai::request::BadRequest};

/// The dialect; it keeps no state.
#[derive(Clone, Copy, Debug)]
pub struct Responses;

impl Dialect for Responses {
    fn route(&self) -> &'static str {
        "/v1/responses"
    }

    fn estimate(&self, body: &Fields<'_>) -> Estimate {
        let read = ["input", "instructions", "tools", "text"];
        Estimate::of_members(body.members(), &read, "max_output_tokens")
    }

    fn request(
        &self,
        body: &Fields<'_>,
        _: &HeaderMap,
        carriers: &mut Carriers,
    ) -> Result<Bytes, BadRequest> {
        request::to_chat(body, carriers)
    }

    fn answer(&self, asked: &Asked, chat: &[u8]) -> Result<Bytes, serde_json::Error> {
        response::of_chat(asked, chat)
    }

    fn events(&self, asked: Asked) -> Box<dyn Events> {
        Box::new(stream::ResponseEvents::new(&asked))
    }
}

#[cfg(test)]
mod tests;
