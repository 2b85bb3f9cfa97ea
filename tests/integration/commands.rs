//! The commands beside a running hub: they find what it uses, tell what they compared, and leave
//! nothing behind.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use nexus_tests::account::{BOUND, settled_dump, shipped};
use nexus_tests::hub::Cluster;
use nexus_tests::programs::{self, Outcome};
use nexus_tests::read_model::ReadModel;
use nexus_tests::{Broker, Hub, Redis, Result, until};
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

async fn say(hub: &Hub, text: &str) -> Result<()> {
    let body = json!({"model": "echo", "messages": [{"role": "user", "content": text}]});
    hub.client()?.chat(&body).await?.expect(200).map(drop)
}

/// Changes a read model behind the projector's back.
async fn tamper(read_model: &ReadModel, statements: &str) -> Result<()> {
    let mut connection = SqliteConnectOptions::new()
        .filename(read_model.database()?)
        .connect()
        .await?;
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
        .execute(&mut connection)
        .await?;
    connection.close().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_names_a_table_that_is_missing() -> Result<()> {
    let hub = Hub::standalone().start().await?;
    say(&hub, "where do rivers begin?").await?;
    settled_dump(&hub).await?;
    let statements = "DROP TABLE audit_log; DROP TABLE chat_stats";
    tamper(&hub.read_model(), statements).await?;
    let found = programs::run(&hub.command(["verify"]), BOUND).await?;
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    for said in ["in table audit_log", "live     (no table)"] {
        ensure!(found.stdout.contains(said), "{said}: {}", found.stdout);
    }
    ensure!(!found.stdout.contains("sum over"), "{}", found.stdout);
    Ok(())
}

/// A hub whose read model and backups lie outside its data folder, after one that had them there.
struct Moved {
    hub: Hub,
    read_model: ReadModel,
    backups: PathBuf,
    _folder: tempfile::TempDir,
}

impl Moved {
    async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (read_model, backups) = (folder.path().join("rm"), folder.path().join("bk"));
        let hub = Hub::standalone()
            .env("NEXUS_READ_MODEL_DIR", read_model.display())
            .env("NEXUS_BACKUP_DIR", backups.display())
            .start()
            .await?;
        say(&hub, "where do rivers begin?").await?;
        settled_dump(&hub).await?;
        let moved = Self {
            read_model: ReadModel::at(&read_model),
            backups,
            hub,
            _folder: folder,
        };
        // What a hub without these settings left is dead, and as the log was.
        let dead = moved.data().join("read_model");
        std::fs::create_dir(&dead)?;
        let live = moved.read_model.database()?;
        let copy = dead.join(live.file_name().context("no name")?);
        let mut source = SqliteConnectOptions::new()
            .filename(&live)
            .connect()
            .await?;
        sqlx::query("VACUUM INTO ?")
            .bind(copy.display().to_string())
            .execute(&mut source)
            .await?;
        source.close().await?;
        std::fs::copy(read_model.join("current"), dead.join("current"))?;
        Ok(moved)
    }

    fn data(&self) -> &Path {
        self.hub.data_dir()
    }

    /// A command that knows the data folder only.
    async fn run<const N: usize>(&self, arguments: [&str; N]) -> Result<Outcome> {
        let mut command = self.hub.command(arguments);
        for name in ["NEXUS_READ_MODEL_DIR", "NEXUS_BACKUP_DIR"] {
            command.env_remove(name);
        }
        programs::run(&command, BOUND).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_use_the_folders_that_the_hub_uses() -> Result<()> {
    let moved = Moved::start().await?;
    let before = std::fs::read_dir(&moved.backups)?.count();
    moved.run(["backup", "now"]).await?.succeeded()?;
    assert_eq!(std::fs::read_dir(&moved.backups)?.count(), before + 1);
    ensure!(!moved.data().join("backups").exists());
    let listed = moved.run(["backup", "list"]).await?;
    ensure!(listed.succeeded()?.stdout.lines().count() >= 1);

    let forge = "UPDATE usage_totals SET requests = requests + 1";
    tamper(&moved.read_model, forge).await?;
    let found = moved.run(["verify"]).await?;
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    // Told otherwise, it does as it is told.
    let dead = moved.data().join("read_model").display().to_string();
    let told = ["verify", "--read-model-dir", dead.as_str()];
    moved.run(told).await?.succeeded()?;

    let old = moved.read_model.database()?;
    moved.run(["replay"]).await?.succeeded()?;
    ensure!(moved.read_model.database()? != old, "{}", old.display());
    moved.run(["verify"]).await?.succeeded()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_tells_how_far_the_log_goes_beyond_what_it_compared() -> Result<()> {
    let (broker, redis) = (Broker::start().await?, Redis::start().await?);
    let cluster = Cluster::new(&broker, &redis)?;
    let (gateway, mut projector) =
        tokio::try_join!(cluster.gateway().start(), cluster.projector().start())?;
    say(&gateway, "where do rivers begin?").await?;
    shipped(&gateway).await?;
    let beyond = "the log goes on beyond that";
    until("the projector has applied all", BOUND, async || {
        let verified = programs::run(&projector.command(["verify"]), BOUND).await?;
        let told = &verified.succeeded()?.stdout;
        ensure!(!told.contains(beyond), "{told}");
        anyhow::Ok(())
    })
    .await?;
    ensure!(projector.stop().await?.success());

    say(&gateway, "and where do they end?").await?;
    shipped(&gateway).await?;
    let verified = programs::run(&projector.command(["verify"]), BOUND).await?;
    ensure!(
        verified.succeeded()?.stdout.contains(beyond),
        "{verified:?}"
    );
    Ok(())
}
