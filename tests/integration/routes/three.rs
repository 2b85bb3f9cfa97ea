//! One virtual model in front of three providers: one slow, one that fails every third request,
//! one that is down, and comes back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::ensure;
use futures_util::future::try_join_all;
use nexus_tests::client::Ending;
use nexus_tests::log::Stream;
use nexus_tests::{Chaos, Client, Result, Script, Upstream, until};
use serde_json::json;

use super::{ask_for, breaker_changes, provider, provider_at, route, until_changes};
use crate::stage::{Stage, VISIBLE_BOUND};

/// Clients at once.
const CLIENTS: usize = 12;

/// Requests of each client, half of them streams.
const REQUESTS: usize = 20;

/// How long the slow one takes to begin.
const SLOW: Duration = Duration::from_millis(1500);

/// The three.
struct Three {
    slow: Upstream,
    flaky: Upstream,
    dead: Upstream,
    /// The way to the dead one.
    line: Chaos,
}

impl Three {
    async fn start(client: &Client) -> Result<Self> {
        let slow = provider(client, "slow", "slow-1").await?;
        slow.always(Script::answer().pause_before_headers(SLOW));
        let flaky = provider(client, "flaky", "flaky-1").await?;
        let count = AtomicUsize::new(0);
        flaky.choose(move |_request| {
            if count.fetch_add(1, Ordering::Relaxed) % 3 == 2 {
                Script::failure(500, "engine_down")
            } else {
                Script::answer()
            }
        });
        let dead = Upstream::start().await?;
        let line = Chaos::start(&dead.host_port())?;
        line.refuse().await?;
        let url = format!("http://{}/v1", line.url_host_port());
        provider_at(client, "dead", "dead-1", &url).await?;
        let targets = json!([{"model": "slow-1"}, {"model": "flaky-1"}, {"model": "dead-1"}]);
        route(client, "virtual", targets).await?;
        Ok(Self {
            slow,
            flaky,
            dead,
            line,
        })
    }
}

/// How often the log says that a provider was asked.
async fn attempts_at(stage: &Stage, provider: &str) -> Result<usize> {
    let events = stage.log.events(Stream::Exchanges).await?;
    let asked = events.iter().filter(|event| {
        event.name() == "attempt_started" && event.data()["gen_ai.provider.name"] == provider
    });
    Ok(asked.count())
}

/// The requests of one client, one after the other; each must be answered whole.
async fn work(client: &Client, number: usize) -> Result<()> {
    for round in 0..REQUESTS {
        let body = ask_for("virtual", &format!("c-{number}-{round}"));
        if round % 2 == 0 {
            client.chat(&body).await?.expect(200)?;
        } else {
            let mut stream = client.chat_stream(&body).await?;
            let seen = stream.end().await?;
            ensure!(seen.ending() == Ending::Done, "{seen:?}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_notices_that_one_is_slow_one_fails_and_one_is_down() -> Result<()> {
    // Looks find out soon that the dead one is back, however long it was away.
    let stage = Stage::set_with(|hub| hub.env("NEXUS_HEALTH_INTERVAL_SECONDS", "0.3")).await?;
    let client = &stage.client;
    let three = Three::start(client).await?;
    try_join_all((0..CLIENTS).map(|number| work(client, number))).await?;

    let (slow, flaky) = (three.slow.exchanges().len(), three.flaky.exchanges().len());
    println!(
        "of {} requests: slow {slow}, flaky {flaky} tries",
        CLIENTS * REQUESTS
    );
    ensure!(slow < flaky, "the slow one got {slow}, the other {flaky}");
    // Each was answered by one of them, and a third of the other's tries failed.
    ensure!(
        slow + flaky - flaky / 3 == CLIENTS * REQUESTS,
        "{slow} {flaky}"
    );
    // What was sent to the dead one, it was before the breaker opened, or as a probe.
    until_changes(&stage, "dead", &["closed open failures_in_a_row"]).await?;
    let tried = attempts_at(&stage, "dead").await?;
    ensure!(
        tried < 5 + CLIENTS + 5,
        "the dead one was asked {tried} times"
    );
    ensure!(breaker_changes(&stage, "flaky").await?.is_empty());

    // It comes back: a probe closes its breaker, and it gets its share.
    three.line.accept()?;
    until(
        "the probe has closed the breaker",
        VISIBLE_BOUND,
        async || {
            client
                .chat(&ask_for("virtual", "again"))
                .await?
                .expect(200)?;
            let seen = super::health(client, "dead").await?;
            ensure!(seen["state"] == "closed", "{seen}");
            anyhow::Ok(())
        },
    )
    .await?;
    ensure!(!three.dead.exchanges().is_empty());
    until("the log has it", VISIBLE_BOUND, async || {
        let changes = breaker_changes(&stage, "dead").await?;
        let last = changes.last().map(String::as_str);
        ensure!(last == Some("half_open closed answered"), "{changes:?}");
        anyhow::Ok(())
    })
    .await?;
    stage.strike().await
}
