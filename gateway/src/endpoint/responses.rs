//! `POST /v1/responses`, and the same without `/v1`: OpenAI's newer form.

use axum::{extract::State as Extract, response::Response};

use super::{
    call::Call,
    chat_completions::{Form, serve},
};
use crate::{dialect::responses::Responses, state::State};

/// Asks a model.
pub async fn post(Extract(state): Extract<State>, call: Call) -> Response {
    serve(&state, call, Form::Dialect(&Responses)).await
}
