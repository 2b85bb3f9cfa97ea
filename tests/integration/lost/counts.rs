//! A gateway dies between the end of an answer without usage and its count.

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use nexus_tests::account::{Account, assert_verified, shipped};
use nexus_tests::held::Held;
use nexus_tests::{Hub, Result};
use serde_json::{Value, json};

use super::{Events, MODEL, Scene};

/// Answers that nobody has counted when the gateway dies.
const UNCOUNTED: usize = 3;

/// Times that a gateway is killed to find it before its first count, which takes it a while.
const KILLS_MAX: usize = 5;

/// Asks for some answers without usage, all at once; gives their ids.
async fn ask_uncounted(hub: &Hub) -> Result<Vec<String>> {
    let client = hub.client()?;
    let asking = (0..UNCOUNTED).map(|number| {
        let client = client.clone();
        async move { client.chat(&ask(&format!("uncounted-{number}"))).await }
    });
    let mut requests = Vec::new();
    for answer in try_join_all(asking).await? {
        let id = answer.header("x-request-id").context("no X-Request-Id")?;
        requests.push(id.to_owned());
        answer.expect(200)?;
    }
    Ok(requests)
}

/// Ends some answers without usage at a gateway that can tell the broker of no count, and kills it;
/// gives their ids.
///
/// Its outbox may hold the counts; nobody sees them before it comes back. The first count of a
/// gateway loads a vocabulary, so it comes in a later batch than the ends.
pub(super) async fn die_before_telling_counts(
    hub: &mut Hub,
    held: &Held,
    scene: &Scene,
) -> Result<Vec<String>> {
    let requests = ask_uncounted(hub).await?;
    let events = scene.until_log("the answers are in the log", |events| {
        let open = requests.iter().find(|id| events.terminals(id).is_empty());
        open.map_or(Ok(()), |id| Err(format!("{id} has not ended")))
    });
    let events = events.await?;
    hub.kill().await?;
    held.release();
    let counted = requests
        .iter()
        .filter(|id| !events.of(id, "tokens_counted").is_empty());
    ensure!(counted.count() == 0, "a count came through");
    Ok(requests)
}

fn ask(tag: &str) -> Value {
    let text = format!("rivers and hills {tag}");
    json!({"model": MODEL, "messages": [{"role": "user", "content": text}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_the_gateway_died_before_counting_are_counted_once() -> Result<()> {
    let scene = Scene::set(&[]).await?;
    let mut gateway = scene.gateway().start().await?;
    scene.serve(&[&gateway]).await?;
    let mut counted_by_another = 0;
    for _ in 0..KILLS_MAX {
        let uncounted = ask_uncounted(&gateway).await?;
        gateway.kill().await?;
        gateway.start_again().await?;
        shipped(&gateway).await?;
        let account = Account::take(&scene.log).await?;
        account.assert_one_end_each()?;
        let events = Events(account.exchanges);
        for id in &uncounted {
            let [count] = events.of(id, "tokens_counted")[..] else {
                anyhow::bail!("{id} is not counted once")
            };
            let tokens = count.data()["gen_ai.usage.input_tokens"].as_u64();
            ensure!(tokens > Some(5), "the prompt has {tokens:?} tokens");
            counted_by_another += usize::from(count.outbox() != events.outbox(id)?);
        }
        if counted_by_another > 0 {
            break;
        }
    }
    ensure!(
        counted_by_another > 0,
        "the gateway was never killed before it had counted"
    );
    scene.projected().await?;
    let open = "SELECT count(*) FROM chat_stats WHERE tokens IS NULL";
    ensure!(
        scene.cluster.read_model().number(open).await? == 0,
        "uncounted"
    );
    assert_verified(&scene.projector).await
}
