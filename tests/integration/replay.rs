//! `nexus replay`: the read model is rebuilt while everything goes on, and nobody notices.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use nexus_tests::account::{BOUND, assert_verified, projected, settled_dump, shipped};
use nexus_tests::process::Process;
use nexus_tests::read_model::{ReadModel, assert_same};
use nexus_tests::seed::Seed;
use nexus_tests::{Broker, Client, Hub, Result, programs};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, raw_sql};
use tokio_util::sync::CancellationToken;

/// A reader looks a hundred times a second at most, and traffic comes in bursts with as much between them: the replay
/// is to have time of the machine, too.
const PACE: Duration = Duration::from_millis(10);

/// What a reader sees must not go back.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Shown {
    exchanges: u64,
    conversations: u64,
    requests: u64,
    tokens: u64,
}

fn echo(number: usize) -> Value {
    let content = format!("some words about rivers, number {number}");
    json!({"model": "echo", "messages": [{"role": "user", "content": content}]})
}

/// So many requests, eight at once.
async fn ask(client: &Client, count: usize) -> Result<()> {
    let asking = stream::iter(0..count).map(|number| async move {
        let answer = client.chat(&echo(number)).await?;
        answer.expect(200).map(drop)
    });
    asking.buffer_unordered(8).try_collect().await
}

fn replay<'a>(hub: &Hub, arguments: impl IntoIterator<Item = &'a str>) -> Result<Command> {
    let mut command = hub.command(["replay"]);
    command.args(arguments);
    command.env("NEXUS_NATS_URL", hub.nats_url()?);
    Ok(command)
}

async fn replayed(command: &Command) -> Result<programs::Outcome> {
    let outcome = programs::run(command, BOUND).await?;
    outcome.succeeded().context("nexus replay failed")?;
    Ok(outcome)
}

/// Asks for the statistics until it is told that it is enough; fails if they ever go back.
async fn watch(client: &Client, enough: &CancellationToken) -> Result<usize> {
    let mut before = Shown::default();
    let mut looks = 0;
    while !enough.is_cancelled() {
        let stats = client.get("/stats").await?.expect(200)?;
        let as_of = stats.header("x-nexus-as-of").unwrap_or_default();
        let exchanges = as_of
            .split(", ")
            .find_map(|part| part.strip_prefix("exchanges="));
        let number = |pointer: &str| stats.json.pointer(pointer).and_then(Value::as_u64);
        let now = Shown {
            exchanges: exchanges.context("no position")?.parse()?,
            conversations: number("/total_conversations").context("no conversations")?,
            requests: number("/requests").context("no requests")?,
            tokens: number("/tokens_usage/total").context("no tokens")?,
        };
        let goes_on = now.exchanges >= before.exchanges
            && now.conversations >= before.conversations
            && now.requests >= before.requests
            && now.tokens >= before.tokens;
        ensure!(goes_on, "a reader saw {before:?} and then {now:?}");
        before = now;
        looks += 1;
        tokio::time::sleep(PACE).await;
    }
    Ok(looks)
}

/// Sends requests until it is told that it is enough.
async fn traffic(client: &Client, enough: &CancellationToken) -> Result<()> {
    while !enough.is_cancelled() {
        ask(client, 16).await?;
        tokio::time::sleep(PACE).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_under_traffic_swaps_and_no_reader_goes_back() -> Result<()> {
    let hub = Hub::standalone().start().await?;
    let client = hub.client()?;
    ask(&client, 100).await?;
    shipped(&hub).await?;
    projected(&hub).await?;
    let enough = CancellationToken::new();
    let replaying = async {
        let swaps = async {
            for arguments in [&[][..], &["--only", "stats"], &["--fresh"]] {
                let before = hub.read_model().database()?;
                let outcome = replayed(&replay(&hub, arguments.iter().copied())?).await?;
                ensure!(outcome.stdout.contains("is current"), "{}", outcome.stdout);
                ensure!(outcome.stderr.contains("events/s"), "{}", outcome.stderr);
                let after = hub.read_model().database()?;
                ensure!(before != after, "{} is still current", before.display());
            }
            anyhow::Ok(())
        };
        let swapped = swaps.await;
        enough.cancel();
        swapped
    };
    let watching = watch(&client, &enough);
    let (swapped, looks, asked) = tokio::join!(replaying, watching, traffic(&client, &enough));
    swapped?;
    asked?;
    ensure!(looks? > 50, "nobody looked");
    shipped(&hub).await?;
    projected(&hub).await?;
    assert_verified(&hub).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_replay_leaves_the_live_model_and_goes_on_or_starts_over() -> Result<()> {
    let mut seed = Seed::of("interrupted replay")?;
    let hub = Hub::standalone().start().await?;
    ask(&hub.client()?, 400).await?;
    let before = settled_dump(&hub).await?;
    for arguments in [&[][..], &["--fresh"], &["--only", "stats"]] {
        for _ in 0..4 {
            let command = replay(&hub, arguments.iter().copied())?;
            let mut process = Process::start("replay", &command, hub.data_dir())?;
            tokio::time::sleep(seed.between(Duration::ZERO, Duration::from_millis(600))).await;
            if process.exit_status()?.is_some() {
                process.end(BOUND).await?;
            } else {
                process.kill().await?;
            }
            let current = hub.read_model().database()?;
            ensure!(current.exists(), "{} is not there", current.display());
            assert_same(&before, &hub.read_model().dump().await?)?;
        }
        replayed(&replay(&hub, arguments.iter().copied())?).await?;
        assert_same(&before, &settled_dump(&hub).await?)?;
        assert_verified(&hub).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_as_of_a_moment_is_built_beside_the_live_one() -> Result<()> {
    let hub = Hub::standalone().start().await?;
    let client = hub.client()?;
    ask(&client, 20).await?;
    let then = settled_dump(&hub).await?;
    let log = hub.log().await?;
    let moment = log.last_stored().await?;
    ask(&client, 20).await?;
    let now = settled_dump(&hub).await?;
    ensure!(then != now, "nothing has changed since");
    let into = tempfile::tempdir()?;
    let folder = into.path().display().to_string();
    let command = replay(&hub, ["--until", &moment, "--into", &folder])?;
    replayed(&command).await?;
    assert_same(&then, &ReadModel::at(into.path()).dump().await?)?;
    assert_same(&now, &hub.read_model().dump().await?)?;
    // There is one now; it is not written over.
    let refused = programs::run(&command, BOUND).await?;
    ensure!(refused.status.code() == Some(1), "{refused:?}");
    ensure!(
        refused.stderr.contains("holds a read model"),
        "{}",
        refused.stderr
    );
    Ok(())
}

async fn tamper(database: &Path, sql: &'static str) -> Result<()> {
    let options = SqliteConnectOptions::new().filename(database);
    let mut connection = options.connect().await?;
    raw_sql(sql).execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_statistics_are_rebuilt_where_only_they_are_asked_for() -> Result<()> {
    let broker = Broker::start().await?;
    let mut hub = Hub::standalone().nats(&broker).start().await?;
    ask(&hub.client()?, 30).await?;
    let sound = settled_dump(&hub).await?;
    ensure!(hub.stop().await?.success());
    let database = hub.read_model().database()?;
    tamper(
        &database,
        "UPDATE chat_messages SET message = '{\"role\":\"nobody\"}' WHERE choice = 0",
    )
    .await?;
    let odd = hub.read_model().dump().await?;
    ensure!(odd != sound, "no message was changed");
    tamper(
        &database,
        "UPDATE usage_hourly SET prompt_tokens = 1000000; DELETE FROM chat_stats;
         UPDATE usage_totals SET requests = 0, conversations = 77; DELETE FROM conversation_days;
         UPDATE conversations SET completion_tokens = 0",
    )
    .await?;
    // Nobody runs but the broker: the replay does the projector's part itself.
    let mut command = hub.command(["replay", "--only", "stats"]);
    command.env("NEXUS_NATS_URL", broker.url());
    replayed(&command).await?;
    assert_same(&odd, &hub.read_model().dump().await?)?;

    let mut command = hub.command(["replay"]);
    command.env("NEXUS_NATS_URL", broker.url());
    replayed(&command).await?;
    assert_same(&sound, &hub.read_model().dump().await?)
}
