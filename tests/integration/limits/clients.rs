//! Limits as clients see them: in the headers of the official client, and over a WebSocket.

use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::{SinkExt, StreamExt};
use nexus_tests::programs::{Program, Runtime};
use nexus_tests::{Result, Script};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};

use super::pair::ask;
use crate::stage::{MODEL, Stage};

/// A client starts in about a second; Python compiles its packages at the first run.
const PROGRAM_BOUND: Duration = Duration::from_mins(2);

/// Creates a key; gives its secret.
async fn key(stage: &Stage, body: &Value) -> Result<String> {
    let created = stage.client.post("/keys", body).await?.expect(201)?;
    let secret = created.json["key"].as_str();
    Ok(secret.context("no key")?.to_owned())
}

#[tokio::test]
async fn the_official_client_reads_the_limits() -> Result<()> {
    let stage = Stage::set().await?;
    stage.upstream.always(Script::answer());
    let body = json!({"name": "limited", "requests_per_minute": 1, "tokens_per_minute": 100_000});
    let secret = key(&stage, &body).await?;
    let program = Program::client(Runtime::Python, "limits.py")?;
    let program = program.hub(&stage.hub.api_base()?, &secret, MODEL);
    let got = program.run(PROGRAM_BOUND).await?.json()?;
    let told = || format!("{got:#}");
    ensure!(got["text"].is_string(), "{}", told());
    let first = &got["limits"];
    ensure!(
        first["limit-requests"] == "1" && first["remaining-requests"] == "0",
        "{}",
        told()
    );
    ensure!(first["reset-requests"] == "1m0s", "{}", told());
    ensure!(first["limit-tokens"] == "100000", "{}", told());
    let left: u32 = first["remaining-tokens"]
        .as_str()
        .unwrap_or_default()
        .parse()?;
    ensure!((99_000..=99_900).contains(&left), "{}", told());
    ensure!(first["reset-tokens"].is_string(), "{}", told());
    let refused = &got["refused"];
    ensure!(
        refused["type"] == "requests" && refused["code"] == "rate_limit_exceeded",
        "{}",
        told()
    );
    ensure!(refused["retry_after"].is_string(), "{}", told());
    ensure!(refused["limits"]["remaining-requests"] == "0", "{}", told());
    stage.strike().await
}

#[tokio::test]
async fn requests_over_a_web_socket_count_as_all_others() -> Result<()> {
    let stage = Stage::set().await?;
    stage.upstream.always(Script::answer());
    let body = json!({"name": "limited", "requests_per_minute": 2});
    let secret = key(&stage, &body).await?;
    let address = stage.hub.url()?.replace("http://", "ws://") + "/ws/chat";
    let mut handshake = address.into_client_request()?;
    let bearer = format!("Bearer {secret}").parse()?;
    handshake.headers_mut().insert("authorization", bearer);
    let (mut socket, _) = tokio_tungstenite::connect_async(handshake).await?;
    stage
        .client
        .with_key(&secret)?
        .chat(&ask(0))
        .await?
        .expect(200)?;
    let mut lasts = Vec::new();
    for number in 1..3 {
        let id = number.to_string();
        let frame = json!({"type": "chat", "id": id, "body": ask(number)});
        socket.send(Message::text(frame.to_string())).await?;
        let last = loop {
            let next = timeout(Duration::from_secs(30), socket.next()).await?;
            let Message::Text(text) = next.context("the connection ended")?? else {
                continue;
            };
            let frame: Value = serde_json::from_str(&text)?;
            if frame["type"] == "done" || frame["type"] == "error" {
                break frame;
            }
        };
        lasts.push(last);
    }
    ensure!(lasts[0]["type"] == "done", "{lasts:?}");
    ensure!(lasts[1]["type"] == "error", "{lasts:?}");
    ensure!(
        lasts[1]["error"]["code"] == "rate_limit_exceeded",
        "{lasts:?}"
    );
    drop(socket);
    stage.strike().await
}
