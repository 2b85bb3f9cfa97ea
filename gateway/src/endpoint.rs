//! The endpoints that programs call: one file for each.

pub mod call;
pub mod chat_completions;
pub mod completions;
pub mod embeddings;
pub mod messages;
pub(crate) mod rejected;
pub mod responses;
pub mod resume;
pub mod ws_chat;
