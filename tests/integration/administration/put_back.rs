//! A gateway whose log was put back from an older copy: what it knew and what the log holds
//! contradict each other, until somebody decides.

use anyhow::{Context, ensure};
use nexus_tests::account::{BOUND, projected};
use nexus_tests::{Broker, Hub, Result, programs, until};
use serde_json::json;

use super::ask;

async fn nexus(hub: &Hub, arguments: &[&str]) -> Result<()> {
    let command = hub.command(arguments.iter().copied());
    let outcome = programs::run(&command, BOUND).await?;
    outcome.succeeded().map(drop)
}

/// Starts a hub whose configuration is not that of the log, and sees that it takes no change.
async fn start_halted(hub: &mut Hub) -> Result<()> {
    hub.launch_again()?;
    hub.answers().await?;
    until("it says that the tail is lost", BOUND, async || {
        let part = hub.part("configuration").await?;
        let reason = part["reason"].as_str().unwrap_or_default();
        ensure!(reason.contains("its tail is lost"), "{part}");
        ensure!(reason.contains("remove config/snapshot.json"), "{part}");
        anyhow::Ok(())
    })
    .await?;
    let new = json!({"name": "refused"});
    let refused = hub.client()?.post("/keys", &new).await?.expect(503)?;
    assert_eq!(refused.error_code(), "configuration_halted");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_void_though_the_configuration_has_halted() -> Result<()> {
    let mut broker = Broker::start().await?;
    let mut hub = Hub::standalone().nats(&broker).start().await?;
    let alice = hub.client()?.with_new_key("alice", "member").await?;
    ensure!(hub.stop().await?.success());
    let copy = broker.copy_store().await?;
    hub.start_again().await?;
    let later = hub.client()?.with_new_key("later", "member").await?;
    // Or the read model would hold no more than the copy does.
    projected(&hub).await?;
    ensure!(hub.stop().await?.success());
    broker.put_back(&copy).await?;

    start_halted(&mut hub).await?;
    let admin = hub.client()?;
    let [there, known] = [alice.at(&admin), later.at(&admin)];
    there.chat(&ask("echo")).await?.expect(200)?;
    nexus(&hub, &["keys", "revoke", "alice"]).await?;
    until("the revoked key is void", BOUND, async || {
        there.chat(&ask("echo")).await?.expect(401).map(drop)
    })
    .await?;
    // Who is known to the copy alone is served; nobody has decided yet.
    known.chat(&ask("echo")).await?.expect(200)?;
    for name in ["new", "newer", "newest"] {
        nexus(&hub, &["keys", "create", name]).await?;
    }
    ensure!(hub.stop().await?.success());

    // The log is longer now than what the copy was made from.
    start_halted(&mut hub).await?;
    let admin = hub.client()?;
    let [there, known] = [alice.at(&admin), later.at(&admin)];
    there.chat(&ask("echo")).await?.expect(401)?;
    known.chat(&ask("echo")).await?.expect(200)?;
    admin.get("/keys/newest").await?.expect(404)?;
    admin.get("/stats").await?.expect(503)?;
    nexus(&hub, &["replay"]).await?;
    until("the replayed read model is read", BOUND, async || {
        admin.get("/stats").await?.expect(200).map(drop)
    })
    .await?;
    ensure!(hub.stop().await?.success());

    // What is to be done about it stands in the reason.
    let copy = hub.data_dir().join("config/snapshot.json");
    std::fs::remove_file(copy).context("there is no copy")?;
    hub.start_again().await?;
    let admin = hub.client()?;
    alice.at(&admin).chat(&ask("echo")).await?.expect(401)?;
    later.at(&admin).chat(&ask("echo")).await?.expect(401)?;
    admin.get("/keys/newest").await?.expect(200)?;
    admin
        .post("/keys", &json!({"name": "taken"}))
        .await?
        .expect(201)
        .map(drop)
}
