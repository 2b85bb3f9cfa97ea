//! What reaches the log late is waited for, and found however late it came.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use async_nats::jetstream;
use nexus_events::clock::{Clock, ManualClock, SystemClock};
use nexus_events::id::RequestId;
use nexus_events::subject;
use nexus_tests::account::{projected, shipped};
use nexus_tests::client::Ending;
use nexus_tests::hub::{Cluster, HubBuilder};
use nexus_tests::upstream::content;
use nexus_tests::{Broker, Chaos, Client, Hub, MovedClock, Redis, Result, Script, Upstream, until};

use super::{CHUNKS, path_of};
use crate::stage::{MODEL, ask};

/// A gateway cut off from the broker is known to be after its next heartbeat; a busy machine may
/// need far more.
const BOUND: Duration = Duration::from_mins(1);

/// Two gateways: one behind a wire that can be cut and by a clock of its own, one as usual.
struct Apart {
    far: Hub,
    near: Hub,
    wire: Chaos,
    _clock: MovedClock,
    _upstream: Upstream,
    _redis: Redis,
    _broker: Broker,
}

fn by(hub: HubBuilder, clock: &MovedClock) -> HubBuilder {
    let env = clock.env().into_iter();
    env.fold(hub, |hub, (name, value)| hub.env(name, value))
}

impl Apart {
    /// `ahead`: seconds that the far one's clock is ahead.
    async fn start(ahead: i64) -> Result<Self> {
        let (broker, redis) = (Broker::start().await?, Redis::start().await?);
        let (wire, clock) = (
            Chaos::start(&broker.host_port())?,
            MovedClock::by(ahead).await?,
        );
        let cluster = Cluster::new(&broker, &redis)?;
        let through = format!("nats://{}", wire.url_host_port());
        let far = by(cluster.gateway(), &clock).env("NEXUS_NATS_URL", through);
        let (far, near) = tokio::try_join!(far.start(), cluster.gateway().start())?;
        let upstream = Upstream::start().await?;
        upstream.always(Script::answer().chunks(CHUNKS));
        near.client()?.serve_model(MODEL, &upstream.url()).await?;
        until("the far one knows the model", BOUND, async || {
            let models = far.client()?.get("/v1/models").await?.expect(200)?;
            ensure!(models.text().contains(MODEL), "{}", models.text());
            Ok(())
        })
        .await?;
        Ok(Self {
            far,
            near,
            wire,
            _clock: clock,
            _upstream: upstream,
            _redis: redis,
            _broker: broker,
        })
    }

    /// Asks the far one; gives where its answer can be read again.
    async fn ask(&self, tag: &str) -> Result<String> {
        let mut stream = self.far.client()?.chat_stream(&ask(tag)).await?;
        let live = stream.end().await?;
        ensure!(live.ending == Some(Ending::Done), "{live:?}");
        path_of(&stream)
    }
}

/// Is told that it may be on its way, and when to come back.
async fn may_come(client: &Client, path: &str) -> Result<()> {
    let answer = client.get(path).await?.expect(503)?;
    ensure!(
        answer.error_code() == "not_in_the_log_yet",
        "{}",
        answer.text()
    );
    let after = answer.header("retry-after").context("no Retry-After")?;
    ensure!(after.parse::<u64>()? > 0, "{after}");
    Ok(())
}

/// Gets the whole answer.
async fn replays(client: &Client, path: &str, tag: &str) -> Result<()> {
    let mut stream = client.events(path).await?;
    let whole = stream.end().await?;
    ensure!(whole.ending == Some(Ending::Done), "{whole:?}");
    ensure!(
        whole.text(0) == content::text(tag, 0, CHUNKS),
        "{}",
        whole.text(0)
    );
    Ok(())
}

/// Where the answer of a request would be that nobody ever made, drawn so many seconds ago.
fn made_up(seconds_ago: u64) -> String {
    let then = SystemClock.now().minus(Duration::from_secs(seconds_ago));
    let id = RequestId::draw(&ManualClock::at(then));
    format!("/v1/chat/completions/{id}/events")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cut_off_gateway_holds_still_is_not_said_to_be_nothing() -> Result<()> {
    for ahead in [0, -600] {
        let apart = Apart::start(ahead).await?;
        let near = apart.near.client()?;
        shipped(&apart.far).await?;
        apart.wire.stall();
        let path = apart.ask("held").await?;
        may_come(&near, &path).await?;
        let carrier = apart.far.client()?.get(&path).await?.expect(503)?;
        ensure!(carrier.header("retry-after").is_some(), "{carrier:?}");
        apart.wire.flow();
        shipped(&apart.far).await?;
        replays(&near, &path, "held").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_hold_any_more_is_nothing() -> Result<()> {
    // The far one's cursors stand ten minutes back, so a request of since then might be its.
    let mut apart = Apart::start(-600).await?;
    let near = apart.near.client()?;
    shipped(&apart.far).await?;
    may_come(&near, &made_up(300)).await?;
    let nothing = near.get(&made_up(1_200)).await?.expect(404)?;
    ensure!(nothing.error_code() == "not_found", "{}", nothing.text());
    near.get(&made_up(200_000)).await?.expect(404)?;
    // It ends in an orderly way, and says so.
    ensure!(apart.far.stop().await?.success(), "it did not stop");
    near.get(&made_up(300)).await?.expect(404)?;
    Ok(())
}

/// The shard of the request whose answer is there.
fn shard_of(path: &str) -> Result<u8> {
    let id = path.split('/').nth(4).context("no id")?;
    Ok(subject::shard(id.parse()?))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_stored_hours_late_replays_whole() -> Result<()> {
    let apart = Apart::start(-7_200).await?;
    let near = apart.near.client()?;
    // Before it in its shard lies what was stored more than an hour after its id was drawn.
    let mut before = BTreeSet::new();
    while before.len() < 16 {
        let mut stream = near.chat_stream(&ask("before")).await?;
        stream.end().await?;
        before.insert(shard_of(&path_of(&stream)?)?);
    }
    shipped(&apart.near).await?;
    let mut path = apart.ask("hours").await?;
    while !before.contains(&shard_of(&path)?) {
        path = apart.ask("hours").await?;
    }
    shipped(&apart.far).await?;
    replays(&near, &path, "hours").await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_clock_was_hours_ahead_is_found_by_the_read_model() -> Result<()> {
    let (broker, clock) = (Broker::start().await?, MovedClock::by(7_200).await?);
    let hub = by(Hub::standalone().nats(&broker), &clock).start().await?;
    let upstream = Upstream::start().await?;
    upstream.always(Script::answer().chunks(CHUNKS));
    let client = hub.client()?;
    client.serve_model(MODEL, &upstream.url()).await?;
    let mut stream = client.chat_stream(&ask("ahead")).await?;
    stream.end().await?;
    projected(&hub).await?;
    replays(&client, &path_of(&stream)?, "ahead").await
}

/// Lets the stream of exchanges take nothing more, or all again.
async fn fill(broker: &Broker, full: bool) -> Result<()> {
    let context = jetstream::new(broker.client().await?);
    let info = context
        .get_stream("NEXUS_EXCHANGES")
        .await?
        .get_info()
        .await?;
    let mut config = info.config;
    config.max_bytes = if full {
        i64::try_from(info.state.bytes)?
    } else {
        -1
    };
    context.update_stream(config).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_asked_gateway_holds_itself_is_not_said_to_be_nothing() -> Result<()> {
    let (broker, clock) = (Broker::start().await?, MovedClock::by(-600).await?);
    let hub = by(Hub::standalone().nats(&broker), &clock).start().await?;
    let upstream = Upstream::start().await?;
    upstream.always(Script::answer().chunks(CHUNKS));
    let client = hub.client()?;
    client.serve_model(MODEL, &upstream.url()).await?;
    shipped(&hub).await?;
    // The log can be read and takes nothing.
    fill(&broker, true).await?;
    let mut stream = client.chat_stream(&ask("own")).await?;
    stream.end().await?;
    let path = path_of(&stream)?;
    // Ten minutes pass: no request that is so old is on its way anywhere else.
    clock.set(0)?;
    may_come(&client, &path).await?;
    fill(&broker, false).await?;
    shipped(&hub).await?;
    replays(&client, &path, "own").await
}
