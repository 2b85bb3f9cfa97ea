//! Two gateways that share one Redis, and a load that both get at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use nexus_tests::account::BOUND;
use nexus_tests::client::Answer;
use nexus_tests::gate::Gate;
use nexus_tests::hub::Cluster;
use nexus_tests::{Broker, Client, Hub, Redis, Result, Upstream, until};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::stage::MODEL;

/// Tokens of an answer at most, as the requests here say.
pub(super) const ANSWER_MAX: u64 = 1000;

/// The parts of a test with two gateways.
pub(super) struct Pair {
    /// The gateways. Before what they work with, so that they are gone first.
    pub(super) hubs: [Hub; 2],
    /// The admin at each.
    pub(super) admins: [Client; 2],
    pub(super) upstream: Upstream,
    pub(super) redis: Redis,
    _broker: Broker,
}

impl Pair {
    pub(super) async fn set() -> Result<Self> {
        let (broker, redis) = (Broker::start().await?, Redis::start().await?);
        let cluster = Cluster::new(&broker, &redis)?;
        let (one, two) = tokio::try_join!(cluster.gateway().start(), cluster.gateway().start())?;
        let admins = [one.client()?, two.client()?];
        let upstream = Upstream::start().await?;
        admins[0].serve_model(MODEL, &upstream.url()).await?;
        Ok(Self {
            hubs: [one, two],
            admins,
            upstream,
            redis,
            _broker: broker,
        })
    }

    /// A new key with that body, at both gateways; in force at both.
    pub(super) async fn key(&self, body: &Value) -> Result<[Client; 2]> {
        let created = self.admins[0].post("/keys", body).await?.expect(201)?;
        let secret = created.json["key"].as_str().context("no key")?;
        let clients = [
            self.admins[0].with_key(secret)?,
            self.admins[1].with_key(secret)?,
        ];
        until("the other gateway knows the key", BOUND, async || {
            let path = format!("/v1/models/{MODEL}");
            clients[1].get(&path).await?.expect(200).map(drop)
        })
        .await?;
        Ok(clients)
    }

    /// A price of one thousandth of a dollar a token, in force at both.
    pub(super) async fn price(&self) -> Result<()> {
        let price = json!({
            "model_name": MODEL,
            "input_micros_per_million": 1_000_000_000,
            "output_micros_per_million": 1_000_000_000,
        });
        let created = self.admins[0].post("/prices", &price).await?.expect(201)?;
        let path = format!("/prices/{}", created.id()?);
        until("the other gateway knows the price", BOUND, async || {
            self.admins[1].get(&path).await?.expect(200).map(drop)
        })
        .await
    }
}

/// A request that may use [`ANSWER_MAX`] tokens for its answer and really uses ten.
pub(super) fn ask(number: usize) -> Value {
    json!({
        "model": MODEL,
        "max_tokens": ANSWER_MAX,
        "messages": [message(number)],
    })
}

fn message(number: usize) -> Value {
    json!({"role": "user", "content": format!("tell me about rivers {number:03}")})
}

/// Tokens that a request of [`ask`] reserves: a third of its bytes, and the answer.
pub(super) fn reserved() -> u64 {
    let bytes = message(0).to_string().len();
    u64::try_from(bytes.div_ceil(3)).unwrap_or(0) + ANSWER_MAX
}

/// Asks so often at once, by turns at each client.
pub(super) async fn at_once(clients: &[Client], count: usize) -> Result<Vec<Answer>> {
    let asking = (0..count).map(|number| {
        let client = &clients[number % clients.len()];
        async move { client.chat(&ask(number)).await }
    });
    try_join_all(asking).await
}

/// The same while nobody gets an answer: the gate opens when all others are refused.
pub(super) async fn held_at_once(
    clients: &[Client],
    count: usize,
    gate: &Gate,
) -> Result<Vec<Answer>> {
    let refused = AtomicUsize::new(0);
    let asking = (0..count).map(|number| {
        let (client, refused) = (&clients[number % clients.len()], &refused);
        async move {
            let answer = client.chat(&ask(number)).await?;
            refused.fetch_add(usize::from(answer.status == 429), Ordering::Relaxed);
            Ok::<_, anyhow::Error>(answer)
        }
    });
    let opening = async {
        until("all are at the gate or refused", BOUND, async || {
            let seen = (gate.arrived(), refused.load(Ordering::Relaxed));
            if seen.0 + seen.1 == count {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .await?;
        gate.open();
        Ok(())
    };
    let (answers, ()) = tokio::try_join!(try_join_all(asking), opening)?;
    Ok(answers)
}

/// When a load began, and how often a gateway had decided by itself until then: Redis may be slow on
/// a busy machine.
pub(super) struct Begun {
    at: Instant,
    alone: f64,
}

impl Pair {
    pub(super) async fn begin(&self) -> Result<Begun> {
        Ok(Begun {
            at: Instant::now(),
            alone: self.alone().await?,
        })
    }

    async fn alone(&self) -> Result<f64> {
        let mut sum = 0.0;
        for hub in &self.hubs {
            sum += hub
                .metric("nexus_redis_fallbacks_total")
                .await?
                .unwrap_or(0.0);
        }
        Ok(sum)
    }

    /// Fails unless exactly so many went through as a bucket holds, and what flowed into it since.
    pub(super) async fn ensure_exact(
        &self,
        answers: &[Answer],
        (limit, each): (u64, u64),
        begun: &Begun,
    ) -> Result<()> {
        let inflow = begun.at.elapsed().as_millis() * u128::from(limit) / 60_000;
        let most = (u128::from(limit) + inflow) / u128::from(each);
        self.ensure_count(answers, limit / each, u64::try_from(most)?, begun)
            .await
    }

    /// The same for what nothing flows into.
    pub(super) async fn ensure_count(
        &self,
        answers: &[Answer],
        least: u64,
        most: u64,
        begun: &Begun,
    ) -> Result<()> {
        let good = count(answers, 200);
        let refused = count(answers, 429);
        ensure!(good + refused == answers.len(), "{answers:?}");
        let good = u64::try_from(good)?;
        ensure!(good >= least, "{good} went through, and not {least}");
        let alone = self.alone().await? - begun.alone;
        let more = u32::try_from(good.saturating_sub(most))?;
        ensure!(
            f64::from(more) <= alone,
            "{good} went through, and not {most}"
        );
        Ok(())
    }
}

pub(super) fn count(answers: &[Answer], status: u16) -> usize {
    answers
        .iter()
        .filter(|answer| answer.status == status)
        .count()
}

/// One of the refusals.
pub(super) fn a_refusal(answers: &[Answer]) -> Result<&Answer> {
    let refused = answers.iter().find(|answer| answer.status == 429);
    refused.context("nobody was refused")
}
