//! Limits of providers: one that is at its limit is passed over, and who finds none is told.
//!
//! The limits of keys and users are looked at in the modules below, most with two gateways that
//! share one Redis.

mod away;
mod budgets;
mod clients;
mod configured;
mod exact;
mod outages;
mod pair;
mod settled;
mod unshipped;

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use nexus_tests::account::{Account, shipped};
use nexus_tests::client::Answer;
use nexus_tests::hub::Cluster;
use nexus_tests::{Broker, Client, Redis, Result, Script, Upstream};
use serde_json::json;
use tokio::time::Instant;

use crate::stage::{MODEL, Stage, ask};

/// A price of one thousandth of a dollar a token of the prompt, and of two of the answer.
async fn price(client: &Client) -> Result<()> {
    let price = json!({
        "model_name": MODEL,
        "input_micros_per_million": 1_000_000_000,
        "output_micros_per_million": 2_000_000_000,
    });
    client.post("/prices", &price).await?.expect(201).map(drop)
}

/// Requests at once.
const REQUESTS: usize = 12;

/// Requests a second that a limited provider takes.
const LIMIT: u32 = 2;

/// What a provider with that limit may have taken by now: a second's worth at once, and then the rate.
fn most(since: Instant) -> usize {
    let refilled = since.elapsed().as_secs_f64() * f64::from(LIMIT);
    let seconds = (0..).take_while(|number| f64::from(*number) < refilled);
    usize::try_from(LIMIT).unwrap_or(0) + seconds.count()
}

async fn ask_at_once(clients: &[Client]) -> Result<Vec<Answer>> {
    let asking = (0..REQUESTS).map(|number| {
        let client = clients[number % clients.len()].clone();
        async move { client.chat(&ask(&format!("at-once-{number}"))).await }
    });
    try_join_all(asking).await
}

fn with_status(answers: &[Answer], status: u16) -> usize {
    let such = answers.iter().filter(|answer| answer.status == status);
    such.count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_at_its_limit_is_passed_over_and_the_last_one_refuses() -> Result<()> {
    let stage = Stage::set().await?;
    stage.upstream.always(Script::answer());
    let limit = json!({"rate_limit": LIMIT});
    let path = format!("/providers/provider-of-{MODEL}");
    stage.client.put(&path, &limit).await?.expect(200)?;
    let began = Instant::now();
    let answers = ask_at_once(std::slice::from_ref(&stage.client)).await?;
    let (good, refused) = (with_status(&answers, 200), with_status(&answers, 429));
    ensure!(good + refused == REQUESTS, "{answers:?}");
    ensure!((1..=most(began)).contains(&good), "{good} went through");
    let one = answers.iter().find(|answer| answer.status == 429);
    let one = one.context("nobody was refused")?;
    ensure!(one.error_code() == "rate_limit_exceeded", "{}", one.text());
    ensure!(one.header("retry-after").is_some(), "{one:?}");
    ensure!(stage.upstream.exchanges().len() == good);

    // Another provider of the same model takes what the first one does not.
    let other = Upstream::start().await?;
    other.always(Script::answer());
    let provider = json!({"name": "second", "server_url": other.url()});
    stage
        .client
        .post("/providers", &provider)
        .await?
        .expect(201)?;
    let model = json!({"provider_id": "second", "model_name": MODEL});
    stage
        .client
        .post("/provider_models", &model)
        .await?
        .expect(201)?;
    let answers = ask_at_once(std::slice::from_ref(&stage.client)).await?;
    ensure!(with_status(&answers, 200) == REQUESTS, "{answers:?}");
    let first = stage.upstream.exchanges().len();
    ensure!(
        first <= most(began),
        "the first one was asked {first} times"
    );
    ensure!(first + other.exchanges().len() == good + REQUESTS);

    shipped(&stage.hub).await?;
    let account = Account::take(&stage.log).await?;
    let rejected = account
        .exchanges
        .iter()
        .filter(|event| event.name() == "rejected");
    ensure!(rejected.count() == refused);
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_share_a_providers_limit() -> Result<()> {
    let (broker, redis) = (Broker::start().await?, Redis::start().await?);
    let cluster = Cluster::new(&broker, &redis)?;
    let (one, two) = tokio::try_join!(cluster.gateway().start(), cluster.gateway().start())?;
    let upstream = Upstream::start().await?;
    upstream.always(Script::answer());
    let clients = [one.client()?, two.client()?];
    let provider = json!({"name": "shared", "server_url": upstream.url(), "rate_limit": LIMIT});
    clients[0]
        .post("/providers", &provider)
        .await?
        .expect(201)?;
    let model = json!({"provider_id": "shared", "model_name": MODEL});
    clients[0]
        .post("/provider_models", &model)
        .await?
        .expect(201)?;
    nexus_tests::until(
        "the other one knows it",
        nexus_tests::account::BOUND,
        async || {
            let path = format!("/v1/models/{MODEL}");
            clients[1].get(&path).await?.expect(200).map(drop)
        },
    )
    .await?;
    let began = Instant::now();
    let answers = ask_at_once(&clients).await?;
    let good = with_status(&answers, 200);
    ensure!(good + with_status(&answers, 429) == REQUESTS, "{answers:?}");
    ensure!((1..=most(began)).contains(&good), "{good} went through");
    ensure!(upstream.exchanges().len() == good);
    Ok(())
}

/// How many scripts Redis has run.
async fn scripts(redis: &Redis) -> Result<u64> {
    let mut connection = redis.connection().await?;
    let mut info = redis::cmd("INFO");
    let said: String = info
        .arg("commandstats")
        .query_async(&mut connection)
        .await?;
    let mut lines = said.lines();
    let calls = lines.find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    let calls = calls.and_then(|calls| calls.split(',').next());
    Ok(calls.context("no script was run")?.parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_providers_limit_is_asked_together_with_the_others() -> Result<()> {
    let redis = Redis::start().await?;
    let stage = Stage::set_with(|hub| hub.redis(&redis)).await?;
    stage.upstream.always(Script::answer());
    // The quietest of three rounds counts: a gateway whose read model is ready only now tells Redis of each
    // exchange that has ended meanwhile, once.
    let mut costs = [u64::MAX; 2];
    for _ in 0..3 {
        for (cost, limit) in costs.iter_mut().zip([json!(null), json!(1_000)]) {
            let path = format!("/providers/provider-of-{MODEL}");
            let limit = json!({"rate_limit": limit});
            stage.client.put(&path, &limit).await?.expect(200)?;
            let before = scripts(&redis).await?;
            for number in 0..40 {
                let body = ask(&format!("number-{number}"));
                stage.client.chat(&body).await?.expect(200)?;
            }
            *cost = (scripts(&redis).await? - before).min(*cost);
        }
    }
    let more = costs[1].saturating_sub(costs[0]);
    ensure!(more < 20, "40 requests took {costs:?} scripts");
    stage.strike().await
}
