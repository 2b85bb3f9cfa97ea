//! The endpoints that programs call: one file for each.

pub mod chat_completions;
pub(crate) mod rejected;
pub mod resume;
pub mod ws_chat;
