//! A streamed answer is resumed: at another gateway, from any chunk on, after its gateway died.

mod dialects;
mod late;

use anyhow::{Context, ensure};
use nexus_tests::account::shipped;
use nexus_tests::client::{ChatStream, Ending};
use nexus_tests::hub::Cluster;
use nexus_tests::upstream::content;
use nexus_tests::{Broker, Client, Gate, Hub, Redis, Result, Script, Upstream};
use serde_json::{Value, json};

use crate::stage::{MODEL, Stage, ask};

/// Chunks of text of an answer; the role comes before them and the finish reason after them.
const CHUNKS: usize = 8;

/// Two gateways on one log, and a provider.
struct Pair {
    one: Hub,
    two: Hub,
    upstream: Upstream,
    _redis: Redis,
    _broker: Broker,
}

impl Pair {
    async fn start() -> Result<Self> {
        let (broker, redis) = (Broker::start().await?, Redis::start().await?);
        let cluster = Cluster::new(&broker, &redis)?;
        let (one, two) = tokio::try_join!(cluster.gateway().start(), cluster.gateway().start())?;
        let upstream = Upstream::start().await?;
        one.client()?.serve_model(MODEL, &upstream.url()).await?;
        Ok(Self {
            one,
            two,
            upstream,
            _redis: redis,
            _broker: broker,
        })
    }
}

/// Where the answer of that stream can be read again.
fn path_of(stream: &ChatStream) -> Result<String> {
    let id = stream.header("x-request-id").context("no X-Request-Id")?;
    Ok(format!("/v1/chat/completions/{id}/events"))
}

/// The numbers from one to another, as ids are written.
fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_cut_off_goes_on_at_another_gateway() -> Result<()> {
    let pair = Pair::start().await?;
    let gate = Gate::closed();
    let script = Script::answer().chunks(CHUNKS).wait_after(3, &gate);
    pair.upstream.once(script);
    let mut first = pair.one.client()?.chat_stream(&ask("cut")).await?;
    first.chunks(2).await?;
    let path = path_of(&first)?;
    let before = first.hang_up().await?;
    let had = before.ids();
    let last = had.last().context("no ids")?;
    ensure!(had == numbers(0..had.len()), "{had:?}");

    let there = pair.two.client()?.with_header("last-event-id", last)?;
    let mut second = there.events(&path).await?;
    // What was missed comes from the log; then it is live.
    second.chunks(4 - had.len()).await?;
    gate.open();
    let after = second.end().await?;
    ensure!(after.ending == Some(Ending::Done), "{after:?}");
    ensure!(
        after.ids() == numbers(had.len()..CHUNKS + 2),
        "{:?}",
        after.ids()
    );
    let text = before.text(0) + &after.text(0);
    ensure!(text == content::text("cut", 0, CHUNKS), "{text}");
    ensure!(after.usage().is_none(), "nobody asked for the usage");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_has_ended_replays_whole_and_in_part() -> Result<()> {
    let stage = Stage::set().await?;
    stage.upstream.always(Script::answer().chunks(CHUNKS));
    let mut body = ask("ended");
    body["stream_options"] = json!({"include_usage": true});
    let mut stream = stage.client.chat_stream(&body).await?;
    let live = stream.end().await?;
    let path = path_of(&stream)?;
    for (query, from) in [
        ("", 0),
        ("?starting_after=4", 5),
        ("?starting_after=99", live.chunks().len()),
        ("?pace=original", 0),
    ] {
        let again = stage.client.events(&format!("{path}{query}")).await?;
        let again = { again }.end().await?;
        ensure!(again.ending == Some(Ending::Done), "{query}: {again:?}");
        let rest: Vec<Value> = live.chunks().into_iter().skip(from).collect();
        ensure!(again.chunks() == rest, "{query}: {again:?}");
        ensure!(
            again.ids() == numbers(from..live.chunks().len()),
            "{query}: {:?}",
            again.ids()
        );
    }
    ensure!(live.usage().is_some(), "{live:?}");
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_failed_ends_with_its_error_again() -> Result<()> {
    let stage = Stage::set().await?;
    let script = Script::answer().chunks(CHUNKS).cut_after(3);
    stage.upstream.once(script);
    let mut stream = stage.client.chat_stream(&ask("failed")).await?;
    let live = stream.end().await?;
    let Some(Ending::ErrorEvent(error)) = &live.ending else {
        anyhow::bail!("{live:?}")
    };
    let again = stage.client.events(&path_of(&stream)?).await?;
    let again = { again }.end().await?;
    let Some(Ending::ErrorEvent(again_error)) = &again.ending else {
        anyhow::bail!("{again:?}")
    };
    ensure!(error == again_error, "{error} became {again_error}");
    ensure!(live.data() == again.data(), "{again:?}");
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_gateway_was_killed_ends_with_all_that_had_arrived() -> Result<()> {
    let mut pair = Pair::start().await?;
    let gate = Gate::closed();
    let script = Script::answer().chunks(CHUNKS).wait_after(4, &gate);
    pair.upstream.once(script);
    let mut first = pair.one.client()?.chat_stream(&ask("killed")).await?;
    let path = path_of(&first)?;
    let mut second = pair.two.client()?.events(&path).await?;
    second.chunks(5).await?;
    pair.one.kill().await?;
    let live = first.end().await?;
    // Its outbox is its own; it closes what it left open when it is back.
    pair.one.start_again().await?;
    let after = second.end().await?;
    let Some(Ending::ErrorEvent(error)) = &after.ending else {
        anyhow::bail!("{after:?}")
    };
    ensure!(error["code"] == "gateway_lost", "{error}");
    let chunks = after.chunks();
    ensure!(chunks.starts_with(&live.chunks()), "{chunks:?}");
    ensure!(after.text(0) == content::text("killed", 0, 4), "{after:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_or_asks_wrongly_is_told() -> Result<()> {
    let stage = Stage::set().await?;
    stage.upstream.always(Script::answer().chunks(CHUNKS));
    let mut stream = stage.client.chat_stream(&ask("mine")).await?;
    stream.end().await?;
    let path = path_of(&stream)?;
    let whole = stage.client.chat(&ask("whole")).await?.expect(200)?;
    let whole = whole.header("x-request-id").context("none")?.to_owned();
    shipped(&stage.hub).await?;
    let other = stage.client.with_new_key("other", "member").await?;
    let viewer = stage.client.with_new_key("viewer", "viewer").await?;
    let auditor = stage.client.with_new_key("auditor", "auditor").await?;
    let bare = stage.hub.anonymous()?;
    let unknown = "/v1/chat/completions/01990000-0000-7000-8000-000000000000/events";
    let not_streamed = format!("/v1/chat/completions/{whole}/events");
    let wrong_after = format!("{path}?starting_after=-1");
    let wrong_pace = format!("{path}?pace=slow");
    let cases: [(&Client, &str, u16, &str); 8] = [
        (&bare, &path, 401, "missing_api_key"),
        (&other, &path, 404, "not_found"),
        (&viewer, &path, 403, "permission_denied"),
        (&stage.client, unknown, 404, "not_found"),
        (
            &stage.client,
            "/v1/chat/completions/x/events",
            404,
            "not_found",
        ),
        (&stage.client, &not_streamed, 409, "not_streamed"),
        (&stage.client, &wrong_after, 400, ""),
        (&stage.client, &wrong_pace, 400, ""),
    ];
    for (client, path, status, code) in cases {
        let answer = client.get(path).await?.expect(status)?;
        ensure!(
            code.is_empty() || answer.error_code() == code,
            "{path}: {}",
            answer.text()
        );
    }
    let again = auditor.events(&path).await?;
    let again = { again }.end().await?;
    ensure!(again.ending == Some(Ending::Done), "{again:?}");
    stage.strike().await
}
