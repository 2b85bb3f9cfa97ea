//! The caller: a handler that takes a [`Principal`] cannot be reached without a key.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::{
    HeaderMap,
    header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL},
    request::Parts,
};
use nexus_events::config_event::{Actor, Key};
use sha2::{Digest, Sha256};

use crate::{error::ApiError, state::State};

/// Whoever holds the key that came with the request.
#[derive(Clone, Debug)]
pub struct Principal {
    /// The key's record.
    pub key: Arc<Key>,
}

impl Principal {
    /// Finds the caller by the key in the request's headers.
    ///
    /// # Errors
    /// 401: there is no key, or it is none of ours.
    pub fn of(parts: &mut Parts, state: &State) -> Result<Self, ApiError> {
        if let Some(known) = parts.extensions.get::<Self>() {
            return Ok(known.clone());
        }
        let secret = secret(&parts.headers).ok_or_else(ApiError::missing_key)?;
        // Keys have 256 random bits, so a look-up by their hash tells an attacker nothing.
        let hash = Sha256::digest(secret);
        let key = state
            .configuration
            .current()
            .key_by_hash(&hash.into())
            .ok_or_else(ApiError::wrong_key)?;
        let principal = Self { key };
        parts.extensions.insert(principal.clone());
        Ok(principal)
    }

    /// The caller as events name it.
    pub fn actor(&self) -> Actor {
        Actor {
            key: Some(self.key.id),
            name: self.key.name.clone(),
        }
    }
}

impl FromRequestParts<State> for Principal {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, ApiError> {
        Self::of(parts, state)
    }
}

/// The secret as the client sent it: `Authorization: Bearer …`, `x-api-key`, or a subprotocol.
fn secret(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let (scheme, secret) = value.as_bytes().split_at_checked("Bearer ".len())?;
        return (scheme.eq_ignore_ascii_case(b"Bearer ")).then(|| secret.trim_ascii());
    }
    let api_key = headers.get("x-api-key").map(http::HeaderValue::as_bytes);
    api_key.or_else(|| subprotocol(headers))
}

/// The secret as a browser sends it that opens a WebSocket: it can set no header but this one.
fn subprotocol(headers: &HeaderMap) -> Option<&[u8]> {
    let offered = headers.get(SEC_WEBSOCKET_PROTOCOL)?.as_bytes();
    let mut offered = offered.split(|byte| *byte == b',');
    offered.find_map(|one| one.trim_ascii().strip_prefix(b"nexus-key."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn a_key_comes_as_bearer_or_in_a_header_of_its_own() {
        let cases = [
            (headers("authorization", "Bearer nx-1"), Some("nx-1")),
            (headers("authorization", "bearer  nx-1 "), Some("nx-1")),
            (headers("x-api-key", "nx-1"), Some("nx-1")),
            (
                headers("sec-websocket-protocol", "nexus.v1, nexus-key.nx-1"),
                Some("nx-1"),
            ),
            (headers("sec-websocket-protocol", "nexus.v1"), None),
            (headers("authorization", "Basic nx-1"), None),
            (headers("authorization", "Bear"), None),
            (HeaderMap::new(), None),
        ];
        for (headers, expected) in cases {
            assert_eq!(secret(&headers), expected.map(str::as_bytes), "{headers:?}");
        }
    }
}
