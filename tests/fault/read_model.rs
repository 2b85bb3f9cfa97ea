//! The read model is deleted, damaged or locked, or starts from nothing, while traffic runs.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nexus_tests::Broker;
use nexus_tests::account::{BOUND, projected};
use nexus_tests::client::Answer;
use nexus_tests::seed::Seed;
use nexus_tests::{Client, until};
use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::deployment::Deployment;
use crate::load::Load;

/// The projector waits 5 s for a lock; this one is held for longer.
const LOCKED: Duration = Duration::from_secs(7);

/// What is done to the database file.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Deleted,
    Truncated,
    Overwritten,
    HeadOverwritten,
}

const DAMAGES: [Damage; 4] = [
    Damage::Deleted,
    Damage::Truncated,
    Damage::Overwritten,
    Damage::HeadOverwritten,
];

impl Damage {
    fn inflict(self, database: &Path, seed: &mut Seed) -> Result<()> {
        use std::os::unix::fs::FileExt;
        let file = File::options().write(true).open(database)?;
        let length = file.metadata()?.len();
        match self {
            Self::Deleted => std::fs::remove_file(database)?,
            Self::Truncated => file.set_len(seed.below(length))?,
            Self::Overwritten => {
                let garbage: Vec<u8> = (0..length).map(|place| (place % 251) as u8).collect();
                file.write_all_at(&garbage, 0)?;
            }
            Self::HeadOverwritten => file.write_all_at(b"this is no database", 0)?,
        }
        Ok(())
    }
}

/// Reads statistics all the time: refused for now, or never more than was ever asked.
async fn watch(client: &Client, load: &Load, enough: &CancellationToken) -> Result<usize> {
    let mut looks = 0;
    while !enough.is_cancelled() {
        let answer: Answer = client.get("/stats").await?;
        match answer.status {
            200 => {
                let requests = answer.json.get("requests").and_then(Value::as_u64);
                let asked = u64::try_from(load.asked())?;
                ensure!(
                    requests.is_some_and(|requests| requests <= asked),
                    "{asked} were asked: {}",
                    answer.text()
                );
            }
            503 => {}
            other => anyhow::bail!("answered {other}: {}", answer.text()),
        }
        looks += 1;
        sleep(Duration::from_millis(10)).await;
    }
    Ok(looks)
}

/// A read model that is deleted, truncated or overwritten under the projector comes back by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_model_damaged_under_traffic() -> Result<()> {
    let mut seed = Seed::of("damaged read model")?;
    let broker = Broker::start().await?;
    let deployment = Deployment::start(&broker.url()).await?;
    let load = deployment.load(&mut seed)?;
    load.goes_on(40).await?;
    let enough = CancellationToken::new();
    let client = deployment.client(1)?;
    let damaging = async {
        let damaged = async {
            for damage in DAMAGES {
                let database = deployment.projector.read_model().database()?;
                damage.inflict(&database, &mut seed)?;
                load.goes_on(40).await?;
                projected(&deployment.projector)
                    .await
                    .with_context(|| format!("{damage:?}"))?;
            }
            anyhow::Ok(())
        };
        let damaged = damaged.await;
        enough.cancel();
        damaged
    };
    let (damaged, looks) = tokio::join!(damaging, watch(&client, &load, &enough));
    damaged?;
    ensure!(looks? > 20, "nobody looked");
    let memory = load.stop().await;
    deployment.settle_and_check(&memory).await?;
    Ok(())
}

/// A database that another process locks for longer than the projector waits is gone on with.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_model_locked_by_another_process() -> Result<()> {
    let mut seed = Seed::of("locked read model")?;
    let broker = Broker::start().await?;
    let deployment = Deployment::start(&broker.url()).await?;
    let load = deployment.load(&mut seed)?;
    load.goes_on(20).await?;
    let database = deployment.projector.read_model().database()?;
    let options = SqliteConnectOptions::new()
        .filename(&database)
        .busy_timeout(Duration::from_secs(10));
    let mut intruder = options.connect().await?;
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut intruder)
        .await?;
    load.goes_on(20).await?;
    sleep(LOCKED).await;
    sqlx::query("ROLLBACK").execute(&mut intruder).await?;
    intruder.close().await?;
    let memory = load.stop().await;
    deployment.settle_and_check(&memory).await?;
    ensure!(
        deployment.projector.read_model().database()? == database,
        "it was built anew for a lock"
    );
    Ok(())
}

/// A projector that starts from nothing while traffic runs gives the same numbers.
#[tokio::test(flavor = "multi_thread")]
async fn a_projector_started_from_nothing_under_traffic() -> Result<()> {
    let mut seed = Seed::of("projector from nothing")?;
    let broker = Broker::start().await?;
    let mut deployment = Deployment::start(&broker.url()).await?;
    let load = deployment.load(&mut seed)?;
    for _ in 0..2 {
        load.goes_on(60).await?;
        deployment.projector.kill().await?;
        std::fs::remove_dir_all(deployment.projector.read_model().folder())?;
        load.goes_on(30).await?;
        deployment.projector.start_again().await?;
    }
    let client = deployment.client(0)?;
    until("statistics are answered again", BOUND, async || {
        client.get("/stats").await?.expect(200).map(drop)
    })
    .await?;
    let memory = load.stop().await;
    deployment.settle_and_check(&memory).await?;
    Ok(())
}

async fn assert_sound(backup: &Path) -> Result<()> {
    let options = SqliteConnectOptions::new().filename(backup).read_only(true);
    let mut database = options
        .connect()
        .await
        .with_context(|| format!("{} is listed", backup.display()))?;
    let sound: String = sqlx::query_scalar("PRAGMA integrity_check")
        .fetch_one(&mut database)
        .await?;
    ensure!(sound == "ok", "{}: {sound}", backup.display());
    Ok(())
}

/// An archiver that is killed in the middle of a backup leaves no half one that is listed.
#[tokio::test(flavor = "multi_thread")]
async fn an_archiver_killed_in_the_middle_of_a_backup() -> Result<()> {
    let mut seed = Seed::of("killed archiver")?;
    let broker = Broker::start().await?;
    let mut deployment = Deployment::start(&broker.url()).await?;
    let load = deployment.load(&mut seed)?;
    load.goes_on(60).await?;
    for _ in 0..4 {
        let mut command = deployment.archiver.command(["backup", "now"]);
        command.env("NEXUS_NATS_URL", broker.url());
        let folder = deployment.archiver.data_dir();
        let mut taking = nexus_tests::process::Process::start("backup", &command, folder)?;
        sleep(seed.between(Duration::ZERO, Duration::from_millis(150))).await;
        deployment.archiver.kill().await?;
        if taking.exit_status()?.is_none() {
            taking.kill().await?;
        } else {
            taking.end(BOUND).await?;
        }
        deployment.archiver.start_again().await?;
    }
    let mut listing = deployment.archiver.command(["backup", "now"]);
    listing.env("NEXUS_NATS_URL", broker.url());
    nexus_tests::programs::run(&listing, BOUND)
        .await?
        .succeeded()?;
    let listing = deployment.archiver.command(["backup", "list"]);
    let listed = nexus_tests::programs::run(&listing, BOUND).await?;
    listed.succeeded()?;
    let names: Vec<&str> = listed
        .stdout
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    ensure!(!names.is_empty(), "no backup is listed");
    for name in names {
        assert_sound(&deployment.backups().join(name).join("read_model.db")).await?;
    }
    let memory = load.stop().await;
    deployment.settle_and_check(&memory).await?;
    Ok(())
}
