//! Baidu's ERNIE (文心一言) by version 1 of Qianfan's API, with an access token.
//!
//! Baidu describes it in `https://cloud.baidu.com/doc/WENXINWORKSHOP` (chat and
//! access token). It has a form of its own: an instruction beside the
//! messages, which alternate; one function call at most in an answer; its text
//! in `result`; errors with a status of 200; streams that end with `is_end`.
//!
//! The operator configures `API_KEY:SECRET_KEY`. A token is drawn from the two
//! and stands in the query of each call. Drawing it takes a clock and a network,
//! so the adapter only says how ([`Grant`]), and the transport does it.

mod request;
mod response;

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{ACCEPT, CONTENT_TYPE},
};
use url::Url;

use self::response::Translator;
use super::{
    Answer, Asked, HttpRequest, Provider, ProviderCall, ProviderError, Streamed, Translate,
    UpstreamRequest, base_url, ernie,
    openai::{self, OpenAi},
    token::{Grant, TokenRequest},
};
use crate::{settings::Secret, stream::sse_decode::SseEvent};

/// Below the host: what all chat endpoints have in front.
const CHAT: &str = "rpc/2.0/ai_custom/v1/wenxinworkshop/chat";

/// Below the host: where tokens are drawn.
const TOKEN: &str = "oauth/2.0/token";

/// The adapter; it keeps no state.
#[derive(Clone, Copy, Debug)]
pub struct ErnieV1;

impl Provider for ErnieV1 {
    fn encode(&self, call: ProviderCall<'_>) -> Result<UpstreamRequest, ProviderError> {
        let target = call.target;
        let (api_key, secret_key) = target.server_key.and_then(key_pair).ok_or_else(|| {
            let message = "The provider has no key of the form API_KEY:SECRET_KEY.";
            ProviderError::new(
                nexus_events::exchange_event::FailureReason::Internal,
                message,
            )
        })?;
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let accept = if call.request.stream {
            "text/event-stream"
        } else {
            "application/json"
        };
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        let endpoint = |path: &str| endpoint(target.server_url, path);
        Ok(UpstreamRequest::WithToken(TokenRequest {
            request: HttpRequest {
                url: endpoint(&format!("{CHAT}/{}", target.model))?,
                headers,
                body: request::encode(call.request)?,
            },
            grant: Arc::new(Grant {
                url: endpoint(TOKEN)?,
                api_key: Secret::new(api_key.to_owned()),
                secret_key: Secret::new(secret_key.to_owned()),
                is_refused: response::refuses_token,
            }),
        }))
    }

    fn translator(&self, asked: Asked<'_>) -> Option<Box<dyn Translate>> {
        Some(Box::new(Translator::new(asked)))
    }

    fn translate_response(&self, asked: Asked<'_>, body: Bytes) -> Result<Bytes, ProviderError> {
        response::translate(asked, &body)
    }

    fn decode_response<'a>(&self, body: &'a Bytes) -> Result<Answer<'a>, ProviderError> {
        OpenAi.decode_response(body)
    }

    fn decode_chunk<'a>(&self, event: &'a SseEvent) -> Result<Streamed<'a>, ProviderError> {
        OpenAi.decode_chunk(event)
    }

    fn decode_error(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ProviderError {
        ernie::Ernie.decode_error(status, headers, body)
    }
}

/// The two halves of the key that an operator configures.
pub fn key_pair(key: &str) -> Option<(&str, &str)> {
    let (api_key, secret_key) = key.split_once(':')?;
    (!api_key.is_empty() && !secret_key.is_empty()).then_some((api_key, secret_key))
}

/// An address below the provider's; one that was copied with the path of the chat endpoints is
/// taken from there up.
fn endpoint(base: &str, path: &str) -> Result<Url, ProviderError> {
    let mut url = base_url::parse(base.trim()).map_err(openai::without_url)?;
    url.set_fragment(None);
    let given = url.path().split("/rpc/").next().unwrap_or_default();
    let full = format!("{}/{path}", given.trim_end_matches('/'));
    url.set_path(&full);
    Ok(url)
}

#[cfg(test)]
mod tests;
