//! `POST /v1/completions`, and the same without `/v1`: the form before chat.

use axum::{extract::State as Extract, response::Response};

use super::{
    call::Call,
    chat_completions::{Form, serve},
};
use crate::{dialect::completions::Completions, state::State};

/// Asks a model.
pub async fn post(Extract(state): Extract<State>, call: Call) -> Response {
    serve(&state, call, Form::Dialect(&Completions)).await
}
