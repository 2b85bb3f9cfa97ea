//! Requests with an access token: drawn once, carried in the query, drawn anew when it is refused.
//!
//! Neither the token nor the keys behind it are in any error: the addresses that
//! hold them are taken out of what the HTTP library says (`without_answer`,
//! `cut`), and what the token endpoint answers is not quoted.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use nexus_events::exchange_event::FailureReason;
use serde::Deserialize;
use tokio::time::timeout;

use super::{Bounds, ERROR_BYTES_MAX, RESPONSE_BYTES_MAX, Transport, Upstream};
use crate::{
    provider::{
        HttpRequest, ProviderError, Retry,
        token::{self, Drawn, Grant, TokenRequest},
    },
    settings::Secret,
};

/// Drawing a token, from the connection to the last byte: 10 s; it takes a fraction of one.
const DRAW_MAX: Duration = Duration::from_secs(10);

/// What a token endpoint answers.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    access_token: Option<String>,
    /// Seconds.
    #[serde(default)]
    expires_in: Option<u64>,
    /// The name of an error.
    #[serde(default)]
    error: Option<String>,
}

impl Transport {
    /// Sends a request with a token; once more with another one where the provider refuses it.
    pub(super) async fn post_with_token(
        &self,
        with: TokenRequest,
        bounds: Bounds,
    ) -> Result<Upstream, ProviderError> {
        let TokenRequest { request, grant } = with;
        let token = self.token(&grant, None).await?;
        let (upstream, is_refused) = self.post_bearing(&request, &grant, &token, bounds).await?;
        if !is_refused {
            return Ok(upstream);
        }
        drop(upstream);
        tracing::info!("a provider refused its access token; another one is drawn");
        let token = self.token(&grant, Some(&token)).await?;
        let (upstream, _) = self.post_bearing(&request, &grant, &token, bounds).await?;
        Ok(upstream)
    }

    async fn token(
        &self,
        grant: &Grant,
        refused: Option<&Secret>,
    ) -> Result<Secret, ProviderError> {
        self.tokens.get(grant, refused, self.draw(grant)).await
    }

    /// The answer, and whether it says that the token is not valid.
    async fn post_bearing(
        &self,
        request: &HttpRequest,
        grant: &Grant,
        token: &Secret,
        bounds: Bounds,
    ) -> Result<(Upstream, bool), ProviderError> {
        let mut url = request.url.clone();
        url.query_pairs_mut()
            .append_pair("access_token", token.expose());
        let bearing = HttpRequest {
            url,
            headers: request.headers.clone(),
            body: request.body.clone(),
        };
        let mut upstream = self.post(bearing, bounds).await?;
        // An error is a JSON object, and so is a whole answer; a stream is looked at as it begins.
        let beginning = if upstream.is_json() {
            upstream.body.read_whole(RESPONSE_BYTES_MAX).await?
        } else {
            upstream.body.read().await?.unwrap_or_default()
        };
        let is_refused = (grant.is_refused)(&beginning);
        upstream.body.begun = Some(without(beginning, token));
        Ok((upstream, is_refused))
    }

    async fn draw(&self, grant: &Grant) -> Result<Drawn, ProviderError> {
        let mut url = grant.url.clone();
        url.query_pairs_mut()
            .append_pair("grant_type", "client_credentials")
            .append_pair("client_id", grant.api_key.expose())
            .append_pair("client_secret", grant.secret_key.expose());
        let drawing = async {
            let request = HttpRequest {
                url,
                headers: HeaderMap::new(),
                body: Bytes::new(),
            };
            let mut upstream = self.post(request, Bounds::default()).await?;
            let body = upstream.body.read_whole(ERROR_BYTES_MAX).await?;
            read(upstream.status, &body)
        };
        let drawn = timeout(DRAW_MAX, drawing).await;
        let drawn = drawn.unwrap_or_else(|_elapsed| Err(token::late(DRAW_MAX)));
        drawn.map_err(|mut error| {
            error.message = format!("No access token could be drawn: {}", error.message);
            error.with_retry(Retry::Now)
        })
    }
}

/// The token in an answer.
fn read(status: StatusCode, body: &[u8]) -> Result<Drawn, ProviderError> {
    // What cannot be read is not quoted: a token may be in it.
    let answer: Option<Answer> = serde_json::from_slice(body).ok();
    if let Some(Answer {
        access_token: Some(token),
        expires_in: Some(seconds),
        error: None,
    }) = answer
        && status.is_success()
    {
        return Ok(Drawn {
            token: Secret::new(token),
            expires_in: Duration::from_secs(seconds),
        });
    }
    let names_error = serde_json::from_slice(body).is_ok_and(|it: Answer| it.error.is_some());
    let refuses = matches!(
        status,
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
    );
    if refuses || names_error && status.is_success() {
        let message = "The provider refused the hub's credentials.";
        return Err(ProviderError {
            status: Some(StatusCode::UNAUTHORIZED),
            ..ProviderError::new(FailureReason::UpstreamStatus, message)
        });
    }
    if status.is_success() {
        let message = "The provider's token endpoint answered something else than a token.";
        return Err(ProviderError::malformed(message));
    }
    let message = format!(
        "The provider's token endpoint answered with status {}.",
        status.as_u16()
    );
    Err(ProviderError {
        status: Some(status),
        ..ProviderError::new(FailureReason::UpstreamStatus, message)
    })
}

/// The beginning of an answer without the token, should an error quote it.
fn without(beginning: Bytes, token: &Secret) -> Bytes {
    if beginning.len() > ERROR_BYTES_MAX || token.is_empty() {
        return beginning;
    }
    match std::str::from_utf8(&beginning) {
        Ok(text) if text.contains(token.expose()) => text.replace(token.expose(), "[token]").into(),
        _ => beginning,
    }
}

#[cfg(test)]
mod tests;
