//! A provider that is the hub itself: refused when it is written, caught when another name hides it.

use anyhow::{Context, ensure};
use nexus_tests::{Chaos, Client, Result, until};
use serde_json::json;

use crate::stage::{MODEL, Stage, VISIBLE_BOUND, ensure_error, request_id, shown_request};

/// The names that lead to a hub which listens on loopback.
const SPELLINGS: [&str; 6] = [
    "127.0.0.1",
    "localhost",
    "127.1",
    "127.9.9.9",
    "0.0.0.0",
    "[::ffff:127.0.0.1]",
];

#[tokio::test]
async fn the_hubs_own_address_is_no_provider() -> Result<()> {
    let stage = Stage::set().await?;
    let url = stage.hub.url()?;
    let port = url.rsplit(':').next().context("no port")?;
    let provider = stage.client.get("/providers").await?.expect(200)?;
    let id = provider.json["data"][0]["id"].as_str().context("no id")?;
    for host in SPELLINGS {
        let own = format!("http://{host}:{port}/v1");
        let body = json!({"name": "circle", "kind": "openai", "server_url": own});
        let change = json!({"server_url": own});
        for answer in [
            stage.client.post("/providers", &body).await?,
            stage
                .client
                .put(&format!("/providers/{id}"), &change)
                .await?,
        ] {
            ensure_error(&answer, 400)?;
            ensure!(answer.json["error"]["param"] == "server_url", "{answer:?}");
        }
    }
    // The same host at another port is another server: the upstream of this test is one.
    let same_host = json!({"server_url": stage.upstream.url()});
    let changed = stage
        .client
        .put(&format!("/providers/{id}"), &same_host)
        .await?;
    changed.expect(200)?;
    stage.strike().await
}

#[tokio::test]
async fn a_circle_that_no_address_shows_is_cut_after_one_round() -> Result<()> {
    let stage = Stage::set().await?;
    let hub = stage.hub.url()?;
    let hidden = Chaos::start(hub.trim_start_matches("http://"))?;
    serve_through(&stage, &hidden).await?;
    let answer = stage
        .client
        .chat(&json!({"model": "circle", "messages": [{"role": "user", "content": "round"}]}))
        .await?;
    ensure_error(&answer, 508)?;
    ensure!(answer.error_code() == "provider_is_the_hub", "{answer:?}");
    let shown = shown_request(&stage.client, &request_id(&answer)?).await?;
    ensure!(shown["state"] == "failed", "{shown}");
    let told = shown["failure"].to_string();
    ensure!(told.contains("server_url"), "{shown}");
    let series = r#"nexus_rejected_total{code="provider_is_the_hub"}"#;
    until("the round is recorded", VISIBLE_BOUND, async || {
        let rounds = stage.hub.metric(series).await?;
        ensure!(rounds == Some(1.0), "{rounds:?}");
        Ok(())
    })
    .await?;
    let rejected = stage
        .log
        .events(nexus_tests::log::Stream::Exchanges)
        .await?;
    let mut rejected = rejected.iter().filter(|event| event.name() == "rejected");
    let event = rejected.next().context("no rejected event")?;
    ensure!(
        event.data()["http.response.status_code"] == 508,
        "{}",
        event.json
    );
    ensure!(rejected.next().is_none());
    // Whoever sends the mark of another installation is no circle.
    let marked = stage
        .client
        .with_header("x-nexus-hop", "0123456789abcdef")?;
    let ask = json!({"model": MODEL, "messages": [{"role": "user", "content": "on"}]});
    marked.chat(&ask).await?.expect(200)?;
    stage.strike().await
}

/// A model whose provider is the hub, by an address that does not show it, with a key that is good.
async fn serve_through(stage: &Stage, hidden: &Chaos) -> Result<()> {
    let client: &Client = &stage.client;
    let provider = json!({
        "name": "circle",
        "kind": "openai",
        "server_url": format!("http://{}", hidden.url_host_port()),
        "server_key": stage.hub.admin_key(),
    });
    let provider = client.post("/providers", &provider).await?.expect(201)?;
    let model = json!({"provider_id": provider.id()?, "model_name": "circle"});
    client.post("/provider_models", &model).await?.expect(201)?;
    Ok(())
}
