//! Rollups: nothing of a day counts before its last part, and no conversation counts twice.

use nexus_events::{
    audit_event::RetentionApplied,
    id::ConversationId,
    rollup_event::{Begun, DayClosed, UsageHour},
    subject::Stream,
};

use crate::testing::{
    DAY, Database, MemoryLog, TODAY, completed, conversation, day_name, key, received, request,
};

const OLD: i64 = TODAY - 3 * DAY;

/// A part of the day [`OLD`]: one request in the hour with the part's number.
fn part(number: u32, more: bool) -> DayClosed {
    DayClosed {
        day: day_name(OLD),
        part: number,
        more,
        usage: vec![UsageHour {
            hour_ms: OLD + i64::from(number) * 3_600_000,
            model: "gpt".into(),
            provider: "openai".into(),
            key: key().to_string(),
            user: String::new(),
            requests: 1,
            errors: 0,
            prompt_tokens: 100,
            completion_tokens: 200,
            duration_ms: 5,
        }],
        conversations: if more { 0 } else { 7 },
        begun: Vec::new(),
    }
}

/// A log with one request of the day.
fn one_request() -> MemoryLog {
    let mut log = MemoryLog::new();
    let id = request(OLD);
    let conversation = conversation(OLD);
    log.exchange_bare(id, OLD, &received(conversation, None, &[]));
    log.exchange_bare(id, OLD, &completed(conversation, Some((1, 2)), 1, &[]));
    log
}

async fn totals(database: &mut Database) -> [i64; 3] {
    [
        database.number("SELECT requests FROM usage_totals").await,
        database
            .number("SELECT prompt_tokens FROM usage_totals")
            .await,
        database
            .number("SELECT conversations FROM usage_totals")
            .await,
    ]
}

const CLOSED: &str = "SELECT count(*) FROM closed_days";

#[tokio::test]
async fn a_day_in_parts_is_closed_by_its_last() {
    let mut log = one_request();
    log.rollup(&part(1, true));
    log.rollup(&part(2, true));
    let mut database = Database::of(&log).await;
    assert_eq!(totals(&mut database).await, [1, 1, 1], "as the events say");
    assert_eq!(database.number(CLOSED).await, 0);

    // Whoever goes on has only what is on disk.
    database.reopen().await;
    log.rollup(&part(3, false));
    database.apply_all(&log).await;
    assert_eq!(totals(&mut database).await, [3, 300, 7]);
    assert_eq!(database.number(CLOSED).await, 1);
    let left = "SELECT count(*) FROM rollup_parts";
    assert_eq!(database.number(left).await, 0);
}

#[tokio::test]
async fn what_a_dead_archiver_began_does_not_count() {
    let mut log = one_request();
    log.rollup(&part(1, true));
    log.rollup(&part(2, true));
    log.rollup(&part(1, true));
    log.rollup(&part(2, false));
    let mut database = Database::of(&log).await;
    assert_eq!(totals(&mut database).await, [2, 200, 7]);
    assert_eq!(database.number(CLOSED).await, 1);
}

#[tokio::test]
async fn a_part_that_does_not_follow_closes_nothing() {
    let mut log = one_request();
    log.rollup(&part(1, true));
    log.rollup(&part(3, false));
    let mut database = Database::of(&log).await;
    assert_eq!(totals(&mut database).await, [1, 1, 1]);
    assert_eq!(database.number(CLOSED).await, 0);
    let buried = database
        .number("SELECT count(*) FROM dead_letter WHERE reason LIKE 'part 3 does not follow%'")
        .await;
    assert_eq!(buried, 1);
}

/// The conversation of a client that makes up its ids.
fn timeless() -> ConversationId {
    "4e4d6c5a-0000-4000-8000-000000000001".parse().unwrap()
}

fn retention(days_ago: i64, exchanges_sequence: u64) -> RetentionApplied {
    RetentionApplied {
        cutoff_ms: TODAY - days_ago * DAY,
        exchanges_sequence,
        chunks_sequence: 0,
        audit_sequence: 0,
    }
}

#[tokio::test]
async fn a_conversation_without_a_time_counts_on_its_first_day_only() {
    let mut log = MemoryLog::new();
    let mut sequences = Vec::new();
    for drawn in [OLD, OLD + DAY, TODAY] {
        let id = request(drawn);
        sequences.push(log.exchange_bare(id, drawn, &received(timeless(), None, &[])));
    }
    let mut database = Database::of(&log).await;
    let conversations = "SELECT conversations FROM usage_totals";
    assert_eq!(database.number(conversations).await, 1);

    // Its first two days expire, one after the other; the second one began no conversation.
    log.rollup(&DayClosed {
        day: day_name(OLD),
        part: 1,
        more: false,
        usage: Vec::new(),
        conversations: 1,
        begun: vec![Begun {
            conversation: timeless(),
            began_ms: OLD,
        }],
    });
    log.audit(TODAY, &retention(2, sequences[1]));
    database.apply_all(&log).await;
    assert_eq!(database.number(conversations).await, 1);
    log.audit(TODAY, &retention(1, sequences[2]));
    database.apply_all(&log).await;
    assert_eq!(database.number(conversations).await, 1);
    let began = "SELECT began_ms FROM conversations";
    assert_eq!(database.number(began).await, OLD);

    // From what is left of the log, in either order.
    let exchanges = log.streams.get_mut(&Stream::Exchanges).unwrap();
    exchanges.retain(|entry| entry.message.sequence >= sequences[2]);
    let expected = database.dump().await;
    assert_eq!(Database::of(&log).await.dump().await, expected);
    let mut late = Database::new().await;
    for stream in [Stream::Exchanges, Stream::Audit, Stream::Rollups] {
        late.apply(stream, log.of(stream)).await;
    }
    assert_eq!(late.dump().await, expected);
}
