//! Starts that must fail, each with a sentence that says what to do.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, ensure};
use async_nats::jetstream::{self, stream};
use nexus_tests::hub::{FailedStart, HubBuilder};
use nexus_tests::{Broker, Hub, Result, settings};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::ask;

/// A start that must fail, and what it must say on standard error.
async fn fails_with(hub: HubBuilder, words: &[&str]) -> Result<FailedStart> {
    let failed = hub.fail_to_start().await?;
    ensure!(!failed.status.success(), "it ended with {}", failed.status);
    for word in words {
        ensure!(
            failed.stderr.contains(word),
            "it does not say {word:?}: {}",
            failed.stderr
        );
    }
    Ok(failed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_hub_on_the_same_data_is_refused_by_name() -> Result<()> {
    let mut hub = Hub::standalone().start().await?;
    let data_dir = hub.data_dir().display().to_string();
    let holder = format!("process {}", hub.pid());
    let second = Hub::standalone().env("NEXUS_DATA_DIR", &data_dir);
    fails_with(second, &[&data_dir, &holder, "NEXUS_DATA_DIR"]).await?;
    hub.ensure_running()?;
    hub.client()?
        .chat(&ask("echo", "unharmed"))
        .await?
        .expect(200)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_differs_is_refused_with_the_difference() -> Result<()> {
    let broker = Broker::start().await?;
    let foreign = stream::Config {
        name: "NEXUS_EXCHANGES".to_owned(),
        subjects: vec!["nexus.exchange.>".to_owned()],
        max_bytes: 1_000_000,
        ..Default::default()
    };
    jetstream::new(broker.client().await?)
        .create_stream(foreign)
        .await?;
    let hub = Hub::standalone().nats(&broker);
    let said = [
        "NEXUS_EXCHANGES",
        "max_bytes is 1000000, declared -1",
        "discard is Old, declared New",
    ];
    fails_with(hub, &said).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_a_broker_cannot_keep_are_refused() -> Result<()> {
    let own = Hub::standalone().env("NEXUS_STREAM_REPLICAS", 3);
    fails_with(own, &["NEXUS_STREAM_REPLICAS is 3", "NEXUS_NATS_URL"]).await?;
    let broker = Broker::start().await?;
    let alone = Hub::standalone()
        .nats(&broker)
        .env("NEXUS_STREAM_REPLICAS", 3);
    fails_with(alone, &["3 replicas", "NEXUS_CONFIG", "cluster"]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_master_key_is_not_replaced_by_another() -> Result<()> {
    let mut hub = Hub::standalone().start().await?;
    let path = hub.data_dir().join("master.key");
    let data_dir = hub.data_dir().display().to_string();
    ensure!(hub.stop().await?.success());
    let key = std::fs::read(&path)?;
    std::fs::remove_file(&path)?;
    let without = Hub::standalone().env("NEXUS_DATA_DIR", &data_dir);
    fails_with(without, &["master.key", &data_dir, "NEXUS_MASTER_KEY_FILE"]).await?;
    ensure!(!path.exists(), "another key was drawn");
    std::fs::write(&path, key)?;
    hub.start_again().await?;
    Ok(())
}

/// A program that says it is a nats-server of this version.
fn pretender(folder: &Path, version: &str) -> Result<String> {
    let path = folder.join("nats-server");
    std::fs::write(
        &path,
        format!("#!/bin/sh\necho 'nats-server: v{version}'\n"),
    )?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path.display().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_server_that_is_too_old_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let old = pretender(folder.path(), "2.14.3")?;
    let hub = Hub::standalone().env("NEXUS_NATS_SERVER", &old);
    fails_with(hub, &[&old, "2.14", "2.15 or newer"]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_nats_server_is_told_with_the_ways_out() -> Result<()> {
    let named = Hub::standalone().env("NEXUS_NATS_SERVER", "/nowhere/nats-server");
    fails_with(named, &["/nowhere/nats-server"]).await?;

    // A copy of the hub with no tools beside it and none on its PATH.
    let built = settings::nexus()?;
    let folder = tempfile::tempdir_in(built.parent().context("no folder")?)?;
    let alone = folder.path().join("deep/er");
    std::fs::create_dir_all(&alone)?;
    let alone = alone.join("nexus");
    std::fs::hard_link(&built, &alone).or_else(|_| std::fs::copy(&built, &alone).map(drop))?;
    let hub = Hub::standalone()
        .program(&alone)
        .env("NEXUS_NATS_SERVER", "")
        .env("PATH", "/nowhere");
    let ways_out = [
        "no nats-server",
        "make tools",
        "NEXUS_NATS_SERVER",
        "NEXUS_NATS_URL",
    ];
    fails_with(hub, &ways_out).await?;
    Ok(())
}

/// A broker that greets as this version and answers pings, as far as a client gets with it.
async fn greet_as(version: &'static str) -> Result<(String, AbortOnDropHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("nats://{}", listener.local_addr()?);
    let greeting = format!(
        "INFO {{\"server_id\":\"old\",\"server_name\":\"old\",\"version\":\"{version}\",\"go\":\"\",\
         \"host\":\"127.0.0.1\",\"port\":4222,\"headers\":true,\"max_payload\":1048576,\"proto\":1,\
         \"client_id\":1,\"jetstream\":true}}\r\n"
    );
    let mut clients = tokio::task::JoinSet::new();
    let serving = async move {
        while let Ok((mut client, _peer)) = listener.accept().await {
            let greeting = greeting.clone();
            clients.spawn(async move {
                let (reader, mut writer) = client.split();
                let mut lines = BufReader::new(reader).lines();
                let mut sent = writer.write_all(greeting.as_bytes()).await;
                while let (Ok(()), Ok(Some(line))) = (&sent, lines.next_line().await) {
                    if line.starts_with("PING") {
                        sent = writer.write_all(b"PONG\r\n").await;
                    }
                }
            });
        }
    };
    let handle = AbortOnDropHandle::new(TaskTracker::new().spawn(serving));
    Ok((url, handle))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_too_old_is_refused() -> Result<()> {
    let (url, _broker) = greet_as("2.14.3").await?;
    let hub = Hub::standalone().env("NEXUS_NATS_URL", &url);
    fails_with(hub, &["2.14.3", "2.15"]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_make_no_sense_are_refused_by_name() -> Result<()> {
    for (name, value) in [
        ("NEXUS_LISTEN", "nowhere"),
        ("NEXUS_RETENTION_DAYS", "0"),
        ("NEXUS_RELEASE", "later"),
        ("NEXUS_OUTBOX_MAX_BYTES", "plenty"),
        ("NEXUS_OUTBOX_MAX_BYTES", "0"),
        ("NEXUS_OUTBOX_MAX_BYTES", "1023KiB"),
        ("NEXUS_CONNECTIONS_MAX", "0"),
        ("NEXUS_MASTER_KEY", "short"),
        ("NEXUS_ADMIN_KEY", "hunter2-hunter2"),
    ] {
        let flag = name.trim_start_matches("NEXUS_").to_lowercase();
        let failed = Hub::standalone().env(name, value).fail_to_start().await?;
        let said = failed.stderr.to_lowercase();
        ensure!(!failed.status.success(), "{name}={value} was taken");
        ensure!(
            said.contains(&flag) || said.contains(&flag.replace('_', "-")),
            "{name}: {said}"
        );
        let is_secret = name.ends_with("_KEY");
        ensure!(!is_secret || !said.contains(value), "{name}: {said}");
    }
    Ok(())
}
