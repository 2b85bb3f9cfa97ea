//! The life of `nexus standalone`: first start, second start, drain, the two ways to hurry it.

mod first_key;
mod probes;
mod refusals;
mod stop;

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use nexus_tests::client::{ChatStream, Ending};
use nexus_tests::log::Stream;
use nexus_tests::{Gate, Hub, Result, Script, Upstream, process_table, programs, until};
use serde_json::{Value, json};
use tokio::time::Instant;

use nexus_tests::account::{Account, BOUND, assert_verified};

/// What a hub draws: `nx-` and 256 bits in base64.
const KEY_CHARS: usize = 3 + 43;

const MODEL: &str = "gpt-test";

fn ask(model: &str, text: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": text}]})
}

/// The keys in what a hub has printed.
fn keys(printed: &str) -> Vec<&str> {
    let is_key = |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
    printed
        .split(|character| !is_key(character))
        .filter(|word| word.starts_with("nx-") && word.len() == KEY_CHARS)
        .collect()
}

/// The curl command in what a hub has printed, continued lines included.
fn curl(printed: &str) -> Result<String> {
    let mut lines = printed
        .lines()
        .map(str::trim)
        .skip_while(|line| !line.starts_with("curl "));
    let mut command = String::new();
    for line in lines.by_ref() {
        command.push_str(line);
        command.push('\n');
        if !line.ends_with('\\') {
            return Ok(command);
        }
    }
    anyhow::bail!("no curl command in {printed}")
}

async fn paste(command: &str) -> Result<Value> {
    let mut bash = Command::new("bash");
    bash.args(["-c", command]);
    let outcome = programs::run(&bash, BOUND).await?;
    outcome.json().with_context(|| command.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_prints_a_key_and_a_curl_line_and_the_second_goes_on() -> Result<()> {
    let mut hub = Hub::standalone().env("NEXUS_ADMIN_KEY", "").start().await?;
    let first = hub.stdout();
    let mut keys_printed = keys(&first);
    keys_printed.dedup();
    let [key] = keys_printed[..] else {
        anyhow::bail!("one key must be printed: {first}");
    };
    ensure!(first.contains(&hub.url()?), "where it listens: {first}");
    ensure!(
        first.contains(&hub.nats_url()?),
        "where its NATS is: {first}"
    );
    let answer = paste(&curl(&first)?).await?;
    let said = answer.pointer("/choices/0/message/content");
    ensure!(
        said.and_then(Value::as_str)
            .is_some_and(|said| !said.is_empty()),
        "{answer}"
    );
    let nobody = hub.anonymous()?.with_key("nx-not-the-key")?;
    nobody.get("/providers").await?.expect(401)?;
    let admin = hub.anonymous()?.with_key(key)?;
    admin.get("/providers").await?.expect(200)?;

    ensure!(hub.stop().await?.success());
    hub.start_again().await?;
    let second = hub.stdout();
    let second = second
        .strip_prefix(&first)
        .context("outputs are appended")?;
    ensure!(
        keys(second).is_empty(),
        "a second start prints no key: {second}"
    );
    ensure!(second.contains(&hub.url()?), "where it listens: {second}");
    let admin = hub.anonymous()?.with_key(key)?;
    admin.chat(&ask("echo", "still there")).await?.expect(200)?;
    until("both requests are counted", BOUND, async || {
        let stats = admin.get("/stats").await?.expect(200)?;
        ensure!(stats.json["requests"] == 2, "{}", stats.text());
        anyhow::Ok(())
    })
    .await?;
    // One echo, one admin key, one message key, however often it starts.
    let configured = hub.log().await?.events(Stream::Config).await?;
    ensure!(configured.len() == 4, "{configured:#?}");
    Ok(())
}

/// A hub with a stream and a plain request at a gate of the upstream.
struct UnderWay {
    hub: Hub,
    gate: Gate,
    stream: ChatStream,
    upstream: Upstream,
}

async fn under_way(settings: &[(&str, &str)]) -> Result<UnderWay> {
    let upstream = Upstream::start().await?;
    let gate = Gate::closed();
    upstream.always(Script::answer().wait_after(2, &gate));
    let mut hub = Hub::standalone();
    for (name, value) in settings {
        hub = hub.env(name, value);
    }
    let hub = hub.start().await?;
    let client = hub.client()?;
    client.serve_model(MODEL, &upstream.url()).await?;
    let mut stream = client.chat_stream(&ask(MODEL, "slowly, stream")).await?;
    stream.chunks(3).await?;
    Ok(UnderWay {
        hub,
        gate,
        stream,
        upstream,
    })
}

/// Waits until a hub that was told to stop takes nothing new.
async fn refuses_new_work(hub: &Hub) -> Result<()> {
    let address = hub.url()?.trim_start_matches("http://").to_owned();
    until(
        "it takes no connection",
        BOUND,
        async || match tokio::net::TcpStream::connect(&address).await {
            Ok(_taken) => Err("it took one"),
            Err(_refused) => Ok(()),
        },
    )
    .await
}

fn assert_nothing_left(hub: &Hub) -> Result<()> {
    let data_dir = hub.data_dir();
    let run_file = data_dir.join("run/standalone.json");
    ensure!(!run_file.exists(), "{} is left", run_file.display());
    let servers = process_table::find("nats-server", &data_dir.display().to_string())?;
    ensure!(servers.is_empty(), "nats-server is left: {servers:?}");
    Ok(())
}

fn outboxes(hub: &Hub) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(hub.data_dir().join("outbox"))?;
    let folders = entries
        .filter_map(std::result::Result::ok)
        .filter(|entry| entry.path().is_dir());
    Ok(folders
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_lets_answers_under_way_finish_and_ships_the_outbox() -> Result<()> {
    let mut under_way = under_way(&[]).await?;
    let hub = &mut under_way.hub;
    let client = hub.client()?;
    let plain = tokio::task::JoinSet::from_iter([async move {
        client.chat(&ask(MODEL, "slowly, plain")).await
    }]);
    under_way.upstream.asked(2).await?;
    hub.interrupt()?;
    refuses_new_work(hub).await?;
    hub.ensure_running()?;
    under_way.gate.open();

    let seen = under_way.stream.end().await?;
    ensure!(seen.ending == Some(Ending::Done), "{seen:?}");
    ensure!(seen.text(0).contains("stream:4"), "{seen:?}");
    let [answer] = <[_; 1]>::try_from(plain.join_all().await).expect("one was asked");
    ensure!(answer?.expect(200)?.content().contains("plain:4"));
    let status = hub.ended().await?;
    assert_eq!(status.code(), Some(0));
    assert_nothing_left(hub)?;
    ensure!(outboxes(hub)?.is_empty(), "left: {:?}", outboxes(hub)?);

    hub.start_again().await?;
    let account = Account::take(&hub.log().await?).await?;
    account.assert_one_end_each()?;
    let received = account.received();
    assert_eq!(received.len(), 2);
    for request_id in received {
        assert_eq!(account.terminal(request_id)?.name(), "completed");
    }
    assert_verified(hub).await
}

/// The only request ended as one that was stopped, and the client was told so.
async fn assert_stopped(under_way: &mut UnderWay) -> Result<()> {
    let seen = under_way.stream.end().await?;
    ensure!(
        matches!(seen.ending, Some(Ending::ErrorEvent(_))),
        "a stream that is stopped ends with an error event: {seen:?}"
    );
    let hub = &mut under_way.hub;
    hub.start_again().await?;
    let log = hub.log().await?;
    let events = log.events(Stream::Exchanges).await?;
    let received = events.iter().find(|event| event.name() == "received");
    let request_id = received.context("it was received")?.request_id().to_owned();
    log.until_terminal([request_id.as_str()]).await?;
    let account = Account::take(&log).await?;
    let terminal = account.terminal(&request_id)?;
    let reason = terminal.data().pointer("/nexus.failure/reason");
    assert_eq!(reason, Some(&Value::from("shutdown")), "{}", terminal.json);
    assert_eq!(account.chunks_of(&request_id)?.len(), 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_ctrl_c_does_not_wait_for_answers() -> Result<()> {
    let mut under_way = under_way(&[]).await?;
    let hub = &mut under_way.hub;
    hub.interrupt()?;
    refuses_new_work(hub).await?;
    let again = Instant::now();
    hub.interrupt()?;
    let status = hub.ended().await?;
    // The bound without the second signal would be 30 s.
    ensure!(
        again.elapsed() < Duration::from_secs(15),
        "{:?}",
        again.elapsed()
    );
    ensure!(status.code().is_some(), "it ends by itself: {status}");
    assert_nothing_left(hub)?;
    assert_stopped(&mut under_way).await
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_ends_at_its_bound() -> Result<()> {
    let mut under_way = under_way(&[("NEXUS_DRAIN_SECONDS", "1")]).await?;
    let hub = &mut under_way.hub;
    let asked = Instant::now();
    hub.interrupt()?;
    hub.ended().await?;
    let took = asked.elapsed();
    ensure!(
        (Duration::from_secs(1)..Duration::from_secs(20)).contains(&took),
        "it took {took:?}"
    );
    assert_nothing_left(hub)?;
    assert_stopped(&mut under_way).await
}
