//! Others change the configuration at the same time, and a run that ends half-way.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::{Context, ensure};
use nexus_events::{
    log::{Log, LogSettings},
    seal::MasterKey,
};
use nexus_gateway::apply::{Declaration, Live};
use nexus_gateway::configuration::CommandError;
use nexus_tests::{Hub, Result};
use serde_json::{Value, json};
use tokio::sync::Notify;

const FILE: &str = "
providers:
  - {name: a, kind: gemini, rate_limit: 10}
  - {name: b, kind: gemini}
models:
  - {provider: a, model_name: m}
";

fn nothing(_: &str) -> Option<OsString> {
    None
}

fn declaration(text: &str) -> Result<Declaration> {
    Declaration::read(text, &nothing).map_err(|problems| anyhow::anyhow!("{problems:?}"))
}

async fn live(hub: &Hub) -> Result<Live> {
    let settings = LogSettings {
        url: hub.nats_url()?,
        name: "test".to_owned(),
        replicas: 1,
        retention: Duration::ZERO,
    };
    let master = std::fs::read_to_string(hub.data_dir().join("master.key"))?;
    Live::open(
        Log::connect(settings).await?,
        MasterKey::from_base64(&master)?,
    )
    .await
}

/// The lines of what is to be done now.
async fn to_do(hub: &Hub, text: &str) -> Result<Vec<String>> {
    let plan = live(hub).await?.plan(&declaration(text)?, false);
    let plan = plan.map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    Ok(plan.lines().collect())
}

/// Carries out a plan that was made before `change`; the resource that it was stopped at, and why.
async fn stopped_by(
    hub: &Hub,
    text: &str,
    change: impl AsyncFnOnce(&nexus_tests::Client) -> Result<()>,
) -> Result<(String, CommandError)> {
    let mut live = live(hub).await?;
    let plan = live.plan(&declaration(text)?, true);
    let plan = plan.map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    change(&hub.client()?).await?;
    let stopped = live.carry_out(&plan, |_| {}).await?.err();
    let stopped = stopped.context("it was overwritten")?;
    Ok((stopped.subject, stopped.error))
}

async fn provider(hub: &Hub, name: &str) -> Result<Value> {
    let path = format!("/providers/{name}");
    Ok(hub.client()?.get(&path).await?.expect(200)?.json)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_someone_else_is_not_overwritten() -> Result<()> {
    let hub = Hub::standalone().start().await?;
    let (subject, error) = stopped_by(&hub, FILE, async |client| {
        let theirs = json!({"name": "b", "kind": "ernie"});
        client.post("/providers", &theirs).await?.expect(201)?;
        Ok(())
    })
    .await?;
    assert_eq!(subject, "provider b");
    ensure!(matches!(error, CommandError::Refused { .. }), "{error:?}");
    assert_eq!(provider(&hub, "b").await?["kind"], "ernie");
    let left = [
        "~ provider b: kind ernie → gemini, server_url https://qianfan.baidubce.com/v2 → https://generativelanguage.googleapis.com",
        "+ model a/m",
    ];
    assert_eq!(
        to_do(&hub, FILE).await?,
        left,
        "what was made before it stays"
    );

    let edited = FILE.replace("10", "20");
    let (subject, error) = stopped_by(&hub, &edited, async |client| {
        let theirs = json!({"rate_limit": 7});
        client.put("/providers/a", &theirs).await?.expect(200)?;
        Ok(())
    })
    .await?;
    assert_eq!(subject, "provider a");
    ensure!(matches!(error, CommandError::Stale), "{error:?}");
    assert_eq!(provider(&hub, "a").await?["rate_limit"], 7);

    let without_a = "providers: [{name: b, kind: ernie}]";
    let (subject, error) = stopped_by(&hub, without_a, async |client| {
        let theirs = json!({"rate_limit": 8});
        client.put("/providers/a", &theirs).await?.expect(200)?;
        Ok(())
    })
    .await?;
    assert_eq!(subject, "provider a");
    ensure!(matches!(error, CommandError::Stale), "{error:?}");
    assert_eq!(provider(&hub, "a").await?["rate_limit"], 8);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_meanwhile_is_not_brought_back() -> Result<()> {
    let hub = Hub::standalone().start().await?;
    let client = hub.client()?;
    let theirs = json!({"name": "b", "kind": "ernie"});
    client.post("/providers", &theirs).await?.expect(201)?;
    let (subject, error) = stopped_by(&hub, FILE, async |client| {
        client.delete("/providers/b").await?.expect(200)?;
        Ok(())
    })
    .await?;
    assert_eq!(subject, "provider b");
    ensure!(matches!(error, CommandError::Stale), "{error:?}");
    client.get("/providers/b").await?.expect(404)?;
    let left = ["+ provider b", "+ model a/m"];
    assert_eq!(to_do(&hub, FILE).await?, left);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_ends_half_way_is_completed_by_the_next() -> Result<()> {
    let hub = Hub::standalone().start().await?;
    let mut first = live(&hub).await?;
    let declaration = declaration(FILE)?;
    let plan = first.plan(&declaration, false);
    let plan = plan.map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    assert_eq!(plan.lines().count(), 3);
    let told = Notify::new();
    tokio::select! {
        biased;
        () = told.notified() => {}
        _ = first.carry_out(&plan, |_| told.notify_one()) => anyhow::bail!("it was not stopped"),
    }
    drop(first);
    let left = to_do(&hub, FILE).await?;
    ensure!(!left.is_empty() && left.len() < 3, "{left:?}");
    let mut second = live(&hub).await?;
    let plan = second.plan(&declaration, false);
    let plan = plan.map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    second.carry_out(&plan, |_| {}).await??;
    assert_eq!(to_do(&hub, FILE).await?, [""; 0]);
    Ok(())
}
