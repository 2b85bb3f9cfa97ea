//! Who gets in, and how browsers do.

use anyhow::{Context, ensure};
use http::header::SEC_WEBSOCKET_PROTOCOL;
use nexus_tests::Result;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::{self, client::IntoClientRequest};

use super::{Socket, address};
use crate::stage::Stage;

/// The status of a handshake with those headers, and the subprotocol that was chosen.
async fn status(stage: &Stage, headers: &[(&'static str, &str)]) -> Result<(u16, Option<String>)> {
    let mut request = address(&stage.hub)?.into_client_request()?;
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse()?);
    }
    let response = match connect_async(request).await {
        Ok((_, response)) => response.map(drop),
        Err(tungstenite::Error::Http(response)) => response.map(drop),
        Err(error) => return Err(error.into()),
    };
    let chosen = response.headers().get(SEC_WEBSOCKET_PROTOCOL);
    let chosen = chosen.map(|chosen| chosen.to_str().map(str::to_owned));
    Ok((response.status().as_u16(), chosen.transpose()?))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_opens_a_connection_in_a_header_or_as_a_subprotocol() -> Result<()> {
    let stage = Stage::set().await?;
    let key = stage.hub.admin_key().to_owned();
    let body = serde_json::json!({"name": "reads", "role": "viewer"});
    let viewer = stage.client.post("/keys", &body).await?.expect(201)?;
    let viewer = viewer.json["key"].as_str().context("no key")?.to_owned();
    let as_protocol = format!("nexus.v1, nexus-key.{key}");
    for (headers, expected, chosen) in [
        (vec![], 401, None),
        (vec![("authorization", "Bearer nexus-no")], 401, None),
        (vec![("x-api-key", viewer.as_str())], 403, None),
        (vec![("x-api-key", key.as_str())], 101, None),
        (
            vec![("sec-websocket-protocol", as_protocol.as_str())],
            101,
            Some("nexus.v1"),
        ),
        (
            vec![("sec-websocket-protocol", "nexus.v1, nexus-key.no")],
            401,
            None,
        ),
    ] {
        let (status, protocol) = status(&stage, &headers).await?;
        ensure!(
            (status, protocol.as_deref()) == (expected, chosen),
            "{headers:?}: {status} {protocol:?}"
        );
    }
    let plain = stage.client.get("/ws/chat").await?.expect(426)?;
    ensure!(
        plain.error_code() == "no_websocket_handshake",
        "{}",
        plain.text()
    );
    let mut socket = Socket::open(&stage.hub).await?;
    socket.say(&serde_json::json!({"type": "ping"})).await?;
    socket.hear().await?;
    stage.strike().await
}
