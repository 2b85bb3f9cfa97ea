//! SIGKILL at the worst moments: of a gateway in the middle of its streams, again while it repairs
//! what the first one did. Afterwards the log is taken to account.

mod no_room;
mod unreadable;

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use nexus_tests::client::{ChatStream, Ending};
use nexus_tests::hub::Cluster;
use nexus_tests::log::{Event, Stream, terminals_by_request};
use nexus_tests::upstream::{Request, content};
use nexus_tests::{Broker, Chaos, Client, Gate, Hub, Log, Redis, Result, Script, Upstream, until};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use nexus_tests::account::{self, Account, BOUND, Received, answer_text, assert_verified, shipped};

/// As the issue has it.
const STREAMS: usize = 50;

/// Chunks of an answer that is not interrupted.
const CHUNKS: usize = 12;

/// Requests that have ended when the gateway dies, half of them streams.
const COMPLETED: usize = 10;

/// Requests that the provider has not answered at all when the gateway dies.
const UNANSWERED: usize = 3;

const MODEL: &str = "gpt-test";

fn ask(tag: &str) -> Value {
    json!({
        "model": MODEL,
        "messages": [{"role": "user", "content": format!("tell me about rivers, {tag}")}],
    })
}

/// After how many chunks stream `number` stands still: 1 to 10.
fn stands_after(number: usize) -> usize {
    1 + number % 10
}

/// `open-7` stands still after its chunks, `unanswered-7` before everything, all others are answered.
fn script_of(request: &Request, gate: &Gate, unanswered: &Gate) -> Script {
    let tag = request.tag();
    let answer = Script::answer().chunks(CHUNKS);
    match tag.split_once('-') {
        Some(("open", number)) => {
            answer.wait_after(stands_after(number.parse().unwrap_or_default()), gate)
        }
        Some(("unanswered", _)) => answer.wait_before_headers(unanswered),
        _ => answer,
    }
}

/// A hub in the middle of its streams.
struct Traffic {
    upstream: Upstream,
    open: Vec<ChatStream>,
    /// Requests without an answer; they end when the hub dies or they are dropped.
    _unanswered: JoinSet<()>,
}

impl Traffic {
    /// Brings [`STREAMS`] streams to their gates, in the client and in the upstream.
    async fn start(client: &Client) -> Result<Self> {
        let upstream = Upstream::start().await?;
        let (gate, unanswered) = (Gate::closed(), Gate::closed());
        let (for_open, for_unanswered) = (gate.clone(), unanswered.clone());
        upstream.choose(move |request| script_of(request, &for_open, &for_unanswered));
        client.serve_model(MODEL, &upstream.url()).await?;
        for number in 0..COMPLETED / 2 {
            let body = ask(&format!("done-{number}"));
            client.chat(&body).await?.expect(200)?;
            let end = client.chat_stream(&body).await?.end().await?;
            ensure!(end.ending == Some(Ending::Done), "{end:?}");
        }
        let mut waiting = JoinSet::new();
        for number in 0..UNANSWERED {
            let (client, body) = (client.clone(), ask(&format!("unanswered-{number}")));
            // Its answer is that the connection broke.
            waiting.spawn(async move { drop(client.chat(&body).await) });
        }
        let bodies = (0..STREAMS).map(|number| ask(&format!("open-{number}")));
        let asking = bodies.map(|body| async move { client.chat_stream(&body).await });
        let mut open = try_join_all(asking).await?;
        for (number, stream) in open.iter_mut().enumerate() {
            // The opening event with the role comes first.
            stream.chunks(1 + stands_after(number)).await?;
        }
        gate.reached_by(STREAMS).await?;
        unanswered.reached_by(UNANSWERED).await?;
        Ok(Self {
            upstream,
            open,
            _unanswered: waiting,
        })
    }

    /// What the clients have got, now that the hub is dead.
    async fn cut(&mut self) -> Result<Vec<Received>> {
        let mut received = Vec::new();
        for stream in &mut self.open {
            let seen = stream.end().await?;
            ensure!(
                matches!(seen.ending, Some(Ending::Cut(_))),
                "the hub is dead and the stream ended well: {seen:?}"
            );
            let request_id = stream.header("x-request-id").context("no X-Request-Id")?;
            received.push(Received {
                request_id: request_id.to_owned(),
                seen,
            });
        }
        Ok(received)
    }
}

/// Waits until every request of the log has ended, and every answer's tokens are known.
async fn until_repaired(log: &Log) -> Result<()> {
    until(
        "every request has ended and is counted",
        BOUND,
        async || {
            let events = log.events(Stream::Exchanges).await?;
            let terminals = terminals_by_request(&events);
            let open = events.iter().filter(|event| {
                event.name() == "received" && !terminals.contains_key(event.request_id())
            });
            let open = open.count();
            let uncounted = terminals.keys().filter(|id| {
                !events.iter().any(|event| {
                    event.request_id() == **id
                        && !event.data()["gen_ai.usage.output_tokens"].is_null()
                })
            });
            let uncounted = uncounted.count();
            ensure!(
                !terminals.is_empty() && open + uncounted == 0,
                "{open} are open and {uncounted} uncounted"
            );
            Ok(())
        },
    )
    .await
}

/// The terminal events of the requests that had ended before the kill.
fn completed(events: &[Event]) -> Vec<Value> {
    let completed = events.iter().filter(|event| event.name() == "completed");
    completed.map(|event| event.json.clone()).collect()
}

/// Everything that must be true of a log whose gateway was killed in the middle of [`Traffic`].
async fn assert_nothing_is_lost(
    log: &Log,
    received: &[Received],
    before: &[Value],
) -> Result<Account> {
    let account = Account::take(log).await?;
    account.assert_one_end_each()?;
    assert_eq!(
        account.received().len(),
        COMPLETED + UNANSWERED + STREAMS,
        "requests in the log"
    );
    for (number, client) in received.iter().enumerate() {
        account.assert_holds(client)?;
        account.assert_gateway_lost(&client.request_id)?;
        let partial = content::text(&format!("open-{number}"), 0, stands_after(number));
        assert_eq!(client.seen.text(0), partial, "what the client got");
        let terminal = account.terminal(&client.request_id)?;
        assert_eq!(answer_text(terminal), partial, "what the log says");
        let tokens = account.output_tokens(&client.request_id);
        assert!(tokens > Some(0), "{} has {tokens:?}", client.request_id);
    }
    let lost = account.received().into_iter().filter(|id| {
        let terminal = account.terminal(id);
        terminal.is_ok_and(|terminal| terminal.name() == "failed")
    });
    assert_eq!(lost.count(), STREAMS + UNANSWERED, "requests that failed");
    assert_eq!(
        completed(&account.exchanges),
        before,
        "those that completed"
    );
    Ok(account)
}

/// Kills a hub in the middle of its streams, starts it again, and takes the log to account.
async fn kill_and_account(hub: &mut Hub) -> Result<()> {
    let client = hub.client()?;
    let mut traffic = Traffic::start(&client).await?;
    // Shipped so far or not: what has completed must come out of this untouched.
    let log = hub.log().await?;
    let before = log
        .until_events(
            Stream::Exchanges,
            "those that completed are there",
            |events| match completed(events).len() {
                COMPLETED => Ok(()),
                count => Err(format!("{count} have completed")),
            },
        )
        .await?;
    hub.kill().await?;
    let received = traffic.cut().await?;
    hub.start_again().await?;

    let log = hub.log().await?;
    until_repaired(&log).await?;
    shipped(hub).await?;
    assert_nothing_is_lost(&log, &received, &completed(&before)).await?;
    let stats = async || hub.client()?.get("/stats").await?.expect(200);
    until("the statistics have every request", BOUND, async || {
        let stats = stats().await?.json;
        let counts = (stats["requests"].as_u64(), stats["errors"].as_u64());
        let requests = (COMPLETED + UNANSWERED + STREAMS) as u64;
        let errors = (UNANSWERED + STREAMS) as u64;
        ensure!(counts == (Some(requests), Some(errors)), "{stats}");
        Ok(())
    })
    .await?;
    // A request that was cut off is not sent to the provider again by anybody.
    assert_eq!(
        traffic.upstream.exchanges().len(),
        COMPLETED + UNANSWERED + STREAMS
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standalone_hub_killed_in_the_middle_of_50_streams_loses_nothing() -> Result<()> {
    let mut hub = Hub::standalone().start().await?;
    kill_and_account(&mut hub).await?;
    account::projected(&hub).await?;
    assert_verified(&hub).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_killed_in_the_middle_of_50_streams_loses_nothing() -> Result<()> {
    let (broker, redis) = (Broker::start().await?, Redis::start().await?);
    let cluster = Cluster::new(&broker, &redis)?;
    let projector = cluster.projector().start().await?;
    let mut gateway = cluster.gateway().start().await?;
    kill_and_account(&mut gateway).await?;
    account::projected(&gateway).await?;
    assert_verified(&projector).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_killed_again_and_again_while_it_repairs_still_loses_nothing() -> Result<()> {
    let (broker, redis) = (Broker::start().await?, Redis::start().await?);
    let wire = Chaos::start(&broker.host_port())?;
    let nats_url = format!("nats://{}", wire.url_host_port());
    let cluster = Cluster::at(&nats_url, &redis.url())?;
    let _projector = cluster.projector().start().await?;
    let mut gateway = cluster.gateway().start().await?;
    let log = Log::connect(&broker.url()).await?;
    let mut traffic = Traffic::start(&gateway.client()?).await?;
    until("those that completed are there", BOUND, async || {
        let count = completed(&log.events(Stream::Exchanges).await?).len();
        ensure!(count == COMPLETED, "{count} have completed");
        Ok(())
    })
    .await?;
    let before = completed(&log.events(Stream::Exchanges).await?);
    gateway.kill().await?;
    let received = traffic.cut().await?;

    // Once before anything can be shipped: it has taken the outbox over, and no more.
    wire.stall();
    gateway.launch_again()?;
    let adopted = gateway.data_dir().join("outbox");
    until("it has an outbox of its own", BOUND, async || {
        let outboxes = std::fs::read_dir(&adopted)?.count();
        ensure!(outboxes > 1, "{outboxes} outboxes");
        anyhow::Ok(())
    })
    .await?;
    gateway.kill().await?;

    // Once when the first of the interrupted requests are closed.
    wire.cut();
    wire.flow();
    gateway.launch_again()?;
    until("the first are closed", BOUND, async || {
        let events = log.events(Stream::Exchanges).await?;
        let failed = events.iter().filter(|event| event.name() == "failed");
        let failed = failed.count();
        ensure!(failed > 0, "{failed} are closed");
        Ok(())
    })
    .await?;
    gateway.kill().await?;

    gateway.start_again().await?;
    until_repaired(&log).await?;
    shipped(&gateway).await?;
    assert_nothing_is_lost(&log, &received, &before).await?;
    until("adopted outboxes are gone", BOUND, async || {
        let outboxes: Vec<_> = std::fs::read_dir(&adopted)?
            .filter_map(Result::ok)
            .filter(|entry| entry.path().is_dir())
            .collect();
        ensure!(outboxes.len() == 1, "{outboxes:?}");
        anyhow::Ok(())
    })
    .await?;
    account::projected(&gateway).await?;
    assert_verified(&gateway).await
}
