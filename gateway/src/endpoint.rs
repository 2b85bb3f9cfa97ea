//! The endpoints that programs call: one file for each.

pub mod chat_completions;
mod rejected;
pub mod resume;
