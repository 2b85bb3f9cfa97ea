//! A month's money is exact to its millionth, whatever becomes of Redis and of the gateway.
//!
//! What Redis has counted is looked at in Redis itself, once nothing is left to be told or read: each
//! request of these tests costs the same, and one that was charged twice or never shows.

use std::time::Duration;

use anyhow::{Context, ensure};
use nexus_tests::gate::Gate;
use nexus_tests::{Chaos, Client, Redis, Result, Script, until};
use serde_json::json;

use super::pair::ask;
use super::price;
use crate::stage::Stage;

/// Five tokens at a thousandth, and five at two.
const COST: u64 = 15_000;

/// What waits is told every 10 s, the read model is read every 5 s; a busy machine may need far more.
pub(super) const EXACT_BOUND: Duration = Duration::from_mins(2);

/// A hub with its state at that address, and a client whose key has a budget.
async fn stage(redis_url: &str) -> Result<(Stage, String)> {
    let stage = Stage::set_with(|hub| hub.env("NEXUS_REDIS_URL", redis_url)).await?;
    stage.upstream.always(Script::answer());
    price(&stage.client).await?;
    let key = json!({"name": "hers", "monthly_budget": 1_000_000_000});
    let created = stage.client.post("/keys", &key).await?.expect(201)?;
    let secret = created.json["key"].as_str().context("no key")?.to_owned();
    Ok((stage, secret))
}

async fn spend(client: &Client, requests: usize) -> Result<()> {
    for number in 0..requests {
        client.chat(&ask(number)).await?.expect(200)?;
    }
    Ok(())
}

/// The one budget as Redis has it.
#[derive(Debug)]
pub(super) struct Money {
    before: u64,
    spent: u64,
    reserved: u64,
    /// Of the log, when what was spent before was read as a whole.
    position: u64,
    /// Requests of which it is remembered that their money was settled.
    settled: usize,
}

impl Money {
    pub(super) async fn of(redis: &Redis) -> Result<Self> {
        let mut connection = redis.connection().await?;
        let keys = async |pattern: &str, connection: &mut _| {
            let mut keys = redis::cmd("KEYS");
            keys.arg(pattern)
                .query_async::<Vec<String>>(connection)
                .await
        };
        let mut budgets = keys("nexus:{limits}:key:*:budget:*", &mut connection).await?;
        budgets.retain(|key| !key.ends_with(":held"));
        let [budget] = &*budgets else {
            anyhow::bail!("no budget, or several: {budgets:?}");
        };
        let fields = ["before", "spent", "reserved", "position"];
        let mut get = redis::cmd("HMGET");
        let values: Vec<Option<u64>> = get
            .arg(budget)
            .arg(&fields)
            .query_async(&mut connection)
            .await?;
        let value = |place: usize| values.get(place).copied().flatten().unwrap_or(0);
        let settled = keys("nexus:{limits}:settled:*:money", &mut connection).await?;
        Ok(Self {
            before: value(0),
            spent: value(1),
            reserved: value(2),
            position: value(3),
            settled: settled.len(),
        })
    }

    pub(super) const fn used(&self) -> u64 {
        self.before + self.spent
    }
}

/// Waits until so many requests are paid, at least so many were told, and the rest was read.
async fn until_exact(redis: &Redis, paid: u64, told: usize) -> Result<()> {
    until("the money is exact", EXACT_BOUND, async || {
        let money = Money::of(redis).await?;
        let is_final = money.settled >= told && money.position > 0;
        ensure!(is_final && money.used() == paid * COST, "{money:?}");
        Ok(())
    })
    .await
}

async fn until_nothing_is_reserved(redis: &Redis) -> Result<()> {
    until("nothing is reserved", EXACT_BOUND, async || {
        let money = Money::of(redis).await?;
        ensure!(money.reserved == 0, "{money:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_spent_while_redis_forgets_everything_counts_once() -> Result<()> {
    let mut redis = Redis::start().await?;
    let (stage, secret) = stage(&redis.url()).await?;
    let hers = stage.client.with_key(&secret)?;
    spend(&hers, 3).await?;
    until_exact(&redis, 3, 3).await?;
    redis.kill().await?;
    spend(&hers, 4).await?;
    redis.restart().await?;
    until_exact(&redis, 7, 4).await?;
    spend(&hers, 2).await?;
    until_exact(&redis, 9, 6).await?;
    until_nothing_is_reserved(&redis).await?;
    stage.strike().await
}

/// How Redis is away while it keeps its data.
#[derive(Clone, Copy, Debug)]
enum Away {
    /// Nobody can connect.
    Refusing,
    /// It gets what it is told too late for the answer.
    Stalled,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_spent_while_redis_cannot_be_reached_is_charged_once() -> Result<()> {
    money_is_charged_once_after(Away::Refusing).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_spent_while_redis_does_not_answer_is_charged_once() -> Result<()> {
    money_is_charged_once_after(Away::Stalled).await
}

async fn money_is_charged_once_after(away: Away) -> Result<()> {
    let redis = Redis::start().await?;
    let chaos = Chaos::start(&redis.host_port())?;
    let (stage, secret) = stage(&format!("redis://{}", chaos.url_host_port())).await?;
    let hers = stage.client.with_key(&secret)?;
    spend(&hers, 3).await?;
    until_exact(&redis, 3, 3).await?;
    // Two are admitted with Redis and end without it.
    let gate = Gate::closed();
    let held = Script::answer().wait_before_headers(&gate);
    stage.upstream.always(held);
    let two = [ask(10), ask(11)];
    let asking = async { tokio::try_join!(hers.chat(&two[0]), hers.chat(&two[1])) };
    let outage = async {
        gate.reached_by(2).await?;
        match away {
            Away::Refusing => {
                chaos.refuse().await?;
                chaos.cut();
            }
            Away::Stalled => chaos.stall(),
        }
        gate.open();
        stage.upstream.always(Script::answer());
        Ok(())
    };
    let ((one, other), ()) = tokio::try_join!(asking, outage)?;
    ensure!(one.status == 200 && other.status == 200);
    spend(&hers, 4).await?;
    match away {
        Away::Refusing => chaos.accept()?,
        Away::Stalled => chaos.flow(),
    }
    until_exact(&redis, 9, 9).await?;
    until_nothing_is_reserved(&redis).await?;
    // Nothing of it was left to the read model: Redis had its data.
    let money = Money::of(&redis).await?;
    ensure!(money.spent + money.before == 9 * COST, "{money:?}");
    stage.strike().await
}

/// How a gateway ends that could not tell what was spent.
#[derive(Clone, Copy, Debug)]
enum Ends {
    Killed,
    Stopped,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_gateway_could_not_tell_is_in_the_month() -> Result<()> {
    untold_money_is_read_after(Ends::Killed).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stopped_gateway_could_not_tell_is_in_the_month() -> Result<()> {
    untold_money_is_read_after(Ends::Stopped).await
}

async fn untold_money_is_read_after(ends: Ends) -> Result<()> {
    let redis = Redis::start().await?;
    let chaos = Chaos::start(&redis.host_port())?;
    let (mut stage, secret) = stage(&format!("redis://{}", chaos.url_host_port())).await?;
    let hers = stage.client.with_key(&secret)?;
    spend(&hers, 3).await?;
    until_exact(&redis, 3, 3).await?;
    chaos.refuse().await?;
    chaos.cut();
    spend(&hers, 4).await?;
    match ends {
        Ends::Stopped => {
            let status = stage.hub.stop().await?;
            ensure!(status.success(), "{status}");
        }
        Ends::Killed => {
            // One is under way: what was seen of it is counted by who adopts it.
            let gate = Gate::closed();
            let held = Script::answer().wait_after(2, &gate);
            stage.upstream.always(held);
            let mut streamed = ask(10);
            streamed["stream"] = json!(true);
            let mut stream = hers.chat_stream(&streamed).await?;
            stream.chunks(2).await?;
            stage.hub.kill().await?;
        }
    }
    chaos.accept()?;
    stage.hub.start_again().await?;
    let client = stage.hub.client()?;
    until("the money is that of the log", EXACT_BOUND, async || {
        let spent = cost_by_the_log(&client).await?;
        let money = Money::of(&redis).await?;
        let is_all = match ends {
            Ends::Stopped => spent == 7 * COST,
            Ends::Killed => spent > 7 * COST,
        };
        ensure!(is_all && money.used() == spent, "{money:?}, {spent}");
        Ok(())
    })
    .await?;
    stage.upstream.always(Script::answer());
    let before = Money::of(&redis).await?.used();
    spend(&client.with_key(&secret)?, 1).await?;
    until("it is counted on from there", EXACT_BOUND, async || {
        let money = Money::of(&redis).await?;
        ensure!(money.used() == before + COST, "{money:?}");
        Ok(())
    })
    .await?;
    stage.strike().await
}

/// What the requests have cost, by the tokens of the statistics: all are of the one key.
async fn cost_by_the_log(client: &Client) -> Result<u64> {
    let answer = client.get("/stats").await?.expect(200)?;
    let usage = &answer.json["tokens_usage"];
    let tokens = |name: &str| usage[name].as_u64().context("no tokens");
    Ok(tokens("prompt")? * 1_000 + tokens("completion")? * 2_000)
}
