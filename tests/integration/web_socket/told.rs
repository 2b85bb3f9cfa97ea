//! Frames tell what HTTP tells in its status line and in headers.

use anyhow::{Context, ensure};
use nexus_tests::{Client, Result, Script};
use serde_json::{Value, json};

use super::{CHUNKS, Socket, streamed};
use crate::stage::{MODEL, Stage, ask};

/// A member for each header about limits of an answer over HTTP.
const MEMBERS: [&str; 6] = [
    "limit_requests",
    "remaining_requests",
    "reset_requests",
    "limit_tokens",
    "remaining_tokens",
    "reset_tokens",
];

/// A key with these settings.
async fn key(admin: &Client, body: &Value) -> Result<String> {
    let made = admin.post("/keys", body).await?.expect(201)?;
    let key = made.json["key"].as_str().context("no key")?;
    Ok(key.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_frame_tells_of_limits_and_of_the_cache() -> Result<()> {
    let stage = Stage::set().await?;
    stage.upstream.always(Script::answer().chunks(CHUNKS));
    let body = json!({
        "name": "limited", "requests_per_minute": 50, "tokens_per_minute": 100_000,
        "cache_ttl_seconds": 600,
    });
    let key = key(&stage.client, &body).await?;
    let mut body = ask("cached");
    body["temperature"] = json!(0);
    let http = stage
        .client
        .with_key(&key)?
        .chat(&body)
        .await?
        .expect(200)?;
    ensure!(http.header("x-nexus-cache") == Some("miss"), "{http:?}");
    let mut socket = Socket::open_with(&stage.hub, &key).await?;
    socket.chat("a", &body).await?;
    let frames = socket.hear_out("a").await?;
    let started = &frames[0];
    ensure!(started["cache"] == "hit", "{started}");
    for member in MEMBERS {
        let name = format!("x-ratelimit-{}", member.replace('_', "-"));
        let header = http.header(&name).with_context(|| name.clone())?;
        let told = &started["limits"][member];
        let is_number = header.parse::<u64>().is_ok();
        ensure!(told.is_u64() == is_number && !told.is_null(), "{started}");
        if member.starts_with("limit") {
            ensure!(
                told.as_u64() == header.parse().ok(),
                "{name}: {header}, {started}"
            );
        }
    }
    let left = started["limits"]["remaining_requests"].as_u64();
    ensure!(left.is_some_and(|left| left < 50), "{started}");
    // Who names the provider wants that one asked.
    let named = json!({
        "type": "chat", "id": "named", "body": body, "provider_id": format!("provider-of-{MODEL}"),
    });
    socket.say(&named).await?;
    let frames = socket.hear_out("named").await?;
    ensure!(frames[0].get("cache").is_none(), "{}", frames[0]);
    ensure!(stage.upstream.idle().await?.len() == 2);
    // Where there is no cache and no limit, nothing is told of them.
    let mut plain = Socket::open(&stage.hub).await?;
    plain.chat("b", &streamed("plain")).await?;
    let frames = plain.hear_out("b").await?;
    ensure!(frames[0].get("cache").is_none(), "{}", frames[0]);
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_frame_tells_the_status_and_when_to_come_back() -> Result<()> {
    let stage = Stage::set().await?;
    stage.upstream.always(Script::answer().chunks(CHUNKS));
    let body = json!({"name": "limited", "requests_per_minute": 1});
    let key = key(&stage.client, &body).await?;
    let mut socket = Socket::open_with(&stage.hub, &key).await?;
    socket.chat("first", &ask("first")).await?;
    let frames = socket.hear_out("first").await?;
    ensure!(
        frames.iter().all(|frame| frame["type"] != "error"),
        "{frames:?}"
    );
    socket.chat("second", &ask("second")).await?;
    let refused = socket.hear_out("second").await?;
    let refused = &refused[0];
    let http = stage.client.with_key(&key)?.chat(&ask("third")).await?;
    let http = http.expect(429)?;
    ensure!(refused["status"] == 429, "{refused}");
    let after = refused["retry_after_ms"]
        .as_u64()
        .context("no retry_after_ms")?;
    ensure!((1_000..=60_000).contains(&after), "{refused}");
    let limit = http.header("x-ratelimit-limit-requests");
    ensure!(limit == Some("1"), "{http:?}");
    ensure!(refused["limits"]["limit_requests"] == 1, "{refused}");
    let unknown = json!({"model": "none", "messages": [{"role": "user", "content": "a"}]});
    for (frame, status) in [
        (json!({"type": "go", "id": "x"}), 400),
        (json!({"type": "chat", "id": "x", "body": unknown}), 404),
    ] {
        let mut socket = Socket::open(&stage.hub).await?;
        socket.say(&frame).await?;
        let told = socket.hear().await?;
        ensure!(told["status"] == status, "{told}");
        ensure!(told.get("retry_after_ms").is_none(), "{told}");
    }
    // What breaks an answer off has a status no more: over HTTP it was 200.
    stage
        .upstream
        .always(Script::answer().chunks(CHUNKS).cut_after(3));
    let mut socket = Socket::open(&stage.hub).await?;
    socket.chat("cut", &streamed("cut")).await?;
    let frames = socket.hear_out("cut").await?;
    let last = frames.last().context("no frame")?;
    ensure!(
        last["type"] == "error" && last.get("status").is_none(),
        "{last}"
    );
    ensure!(last["error"]["request_id"].is_string(), "{last}");
    stage.strike().await
}
