//! What the broker can never take: counted, told, kept for a while, and shipped in the end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use nexus_tests::account::{assert_verified, projected, shipped};
use nexus_tests::log::{Event, Stream};
use nexus_tests::programs::{self, Outcome};
use nexus_tests::{Broker, Hub, Result, until};
use serde_json::{Value, json};

use super::BOUND;

/// A broker that takes no message of more than 32 KiB.
const SMALL_MESSAGES: &str = "max_payload: 32KB\n";

/// More than that, and little enough to stand in its event.
const LARGE: usize = 60_000;

/// Older than `NEXUS_RETENTION_DAYS`.
const OLD: Duration = Duration::from_hours(24 * 200);

/// The id of no event.
const OTHER_ID: &str = "0199c0de-0000-7000-8000-00000000dead";

/// The files of the events in the folder, with the event's name.
fn set_aside(hub: &Hub) -> Result<Vec<(String, PathBuf)>> {
    let folder = hub.data_dir().join("outbox/unshippable");
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).context("nothing was set aside")? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "json") {
            let event: Value = serde_json::from_slice(&fs::read(&path)?)?;
            let kind = event["type"].as_str().context("no type")?;
            let name = kind.split('.').nth_back(1).context("no name")?;
            found.push((name.to_owned(), path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// What `/readyz` remarks.
async fn remark(hub: &Hub) -> Result<Option<String>> {
    let part = hub.part("unshippable").await?;
    ensure!(part["ready"] == true && part["blocks"] == false, "{part}");
    Ok(part["reason"].as_str().map(str::to_owned))
}

async fn until_remark(hub: &Hub, wanted: Option<&str>) -> Result<()> {
    until("the remark is made", BOUND, async || {
        let remark = remark(hub).await?;
        let fits = match (&remark, wanted) {
            (Some(remark), Some(wanted)) => remark.contains(wanted),
            (None, None) => true,
            _ => false,
        };
        ensure!(fits, "{remark:?}");
        Ok(())
    })
    .await
}

async fn reship(hub: &Hub, broker: &Broker, file: &Path) -> Result<Outcome> {
    let file = file.to_str().context("not a name in UTF-8")?;
    let mut command = hub.command(["events", "reship", file]);
    command.env("NEXUS_NATS_URL", broker.url());
    programs::run(&command, BOUND).await
}

fn event_id(event: &str) -> Result<String> {
    let event: Value = serde_json::from_str(event)?;
    Ok(event["id"].as_str().context("no id")?.to_owned())
}

fn make_old(event: &Path) -> Result<()> {
    let file = File::options().append(true).open(event)?;
    file.set_modified(file.metadata()?.modified()? - OLD)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_cannot_take_is_told_expires_and_can_be_shipped_later() -> Result<()> {
    let mut broker = Broker::start().await?;
    let hub = Hub::standalone().nats(&broker).start().await?;
    until_remark(&hub, None).await?;
    broker.kill().await?;
    let body =
        json!({"model": "echo", "messages": [{"role": "user", "content": "x".repeat(LARGE)}]});
    let answer = hub.client()?.chat(&body).await?.expect(200)?;
    let request = answer.header("x-request-id").context("no id")?.to_owned();
    broker.restart_with(SMALL_MESSAGES).await?;
    shipped(&hub).await?;

    for (lane, count) in [("exchanges", 2.0), ("chunks", 0.0), ("audit", 0.0)] {
        let name = format!("nexus_outbox_unshippable_total{{lane=\"{lane}\"}}");
        let metric = hub.metric(&name).await?;
        ensure!(metric == Some(count), "{name} is {metric:?}");
    }
    until_remark(&hub, Some("2 records")).await?;
    let [(completed, answered), (received, asked)] = &set_aside(&hub)?[..] else {
        anyhow::bail!("not two records")
    };
    assert_eq!((&**completed, &**received), ("completed", "received"));

    // Kept no longer than the log keeps anything.
    make_old(answered)?;
    until_remark(&hub, Some("1 records")).await?;
    ensure!(set_aside(&hub)?.len() == 1, "both are there, or none");

    // The broker takes it now.
    broker.restart_with("").await?;
    let whole = fs::read_to_string(asked)?;
    reship(&hub, &broker, asked).await?.succeeded()?;
    until_remark(&hub, None).await?;
    // As if it had been killed before it removed the file: the log has it, once.
    fs::write(asked, &whole)?;
    reship(&hub, &broker, asked).await?.succeeded()?;
    // What the log does not say to be given up, its gateway ships.
    fs::write(asked, whole.replacen(&event_id(&whole)?, OTHER_ID, 1))?;
    let refused = reship(&hub, &broker, asked).await?;
    ensure!(!refused.status.success(), "{}", refused.stdout);
    ensure!(refused.stdout.contains("no note"), "{}", refused.stdout);
    fs::remove_file(asked)?;
    let left = fs::read_dir(hub.data_dir().join("outbox/unshippable"))?.count();
    ensure!(left == 0, "{left} files are left");
    let log = hub.log().await?;
    let events = log.events(Stream::Exchanges).await?;
    let of_request = |event: &&Event| event.request_id() == request && event.name() == "received";
    let [received] = &events.iter().filter(of_request).collect::<Vec<_>>()[..] else {
        anyhow::bail!("not received once")
    };
    ensure!(received.position().is_none(), "{}", received.json);
    projected(&hub).await?;
    let found = hub
        .client()?
        .get(&format!("/requests/{request}"))
        .await?
        .expect(200)?;
    let said = found
        .json
        .pointer("/request/messages/0/content")
        .and_then(Value::as_str);
    ensure!(said.map(str::len) == Some(LARGE), "{}", found.json);
    assert_verified(&hub).await
}
