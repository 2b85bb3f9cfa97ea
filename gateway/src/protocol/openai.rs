//! OpenAI's chat completions and embeddings, as clients send them and providers answer.
//!
//! Read from `https://platform.openai.com/docs/api-reference/chat` on
//! 2026-11-24. Requests are read strictly where routing and recording depend
//! on them and not at all elsewhere; answers are read as far as recording
//! needs. All of it borrows from the bytes that it was read from.

pub mod embeddings;
pub mod request;
pub mod response;

use std::borrow::Cow;

use serde::Deserialize;

/// A JSON string, borrowed where it has no escapes.
///
/// `Option<Cow<str>>` would always copy: serde borrows a `Cow` only where it is
/// a member itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl Text<'_> {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The string that a raw value is; `None` when it is something else.
pub fn text(raw: &serde_json::value::RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(raw.get())
        .ok()
        .map(|text| text.0)
}

/// Whether a raw value is `null`.
pub fn is_null(raw: &serde_json::value::RawValue) -> bool {
    raw.get() == "null"
}
