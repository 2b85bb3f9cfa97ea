//! `POST /v1/embeddings`, and the same without `/v1`.
//!
//! The request is what `OpenAI` documents. It is recorded with its usage and without the vectors,
//! and belongs to no conversation.

use axum::{extract::State as Extract, response::Response};

use super::{
    call::Call,
    chat_completions::{Form, serve},
};
use crate::state::State;

/// Asks for embeddings.
pub async fn post(Extract(state): Extract<State>, call: Call) -> Response {
    serve(&state, call, Form::Embeddings).await
}
