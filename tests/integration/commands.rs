//! The commands beside a running hub: they find what it uses, tell what they compared, and leave
//! nothing behind.

use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use nexus_tests::account::{BOUND, settled_dump, shipped};
use nexus_tests::hub::Cluster;
use nexus_tests::process::Process;
use nexus_tests::programs::{self, Outcome};
use nexus_tests::read_model::ReadModel;
use nexus_tests::{Broker, Chaos, Hub, Redis, Result, until};
use rustix::process::Signal;
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

/// The scratch folders of `verify` in a data folder.
fn scratches(data: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(data)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("verify-") {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// A `verify` in the midst of its work, which will not get on.
async fn verifying(hub: &Hub, folder: &Path) -> Result<(Process, Chaos)> {
    let url = hub.nats_url()?;
    let wire = Chaos::start(url.trim_start_matches("nats://"))?;
    wire.slow(NonZeroU32::new(10_000).context("not zero")?);
    let mut command: Command = hub.command(["verify"]);
    command.env("NEXUS_NATS_URL", format!("nats://{}", wire.url_host_port()));
    let process = Process::start("verify", &command, folder)?;
    let known = scratches(hub.data_dir())?;
    until("the scratch database is there", BOUND, async || {
        let found = scratches(hub.data_dir())?;
        let new = found.iter().find(|scratch| !known.contains(scratch));
        let new = new.context("no scratch folder")?;
        ensure!(new.join("verify.db").exists(), "it is empty");
        let mode = std::fs::metadata(new)?.permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "{}", new.display());
        anyhow::Ok(())
    })
    .await?;
    wire.stall();
    Ok((process, wire))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_verify_leaves_no_copy_of_the_conversations() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut hub = Hub::standalone().start().await?;
    for number in 0..20 {
        say(&hub, &format!("{number}: {}", "meander ".repeat(500))).await?;
    }
    settled_dump(&hub).await?;
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let (mut process, _wire) = verifying(&hub, folder.path()).await?;
        process.signal(signal)?;
        let status = process.end(BOUND).await?;
        assert_eq!(scratches(hub.data_dir())?, [] as [PathBuf; 0]);
        assert_eq!(status.code(), Some(code), "{status}");
    }

    // SIGKILL leaves it: the next verify takes it away, and not that of one that is at work.
    let (mut killed, _wire) = verifying(&hub, folder.path()).await?;
    killed.kill().await?;
    let left = scratches(hub.data_dir())?;
    assert_eq!(left.len(), 1);
    let (mut working, _wire) = verifying(&hub, folder.path()).await?;
    let working_in = scratches(hub.data_dir())?;
    assert_eq!(working_in.len(), 1);
    assert_ne!(working_in, left);
    let verified = programs::run(&hub.command(["verify"]), BOUND).await?;
    verified.succeeded()?;
    assert_eq!(scratches(hub.data_dir())?, working_in);

    // So does the hub when it starts.
    working.kill().await?;
    ensure!(hub.stop().await?.success());
    hub.start_again().await?;
    until("the hub has tidied up", BOUND, async || {
        let left = scratches(hub.data_dir())?;
        ensure!(left.is_empty(), "{left:?}");
        anyhow::Ok(())
    })
    .await
}

/// Everything below a folder that others than its owner may use.
fn open_to_others(folder: &Path) -> Result<Vec<String>> {
    let mut open = Vec::new();
    let mode = std::fs::metadata(folder)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        open.push(format!("{mode:o} {}", folder.display()));
    }
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let mode = entry.metadata()?.permissions().mode() & 0o777;
        if entry.file_type()?.is_dir() {
            open.extend(open_to_others(&entry.path())?);
        } else if mode & 0o077 != 0 {
            open.push(format!("{mode:o} {}", entry.path().display()));
        }
    }
    Ok(open)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_conversations_is_for_its_owner_alone() -> Result<()> {
    let moved = Moved::start().await?;
    moved.run(["backup", "now"]).await?.succeeded()?;
    moved.run(["replay"]).await?.succeeded()?;
    moved
        .run(["replay", "--only", "stats"])
        .await?
        .succeeded()?;
    // With its write-ahead log, and with the outbox of a hub that runs.
    let database = moved.read_model.database()?;
    let wal = format!("{}-wal", database.display());
    ensure!(Path::new(&wal).exists(), "{wal} is not there");
    for folder in [
        moved.read_model.folder(),
        &moved.backups,
        &moved.data().join("outbox"),
        &moved.data().join("run"),
    ] {
        assert_eq!(open_to_others(folder)?, [""; 0]);
    }
    for folder in ["nats", "config"] {
        let folder = moved.data().join(folder);
        let mode = std::fs::metadata(&folder)?.permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "{}", folder.display());
    }
    Ok(())
}
