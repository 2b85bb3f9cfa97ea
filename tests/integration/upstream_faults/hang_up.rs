//! Clients that hang up: the exchange is finished, or cancelled where the key says so.

use std::time::Duration;

use anyhow::{Context, ensure};
use nexus_tests::upstream::{End, content};
use nexus_tests::{Client, Gate, Result, Script, until};
use serde_json::{Value, json};

use crate::recorded::Recorded;
use crate::stage::{Stage, ask};

/// The hub sees a closed connection at once; a busy machine may need far more.
const NOTICED_BOUND: Duration = Duration::from_secs(20);

/// Where the client hangs up.
#[derive(Clone, Copy, Debug)]
enum Point {
    /// A whole answer was asked for, and the provider has not begun.
    Whole,
    /// A stream was asked for, and the provider has not begun.
    BeforeHeaders,
    /// So many chunks have come.
    After(usize),
    /// Only the end mark is missing.
    BeforeDone,
}

/// Chunks of each answer.
const CHUNKS: usize = 8;

/// Every point of a stream.
fn points() -> Vec<Point> {
    let mut points = vec![Point::Whole, Point::BeforeHeaders];
    points.extend((0..CHUNKS).map(Point::After));
    points.push(Point::BeforeDone);
    points
}

impl Point {
    fn script(self, gate: &Gate) -> Script {
        let answer = Script::answer().chunks(CHUNKS);
        match self {
            Self::Whole | Self::BeforeHeaders => answer.wait_before_headers(gate),
            Self::After(chunks) => answer.wait_after(chunks, gate),
            Self::BeforeDone => answer.wait_before_done(gate),
        }
    }

    /// The chunks that the client has when it hangs up, the opening one included.
    fn chunks(self) -> usize {
        match self {
            Self::Whole | Self::BeforeHeaders => 0,
            Self::After(chunks) => chunks + 1,
            // The opening one, those of text and the finish reason.
            Self::BeforeDone => CHUNKS + 2,
        }
    }
}

/// Asks, waits for the point, and hangs up; returns when the hub has seen that.
async fn ask_and_hang_up(stage: &Stage, client: &Client, point: Point, tag: &str) -> Result<Gate> {
    let gate = Gate::closed();
    stage.upstream.once(point.script(&gate));
    let connections;
    if let Point::Whole | Point::BeforeHeaders = point {
        let mut body = ask(tag);
        body["stream"] = Value::Bool(matches!(point, Point::BeforeHeaders));
        let mut asking = Box::pin(client.chat(&body));
        tokio::select! {
            answer = &mut asking => anyhow::bail!("answered through a closed gate: {answer:?}"),
            reached = gate.reached_by(1) => reached?,
        }
        connections = gauge(stage, "nexus_connections").await?;
        drop(asking);
    } else {
        let mut stream = client.chat_stream(&ask(tag)).await?;
        stream.chunks(point.chunks()).await?;
        gate.reached_by(1).await?;
        connections = gauge(stage, "nexus_connections").await?;
        stream.hang_up().await?;
    }
    noticed(stage, connections - 1.0).await?;
    Ok(gate)
}

/// Waits until the hub has no more than so many client connections.
async fn noticed(stage: &Stage, connections: f64) -> Result<()> {
    until("the hub has seen the hang-up", NOTICED_BOUND, async || {
        let open = gauge(stage, "nexus_connections").await?;
        ensure!(open <= connections, "{open} connections are open");
        anyhow::Ok(())
    })
    .await
}

async fn gauge(stage: &Stage, name: &str) -> Result<f64> {
    let metrics = stage.hub.metrics()?.get("/metrics").await?.expect(200)?;
    let value = metrics.metric(name);
    value.with_context(|| format!("no {name} in {}", metrics.text()))
}

/// The id of the only request in the log that is not among `known`.
async fn new_request(stage: &Stage, known: &mut Vec<String>) -> Result<String> {
    use nexus_tests::log::Stream;
    let events = stage
        .log
        .until_events(Stream::Exchanges, "a new request is recorded", |events| {
            let found = events.iter().any(|event| {
                event.name() == "received" && !known.iter().any(|id| id == event.request_id())
            });
            if found { Ok(()) } else { Err("none yet") }
        })
        .await?;
    let new = events
        .iter()
        .map(|event| event.request_id().to_owned())
        .find(|id| !known.contains(id))
        .context("no new request")?;
    known.push(new.clone());
    Ok(new)
}

#[tokio::test]
async fn what_was_begun_is_finished_and_recorded_without_its_client() -> Result<()> {
    let stage = Stage::set().await?;
    let member = stage.client.with_new_key("finishes", "member").await?;
    let mut known = Vec::new();
    for point in points() {
        let tag = format!("finish-{point:?}");
        let gate = ask_and_hang_up(&stage, &member, point, &tag).await?;
        gate.open();
        let request = new_request(&stage, &mut known).await?;
        let recorded = Recorded::wait(&stage.log, &request)
            .await
            .with_context(|| tag.clone())?;
        ensure!(
            recorded.terminal.name() == "completed",
            "{tag}: {recorded:#?}"
        );
        let gone = &recorded.terminal.data()["nexus.client_gone"];
        ensure!(*gone == true, "{tag}: {recorded:#?}");
        ensure!(recorded.text(0) == content::text(&tag, 0, CHUNKS), "{tag}");
        ensure!(
            recorded.tokens() == (Some(5), Some(CHUNKS as u64)),
            "{tag}: {recorded:#?}"
        );
        let sent = stage.upstream.exchanges_of(&tag);
        let [sent] = sent.as_slice() else {
            anyhow::bail!("{tag}: asked {} times", sent.len());
        };
        if sent.request.wants_stream() {
            ensure!(recorded.streamed() == sent.chunks(), "{tag}");
        }
    }
    for exchange in stage.upstream.idle().await? {
        ensure!(exchange.end == Some(End::Complete), "{exchange:?}");
    }
    stage.strike().await
}

#[tokio::test]
async fn a_key_that_says_so_cancels_what_its_client_has_left() -> Result<()> {
    let stage = Stage::set().await?;
    let key = json!({"name": "cancels", "role": "member", "on_disconnect": "cancel"});
    let key = stage.client.post("/keys", &key).await?.expect(201)?;
    let secret = key.json["key"].as_str().context("no key")?;
    let member = stage.client.with_key(secret)?;
    let mut known = Vec::new();
    for point in points() {
        let tag = format!("cancel-{point:?}");
        // The gate stays closed: only the hub can end this.
        let _gate = ask_and_hang_up(&stage, &member, point, &tag).await?;
        let request = new_request(&stage, &mut known).await?;
        let recorded = Recorded::wait(&stage.log, &request)
            .await
            .with_context(|| tag.clone())?;
        ensure!(
            recorded.failure() == "client_cancelled",
            "{tag}: {recorded:#?}"
        );
        let gone = &recorded.terminal.data()["nexus.client_gone"];
        ensure!(*gone == true, "{tag}: {recorded:#?}");
        let words = match point {
            Point::Whole | Point::BeforeHeaders => 0,
            Point::After(chunks) => chunks,
            Point::BeforeDone => CHUNKS,
        };
        ensure!(recorded.text(0) == content::text(&tag, 0, words), "{tag}");
        let status = if words == 0 && point.chunks() == 0 {
            499
        } else {
            200
        };
        ensure!(
            recorded.terminal.data()["http.response.status_code"] == status,
            "{tag}: {recorded:#?}"
        );
        let sent = stage.upstream.idle().await?;
        let last = sent.last().context("not asked")?;
        ensure!(last.end == Some(End::ClientLeft), "{tag}: {last:?}");
    }
    stage.strike().await
}
