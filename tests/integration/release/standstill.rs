//! A broker that takes nothing for long, under a gateway that shows nothing before it is stored.

use anyhow::ensure;
use nexus_tests::account::{Account, BOUND, assert_verified, shipped};
use nexus_tests::client::Answer;
use nexus_tests::log::Stream;
use nexus_tests::{Client, Result, Script, until};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::Scene;
use crate::stage::ask;

/// A request on its way.
fn sent(client: &Client, body: Value) -> JoinHandle<Result<Answer>> {
    let client = client.clone();
    TaskTracker::new().spawn(async move { client.chat(&body).await })
}

/// Waits until the gateway is ready, or says of its outbox that it is not.
async fn is_ready(scene: &Scene, ready: bool) -> Result<()> {
    until("the outbox is as it is", BOUND, async || {
        let part = scene.hub.part("outbox").await?;
        ensure!(part["ready"] == ready, "{part}");
        anyhow::Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_let_in_and_a_refusal_is_told() -> Result<()> {
    let scene = Scene::set("stream", "os").await?;
    scene.upstream.always(Script::answer());
    scene.wire.stall();
    let waits = sent(&scene.client, ask("waits"));
    scene.open(1).await?;
    let unknown = json!({"model": "none", "messages": [{"role": "user", "content": "a"}]});
    let refused = sent(&scene.client, unknown.clone());
    is_ready(&scene, false).await?;
    // It says that nothing was done, so it need not be stored; the answer is worth waiting for.
    refused.await??.expect(404)?;
    ensure!(!waits.is_finished(), "answered before anything was stored");
    scene.hub.metrics()?.get("/readyz").await?.expect(503)?;
    for _ in 0..2 {
        let late = scene.client.chat(&ask("late")).await?.expect(503)?;
        ensure!(late.error_code() == "log_stalled", "{}", late.text());
        ensure!(late.header("retry-after").is_some(), "no Retry-After");
    }
    ensure!(
        scene.upstream.exchanges().is_empty(),
        "a provider was asked"
    );

    scene.wire.flow();
    waits.await??.expect(200)?;
    is_ready(&scene, true).await?;
    scene.client.chat(&ask("next")).await?.expect(200)?;
    scene.client.chat(&unknown).await?.expect(404)?;
    shipped(&scene.hub).await?;
    Account::take(&scene.log).await?.assert_one_end_each()?;
    // What was refused is in the log as well: two unknown models, two that came late.
    let stats = scene.log.events(Stream::Exchanges).await?;
    let rejected = stats.iter().filter(|event| event.name() == "rejected");
    ensure!(rejected.count() == 4);
    assert_verified(&scene.hub).await
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_can_hang_up_and_the_hub_can_stop() -> Result<()> {
    let mut scene = Scene::set("stream", "os").await?;
    scene.upstream.always(Script::answer());
    let key = json!({"name": "hurried", "on_disconnect": "cancel"});
    let key = scene.client.post("/keys", &key).await?.expect(201)?;
    let hurried = scene
        .client
        .with_key(key.json["key"].as_str().unwrap_or_default())?;
    hurried.chat(&ask("stored")).await?.expect(200)?;
    scene.wire.stall();
    let stays = sent(&scene.client, ask("stays"));
    let goes = sent(&hurried, ask("goes"));
    scene.open(2).await?;
    goes.abort();
    scene.open(1).await?;
    ensure!(!stays.is_finished(), "answered before anything was stored");

    scene.hub.interrupt()?;
    let stopped = stays.await??.expect(503)?;
    ensure!(
        stopped.error_code() == "shutting_down",
        "{}",
        stopped.text()
    );
    // The second time, so that it does not wait for the broker.
    scene.hub.interrupt()?;
    ensure!(scene.hub.ended().await?.success());

    scene.wire.flow();
    scene.hub.start_again().await?;
    shipped(&scene.hub).await?;
    let account = Account::take(&scene.log).await?;
    account.assert_one_end_each()?;
    for reason in ["client_cancelled", "shutdown"] {
        let failed = scene.log.events(Stream::Exchanges).await?;
        let failed = failed
            .iter()
            .filter(|event| event.data()["nexus.failure"]["reason"] == reason);
        ensure!(failed.count() == 1, "{reason}");
    }
    let asked = scene.upstream.exchanges().len();
    ensure!(asked == 1, "the provider was asked {asked} times");
    assert_verified(&scene.hub).await
}
