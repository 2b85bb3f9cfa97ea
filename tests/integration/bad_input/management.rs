//! Management calls with bodies that are wrong: the error names the member, and nothing changes.

use anyhow::{Context, ensure};
use nexus_tests::client::Answer;
use nexus_tests::log::Stream;
use nexus_tests::{Client, Result};
use serde_json::{Value, json};

use crate::stage::{Stage, ensure_error};

/// Method, path, body, and the member that the error names.
type BadCall = (&'static str, &'static str, Value, Option<&'static str>);

#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn bad_calls(provider: &str) -> Vec<BadCall> {
    let provider_with = |member: &str, value: Value| {
        let mut body = json!({"name": "new", "kind": "openai", "server_url": "http://127.0.0.1:1"});
        body[member] = value;
        body
    };
    let model_with = |member: &str, value: Value| {
        let mut body = json!({"provider_id": provider, "model_name": "new"});
        body[member] = value;
        body
    };
    let mut calls: Vec<BadCall> = Vec::new();
    for (member, values) in [
        (
            "name",
            vec![
                json!(7),
                json!(""),
                json!(null),
                json!("a\u{7}b"),
                json!("x".repeat(200)),
            ],
        ),
        ("kind", vec![json!(7), json!("telepathy"), json!("")]),
        (
            "server_url",
            vec![
                json!(7),
                json!(""),
                json!("not a url"),
                json!("ftp://x/"),
                json!("/v1"),
            ],
        ),
        (
            "server_key",
            vec![json!(7), json!({}), json!("k".repeat(5000))],
        ),
        (
            "rate_limit",
            vec![json!("9"), json!(0), json!(-1), json!(1.5), json!(1e10)],
        ),
        ("server_urll", vec![json!("http://127.0.0.1:1")]),
    ] {
        for value in values {
            calls.push((
                "POST",
                "/providers",
                provider_with(member, value),
                Some(member),
            ));
        }
    }
    calls.push(("POST", "/providers", json!({}), Some("name")));
    calls.push((
        "POST",
        "/providers",
        json!({"name": "new", "kind": "openai"}),
        Some("server_url"),
    ));
    calls.push(("POST", "/providers", json!(["new"]), None));
    for (member, value) in [
        ("server_url", json!(7)),
        ("rate_limit", json!("many")),
        ("id", json!("x")),
        ("nmae", json!("x")),
    ] {
        calls.push((
            "PUT",
            "/providers/provider-of-gpt-test",
            json!({member: value}),
            Some(member),
        ));
    }
    for (member, value) in [
        ("provider_id", json!(7)),
        ("provider_id", json!("nobody")),
        ("provider_id", json!("0193b8e0-0000-7000-8000-000000000000")),
        ("model_name", json!(7)),
        ("model_name", json!("")),
        ("modle_name", json!("x")),
    ] {
        calls.push((
            "POST",
            "/provider_models",
            model_with(member, value),
            Some(member),
        ));
    }
    calls.push((
        "POST",
        "/provider_models",
        json!({"model_name": "x"}),
        Some("provider_id"),
    ));
    for (body, member) in [
        (json!({}), "name"),
        (json!({"name": 7}), "name"),
        (
            json!({"name": "0193b8e0-0000-7000-8000-000000000000"}),
            "name",
        ),
        (json!({"name": "new", "role": "king"}), "role"),
        (json!({"name": "new", "role": 7}), "role"),
        (
            json!({"name": "new", "on_disconnect": "maybe"}),
            "on_disconnect",
        ),
        (json!({"name": "new", "key": "mine"}), "key"),
        (
            json!({"name": "new", "cache_ttl_seconds": -1}),
            "cache_ttl_seconds",
        ),
        (
            json!({"name": "new", "cache_ttl_seconds": 2_592_001}),
            "cache_ttl_seconds",
        ),
    ] {
        calls.push(("POST", "/keys", body, Some(member)));
    }
    calls
}

async fn call(client: &Client, method: &str, path: &str, body: &Value) -> Result<Answer> {
    match method {
        "POST" => client.post(path, body).await,
        _ => client.put(path, body).await,
    }
}

/// Everything that is configured, as the API shows it.
async fn configured(client: &Client) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for path in [
        "/providers",
        "/provider_models",
        "/routes",
        "/keys",
        "/v1/models",
    ] {
        let mut shown = client.get(path).await?.expect(200)?.json;
        // How a provider fares is no part of what is configured.
        for row in shown["data"].as_array_mut().into_iter().flatten() {
            if let Some(row) = row.as_object_mut() {
                row.remove("health");
            }
        }
        all.push(shown);
    }
    Ok(all)
}

/// A parameter that is wrong, unknown or there twice is named.
async fn ensure_parameters_named(client: &Client) -> Result<()> {
    for (path, param) in [
        ("/providers?limit=0", "limit"),
        ("/providers?limit=many", "limit"),
        ("/providers?cursor=nonsense", "cursor"),
        ("/conversations?limit=-1", "limit"),
        ("/conversations?cursor=nonsense", "cursor"),
        ("/providers?limit=5&limit=6", "limit"),
        ("/keys?role=admin", "role"),
        ("/conversations?provider_id=echo", "provider_id"),
        ("/provider_models?providr_id=echo", "providr_id"),
        (
            "/provider_models?provider_id=echo&provider_id=x",
            "provider_id",
        ),
        ("/providers/echo?limit=5", "limit"),
        ("/providers/echo/models?provider_id=echo", "provider_id"),
        ("/stats?from=yesterday", "from"),
        ("/settings?verbose", "verbose"),
    ] {
        let answer = client.get(path).await?;
        ensure_error(&answer, 400).context(path)?;
        ensure!(answer.json["error"]["param"] == param, "{}", answer.text());
    }
    Ok(())
}

#[tokio::test]
async fn a_wrong_member_is_named_and_nothing_changes() -> Result<()> {
    let stage = Stage::set().await?;
    let provider = stage.client.get("/providers/provider-of-gpt-test").await?;
    let provider = provider.expect(200)?.id()?;
    let before = configured(&stage.client).await?;
    let events_before = stage.log.events(Stream::Config).await?.len();

    let calls = bad_calls(&provider);
    for (method, path, body, param) in &calls {
        let answer = call(&stage.client, method, path, body).await?;
        let told = || format!("{method} {path} {body}");
        ensure_error(&answer, 400).with_context(told)?;
        let named = answer.json["error"]["param"].as_str();
        ensure!(named == *param, "{}: {}", told(), answer.text());
    }
    let repeated = [
        (
            "/providers",
            r#"{"name":"new","server_url":"http://127.0.0.1:1","name":"newer"}"#,
            "name",
        ),
        (
            "/keys",
            r#"{"name":"new","role":"viewer","r\u006fle":"admin"}"#,
            "role",
        ),
    ];
    for (path, body, member) in repeated {
        let answer = stage.client.post_bytes(path, body).await?;
        ensure_error(&answer, 400).with_context(|| format!("POST {path} {body}"))?;
        ensure!(answer.json["error"]["param"] == member, "{}", answer.text());
    }
    for body in ["", "{", "\u{0}", "[]"] {
        let answer = stage.client.post_bytes("/providers", body).await?;
        ensure_error(&answer, 400).with_context(|| format!("POST /providers {body:?}"))?;
    }
    ensure_parameters_named(&stage.client).await?;

    ensure!(configured(&stage.client).await? == before);
    ensure!(stage.log.events(Stream::Config).await?.len() == events_before);
    let refused = calls.len() + repeated.len() + 4;
    let what = "each refused call is recorded";
    stage
        .log
        .until_events(Stream::Audit, what, |events| {
            let of_refused = |event: &&nexus_tests::log::Event| {
                event.name() == "management_call"
                    && event.data()["http.response.status_code"] == 400
            };
            match events.iter().filter(of_refused).count() {
                count if count == refused => Ok(()),
                count => Err(format!("{count} of {refused}")),
            }
        })
        .await?;
    stage.strike().await
}

#[tokio::test]
async fn what_stands_against_a_change_is_told() -> Result<()> {
    let stage = Stage::set().await?;
    let provider = json!({"name": "twice", "kind": "openai", "server_url": "http://127.0.0.1:1"});
    let created = stage
        .client
        .post("/providers", &provider)
        .await?
        .expect(201)?;
    ensure_error(&stage.client.post("/providers", &provider).await?, 409)?;

    let tag = created.header("etag").context("no ETag")?;
    let careful = stage.client.with_header("if-match", tag)?;
    let change = json!({"rate_limit": 5});
    careful
        .put("/providers/twice", &change)
        .await?
        .expect(200)?;
    ensure_error(&careful.put("/providers/twice", &change).await?, 412)?;
    // What changes nothing answers what is there.
    let model = json!({"provider_id": "twice", "model_name": "one"});
    let model = stage.client.post("/provider_models", &model).await?;
    let model_path = format!("/provider_models/{}", model.expect(201)?.id()?);
    for (path, same) in [
        ("/providers/twice", &change),
        (model_path.as_str(), &json!({"model_name": "one"})),
    ] {
        let is = stage.client.get(path).await?.expect(200)?;
        let put = stage.client.put(path, same).await?.expect(200)?;
        ensure!(put.json == is.json, "{} {}", put.text(), is.text());
        ensure!(put.header("etag") == is.header("etag"), "{path}");
    }

    let unknown = "0193b8e0-0000-7000-8000-000000000000";
    for path in ["providers", "provider_models", "keys"] {
        let answer = stage.client.delete(&format!("/{path}/{unknown}")).await?;
        ensure_error(&answer, 404).context(path)?;
    }
    let same_key = json!({"name": "twice"});
    stage.client.post("/keys", &same_key).await?.expect(201)?;
    ensure_error(&stage.client.post("/keys", &same_key).await?, 409)?;
    stage.strike().await
}
