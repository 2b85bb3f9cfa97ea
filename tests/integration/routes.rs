//! Routes: names that clients ask for, and who answers.

mod breaker;
mod configured;
mod limited;
mod three;

use anyhow::Context;
use nexus_tests::client::Answer;
use nexus_tests::log::{Event, Stream};
use nexus_tests::{Client, Result, Upstream, until};
use serde_json::{Value, json};

use crate::stage::{Stage, VISIBLE_BOUND, ask};

/// A chat request for a model or a route.
fn ask_for(model: &str, tag: &str) -> Value {
    let mut body = ask(tag);
    body["model"] = json!(model);
    body
}

/// An upstream with a provider of that name, which offers `model`.
async fn provider(client: &Client, name: &str, model: &str) -> Result<Upstream> {
    let upstream = Upstream::start().await?;
    provider_at(client, name, model, &upstream.url()).await?;
    Ok(upstream)
}

/// A provider of that name at that address, which offers `model`.
async fn provider_at(client: &Client, name: &str, model: &str, url: &str) -> Result<()> {
    let provider = json!({"name": name, "server_url": url});
    client.post("/providers", &provider).await?.expect(201)?;
    let model = json!({"provider_id": name, "model_name": model});
    client.post("/provider_models", &model).await?.expect(201)?;
    Ok(())
}

async fn route(client: &Client, name: &str, targets: Value) -> Result<Answer> {
    let route = json!({"name": name, "targets": targets});
    client.post("/routes", &route).await?.expect(201)
}

/// The changes of a provider's breaker in the log, each as `from to reason`.
async fn breaker_changes(stage: &Stage, provider: &str) -> Result<Vec<String>> {
    let events = stage.log.events(Stream::Audit).await?;
    Ok(changes_in(&events, provider))
}

fn changes_in(events: &[Event], provider: &str) -> Vec<String> {
    let changes = events.iter().filter(|event| {
        event.name() == "breaker_changed" && event.data()["gen_ai.provider.name"] == provider
    });
    let text = |event: &Event, name: &str| event.data()[name].as_str().unwrap_or("?").to_owned();
    changes
        .map(|event| {
            let words = ["from", "to", "reason"].map(|name| text(event, name));
            words.join(" ")
        })
        .collect()
}

/// Waits until the changes of a provider's breaker in the log are these, from the first on.
async fn until_changes(stage: &Stage, provider: &str, expected: &[&str]) -> Result<()> {
    until(
        "the log has the breaker's changes",
        VISIBLE_BOUND,
        async || {
            let changes = breaker_changes(stage, provider).await?;
            anyhow::ensure!(changes.starts_with(&owned(expected)), "{changes:?}");
            anyhow::Ok(())
        },
    )
    .await
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// How a provider fares.
async fn health(client: &Client, provider: &str) -> Result<Value> {
    let path = format!("/providers/{provider}");
    let shown = client.get(&path).await?.expect(200)?;
    shown.json.get("health").cloned().context("no health")
}
