//! Baidu's ERNIE (文心一言) on Qianfan: OpenAI's protocol with errors of its own.
//!
//! Read from `https://cloud.baidu.com/doc/qianfan-api` on 2026-11-28: version 2
//! of the API, with a bearer key. Version 1, with its access token that is
//! drawn from two keys and expires, is [`super::ernie_v1`]; the errors are the
//! same.
//!
//! Some errors come with a status of 200, in one of three forms:
//! `{"error": {"code", "message", "type"}}`, the same without `error` around it,
//! and version 1's `{"error_code", "error_msg"}`.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Answer, Asked, Embedded, EmbeddingsCall, Provider, ProviderCall, ProviderError, Retry,
    Streamed, UpstreamRequest, openai::OpenAi,
};
use crate::{
    protocol::openai::{
        Text,
        response::{ERROR_OBJECT_MAX, ErrorObject},
        text,
    },
    stream::sse_decode::SseEvent,
};

/// The adapter; it keeps no state.
#[derive(Clone, Copy, Debug)]
pub struct Ernie;

impl Provider for Ernie {
    fn encode(&self, call: ProviderCall<'_>) -> Result<UpstreamRequest, ProviderError> {
        OpenAi.encode(call)
    }

    fn decode_response<'a>(&self, body: &'a Bytes) -> Result<Answer<'a>, ProviderError> {
        OpenAi
            .decode_response(body)
            .map_err(|error| match object(body) {
                // Where OpenAI's form had an error in it, that one stands.
                Some(object) if error.object.is_none() => reported(object),
                _ => error,
            })
    }

    fn decode_chunk<'a>(&self, event: &'a SseEvent) -> Result<Streamed<'a>, ProviderError> {
        let decoded = OpenAi.decode_chunk(event)?;
        // An error in place of a chunk has no choices; looking for one costs nothing elsewhere.
        if let Streamed::Chunk(chunk) = &decoded
            && chunk.parsed.choices.is_none()
            && let Some(object) = object(&event.data)
        {
            return Err(reported(object));
        }
        Ok(decoded)
    }

    fn encode_embeddings(
        &self,
        call: EmbeddingsCall<'_>,
    ) -> Result<UpstreamRequest, ProviderError> {
        OpenAi.encode_embeddings(call)
    }

    fn decode_embeddings(&self, asked: Asked<'_>, body: Bytes) -> Result<Embedded, ProviderError> {
        match object(&body) {
            Some(object) => Err(reported(object)),
            None => OpenAi.decode_embeddings(asked, body),
        }
    }

    fn decode_error(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ProviderError {
        let mut error = OpenAi.decode_error(status, headers, body);
        if let Some(object) = object(body) {
            error.object = Some(Box::new(object));
        }
        error
    }
}

/// The error that a body is, in one of the forms without `error` around it.
pub(super) fn object(body: &[u8]) -> Option<ErrorObject> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow, default, alias = "error_code")]
        code: Option<&'a RawValue>,
        #[serde(borrow, default, alias = "error_msg")]
        message: Option<Text<'a>>,
        #[serde(borrow, default, rename = "type")]
        kind: Option<Text<'a>>,
    }
    // Answers are looked at as well: what is so large is no error.
    if body.len() > ERROR_OBJECT_MAX {
        return None;
    }
    let body: Body<'_> = serde_json::from_slice(body).ok()?;
    let code = body.code?;
    // A number in the one form, a name in the other; zero means success.
    let code = text(code).map_or_else(|| code.get().to_owned(), Cow::into_owned);
    if matches!(code.as_str(), "0" | "" | "null") {
        return None;
    }
    Some(ErrorObject {
        message: body.message?.0.into_owned(),
        kind: body.kind.map(|kind| kind.0.into_owned()),
        code: Some(code),
        param: None,
    })
}

/// An error that came with a status of 200, with the status that it should have had.
pub(super) fn reported(object: ErrorObject) -> ProviderError {
    let code = object.code.as_deref().unwrap_or_default();
    let status = match code {
        // The key: unknown, expired, without permission.
        "6" | "13" | "14" | "100" | "110" | "111" | "invalid_iam_token" | "invalid_appid" => {
            Some(StatusCode::UNAUTHORIZED)
        }
        // Requests or tokens a minute, a day, in all.
        "4"
        | "17"
        | "18"
        | "19"
        | "336501"
        | "336502"
        | "336503"
        | "rpm_rate_limit_exceeded"
        | "tpm_rate_limit_exceeded"
        | "rate_limit_exceeded" => Some(StatusCode::TOO_MANY_REQUESTS),
        // Their own faults.
        "1" | "2" | "336000" | "336100" | "internal_error" | "server_high_load" => {
            Some(StatusCode::SERVICE_UNAVAILABLE)
        }
        _ => None,
    };
    let error = ProviderError::reported(object);
    match status {
        Some(status) => ProviderError {
            retry: Retry::of_status(status),
            status: Some(status),
            ..error
        },
        None => error,
    }
}

#[cfg(test)]
mod tests;
