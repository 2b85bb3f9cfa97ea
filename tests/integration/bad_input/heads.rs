//! Requests whose head is wrong: too large, unknown path, unknown method, no permission.

use anyhow::{Context, ensure};
use http::Method;
use nexus_tests::client::Answer;
use nexus_tests::log::Stream;
use nexus_tests::{Client, Result};
use serde_json::json;

use crate::stage::{Stage, ask, ensure_error, request_id};

#[tokio::test]
async fn a_head_that_is_too_large_is_told_as_such() -> Result<()> {
    let stage = Stage::set().await?;
    // Just above our own bound, and far above what the HTTP library reads.
    for bytes in [33 * 1024, 60 * 1024, 1024 * 1024] {
        let padded = stage.client.with_header("x-padding", &"x".repeat(bytes))?;
        let answer = padded.chat(&ask("padded")).await;
        let answer = answer.with_context(|| format!("headers of {bytes} bytes"))?;
        ensure_error(&answer, 431).with_context(|| format!("headers of {bytes} bytes"))?;
    }
    let mut many = stage.client.clone();
    for number in 0..300 {
        many = many.with_header(&format!("x-{number}"), "x")?;
    }
    let many = many.chat(&ask("many")).await?;
    ensure_error(&many, 431).context("300 headers")?;
    ensure!(many.text().contains("too many"), "{}", many.text());
    // Longer ones no client of ours can write; `wire.rs` has one.
    for bytes in [9 * 1024, 60 * 1024] {
        let path = format!("/v1/models?x={}", "x".repeat(bytes));
        let answer = stage.client.get(&path).await;
        let answer = answer.with_context(|| format!("a URL of {bytes} bytes"))?;
        ensure_error(&answer, 414).with_context(|| format!("a URL of {bytes} bytes"))?;
    }
    // Nothing of that reached a handler, and what is just below the bounds does.
    let near = stage
        .client
        .with_header("x-padding", &"x".repeat(30 * 1024))?;
    let answer = near.chat(&ask("near")).await?.expect(200)?;
    near.get(&format!("/v1/models?x={}", "x".repeat(7 * 1024)))
        .await?
        .expect(200)?;
    ensure_only(&stage, &request_id(&answer)?).await?;
    stage.strike().await
}

/// Fails if the log has events of another request than this one.
async fn ensure_only(stage: &Stage, request: &str) -> Result<()> {
    let events = stage.log.until_terminal([request]).await?;
    for event in events {
        ensure!(event.request_id() == request, "{}", event.json);
    }
    Ok(())
}

async fn send(client: &Client, method: &str, path: &str) -> Result<Answer> {
    let method: Method = method.parse()?;
    let answer = client.request(method, path).send().await?;
    Answer::read(answer).await
}

#[tokio::test]
async fn unknown_paths_and_methods_are_error_objects() -> Result<()> {
    let stage = Stage::set().await?;
    for client in [stage.client.clone(), stage.hub.anonymous()?] {
        for (method, path) in [
            ("GET", "/"),
            ("GET", "/v1"),
            ("POST", "/v1/no/such/thing"),
            ("GET", "/v2/models"),
            ("POST", "/v1/chat/completions/"),
            ("GET", "/%ff"),
            ("GET", "/../etc/passwd"),
        ] {
            let answer = send(&client, method, path).await?;
            ensure_error(&answer, 404).with_context(|| format!("{method} {path}"))?;
            ensure!(answer.error_code() == "unknown_url", "{}", answer.text());
        }
    }
    for (method, path, allowed) in [
        ("GET", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/chat/completions", "POST"),
        ("POST", "/stats", "GET"),
        ("PATCH", "/providers", "GET"),
        ("BREW", "/v1/models", "GET"),
    ] {
        let answer = send(&stage.client, method, path).await?;
        ensure_error(&answer, 405).with_context(|| format!("{method} {path}"))?;
        let allow = answer.header("allow").unwrap_or_default().to_owned();
        ensure!(allow.contains(allowed), "{method} {path}: Allow {allow:?}");
    }
    let unknown = "0193b8e0-0000-7000-8000-000000000000";
    for path in [
        format!("/requests/{unknown}"),
        format!("/conversations/{unknown}"),
        format!("/stats/conversations/{unknown}"),
        format!("/providers/{unknown}"),
        format!("/provider_models/{unknown}"),
        "/requests/nonsense".to_owned(),
        "/conversations/nonsense".to_owned(),
        "/providers/nonsense".to_owned(),
        "/v1/models/no-such-model".to_owned(),
    ] {
        let answer = stage.client.get(&path).await?;
        ensure_error(&answer, 404).context(path)?;
    }
    let answer = stage.client.chat(&ask("only")).await?.expect(200)?;
    ensure_only(&stage, &request_id(&answer)?).await?;
    stage.strike().await
}

#[tokio::test]
async fn a_key_without_the_permission_is_refused_and_the_attempt_recorded() -> Result<()> {
    let stage = Stage::set().await?;
    let viewer = stage.client.with_new_key("viewer", "viewer").await?;
    let member = stage.client.with_new_key("member", "member").await?;
    let refused = [
        ("viewer", viewer.chat(&ask("viewer")).await?),
        (
            "viewer",
            viewer.post("/providers", &json!({"name": "x"})).await?,
        ),
        ("member", member.get("/keys").await?),
        ("member", member.delete("/providers/echo").await?),
    ];
    for (_, answer) in &refused {
        ensure_error(answer, 403)?;
    }
    let events = stage
        .log
        .until_events(Stream::Audit, "each refusal is recorded", |events| {
            let count = events
                .iter()
                .filter(|event| event.name() == "access_refused")
                .count();
            if count >= refused.len() {
                Ok(())
            } else {
                Err(count)
            }
        })
        .await?;
    let names: Vec<_> = events
        .iter()
        .filter(|event| event.name() == "access_refused")
        .filter_map(|event| event.data()["actor"]["name"].as_str())
        .collect();
    let expected: Vec<_> = refused.iter().map(|(name, _)| *name).collect();
    ensure!(names == expected, "{events:#?}");
    stage.strike().await
}
