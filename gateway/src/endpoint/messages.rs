//! `POST /v1/messages`, and the same without `/v1`: chat for Anthropic's clients.

use axum::{extract::State as Extract, response::Response};

use super::{
    call::Call,
    chat_completions::{Form, serve},
};
use crate::{dialect::messages::Messages, state::State};

/// Asks a model.
pub async fn post(Extract(state): Extract<State>, call: Call) -> Response {
    serve(&state, call, Form::Dialect(&Messages)).await
}
