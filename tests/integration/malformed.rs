//! Requests that are none: no route, no HTTP, heads beyond their bounds.

use std::time::Duration;

use nexus_tests::{Hub, Result};
use serde_json::{Value, json};

const BOUND: Duration = Duration::from_secs(10);

#[tokio::test]
async fn what_is_no_route_or_no_http_is_answered_with_an_error_object() -> Result<()> {
    let hub = Hub::standalone().start().await?;
    let client = hub.client()?;
    let unknown = client.get("/v1/nothing").await?;
    assert_eq!((unknown.status, unknown.error_code()), (404, "unknown_url"));
    let wrong = client.put("/v1/models", &json!({})).await?;
    assert_eq!(
        (wrong.status, wrong.error_code()),
        (405, "method_not_allowed")
    );
    assert!(wrong.header("allow").unwrap().contains("GET"));
    let large = "a".repeat(40_000);
    let larger = "a".repeat(600_000);
    let long = "a".repeat(70_000);
    let many = "h: v\r\n".repeat(300);
    let heads = [
        (
            format!("GET / HTTP/1.1\r\nhost: x\r\nlarge: {large}\r\n\r\n"),
            431,
        ),
        (
            format!("GET / HTTP/1.1\r\nhost: x\r\nlarge: {larger}\r\n\r\n"),
            431,
        ),
        (format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n"), 431),
        (format!("GET /{large} HTTP/1.1\r\nhost: x\r\n\r\n"), 414),
        (format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n"), 414),
        ("HELLO\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nbad header\r\n\r\n".to_owned(), 400),
    ];
    for (head, status) in heads {
        let answer = raw(&hub, head.as_bytes()).await?;
        let shown: String = head.chars().take(40).collect();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{shown}: {answer}"
        );
        let (answer_head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            answer_head.contains("x-request-id: "),
            "{shown}: {answer_head}"
        );
        let body: Value = serde_json::from_str(body)?;
        assert!(body["error"]["message"].is_string(), "{shown}: {body}");
    }
    // And the hub is none the worse for it.
    client.get("/v1/models").await?.expect(200)?;
    Ok(())
}

/// What the hub answers to those bytes.
async fn raw(hub: &Hub, bytes: &[u8]) -> Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = hub.url()?;
    let mut stream = tokio::net::TcpStream::connect(address.trim_start_matches("http://")).await?;
    // The hub may have answered and closed before it has read everything.
    stream.write_all(bytes).await.unwrap_or_default();
    let mut answer = Vec::new();
    let reading = async {
        let mut buffer = [0; 4096];
        while !complete(&answer) {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => answer.extend(buffer.iter().take(count)),
            }
        }
    };
    tokio::time::timeout(BOUND, reading).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn complete(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    head.lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .and_then(|length| length.parse().ok())
        .is_some_and(|length: usize| body.len() >= length)
}
