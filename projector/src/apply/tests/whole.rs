//! A batch is applied whole, its checkpoint with it, or not at all.

use nexus_events::subject::Stream;
use sqlx::AssertSqlSafe;

use crate::{
    apply::Origin,
    testing::{Database, MemoryLog, TODAY, completed, conversation, received, request},
};

/// An exchange of two events.
fn exchange(log: &mut MemoryLog, drawn: i64) {
    let (id, conversation) = (request(drawn), conversation(drawn));
    log.exchange_bare(id, drawn, &received(conversation, None, &[]));
    let end = completed(conversation, Some((5, 7)), 1, &[]);
    log.exchange_bare(id, drawn + 100, &end);
}

async fn execute(database: &mut Database, sql: String) {
    sqlx::query(AssertSqlSafe(sql))
        .execute(database.writer.connection())
        .await
        .unwrap();
}

/// Everything that the file holds, the checkpoint too.
async fn whole(database: &mut Database) -> (Vec<String>, i64) {
    let reached =
        "SELECT sequence FROM checkpoint WHERE stream = 'NEXUS_EXCHANGES' AND outbox = ''";
    (database.dump().await, database.number(reached).await)
}

#[tokio::test]
async fn a_batch_that_fails_half_way_leaves_neither_effects_nor_checkpoint() {
    let mut log = MemoryLog::new();
    exchange(&mut log, TODAY);
    let mut database = Database::of(&log).await;
    let before = whole(&mut database).await;
    exchange(&mut log, TODAY + 1_000);
    let origin = Origin {
        stream: Stream::Exchanges,
        created_ns: 7,
    };
    // Whatever a batch writes first and last: each fails once, as on a full disk.
    for table in ["exchanges", "chat_stats", "usage_hourly", "checkpoint"] {
        let broken = format!(
            "CREATE TRIGGER broken BEFORE INSERT ON {table}
             BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
        );
        execute(&mut database, broken).await;
        let applied = database
            .writer
            .apply(origin, log.of(Stream::Exchanges))
            .await;
        assert!(applied.is_err(), "{table} was written");
        execute(&mut database, "DROP TRIGGER broken".to_owned()).await;
        database.reopen().await;
        let after = whole(&mut database).await;
        assert_eq!(after, before, "{table} failed and something stayed");
    }
    database.apply_all(&log).await;
    let requests = "SELECT requests FROM usage_totals";
    assert_eq!(database.number(requests).await, 2);
    assert!(whole(&mut database).await.1 > before.1);
}
