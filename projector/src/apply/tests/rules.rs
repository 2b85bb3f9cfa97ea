//! The rules one by one.

use nexus_events::{
    audit_event::{RetentionApplied, UnauthenticatedCalls},
    clock::UnixMillis,
    config_event::{Action, Model, OnDisconnect, Provider, Quota, Role, Setting},
    id::{ModelId, ProviderId},
    rollup_event::DayClosed,
    subject::Stream,
};

use super::counts::exchange;
use crate::{
    apply::Applied,
    testing::{
        DAY, Database, MemoryLog, TODAY, answer_content, completed, conversation, day_name, key,
        read_answer, read_request, received, request, request_content, said,
    },
};

#[tokio::test]
async fn the_latest_carrier_of_a_message_gives_its_row() {
    let mut log = MemoryLog::new();
    let conversation = conversation(TODAY);
    for (drawn, variant) in [(TODAY + 2000, 2), (TODAY + 1000, 1)] {
        let content = request_content(&[said("user", 1, variant)], r#"{"full":[]}"#, "{}");
        let received = received(conversation, None, &[1]);
        log.exchange(
            request(drawn),
            drawn,
            &received,
            Some(&read_request(&content)),
        );
    }
    let mut database = Database::of(&log).await;
    assert_eq!(
        database
            .number("SELECT count(*) FROM chat_messages WHERE message LIKE '%by 2%'")
            .await,
        1
    );
    assert_eq!(
        database
            .number("SELECT carried_ms FROM chat_messages")
            .await,
        TODAY + 2000
    );
}

#[tokio::test]
async fn what_cannot_be_applied_is_kept_whole_and_blocks_nobody() {
    let mut log = MemoryLog::new();
    log.push(
        Stream::Exchanges,
        "nexus.exchange.1.x._._",
        b"{broken".to_vec(),
    );
    let id = request(TODAY);
    let unknown = br#"{"id":"0199c0de-0000-7000-8000-000000000001","source":"/x","type":"ai.nexus.exchange.dreamt.v1","time":"2026-11-24T00:00:00Z","subject":"SUBJECT","data":{}}"#;
    let unknown = String::from_utf8_lossy(unknown).replace("SUBJECT", &id.to_string());
    log.push(
        Stream::Exchanges,
        "nexus.exchange.1.dreamt._._",
        unknown.into_bytes(),
    );
    exchange(&mut log, TODAY, Some((1, 1)));
    let mut database = Database::new().await;
    let applied = database
        .apply(Stream::Exchanges, log.of(Stream::Exchanges))
        .await;
    assert_eq!((applied.events, applied.dead_letters), (4, 2));
    assert_eq!(
        database.number("SELECT requests FROM usage_totals").await,
        1
    );
    assert_eq!(
        database.number("SELECT count(*) FROM dead_letter WHERE reason LIKE 'unknown type%' AND request_id IS NOT NULL").await,
        1
    );
    assert_eq!(
        database
            .number("SELECT count(*) FROM dead_letter WHERE payload = x'7b62726f6b656e'")
            .await,
        1
    );
}

#[tokio::test]
async fn unreadable_content_does_not_cost_the_count() {
    let mut log = MemoryLog::new();
    let id = request(TODAY);
    let conversation = conversation(TODAY);
    let content = answer_content(&[said("assistant", 2, 0), said("assistant", 3, 0)]);
    let terminal = completed(conversation, Some((1, 2)), 1, &[2]);
    log.exchange(id, TODAY, &terminal, Some(&read_answer(&content)));
    let mut database = Database::of(&log).await;
    assert_eq!(
        database
            .number("SELECT prompt_tokens FROM usage_totals")
            .await,
        1
    );
    assert_eq!(
        database
            .number("SELECT count(*) FROM dead_letter WHERE reason LIKE 'content:%'")
            .await,
        1
    );
}

#[tokio::test]
async fn retention_removes_everything_but_closed_statistics() {
    let mut log = MemoryLog::new();
    exchange(&mut log, TODAY - 3 * DAY, Some((10, 20)));
    exchange(&mut log, TODAY, Some((1, 2)));
    let old = TODAY - 3 * DAY;
    let mut database = Database::of(&log).await;
    let usage = vec![nexus_events::rollup_event::UsageHour {
        hour_ms: old,
        model: "gpt".into(),
        provider: "openai".into(),
        key: key().to_string(),
        user: String::new(),
        requests: 1,
        errors: 0,
        prompt_tokens: 10,
        completion_tokens: 20,
        duration_ms: 100,
    }];
    let before = database
        .read_model()
        .stats(UnixMillis::from_millis(TODAY))
        .await
        .unwrap();
    log.rollup(&DayClosed {
        day: day_name(old),
        part: 1,
        more: false,
        usage,
        conversations: 1,
        begun: Vec::new(),
    });
    log.audit(
        TODAY,
        &RetentionApplied {
            cutoff_ms: TODAY - DAY,
            exchanges_sequence: 3,
            chunks_sequence: 0,
            audit_sequence: 0,
        },
    );
    database.apply_all(&log).await;
    let after = database
        .read_model()
        .stats(UnixMillis::from_millis(TODAY))
        .await
        .unwrap();
    assert_eq!(after.tokens_usage, before.tokens_usage);
    assert_eq!(after.tokens_usage.total, 33);
    assert_eq!((after.requests, after.total_conversations), (2, 2));
    for statement in [
        "SELECT count(*) FROM exchanges",
        "SELECT count(*) FROM conversations",
        "SELECT count(*) FROM chat_stats WHERE direction = 'prompt'",
    ] {
        assert_eq!(database.number(statement).await, 1, "{statement}");
    }
}

fn provider() -> Provider {
    let now = UnixMillis::from_millis(TODAY);
    Provider {
        id: ProviderId::from_uuid(key().as_uuid()),
        name: "openai".into(),
        kind: "openai".into(),
        server_url: "https://api.openai.com".into(),
        server_key: None,
        rate_limit: Some(10),
        created_ms: now,
        updated_ms: now,
    }
}

#[tokio::test]
async fn configuration_holds_no_secret() {
    let mut log = MemoryLog::new();
    let (now, provider) = (UnixMillis::from_millis(TODAY), provider());
    log.config(Action::Created, provider.clone());
    log.config(
        Action::Created,
        nexus_events::config_event::Key {
            id: key(),
            name: "first".into(),
            hash: "deadbeef".into(),
            role: Role::Admin,
            on_disconnect: OnDisconnect::Finish,
            user_id: None,
            quota: Quota::default(),
            cache_ttl_seconds: None,
            created_ms: now,
            updated_ms: now,
        },
    );
    log.config(
        Action::Created,
        Setting {
            name: "x".into(),
            sealed: None,
            value: Some(serde_json::json!({"a": 1})),
            updated_ms: now,
        },
    );
    let mut database = Database::of(&log).await;
    let dump = database.dump().await.join("\n");
    assert!(dump.contains("'admin'") && dump.contains("https://api.openai.com"));
    assert!(!dump.contains("deadbeef"));
    log.config(Action::Deleted, provider);
    database.apply_all(&log).await;
    assert_eq!(
        database
            .number("SELECT count(*) FROM service_providers")
            .await,
        0
    );
}

#[tokio::test]
async fn a_model_goes_with_its_provider_and_does_not_come_after_it() {
    let mut log = MemoryLog::new();
    let (now, provider) = (UnixMillis::from_millis(TODAY), provider());
    let model = |number: u128| Model {
        id: ModelId::from_uuid(uuid::Uuid::from_u128(number)),
        provider_id: provider.id,
        model_name: format!("gpt-{number}"),
        upstream_model: None,
        created_ms: now,
        updated_ms: now,
    };
    let models = "SELECT count(*) FROM provider_models";
    log.config(Action::Created, provider.clone());
    log.config(Action::Created, model(1));
    let mut database = Database::of(&log).await;
    assert_eq!(database.number(models).await, 1);
    log.config(Action::Deleted, provider.clone());
    log.config(Action::Created, model(2));
    database.apply_all(&log).await;
    assert_eq!(database.number(models).await, 0);
}

#[tokio::test]
async fn what_is_delivered_again_is_not_applied_again() {
    let mut log = MemoryLog::new();
    exchange(&mut log, TODAY, Some((10, 20)));
    let mut database = Database::of(&log).await;
    let before = database.dump().await;
    let again = database
        .apply(Stream::Exchanges, log.of(Stream::Exchanges))
        .await;
    assert_eq!(again, Applied::default());
    assert_eq!(database.dump().await, before);
    log.audit(
        TODAY,
        &UnauthenticatedCalls {
            minute_ms: 0,
            count: 1,
        },
    );
    database.apply(Stream::Audit, log.of(Stream::Audit)).await;
    let before_audit = database.dump().await;
    let again = database.apply(Stream::Audit, log.of(Stream::Audit)).await;
    assert_eq!(again, Applied::default());
    assert_eq!(database.dump().await, before_audit);
    // The same event at another sequence: its position in the lane gives it away.
    let stored = log.of(Stream::Exchanges)[1].clone();
    let payload = stored.message.payload.to_vec();
    log.push(Stream::Exchanges, &stored.message.subject, payload);
    let again = database
        .apply(Stream::Exchanges, log.of(Stream::Exchanges))
        .await;
    assert_eq!(again, Applied::default());
    assert_eq!(database.dump().await, before_audit);
}

#[tokio::test]
async fn a_conversation_counts_on_the_day_it_began_whatever_has_expired() {
    let old = TODAY - 3 * DAY;
    let conversation = conversation(old);
    let mut log = MemoryLog::new();
    let mut sequences = Vec::new();
    for drawn in [old, TODAY] {
        let id = request(drawn);
        sequences.push(log.exchange_bare(id, drawn, &received(conversation, None, &[])));
    }
    let mut database = Database::of(&log).await;
    let days = "SELECT conversations FROM usage_totals";
    assert_eq!(database.number(days).await, 1);
    log.rollup(&DayClosed {
        day: day_name(old),
        part: 1,
        more: false,
        usage: Vec::new(),
        conversations: 1,
        begun: Vec::new(),
    });
    log.audit(
        TODAY,
        &RetentionApplied {
            cutoff_ms: TODAY,
            exchanges_sequence: sequences[1],
            chunks_sequence: 0,
            audit_sequence: 0,
        },
    );
    database.apply_all(&log).await;
    assert_eq!(database.number(days).await, 1);
    assert_eq!(
        database.number("SELECT requests FROM conversations").await,
        1
    );
    // From what is left of the log, too.
    let exchanges = log.streams.get_mut(&Stream::Exchanges).unwrap();
    exchanges.retain(|entry| entry.message.sequence >= sequences[1]);
    let mut rebuilt = Database::of(&log).await;
    assert_eq!(rebuilt.number(days).await, 1);
    assert_eq!(rebuilt.dump().await, database.dump().await);
}
