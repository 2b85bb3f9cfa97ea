//! A request in a dialect, from what lets it in to the chat request that it becomes.

use bytes::Bytes;
use http::HeaderMap;

use super::{Dialect, candidate::Carriers, fields::Fields};
use crate::{
    configuration::Candidate,
    exchange::Outline,
    protocol::openai::request::{self, BadRequest},
};

/// A body whose members are known and not read yet.
#[derive(Debug)]
pub(crate) struct Spoken<'a> {
    dialect: &'static dyn Dialect,
    fields: Fields<'a>,
}

/// What a body has become.
#[derive(Debug)]
pub(crate) struct Chat {
    /// The chat request.
    pub(crate) body: Bytes,
    carriers: Carriers,
}

impl<'a> Spoken<'a> {
    /// Reads as much of a body as of a chat request is read before it is let in.
    ///
    /// # Errors
    /// [`BadRequest`]: it is no JSON object, or names a member twice.
    pub(crate) fn read(dialect: &'static dyn Dialect, body: &'a [u8]) -> Result<Self, BadRequest> {
        let fields = Fields::of_body(body)?;
        Ok(Self { dialect, fields })
    }

    /// What lets it in.
    ///
    /// # Errors
    /// [`BadRequest`]: it names no model.
    pub(crate) fn outline(&self) -> Result<Outline<'a>, BadRequest> {
        Ok(Outline {
            model: request::model(self.fields.members())?,
            estimate: self.dialect.estimate(&self.fields),
            // Who can carry it is known later.
            wants_room: false,
        })
    }

    /// The chat request that says the same.
    ///
    /// # Errors
    /// [`BadRequest`]: a member is wrong, has no counterpart, or nobody can carry it.
    pub(crate) fn chat<'c>(
        &self,
        headers: &HeaderMap,
        candidates: impl Iterator<Item = &'c Candidate>,
    ) -> Result<Chat, BadRequest> {
        let mut carriers = Carriers::of(candidates);
        let body = self.dialect.request(&self.fields, headers, &mut carriers)?;
        Ok(Chat { body, carriers })
    }
}

impl Chat {
    /// Whether a candidate can carry it.
    pub(crate) fn is_carried_by(&self, candidate: &Candidate) -> bool {
        self.carriers.has(candidate)
    }
}
