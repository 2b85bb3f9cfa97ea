//! The programs of the README: the official clients, and the subscriber that counts tokens.

use std::process::Command;

use anyhow::{Context, ensure};
use nexus_tests::process::Process;
use nexus_tests::programs::{Program, Runtime};
use nexus_tests::{Result, Script, Upstream, settings, until};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Place, of_kind};
use nexus_tests::account::{BOUND, projected, shipped};

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_of_the_readme_get_their_answers() -> Result<()> {
    let place = Place::start().await?;
    let programs = of_kind("python")?;
    let client = programs.iter().find(|text| text.contains("import OpenAI"));
    let client = place.program("client.py", client.context("no Python client")?)?;
    let said = Program::script(Runtime::Python, &client)?
        .env("NEXUS_KEY", &place.key)
        .run(BOUND)
        .await?;
    assert_eq!(said.succeeded()?.stdout.trim(), "Hello from Python");

    let [client] = &of_kind("js")?[..] else {
        anyhow::bail!("one Node client is expected");
    };
    let client = place.program("client.js", client)?;
    let said = Program::script(Runtime::Node, &client)?
        .env("NEXUS_KEY", &place.key)
        .run(BOUND)
        .await?;
    assert_eq!(said.succeeded()?.stdout.trim(), "Hello from Node");
    Ok(())
}

/// The subscriber as a running program; the folder keeps its outputs.
fn subscriber(place: &Place) -> Result<(Process, TempDir)> {
    let programs = of_kind("python")?;
    let text = programs.iter().find(|text| text.contains("import nats"));
    let text = text.context("no subscriber")?;
    ensure!(text.lines().count() <= 30, "the README promises 30 lines");
    let path = place.program("tokens.py", text)?;
    let outputs = tempfile::tempdir()?;
    let python = settings::client_environment("openai/bin/python")?;
    let mut command = Command::new(python);
    settings::clear_environment(&mut command);
    command.arg(path).env("NATS_URL", place.hub.nats_url()?);
    let process = Process::start("subscriber", &command, outputs.path())?;
    Ok((process, outputs))
}

fn sum(tokens: &Value, direction: &str) -> Option<u64> {
    let models = tokens.as_object()?.values();
    models.map(|model| model[direction].as_u64()).sum()
}

/// Waits until the subscriber has counted what the statistics say, and returns that.
async fn agree(place: &Place, subscriber: &mut Process) -> Result<Value> {
    shipped(&place.hub).await?;
    projected(&place.hub).await?;
    let client = place.hub.anonymous()?.with_key(&place.key)?;
    let stats = client.get("/stats").await?.expect(200)?.json["tokens_usage"].clone();
    until("the subscriber agrees with /stats", BOUND, async || {
        subscriber.ensure_running()?;
        let printed = subscriber.stdout();
        let last = printed.lines().next_back().unwrap_or("{}");
        let tokens: Value = serde_json::from_str(last)?;
        for direction in ["prompt", "completion"] {
            ensure!(
                sum(&tokens, direction) == stats[direction].as_u64(),
                "it says {tokens} and the statistics {stats}"
            );
        }
        anyhow::Ok(tokens)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_subscriber_counts_what_the_statistics_say() -> Result<()> {
    let place = Place::start().await?;
    let client = place.hub.anonymous()?.with_key(&place.key)?;
    let chat = async |model: &str, text: &str, stream: bool| {
        let body = json!({
            "model": model,
            "messages": [{"role": "user", "content": text}],
        });
        if stream {
            client.chat_stream(&body).await?.end().await.map(drop)
        } else {
            client.chat(&body).await?.expect(200).map(drop)
        }
    };
    for number in 0..5 {
        chat(
            "echo",
            &format!("word {number} of the first"),
            number % 2 == 0,
        )
        .await?;
    }
    // Events of before it came, then events that come while it listens.
    let (mut subscriber, _outputs) = subscriber(&place)?;
    let first = agree(&place, &mut subscriber).await?;
    ensure!(sum(&first, "completion") > Some(0), "{first}");
    let upstream = Upstream::start().await?;
    upstream.always(Script::answer().without_usage());
    client.serve_model("uncounted", &upstream.url()).await?;
    chat("uncounted", "the gateway must count this", false).await?;
    chat("uncounted", "and this", true).await?;
    chat("echo", "and one more", false).await?;
    until("the gateway has counted", BOUND, async || {
        let uncounted = "SELECT count(*) FROM chat_stats WHERE tokens IS NULL";
        let rows = "SELECT count(*) FROM chat_stats";
        let read_model = place.hub.read_model();
        let counts = (
            read_model.number(rows).await?,
            read_model.number(uncounted).await?,
        );
        ensure!(counts == (16, 0), "{counts:?} rows and uncounted ones");
        anyhow::Ok(())
    })
    .await?;
    let second = agree(&place, &mut subscriber).await?;
    ensure!(second["echo"]["prompt"].as_u64() > first["echo"]["prompt"].as_u64());
    ensure!(
        second["uncounted"]["completion"].as_u64() > Some(0),
        "{second}"
    );
    Ok(())
}
