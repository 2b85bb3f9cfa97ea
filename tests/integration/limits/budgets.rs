//! A month's money outlives the process that counted it, and the Redis.

use std::time::Duration;

use anyhow::{Context, ensure};
use nexus_tests::{Redis, Result, Script, until};
use serde_json::json;

use super::pair::{ANSWER_MAX, ask};
use super::price;
use crate::stage::Stage;

/// The read model has it soon, and every 5 s a gateway looks.
const SEEDED_BOUND: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn what_was_spent_before_a_restart_counts_after_it() -> Result<()> {
    spent_is_known_again_after(Loss::Restart).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_spent_before_redis_was_emptied_counts_after_it() -> Result<()> {
    spent_is_known_again_after(Loss::OfRedis(Redis::start().await?)).await
}

/// How the shared state forgets.
enum Loss {
    Restart,
    OfRedis(Redis),
}

async fn spent_is_known_again_after(loss: Loss) -> Result<()> {
    let mut stage = Stage::set_with(|hub| match &loss {
        Loss::Restart => hub,
        Loss::OfRedis(redis) => hub.redis(redis),
    })
    .await?;
    stage.upstream.always(Script::answer());
    price(&stage.client).await?;
    let user = json!({"name": "ann", "monthly_budget": 5_000_000});
    stage.client.post("/users", &user).await?.expect(201)?;
    let key = json!({"name": "hers", "user_id": "ann", "monthly_budget": 4_000_000});
    let created = stage.client.post("/keys", &key).await?.expect(201)?;
    let secret = created.json["key"].as_str().context("no key")?.to_owned();
    let hers = stage.client.with_key(&secret)?;
    for number in 0..3 {
        hers.chat(&ask(number)).await?.expect(200)?;
    }
    // Three times five tokens at one thousandth and five at two. One that may cost more than all of it
    // is refused and tells what is left.
    let mut dear = ask(9);
    dear["max_tokens"] = json!(ANSWER_MAX * 3);
    let left = async |client: &nexus_tests::Client| {
        let refused = client.chat(&dear).await?.expect(429)?;
        ensure!(refused.error_code() == "insufficient_quota");
        let message = refused.json["error"]["message"].as_str();
        Ok(message.context("no message")?.to_owned())
    };
    let says = "The user 'ann' may spend 5 USD a month; 4.955 USD are left";
    let keys = "The key 'hers' may spend 4 USD a month; 3.955 USD are left";
    let before = left(&hers).await?;
    ensure!(before.contains(says) || before.contains(keys), "{before}");

    match &loss {
        Loss::Restart => {
            let status = stage.hub.stop().await?;
            ensure!(status.success());
            stage.hub.start_again().await?;
        }
        Loss::OfRedis(redis) => redis.flush().await?,
    }
    let hers = stage.hub.client()?.with_key(&secret)?;
    until("what was spent is known again", SEEDED_BOUND, async || {
        let after = left(&hers).await?;
        ensure!(after.contains(says) || after.contains(keys), "{after}");
        Ok(())
    })
    .await?;
    // And is counted on from there.
    hers.chat(&ask(4)).await?.expect(200)?;
    let after = left(&hers).await?;
    ensure!(
        after.contains("4.94 USD") || after.contains("3.94 USD"),
        "{after}"
    );
    stage.strike().await
}
