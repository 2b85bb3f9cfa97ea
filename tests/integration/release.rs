//! When a byte may leave the gateway: `NEXUS_RELEASE`, and what it waits for on the disk,
//! `NEXUS_OUTBOX_SYNC`.

mod standstill;

use std::time::Duration;

use anyhow::{Context, ensure};
use nexus_tests::account::{Account, BOUND, Received, assert_verified, shipped};
use nexus_tests::client::Ending;
use nexus_tests::log::Stream;
use nexus_tests::{Broker, Chaos, Client, Gate, Hub, Log, Result, Script, Upstream, until};

use serde_json::json;

use crate::stage::{MODEL, ask};

/// Chunks of text of an answer; the role comes before them and the finish reason after them.
const CHUNKS: usize = 6;

/// What a byte that leaves too soon has time for: it needs a millisecond.
const TOO_SOON: Duration = Duration::from_millis(300);

/// A hub whose way to the broker can be stalled.
struct Scene {
    hub: Hub,
    client: Client,
    upstream: Upstream,
    log: Log,
    wire: Chaos,
    _broker: Broker,
}

impl Scene {
    async fn set(release: &str, sync: &str) -> Result<Self> {
        let (broker, upstream) = (Broker::start().await?, Upstream::start().await?);
        let wire = Chaos::start(&broker.host_port())?;
        let hub = Hub::standalone()
            .env("NEXUS_NATS_URL", format!("nats://{}", wire.url_host_port()))
            .env("NEXUS_RELEASE", release)
            .env("NEXUS_OUTBOX_SYNC", sync)
            .env("NEXUS_DRAIN_SECONDS", 1);
        let hub = hub.start().await?;
        let client = hub.client()?;
        client.serve_model(MODEL, &upstream.url()).await?;
        Ok(Self {
            log: Log::connect(&broker.url()).await?,
            hub,
            client,
            upstream,
            wire,
            _broker: broker,
        })
    }

    /// Waits until so many requests are let in and not ended.
    async fn open(&self, count: u32) -> Result<()> {
        until("the hub has let them in", BOUND, async || {
            let open = self.hub.metric("nexus_open_exchanges").await?;
            ensure!(open == Some(f64::from(count)), "{open:?} are open");
            anyhow::Ok(())
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_release_stream_nobody_sees_what_the_broker_does_not_have() -> Result<()> {
    let mut scene = Scene::set("stream", "os").await?;
    let gate = Gate::closed();
    let script = Script::answer().chunks(CHUNKS).wait_after(2, &gate);
    scene.upstream.once(script);
    let mut stream = scene.client.chat_stream(&ask("held")).await?;
    let seen = stream.chunks(3).await?;
    let chunks = scene.log.events(Stream::Chunks).await?;
    ensure!(chunks.len() >= seen.len(), "seen before it was stored");

    // The provider says more, the hub records what it reads, and the broker hears nothing of it.
    scene.wire.stall();
    gate.open();
    until("the hub has recorded more", BOUND, async || {
        let recorded = scene.hub.metric("nexus_chunks_total").await?;
        ensure!(recorded > Some(3.0), "{recorded:?}");
        anyhow::Ok(())
    })
    .await?;
    let asked_before = scene.upstream.exchanges().len();
    let other = scene.client.clone();
    let mut waits = Box::pin(async move { other.chat(&ask("waits")).await });
    tokio::select! {
        answer = &mut waits => anyhow::bail!("answered before anything was stored: {answer:?}"),
        () = tokio::time::sleep(TOO_SOON) => {}
    }
    scene.open(2).await?;
    // A refusal is an event as well.
    let unknown = json!({"model": "none", "messages": [{"role": "user", "content": "a"}]});
    let (other, reader) = (scene.client.clone(), scene.client.with_key("nexus-no")?);
    let mut refused = Box::pin(async move { other.chat(&unknown).await });
    tokio::select! {
        answer = &mut refused => anyhow::bail!("refused before that was stored: {answer:?}"),
        () = tokio::time::sleep(TOO_SOON) => {}
    }
    // Nobody is recorded who is not known.
    reader.chat(&ask("unknown")).await?.expect(401)?;
    let asked = scene.upstream.exchanges().len();
    ensure!(asked == asked_before, "the provider was asked too soon");
    let seen = stream.seen().chunks().len();
    ensure!(seen == 3, "the client has {seen} chunks");

    scene.wire.flow();
    let seen = stream.end().await?;
    ensure!(seen.ending == Some(Ending::Done), "{seen:?}");
    waits.await?.expect(200)?;
    refused.await?.expect(404)?;
    shipped(&scene.hub).await?;
    let account = Account::take(&scene.log).await?;
    account.assert_one_end_each()?;
    let request_id = stream.header("x-request-id").context("no X-Request-Id")?;
    account.assert_holds(&Received {
        request_id: request_id.to_owned(),
        seen,
    })?;
    ensure!(scene.hub.stop().await?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_release_local_a_stalled_broker_holds_nobody_up() -> Result<()> {
    let mut scene = Scene::set("local", "os").await?;
    scene.wire.stall();
    let script = Script::answer().chunks(CHUNKS);
    scene.upstream.always(script);
    let mut stream = scene.client.chat_stream(&ask("free")).await?;
    let seen = stream.end().await?;
    ensure!(seen.ending == Some(Ending::Done), "{seen:?}");
    scene.client.chat(&ask("free-too")).await?.expect(200)?;
    scene.wire.flow();
    shipped(&scene.hub).await?;
    ensure!(scene.hub.stop().await?.success());
    Ok(())
}

/// Whatever is waited for before a byte leaves, what left is in the log after a SIGKILL.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_has_outlives_a_kill_under_every_setting() -> Result<()> {
    for (release, sync) in [
        ("local", "interval"),
        ("local", "always"),
        ("stream", "always"),
    ] {
        let mut scene = Scene::set(release, sync).await?;
        let settings = scene.client.get("/settings").await?.expect(200)?.json;
        ensure!(settings["release"] == release, "{settings}");
        ensure!(settings["outbox_sync"] == sync, "{settings}");
        let gate = Gate::closed();
        let script = Script::answer().chunks(CHUNKS).wait_after(4, &gate);
        scene.upstream.always(script);
        let mut open = Vec::new();
        for number in 0..5 {
            let body = ask(&format!("open-{number}"));
            let mut stream = scene.client.chat_stream(&body).await?;
            stream.chunks(5).await?;
            open.push(stream);
        }
        scene.hub.kill().await?;
        scene.hub.start_again().await?;
        shipped(&scene.hub).await?;
        let account = Account::take(&scene.log).await?;
        account.assert_one_end_each()?;
        for stream in &mut open {
            let seen = stream.end().await?;
            let request_id = stream.header("x-request-id").context("no X-Request-Id")?;
            account.assert_gateway_lost(request_id)?;
            account.assert_holds(&Received {
                request_id: request_id.to_owned(),
                seen,
            })?;
        }
        assert_verified(&scene.hub).await?;
    }
    Ok(())
}
