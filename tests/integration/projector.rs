//! The projector against a real broker: it follows, rebuilds, halts where it must, and verifies.

mod halt;
mod live;
mod verification;

use std::time::Duration;

use nexus_events::{clock::UnixMillis, log::Log};
use nexus_projector::ReadModel;
use nexus_tests::{Broker, Result, read_model, until};
use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

use crate::{
    running::Running,
    traffic::{self, NOON, Traffic},
};

/// A loaded two-core machine applies some thousand events a second; the tests write some dozens.
const BOUND: Duration = Duration::from_secs(30);

struct Setup {
    broker: Broker,
    log: Log,
    traffic: Traffic,
    folder: TempDir,
}

impl Setup {
    async fn new() -> Result<Self> {
        let broker = Broker::start().await?;
        let log = traffic::log(&broker).await?;
        let traffic = Traffic::new(&log);
        let folder = tempfile::tempdir()?;
        Ok(Self {
            broker,
            log,
            traffic,
            folder,
        })
    }

    fn dir(&self) -> std::path::PathBuf {
        self.folder.path().join("read_model")
    }

    fn read_model(&self) -> ReadModel {
        ReadModel::open(self.dir())
    }

    fn dump(&self) -> read_model::ReadModel {
        read_model::ReadModel::at(&self.dir())
    }

    /// Some exchanges; gives back the sequence of the last event.
    async fn exchanges(&mut self, count: i64) -> Result<u64> {
        let mut last = 0;
        for number in 0..count {
            let said = format!("question {number}");
            last = self.traffic.exchange(NOON + number, &said).await?.sequence;
        }
        Ok(last)
    }

    async fn requests(&self) -> Result<u64> {
        let stats = self
            .read_model()
            .stats(UnixMillis::from_millis(NOON))
            .await?;
        Ok(stats.requests)
    }

    /// Changes the database behind the projector's back.
    async fn tamper(&self, statement: &'static str) -> Result<()> {
        let mut connection = SqliteConnectOptions::new()
            .filename(self.dump().database()?)
            .connect()
            .await?;
        sqlx::query(statement).execute(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }
}

#[tokio::test]
async fn what_is_published_can_be_read() -> Result<()> {
    let mut setup = Setup::new().await?;
    let running = Running::start(&setup.dir(), &setup.log);
    let exchange = setup.traffic.exchange(NOON, "why is the sky blue?").await?;
    running.applied(exchange.sequence).await?;

    let now = UnixMillis::from_millis(NOON + 60_000);
    let stats = setup.read_model().stats(now).await?;
    assert_eq!(stats.total_conversations, 1);
    assert_eq!(stats.active_sessions, 1);
    assert_eq!(stats.tokens_usage.total, 30);
    let later = UnixMillis::from_millis(NOON + 31 * 60_000);
    assert_eq!(setup.read_model().stats(later).await?.active_sessions, 0);

    let request = setup.read_model().request(exchange.request).await?;
    let request = request.expect("the request was applied");
    let body: serde_json::Value =
        serde_json::from_str(request.request.expect("every part is there").get())?;
    assert_eq!(
        body,
        serde_json::json!({
            "model": "gpt",
            "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": "why is the sky blue?"},
            ],
            "temperature": 0.5,
        })
    );
    let conversation = setup
        .read_model()
        .conversation(exchange.conversation, now)
        .await?
        .expect("the conversation was applied");
    let roles: Vec<&str> = conversation
        .messages
        .iter()
        .map(|message| message.role.as_str())
        .collect();
    assert_eq!(roles, ["user", "assistant"]);
    let ends = setup
        .read_model()
        .recent_exchange_ends(now.minus(BOUND * 60))
        .await?;
    assert_eq!(ends.ends.len(), 1);
    assert_eq!(ends.ends[0].system, Some(exchange.request));
    assert_eq!(ends.systems[&exchange.request].len(), 1);
    running.stop().await
}

#[tokio::test]
async fn a_restart_goes_on_where_it_stopped() -> Result<()> {
    let mut setup = Setup::new().await?;
    let running = Running::start(&setup.dir(), &setup.log);
    let last = setup.exchanges(5).await?;
    running.applied(last).await?;
    running.stop().await?;
    let last = setup.exchanges(5).await?;
    let running = Running::start(&setup.dir(), &setup.log);
    running.applied(last).await?;
    assert_eq!(setup.requests().await?, 10);
    assert_eq!(running.status.current().gaps, 0);
    running.stop().await
}

#[tokio::test]
async fn a_broker_that_comes_back_is_followed_again() -> Result<()> {
    let mut setup = Setup::new().await?;
    let running = Running::start(&setup.dir(), &setup.log);
    let last = setup.exchanges(5).await?;
    running.applied(last).await?;
    setup.broker.kill().await?;
    setup.broker.restart().await?;
    setup.log.ready(BOUND).await?;
    let last = setup.exchanges(5).await?;
    running.applied(last).await?;
    assert_eq!(setup.requests().await?, 10);
    running.stop().await
}

#[tokio::test]
async fn a_deleted_read_model_comes_back_the_same() -> Result<()> {
    let mut setup = Setup::new().await?;
    let running = Running::start(&setup.dir(), &setup.log);
    let last = setup.exchanges(20).await?;
    running.applied(last).await?;
    let before = setup.dump().dump().await?;
    std::fs::remove_dir_all(setup.dir())?;
    until("the read model is there again", BOUND, async || {
        setup.dump().dump().await
    })
    .await?;
    read_model::assert_same(&before, &setup.dump().dump().await?)?;
    // And the projector goes on writing the new one.
    let last = setup.exchanges(1).await?;
    running.applied(last).await?;
    assert_eq!(setup.requests().await?, 21);
    running.stop().await
}

#[tokio::test]
async fn another_version_of_the_apply_code_builds_anew() -> Result<()> {
    let mut setup = Setup::new().await?;
    let running = Running::start(&setup.dir(), &setup.log);
    let last = setup.exchanges(3).await?;
    running.applied(last).await?;
    running.stop().await?;
    let old = setup.dump().database()?;
    setup
        .tamper("UPDATE checkpoint SET apply_version = 0")
        .await?;
    setup
        .tamper("UPDATE usage_totals SET requests = 99")
        .await?;
    let running = Running::start(&setup.dir(), &setup.log);
    running.applied(last).await?;
    assert_eq!(setup.requests().await?, 3);
    assert_ne!(setup.dump().database()?, old);
    running.stop().await
}

#[tokio::test]
async fn a_file_that_is_no_database_is_replaced() -> Result<()> {
    let mut setup = Setup::new().await?;
    let running = Running::start(&setup.dir(), &setup.log);
    let last = setup.exchanges(3).await?;
    running.applied(last).await?;
    running.stop().await?;
    std::fs::write(
        setup.dump().database()?,
        "this is no database, it is a text of some length",
    )?;
    let running = Running::start(&setup.dir(), &setup.log);
    running.applied(last).await?;
    assert_eq!(setup.requests().await?, 3);
    running.stop().await
}

#[tokio::test]
async fn content_from_the_object_store_is_read() -> Result<()> {
    let mut setup = Setup::new().await?;
    let running = Running::start(&setup.dir(), &setup.log);
    let long = "long ".repeat(200_000);
    let exchange = setup.traffic.exchange(NOON, &long).await?;
    running.applied(exchange.sequence).await?;
    let request = setup.read_model().request(exchange.request).await?;
    let body = request.and_then(|request| request.request);
    assert!(body.is_some_and(|body| body.get().contains(&long)));
    running.stop().await
}
