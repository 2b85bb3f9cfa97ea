//! Administration from the shell: `nexus events tail`, `nexus keys`.

use anyhow::{Context, ensure};
use nexus_tests::process::Process;
use nexus_tests::programs::{self, Outcome};
use nexus_tests::{Hub, Result, until};
use serde_json::Value;

use super::ask;
use nexus_tests::account::{BOUND, shipped};

async fn nexus(hub: &Hub, arguments: &[&str]) -> Result<Outcome> {
    let command = hub.command(arguments.iter().copied());
    programs::run(&command, BOUND).await
}

/// The lines of a tail, each an event.
fn events(printed: &str) -> Result<Vec<Value>> {
    let lines = printed.lines();
    lines
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    let kinds = events.iter().map(|event| event["type"].as_str());
    kinds.map(Option::unwrap_or_default).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_prints_the_events_as_they_are() -> Result<()> {
    let hub = Hub::standalone().start().await?;
    let client = hub.client()?;
    client.chat(&ask("echo")).await?.expect(200)?;
    shipped(&hub).await?;
    let from_start = ["events", "tail", "--from", "start", "--no-follow"];
    let all = nexus(&hub, &from_start).await?;
    let printed = events(&all.succeeded()?.stdout)?;
    let log = hub.log().await?;
    for stream in [
        nexus_tests::log::Stream::Config,
        nexus_tests::log::Stream::Exchanges,
    ] {
        for stored in log.events(stream).await? {
            ensure!(
                printed.contains(&stored.json),
                "not printed: {}",
                stored.json
            );
        }
    }
    let filter = [
        "--stream",
        "exchanges",
        "--filter",
        "nexus.exchange.*.completed.>",
    ];
    let some = nexus(&hub, &[&from_start[..], &filter].concat()).await?;
    let some = events(&some.succeeded()?.stdout)?;
    assert_eq!(kinds(&some), ["ai.nexus.exchange.completed.v1"]);
    // What matches nothing ends all the same.
    let none = [
        "--stream",
        "exchanges",
        "--filter",
        "nexus.exchange.*.presumed_lost.>",
    ];
    let none = nexus(&hub, &[&from_start[..], &none].concat()).await?;
    assert_eq!(none.succeeded()?.stdout, "");

    // It goes on with what comes, until Ctrl-C.
    let mut tail = hub.command(["events", "tail", "--from", "start", "--stream", "exchanges"]);
    tail.env("NEXUS_NATS_URL", hub.nats_url()?);
    let outputs = tempfile::tempdir()?;
    let mut tail = Process::start("tail", &tail, outputs.path())?;
    let until_completed = async |tail: &Process, expected: usize| {
        until("it is printed", BOUND, async || {
            let printed = events(&tail.stdout())?;
            let completed = kinds(&printed)
                .into_iter()
                .filter(|kind| kind.contains(".completed."));
            let count = completed.count();
            ensure!(count == expected, "{count} completed");
            anyhow::Ok(())
        })
        .await
    };
    until_completed(&tail, 1).await?;
    client.chat(&ask("echo")).await?.expect(200)?;
    until_completed(&tail, 2).await?;
    let end = tail.interrupt(BOUND).await?;
    ensure!(end.success(), "it ended with {end}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_made_and_revoked_from_the_shell() -> Result<()> {
    let hub = Hub::standalone().start().await?;
    let created = nexus(&hub, &["keys", "create", "ada", "--role", "viewer"]).await?;
    let printed = &created.succeeded()?.stdout;
    let secret = printed
        .split_whitespace()
        .find(|word| word.starts_with("nx-"));
    let ada = hub
        .anonymous()?
        .with_key(secret.context("no key was printed")?)?;
    until("it is in force", BOUND, async || {
        ada.get("/providers").await?.expect(200).map(drop)
    })
    .await?;
    ada.chat(&ask("echo")).await?.expect(403)?;
    let twice = nexus(&hub, &["keys", "create", "ada"]).await?;
    ensure!(
        !twice.status.success() && twice.stderr.contains("already"),
        "{twice:?}"
    );
    let id_like = "0193b8e0-0000-7000-8000-000000000000";
    let refused = nexus(&hub, &["keys", "create", id_like]).await?;
    ensure!(
        !refused.status.success() && refused.stderr.contains("look like an id"),
        "{refused:?}"
    );
    let list = nexus(&hub, &["keys", "list"]).await?;
    let list = &list.succeeded()?.stdout;
    ensure!(
        list.contains("ada") && list.contains("viewer") && list.contains("admin"),
        "{list}"
    );
    ensure!(!list.contains("nx-"), "{list}");
    nexus(&hub, &["keys", "revoke", "ada"]).await?.succeeded()?;
    until("it is void", BOUND, async || {
        ada.get("/providers").await?.expect(401).map(drop)
    })
    .await?;
    let nobody = nexus(&hub, &["keys", "revoke", "nobody"]).await?;
    ensure!(!nobody.status.success(), "{nobody:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_admin_key_is_revoked_only_by_force() -> Result<()> {
    let hub = Hub::standalone().start().await?;
    let admin = hub.client()?;
    let list = admin.get("/keys").await?.expect(200)?;
    let first = list.json["data"][0]["id"].as_str().context("no id")?;
    let refused = nexus(&hub, &["keys", "revoke", first]).await?;
    ensure!(
        !refused.status.success()
            && refused
                .stderr
                .contains("nexus keys create NAME --role admin"),
        "{refused:?}"
    );
    admin.get("/keys").await?.expect(200)?;

    let forced = nexus(&hub, &["keys", "revoke", first, "--force"]).await?;
    forced.succeeded()?;
    until("it is void", BOUND, async || {
        admin.get("/keys").await?.expect(401).map(drop)
    })
    .await?;
    let create = ["keys", "create", "next", "--role", "admin"];
    let created = nexus(&hub, &create).await?;
    let secret = created.succeeded()?.stdout.trim().to_owned();
    let next = hub.anonymous()?.with_key(&secret)?;
    until("the new one is in force", BOUND, async || {
        next.get("/keys").await?.expect(200).map(drop)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_whose_reader_has_read_enough_ends_well() -> Result<()> {
    let hub = Hub::standalone().start().await?;
    let client = hub.client()?;
    for _ in 0..20 {
        client.chat(&ask("echo")).await?.expect(200)?;
    }
    shipped(&hub).await?;
    let mut tail = hub.command(["events", "tail", "--from", "start", "--no-follow"]);
    let (reader, writer) = std::io::pipe()?;
    tail.stdout(writer);
    tail.stderr(std::process::Stdio::piped());
    drop(reader);
    let tail = tail.spawn()?;
    let ended = tokio::task::spawn_blocking(move || tail.wait_with_output()).await??;
    ensure!(ended.status.success(), "{ended:?}");
    ensure!(ended.stderr.is_empty(), "{ended:?}");
    Ok(())
}
