//! What no HTTP client would send: raw bytes on the hub's port.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nexus_tests::{Hub, Result};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::stage::{Stage, ask, ensure_error_object, request_id};

/// The hub's own bounds are seconds in these tests.
const ANSWER_BOUND: Duration = Duration::from_secs(30);

/// What came back until the hub closed the connection.
async fn exchange(hub: &Hub, bytes: &[u8]) -> Result<String> {
    let address = hub.url()?;
    let address = address.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(bytes).await?;
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    timeout(ANSWER_BOUND, reading)
        .await
        .context("the hub keeps a broken connection open")??;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Fails unless the answer is an error object with this status.
fn ensure_refused(answer: &str, status: u16) -> Result<()> {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("no answer: {answer:?}");
    };
    let wanted = format!("HTTP/1.1 {status} ");
    ensure!(head.starts_with(&wanted), "not {status}: {answer}");
    let id = head
        .lines()
        .find_map(|line| line.strip_prefix("x-request-id: "))
        .with_context(|| format!("no X-Request-Id: {answer}"))?;
    let body: Value = serde_json::from_str(body).context("the body is not JSON")?;
    ensure_error_object(&body["error"], id)
}

#[tokio::test]
async fn bytes_that_are_not_http_get_an_error_object_and_the_hub_goes_on() -> Result<()> {
    let stage = Stage::set().await?;
    let key = stage.hub.admin_key();
    let chat = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
    let two_keys = format!("authorization: Bearer {key}\r\nauthorization: Bearer x\r\n");
    let broken: [Vec<u8>; 8] = [
        b"GET /v1/models HTTP/1.1\r\nconnection: close\r\n\r\n".to_vec(),
        format!("GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{two_keys}\r\n")
            .into_bytes(),
        b"hello\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(),
        b"GET /v1/models HTTP/1.1\r\nhost: x\r\nbroken header\r\n\r\n".to_vec(),
        b"GET /v1/\xff\xfe HTTP/1.1\r\nhost x\r\n\r\n".to_vec(),
        format!("{chat}content-length: many\r\n\r\n{{}}").into_bytes(),
        format!("{chat}content-length: 5\r\ncontent-length: 6\r\n\r\n{{}}").into_bytes(),
    ];
    for bytes in broken {
        let answer = exchange(&stage.hub, &bytes).await?;
        ensure_refused(&answer, 400)
            .with_context(|| String::from_utf8_lossy(&bytes).into_owned())?;
    }
    let long_path = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(70_000));
    ensure_refused(&exchange(&stage.hub, long_path.as_bytes()).await?, 414)?;
    // A key that is no text is a wrong key.
    let mut odd_key = format!("{chat}authorization: Bearer ").into_bytes();
    odd_key.extend_from_slice(b"\xff\xfe\r\ncontent-length: 2\r\n\r\n{}");
    ensure_refused(&exchange(&stage.hub, &odd_key).await?, 401)?;
    // A chunked body that is none.
    let chunked = format!(
        "{chat}authorization: Bearer {key}\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{{}}\r\n0\r\n\r\n"
    );
    ensure_refused(&exchange(&stage.hub, chunked.as_bytes()).await?, 400)?;
    stage.client.chat(&ask("after")).await?.expect(200)?;
    stage.strike().await
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() -> Result<()> {
    let stage = Stage::set_with(|hub| hub.env("NEXUS_BODY_SECONDS", 1)).await?;
    let key = stage.hub.admin_key();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\nconnection: close\r\ncontent-length: 1000\r\n\r\n"
    );
    let answer = exchange(&stage.hub, format!("{head}{{\"model\": ").as_bytes()).await?;
    ensure_refused(&answer, 408)?;
    let id = answer
        .lines()
        .find_map(|line| line.strip_prefix("x-request-id: "))
        .context("no X-Request-Id")?;
    // The key was recognised, so the refusal is recorded.
    let last = stage.client.chat(&ask("after")).await?.expect(200)?;
    let events = stage
        .log
        .until_terminal([request_id(&last)?.as_str()])
        .await?;
    let rejected: Vec<_> = events
        .iter()
        .filter(|event| event.request_id() == id.trim())
        .collect();
    let [rejected] = rejected.as_slice() else {
        bail!("not one event of the late request: {rejected:?}");
    };
    ensure!(rejected.name() == "rejected", "{}", rejected.json);
    ensure!(rejected.data()["http.response.status_code"] == 408);
    stage.strike().await
}

/// A body that no socket buffer holds.
const LARGE: usize = 10 * 1024 * 1024;

/// What came back for a request with a body that is sent whole before anything is read.
async fn send_whole(hub: &Hub, line: &str, key: &str) -> Result<String> {
    let mut request = format!(
        "{line} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\nconnection: close\r\ncontent-length: {LARGE}\r\n\r\n"
    )
    .into_bytes();
    request.resize(request.len() + LARGE, b' ');
    exchange(hub, &request).await
}

#[tokio::test]
async fn an_error_is_read_by_a_client_that_sends_a_large_body_first() -> Result<()> {
    let stage = Stage::set().await?;
    let viewer = json!({"name": "viewer", "role": "viewer"});
    let viewer = stage.client.post("/keys", &viewer).await?.expect(201)?;
    let viewer = viewer.json["key"].as_str().context("no key")?;
    let admin = stage.hub.admin_key();
    let long = format!("POST /{}", "x".repeat(9 * 1024));
    for (line, key, status) in [
        ("POST /v1/chat/completions", "nobody", 401),
        ("POST /v1/chat/completions", viewer, 403),
        ("POST /providers", viewer, 403),
        ("POST /v1/no/such/thing", admin, 404),
        ("PUT /providers/no-such-provider", admin, 400),
        ("POST /stats", admin, 405),
        (&long, admin, 414),
    ] {
        for _again in 0..5 {
            let answer = send_whole(&stage.hub, line, key).await;
            let answer = answer.with_context(|| format!("{line} by {key}"))?;
            ensure_refused(&answer, status)?;
        }
    }
    stage.strike().await
}

#[tokio::test]
async fn a_client_that_does_not_send_its_body_is_answered_soon() -> Result<()> {
    let stage = Stage::set().await?;
    let admin = stage.hub.admin_key();
    for (key, more, status) in [
        ("nobody", "", 401),
        ("nobody", "expect: 100-continue\r\n", 401),
        (admin, "", 413),
        (admin, "expect: 100-continue\r\n", 413),
    ] {
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\
             connection: close\r\ncontent-length: 40000000\r\n{more}\r\n"
        );
        let begun = Instant::now();
        let answer = exchange(&stage.hub, head.as_bytes()).await?;
        let took = begun.elapsed();
        ensure_refused(&answer, status).with_context(|| format!("{key} {more:?}"))?;
        // 1 s without a frame, and a busy machine.
        ensure!(took < Duration::from_secs(5), "{key} {more:?}: {took:?}");
    }
    stage.strike().await
}
