//! A gateway dies between the end of an answer without usage and its count.

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use nexus_tests::account::{Account, assert_verified, shipped};
use nexus_tests::{Hub, Result};
use serde_json::{Value, json};

use super::{Events, MODEL, Scene};

/// Answers that nobody has counted when the gateway dies. The first count loads a vocabulary, which
/// takes longer than the kill.
const UNCOUNTED: usize = 3;

/// Lets a gateway, which has counted nothing yet, end some answers without usage, and kills it
/// before it has counted them; gives their ids.
pub(super) async fn die_before_counting(hub: &mut Hub, scene: &Scene) -> Result<Vec<String>> {
    let client = hub.client()?;
    // All at once: the first must not be counted while the last is asked.
    let asking = (0..UNCOUNTED).map(|number| {
        let client = client.clone();
        async move { client.chat(&long(&format!("uncounted-{number}"))).await }
    });
    let mut requests = Vec::new();
    for answer in try_join_all(asking).await? {
        let id = answer.header("x-request-id").context("no X-Request-Id")?;
        requests.push(id.to_owned());
        answer.expect(200)?;
    }
    // In the log, so that others see that they have ended.
    let ended = |events: &Events| -> Result<()> {
        for id in &requests {
            ensure!(!events.terminals(id).is_empty(), "{id} has not ended");
        }
        Ok(())
    };
    let events = Events(
        nexus_tests::until(
            "the answers are in the log",
            super::LOST_BOUND,
            async || {
                let events = Events(scene.exchanges().await?);
                ended(&events).map(|()| events.0)
            },
        )
        .await?,
    );
    hub.kill().await?;
    let counted = requests
        .iter()
        .filter(|id| !events.of(id, "tokens_counted").is_empty());
    ensure!(
        counted.count() == 0,
        "they were counted before it could be killed"
    );
    Ok(requests)
}

/// A question that takes a moment to count.
fn long(tag: &str) -> Value {
    let text = format!("{} {tag}", "rivers and hills ".repeat(30_000));
    json!({"model": MODEL, "messages": [{"role": "user", "content": text}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_the_gateway_died_before_counting_are_counted_once() -> Result<()> {
    let scene = Scene::set(&[]).await?;
    let mut gateway = scene.gateway().start().await?;
    scene.serve(&[&gateway]).await?;
    let uncounted = die_before_counting(&mut gateway, &scene).await?;
    gateway.start_again().await?;
    shipped(&gateway).await?;
    let account = Account::take(&scene.log).await?;
    account.assert_one_end_each()?;
    let events = Events(account.exchanges);
    for id in &uncounted {
        let [count] = events.of(id, "tokens_counted")[..] else {
            anyhow::bail!("{id} is not counted once")
        };
        // By who came after: nobody had done it before.
        ensure!(count.outbox() != events.outbox(id)?, "{}", count.json);
        let tokens = count.data()["gen_ai.usage.input_tokens"].as_u64();
        ensure!(tokens > Some(60_000), "the prompt has {tokens:?} tokens");
    }
    scene.projected().await?;
    let open = "SELECT count(*) FROM chat_stats WHERE tokens IS NULL";
    ensure!(
        scene.cluster.read_model().number(open).await? == 0,
        "uncounted"
    );
    assert_verified(&scene.projector).await
}
