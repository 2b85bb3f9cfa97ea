//! `GET /ws/chat`: chat over a WebSocket, see [`crate::ws`].
//!
//! The key comes in a header, or, from browsers, which can set none, as a
//! subprotocol beside `nexus.v1`: `nexus-key.<key>`.

use axum::{
    Extension,
    extract::{
        State as Extract,
        ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};

use super::chat_completions::traceparent;
use crate::{
    auth::Principal,
    error::{ApiError, INVALID_REQUEST},
    provider::hops::Hops,
    state::State,
    ws::{self, FRAME_BYTES_MAX, PROTOCOL, Peer},
};

/// Turns the connection into a WebSocket and serves it.
///
/// # Errors
/// 426: it is no WebSocket handshake; 503: the hub stops, or has too many connections.
pub async fn get(
    Extract(state): Extract<State>,
    principal: Principal,
    headers: HeaderMap,
    hops: Option<Extension<Hops>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(no_handshake)?;
    if state.soft_stop.is_cancelled() {
        let message = "The hub is shutting down.";
        return Err(ApiError::unavailable("shutting_down", message));
    }
    let slot = state.limits.websocket()?;
    let peer = Peer {
        key: principal.key.id,
        traceparent: traceparent(&headers),
        hops: hops.map(|Extension(hops)| hops).unwrap_or_default(),
    };
    let upgrade = upgrade
        .protocols([PROTOCOL])
        .max_message_size(FRAME_BYTES_MAX)
        .max_frame_size(FRAME_BYTES_MAX);
    let response = upgrade.on_upgrade(|socket| async move {
        let (tracker, connections) = (state.tracker.clone(), state.metrics.websockets.clone());
        connections.inc();
        let serving = async move {
            ws::serve(state, peer, socket).await;
            connections.dec();
            drop(slot);
        };
        drop(tracker.spawn(serving));
    });
    Ok(response.into_response())
}

fn no_handshake(rejection: WebSocketUpgradeRejection) -> ApiError {
    ApiError::new(
        StatusCode::UPGRADE_REQUIRED,
        INVALID_REQUEST,
        "no_websocket_handshake",
        "This address speaks WebSocket: the request must be a handshake.",
    )
    .with_source(rejection)
}
