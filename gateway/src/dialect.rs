//! Other ways of asking a model than chat completions: Anthropic's messages, and OpenAI's older
//! and newer forms.
//!
//! *What it is.* A dialect is a pair of translations between its own form and that of chat
//! completions, in which the engine speaks to every provider. The endpoint translates the request,
//! hands it to the same engine as any chat request, and translates what comes back. So routing,
//! limits, recording and the end of an exchange are the same for all of them, and chat itself pays
//! nothing. What is recorded is the chat request, under the dialect's own path.
//!
//! *What it promises.* What the form of chat completions has no counterpart for is refused by its
//! name, never dropped in silence. A stream ends with its dialect's own end, with an error in the
//! dialect's words, or is broken off: a client never takes half an answer for a whole one.
//!
//! *What it never does.* It does no IO and keeps nothing beside what one stream needs.

mod again;
mod body;
mod candidate;
mod chat;
pub mod completions;
mod fields;
mod keepsake;
pub mod messages;
pub mod responses;
#[cfg(test)]
mod sdk_members;
mod spoken;
#[cfg(test)]
mod testing;

use std::fmt;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use nexus_events::{clock::UnixMillis, id::RequestId};

pub(crate) use self::{again::asked_again, body::Translated, spoken::Spoken};
use self::{candidate::Carriers, chat::Chunk, fields::Fields};
use crate::{
    limits::estimate::Estimate,
    protocol::openai::{request::BadRequest, response::ErrorObject},
};

/// What the translation of an answer needs of its request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The hub's id of the request.
    pub id: RequestId,
    /// When it came.
    pub time: UnixMillis,
    /// The body, in the dialect.
    pub body: Bytes,
}

/// A way of asking a model: pure functions between its form and that of chat completions.
pub(crate) trait Dialect: Send + Sync + fmt::Debug {
    /// The endpoint's path, as events name it.
    fn route(&self) -> &'static str;

    /// What the request may use, guessed without reading it to the last member.
    fn estimate(&self, body: &Fields<'_>) -> Estimate;

    /// The chat request that says the same, for those who can carry it. The headers may say a part.
    ///
    /// # Errors
    /// [`BadRequest`]: a member is wrong, chat completions have no counterpart for it, or nobody
    /// who offers the model can carry it.
    fn request(
        &self,
        body: &Fields<'_>,
        headers: &HeaderMap,
        carriers: &mut Carriers,
    ) -> Result<Bytes, BadRequest>;

    /// A whole chat answer in the dialect's form.
    ///
    /// # Errors
    /// It is no chat completion.
    fn answer(&self, asked: &Asked, chat: &[u8]) -> Result<Bytes, serde_json::Error>;

    /// What turns the chunks of one chat stream into the dialect's events.
    fn events(&self, asked: Asked) -> Box<dyn Events>;
}

/// Turns the chunks of one chat stream into a dialect's events.
pub(crate) trait Events: Send {
    /// Appends what a chunk says.
    fn chunk(&mut self, chunk: &Chunk<'_>, out: &mut BytesMut);

    /// Appends the end of an answer that came whole.
    fn done(&mut self, out: &mut BytesMut);

    /// Appends the end of an answer that failed.
    fn failed(&mut self, error: &ErrorObject, out: &mut BytesMut);
}
