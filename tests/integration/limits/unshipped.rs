//! Redis is emptied while one gateway cannot ship what it has charged.
//!
//! Nobody else can know of that money: until the broker has it, the month may be overspent by just
//! that, and not by more. Then it is exact again.

use anyhow::{Context, ensure};
use nexus_tests::account::{BOUND, projected, shipped};
use nexus_tests::hub::Cluster;
use nexus_tests::{Broker, Chaos, Client, Redis, Result, Script, Upstream, until};
use serde_json::{Value, json};

use super::outages::{EXACT_BOUND, Money};
use super::price;
use crate::stage::MODEL;

/// Five tokens at a thousandth, and five at two.
const COST: u64 = 15_000;

/// Twenty requests: the last is let in with what is reserved for it, and one more is not.
const BUDGET: u64 = 21 * COST - 1;

/// Requests that are paid and shipped before.
const SHIPPED: u64 = 5;

/// Requests that are paid and cannot be shipped.
const UNSHIPPED: u64 = 5;

/// A request that reserves less than two of them cost.
fn ask(number: u64) -> Value {
    json!({
        "model": MODEL,
        "max_tokens": 5,
        "messages": [{"role": "user", "content": format!("tell me about rivers {number:03}")}],
    })
}

/// Asks one by one until it is refused; gives how many were let in.
async fn spend_all(client: &Client, most: u64) -> Result<u64> {
    for number in 0..=most {
        let answer = client.chat(&ask(number)).await?;
        if answer.status == 429 {
            ensure!(answer.error_code() == "insufficient_quota", "{answer:?}");
            return Ok(number);
        }
        answer.expect(200)?;
    }
    anyhow::bail!("more than {most} were let in")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_cannot_ship_costs_the_month_no_more_than_it_has_charged() -> Result<()> {
    let (broker, redis) = (Broker::start().await?, Redis::start().await?);
    let (cluster, upstream) = (Cluster::new(&broker, &redis)?, Upstream::start().await?);
    upstream.always(Script::answer());
    let wire = Chaos::start(&broker.host_port())?;
    let through_wire = format!("nats://{}", wire.url_host_port());
    let (projector, stalled, other) = tokio::try_join!(
        cluster.projector().start(),
        cluster
            .gateway()
            .env("NEXUS_NATS_URL", through_wire)
            .start(),
        cluster.gateway().start(),
    )?;
    let admin = other.client()?;
    admin.serve_model(MODEL, &upstream.url()).await?;
    price(&admin).await?;
    let key = json!({"name": "hers", "monthly_budget": BUDGET});
    let created = admin.post("/keys", &key).await?.expect(201)?;
    let secret = created.json["key"].as_str().context("no key")?;
    let [at_stalled, at_other] = [stalled.client()?, other.client()?];
    let [at_stalled, at_other] = [at_stalled.with_key(secret)?, at_other.with_key(secret)?];
    // The key came last.
    until("the other gateway knows the key", BOUND, async || {
        let path = format!("/v1/models/{MODEL}");
        at_stalled.get(&path).await?.expect(200).map(drop)
    })
    .await?;
    for number in 0..SHIPPED {
        at_stalled.chat(&ask(number)).await?.expect(200)?;
    }
    shipped(&stalled).await?;
    projected(&projector).await?;
    wire.stall();
    for number in 0..UNSHIPPED {
        at_stalled.chat(&ask(number)).await?.expect(200)?;
    }

    redis.flush().await?;
    // Whoever comes first makes the counter begin.
    at_other.chat(&ask(0)).await?.expect(200)?;
    until("what can be read is counted", EXACT_BOUND, async || {
        let money = Money::of(&redis).await?;
        // The one just now was charged, or read as well.
        ensure!(money.used() == (SHIPPED + 1) * COST, "{money:?}");
        Ok(())
    })
    .await?;
    let most = BUDGET / COST - SHIPPED;
    let paid = 1 + spend_all(&at_other, most).await?;
    ensure!(
        paid <= most,
        "{paid} were let in, and there was money for {most}"
    );
    ensure!(spend_all(&at_stalled, 0).await? == 0);

    wire.flow();
    let all = (SHIPPED + UNSHIPPED + paid) * COST;
    ensure!(all <= BUDGET + UNSHIPPED * COST, "{all} were spent");
    until("the money is exact", EXACT_BOUND, async || {
        let money = Money::of(&redis).await?;
        ensure!(money.used() == all, "{money:?}, but {all} were spent");
        Ok(())
    })
    .await?;
    for client in [&at_stalled, &at_other] {
        ensure!(spend_all(client, 0).await? == 0);
    }
    Ok(())
}
