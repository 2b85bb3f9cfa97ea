//! Lost gateways: one that stays away is presumed lost by exactly one sweeper, closed by whoever
//! adopts its outbox, and settled for after its time; one that lives is closed by nobody else.
//!
//! A gateway is lost after a minute of silence, so these scenes take minutes of waiting and hardly
//! any work: they are played beside each other.

mod counts;
mod frozen;
mod handover;
mod no_room;
mod presumed;
mod settled;
mod stale;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use anyhow::{Context, ensure};
use nexus_tests::account::{BOUND, projected};
use nexus_tests::client::{ChatStream, Ending};
use nexus_tests::held::Held;
use nexus_tests::hub::{Cluster, HubBuilder};
use nexus_tests::log::{Event, Stream, is_terminal};
use nexus_tests::upstream::{Request, content};
use nexus_tests::{Broker, Client, Gate, Hub, Log, Redis, Result, Script, Upstream, until};
use serde_json::{Value, json};
use tokio::time::sleep;

const MODEL: &str = "gpt-test";

/// Chunks of an answer.
const CHUNKS: usize = 8;

/// Within two minutes a lost gateway is presumed so; half a minute for a machine that is busy.
const LOST_BOUND: Duration = Duration::from_secs(150);

#[tokio::test(flavor = "multi_thread")]
async fn lost_gateways_are_presumed_so_by_one_and_closed_by_who_may() -> Result<()> {
    tokio::try_join!(
        presumed::who_dies_and_who_is_cut_off(),
        settled::who_is_given_up(),
        frozen::a_sweeper_that_stands_still(),
        stale::a_sweeper_with_an_old_index(),
        handover::a_sweeper_that_dies_at_work(),
        no_room::a_sweeper_without_room(),
    )?;
    Ok(())
}

/// An installation without its gateways.
struct Scene {
    cluster: Cluster,
    projector: Hub,
    upstream: Upstream,
    log: Log,
    _redis: Redis,
    broker: Broker,
}

impl Scene {
    /// The provider answers a request `<gate>-<n>-…` with `n` chunks, then waits at that gate.
    async fn set(gates: &[(&'static str, Gate)]) -> Result<Self> {
        let (broker, redis) = (Broker::start().await?, Redis::start().await?);
        let cluster = Cluster::new(&broker, &redis)?;
        let upstream = Upstream::start().await?;
        let gates: BTreeMap<&str, Gate> = gates.iter().cloned().collect();
        upstream.choose(move |request| script(request, &gates));
        Ok(Self {
            projector: cluster.projector().start().await?,
            log: Log::connect(&broker.url()).await?,
            cluster,
            upstream,
            _redis: redis,
            broker,
        })
    }

    /// A way to the broker on which no count of tokens gets through.
    async fn held(&self) -> Result<Held> {
        Held::start(&self.broker.host_port(), ".tokens_counted.").await
    }

    fn gateway(&self) -> HubBuilder {
        self.cluster.gateway()
    }

    /// Configures the model at one gateway, and waits until all know it.
    async fn serve(&self, gateways: &[&Hub]) -> Result<()> {
        let one = gateways.first().context("no gateway")?;
        let client = one.client()?;
        client.serve_model(MODEL, &self.upstream.url()).await?;
        for gateway in gateways {
            let client = gateway.client()?;
            until("the gateway knows the model", BOUND, async || {
                let path = format!("/v1/models/{MODEL}");
                client.get(&path).await?.expect(200).map(drop)
            })
            .await?;
        }
        Ok(())
    }

    async fn exchanges(&self) -> Result<Vec<Event>> {
        self.log.events(Stream::Exchanges).await
    }

    /// Waits until the log of exchanges is as it must become.
    async fn until_log<E: Display>(
        &self,
        what: &str,
        state: impl Fn(&Events) -> Result<(), E>,
    ) -> Result<Events> {
        seldom(what, LOST_BOUND, async || {
            let events = Events(self.exchanges().await?);
            state(&events).map_err(|seen| anyhow::anyhow!("{seen}"))?;
            Ok(events)
        })
        .await
    }

    /// Waits until the read model has all that is in the log.
    async fn projected(&self) -> Result<()> {
        projected(&self.projector).await
    }
}

fn script(request: &Request, gates: &BTreeMap<&str, Gate>) -> Script {
    let tag = request.tag();
    let mut words = tag.split('-');
    let gate = words.next().and_then(|name| gates.get(name));
    let after = words.next().and_then(|number| number.parse().ok());
    let answer = Script::answer().chunks(CHUNKS);
    match (gate, after) {
        (Some(gate), Some(after)) => answer.wait_after(after, gate),
        _ if tag.starts_with("uncounted") => answer.without_usage(),
        _ => answer,
    }
}

/// Asks rarely: these states take minutes, and a look reads the whole log.
async fn seldom<T>(
    what: &str,
    bound: Duration,
    mut see: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    until(what, bound, async || match see().await {
        Ok(found) => Ok(found),
        Err(seen) => {
            sleep(Duration::from_millis(500)).await;
            Err(seen)
        }
    })
    .await
}

fn ask(tag: &str) -> Value {
    json!({
        "model": MODEL,
        "messages": [{"role": "user", "content": format!("tell me about rivers {tag}")}],
    })
}

/// A stream that stands still at a gate.
struct Open {
    tag: String,
    after: usize,
    request_id: String,
    stream: ChatStream,
}

impl Open {
    /// Begins one that gets `after` chunks before it stands at the gate.
    async fn at(client: &Client, gate: &str, after: usize) -> Result<Self> {
        let tag = format!("{gate}-{after}-stream");
        let mut stream = client.chat_stream(&ask(&tag)).await?;
        // The opening event with the role comes first.
        stream.chunks(1 + after).await?;
        let request_id = stream.header("x-request-id").context("no X-Request-Id")?;
        Ok(Self {
            request_id: request_id.to_owned(),
            tag,
            after,
            stream,
        })
    }

    /// One after each of these numbers of chunks.
    async fn all(client: &Client, gate: &str, after: &[usize]) -> Result<Vec<Self>> {
        let mut open = Vec::new();
        for after in after {
            open.push(Self::at(client, gate, *after).await?);
        }
        Ok(open)
    }

    /// What its client has before the gate opens.
    fn partial(&self) -> String {
        content::text(&self.tag, 0, self.after)
    }

    /// Reads the rest, and fails unless the whole answer came.
    async fn ends_well(&mut self) -> Result<()> {
        let seen = self.stream.end().await?;
        let whole = content::text(&self.tag, 0, CHUNKS);
        ensure!(
            seen.ending == Some(Ending::Done) && seen.text(0) == whole,
            "{} ended with {:?} and {:?}",
            self.tag,
            seen.ending,
            seen.text(0)
        );
        Ok(())
    }
}

fn ids(open: &[Open]) -> Vec<String> {
    open.iter().map(|open| open.request_id.clone()).collect()
}

/// The exchange events of a log.
struct Events(Vec<Event>);

impl Events {
    fn of<'a>(&'a self, request_id: &str, name: &str) -> Vec<&'a Event> {
        let events = self.0.iter();
        events
            .filter(|event| event.request_id() == request_id && event.name() == name)
            .collect()
    }

    fn terminals<'a>(&'a self, request_id: &str) -> Vec<&'a Event> {
        let events = self.0.iter();
        events
            .filter(|event| event.request_id() == request_id && is_terminal(event))
            .collect()
    }

    /// The outbox that a request came in through.
    fn outbox(&self, request_id: &str) -> Result<&str> {
        match self.of(request_id, "received")[..] {
            [received] => Ok(received.outbox()),
            ref others => anyhow::bail!("received {} times", others.len()),
        }
    }

    /// How many of the log are presumed lost, one by one.
    fn presumed_lost(&self) -> Vec<&str> {
        let events = self.0.iter();
        events
            .filter(|event| event.name() == "presumed_lost")
            .map(Event::request_id)
            .collect()
    }

    /// Fails unless exactly these were presumed lost, each once, and told whose they were.
    fn assert_presumed_lost(&self, wanted: &[String]) -> Result<()> {
        let mut found = self.presumed_lost();
        let mut wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        found.sort_unstable();
        wanted.sort_unstable();
        ensure!(
            found == wanted,
            "presumed lost are {found:?}, not {wanted:?}"
        );
        for request_id in wanted {
            let outbox = self.outbox(request_id)?;
            for event in self.of(request_id, "presumed_lost") {
                ensure!(event.data()["nexus.outbox.id"] == outbox, "{}", event.json);
                ensure!(
                    event.outbox() != outbox,
                    "it said so itself: {}",
                    event.json
                );
            }
        }
        Ok(())
    }
}

/// Which of these gateways sweep at present.
async fn sweepers(gateways: &[&Hub]) -> Result<Vec<usize>> {
    let mut found = Vec::new();
    for (number, gateway) in gateways.iter().enumerate() {
        if gateway.metric("nexus_sweeper").await? == Some(1.0) {
            found.push(number);
        }
    }
    Ok(found)
}

/// Waits until exactly one of these gateways sweeps, and tells which.
async fn the_sweeper(gateways: &[&Hub]) -> Result<usize> {
    seldom("one of them sweeps", LOST_BOUND, async || {
        match sweepers(gateways).await?[..] {
            [one] => Ok(one),
            ref found => anyhow::bail!("{found:?} sweep"),
        }
    })
    .await
}

/// The sum of a counter over some gateways.
async fn total(gateways: &[&Hub], counter: &str) -> Result<usize> {
    let mut total = 0.0;
    for gateway in gateways {
        total += gateway.metric(counter).await?.context("no such metric")?;
    }
    Ok(format!("{total:.0}").parse()?)
}
