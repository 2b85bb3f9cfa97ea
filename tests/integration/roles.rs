//! The compose topology, run for real: a broker, a Redis, and each role as a process of its own,
//! with the read model and the backups on folders that they share.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use nexus_tests::client::Ending;
use nexus_tests::hub::Cluster;
use nexus_tests::log::Stream;
use nexus_tests::{Broker, Client, Hub, Redis, Result, Upstream, programs, until};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use nexus_tests::account::{BOUND, assert_verified, projected, shipped};

const MODEL: &str = "gpt-test";

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

/// The parts that compose starts, and a second gateway.
struct Installation {
    redis: Redis,
    cluster: Cluster,
    gateways: [Hub; 2],
    projector: Hub,
    archiver: Hub,
    upstream: Upstream,
    // Last: everything else leans on it.
    _broker: Broker,
}

impl Installation {
    async fn start() -> Result<Self> {
        let (broker, redis) = (Broker::start().await?, Redis::start().await?);
        let cluster = Cluster::new(&broker, &redis)?;
        let upstream = Upstream::start().await?;
        // All at once, as compose does it: each waits for what it needs.
        let (one, two, projector, archiver) = tokio::try_join!(
            cluster.gateway().start(),
            cluster.gateway().start(),
            cluster.projector().start(),
            cluster.archiver().start(),
        )?;
        one.client()?.serve_model(MODEL, &upstream.url()).await?;
        let path = format!("/v1/models/{MODEL}");
        until("the second gateway knows the model", BOUND, async || {
            two.client()?.get(&path).await?.expect(200).map(drop)
        })
        .await?;
        Ok(Self {
            redis,
            cluster,
            gateways: [one, two],
            projector,
            archiver,
            upstream,
            _broker: broker,
        })
    }

    fn clients(&self) -> Result<[Client; 2]> {
        let [one, two] = &self.gateways;
        Ok([one.client()?, two.client()?])
    }
}

/// Whether `nexus health --ready` finds a role ready.
async fn is_healthy(role: &Hub) -> Result<bool> {
    let mut command = role.command(["health", "--ready"]);
    let metrics = role.metrics_url();
    command.env(
        "NEXUS_METRICS_LISTEN",
        metrics.trim_start_matches("http://"),
    );
    Ok(programs::run(&command, BOUND).await?.status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_does_its_part_as_a_process_of_its_own() -> Result<()> {
    let mut installation = Installation::start().await?;
    let [client, other] = installation.clients()?;
    for number in 0..3 {
        let body = json!({"model": MODEL, "messages": [user(&format!("plain, req-{number}"))]});
        client.chat(&body).await?.expect(200)?;
        let end = other.chat_stream(&body).await?.end().await?;
        ensure!(end.ending == Some(Ending::Done), "{end:?}");
    }
    for gateway in &installation.gateways {
        shipped(gateway).await?;
        projected(gateway).await?;
        let stats = gateway.client()?.get("/stats").await?.expect(200)?;
        assert_eq!(stats.json["requests"], 6, "{}", stats.text());
    }
    assert_verified(&installation.projector).await?;
    let Installation {
        gateways: [one, two],
        projector,
        archiver,
        ..
    } = &mut installation;
    for role in [one, two, projector, archiver] {
        ensure!(is_healthy(role).await?, "{}", role.metrics_url());
        let status = role.stop().await?;
        assert_eq!(status.code(), Some(0));
        ensure!(!is_healthy(role).await?, "{} is gone", role.metrics_url());
    }
    Ok(())
}

/// The databases of the backups that are there, whole ones only.
fn backups(cluster: &Cluster) -> Result<Vec<PathBuf>> {
    let Ok(entries) = std::fs::read_dir(cluster.backups()) else {
        return Ok(Vec::new());
    };
    let mut databases = Vec::new();
    for entry in entries {
        let folder = entry?.path();
        if folder.join("manifest.json").exists() {
            databases.push(folder.join("read_model.db"));
        }
    }
    databases.sort();
    Ok(databases)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_archiver_takes_backups_that_can_be_opened() -> Result<()> {
    let installation = Installation::start().await?;
    let [client, _] = installation.clients()?;
    // The first one is taken by the archiver itself, soon after its start.
    until("there is a backup", BOUND, async || {
        let taken = backups(&installation.cluster)?;
        ensure!(taken.len() == 1, "{taken:?}");
        anyhow::Ok(())
    })
    .await?;
    let body = json!({"model": MODEL, "messages": [user("keep this, req-1")]});
    client.chat(&body).await?.expect(200)?;
    let [gateway, _] = &installation.gateways;
    shipped(gateway).await?;
    projected(gateway).await?;

    let now = installation.archiver.command(["backup", "now"]);
    programs::run(&now, BOUND).await?.succeeded()?;
    let taken = backups(&installation.cluster)?;
    ensure!(taken.len() == 2, "{taken:?}");
    let newest = taken.last().context("no backup")?;
    let mut backup = SqliteConnectOptions::new()
        .filename(newest)
        .read_only(true)
        .connect()
        .await?;
    let sound: String = sqlx::query_scalar("PRAGMA integrity_check")
        .fetch_one(&mut backup)
        .await?;
    assert_eq!(sound, "ok");
    let requests: i64 = sqlx::query_scalar("SELECT count(*) FROM exchanges")
        .fetch_one(&mut backup)
        .await?;
    assert_eq!(
        requests, 1,
        "the backup has what was there when it was taken"
    );
    backup.close().await?;
    let manifest = std::fs::read(newest.with_file_name("manifest.json"))?;
    let manifest: Value = serde_json::from_slice(&manifest)?;
    assert_eq!(manifest["bytes"], std::fs::metadata(newest)?.len());
    let digest = manifest["sha256"].as_str().unwrap_or_default();

    let list = installation.archiver.command(["backup", "list"]);
    let list = programs::run(&list, BOUND).await?;
    let lines: Vec<&str> = list.succeeded()?.stdout.lines().collect();
    ensure!(lines.len() == 2 && digest.len() == 64, "{lines:?}");
    ensure!(lines.iter().any(|line| line.contains(digest)), "{lines:?}");
    let log = gateway.log().await?;
    log.until_events(Stream::Audit, "both backups are recorded", |events| {
        let recorded = events.iter().filter(|event| event.name() == "backup_taken");
        let digests: Vec<_> = recorded.map(|event| &event.data()["sha256"]).collect();
        match digests.len() {
            2 if digests.contains(&&manifest["sha256"]) => Ok(()),
            _ => Err(format!("{digests:?}")),
        }
    })
    .await?;
    Ok(())
}

/// A conversation that is carried on, at whichever gateway.
struct Talk {
    messages: Vec<Value>,
    id: Option<String>,
}

impl Talk {
    fn begin() -> Self {
        Self {
            messages: Vec::new(),
            id: None,
        }
    }

    /// Says something more, repeating the history as clients do; fails if it is taken for another
    /// conversation.
    async fn go_on(&mut self, client: &Client, text: &str) -> Result<()> {
        self.messages.push(user(text));
        let body = json!({"model": MODEL, "messages": self.messages});
        let answer = client.chat(&body).await?.expect(200)?;
        let answered = json!({"role": "assistant", "content": answer.content()});
        self.messages.push(answered);
        let id = answer.header("x-conversation-id").map(str::to_owned);
        ensure!(id.is_some(), "no X-Conversation-Id");
        ensure!(
            self.id.is_none() || self.id == id,
            "{text}: {id:?} goes on for {:?}",
            self.id
        );
        self.id = id;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_goes_on_at_the_other_gateway() -> Result<()> {
    let mut installation = Installation::start().await?;
    let [one, two] = installation.clients()?;
    let mut talk = Talk::begin();
    talk.go_on(&one, "where do rivers begin, turn-1").await?;
    talk.go_on(&two, "and then, turn-2").await?;
    talk.go_on(&one, "and then, turn-3").await?;

    // Forgotten by Redis: what each gateway has seen itself it still knows.
    installation.redis.flush().await?;
    talk.go_on(&one, "after the flush, turn-4").await?;
    talk.go_on(&two, "what the flush left is shared again, turn-5")
        .await?;

    // Away: every gateway serves alone.
    installation.redis.kill().await?;
    talk.go_on(&two, "without Redis, turn-6").await?;
    let mut other = Talk::begin();
    for turn in 1..=3 {
        other
            .go_on(&one, &format!("another one without Redis, turn-{turn}"))
            .await?;
    }
    // Back, and empty.
    installation.redis.restart().await?;
    until("the gateways use Redis again", BOUND, async || {
        for gateway in &installation.gateways {
            // A gateway finds out by using it.
            let echo = json!({"model": "echo", "messages": [user("hello")]});
            gateway.client()?.chat(&echo).await?.expect(200)?;
            let up = gateway.metric("nexus_redis_up").await?;
            ensure!(up == Some(1.0), "nexus_redis_up is {up:?}");
        }
        anyhow::Ok(())
    })
    .await?;
    talk.go_on(&two, "Redis is back, turn-7").await?;
    talk.go_on(&one, "and shared, turn-8").await?;
    other.go_on(&one, "Redis is back, turn-4").await?;
    other.go_on(&two, "and shared, turn-5").await?;

    let [gateway, second] = &installation.gateways;
    shipped(gateway).await?;
    shipped(second).await?;
    projected(gateway).await?;
    for (talk, turns) in [(&talk, 8), (&other, 5)] {
        let id = talk.id.as_deref().unwrap_or_default();
        let stats = one.get(&format!("/stats/conversations/{id}")).await?;
        assert_eq!(stats.expect(200)?.json["requests"], turns);
        let told = two
            .get(&format!("/conversations/{id}"))
            .await?
            .expect(200)?;
        let messages = told.json["messages"].as_array().map(Vec::len);
        assert_eq!(messages, Some(talk.messages.len()), "{}", told.text());
    }
    // The provider was asked for each turn and nothing else.
    assert_eq!(installation.upstream.exchanges().len(), 13);
    Ok(())
}
