//! The commands beside a running hub: they find what it uses, tell what they compared, and leave
//! nothing behind.

use anyhow::ensure;
use nexus_tests::account::{BOUND, settled_dump};
use nexus_tests::programs::{self};
use nexus_tests::read_model::ReadModel;
use nexus_tests::{Hub, Result};
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
