//! The log reader against a real broker with a small log of our own.

use serde_json::json;

use super::*;
use crate::broker::Broker;

async fn log_with(messages: &[(&str, Value)]) -> (Broker, Log) {
    let broker = Broker::start().await.unwrap();
    let log = Log::connect(&broker.url()).await.unwrap();
    let config = stream::Config {
        name: Stream::Exchanges.name().to_owned(),
        subjects: vec![
            "nexus.exchange.>".to_owned(),
            "nexus.outbox.exchanges.>".to_owned(),
        ],
        allow_direct: true,
        ..Default::default()
    };
    log.context.create_stream(config).await.unwrap();
    for (subject, payload) in messages {
        let payload = payload.to_string().into();
        log.context
            .publish((*subject).to_owned(), payload)
            .await
            .unwrap()
            .await
            .unwrap();
    }
    (broker, log)
}

fn event(id: &str, name: &str, request: &str, position: u64) -> (&'static str, Value) {
    let event = json!({
        "specversion": "1.0", "id": id, "type": format!("ai.nexus.exchange.{name}.v1"),
        "subject": request, "outbox": "box-1", "position": position, "data": {"n": position},
    });
    ("nexus.exchange.0.x.p.m", event)
}

const CURSOR: &str = "nexus.outbox.exchanges.box-1";

#[tokio::test]
async fn reads_everything_in_order_without_the_cursors() {
    let (_broker, log) = log_with(&[
        event("a", "received", "r1", 1),
        (CURSOR, json!({"position": 1})),
        event("b", "received", "r2", 2),
        event("c", "completed", "r1", 3),
        (CURSOR, json!({"position": 3})),
    ])
    .await;
    let events = log.events(Stream::Exchanges).await.unwrap();
    let ids: Vec<&str> = events.iter().map(Event::id).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    assert_eq!(events[2].sequence, 4);
    assert_eq!(events[2].name(), "completed");
    assert_eq!(events[2].data()["n"], 3);
    assert_eq!(log.cursors(Stream::Exchanges).await.unwrap().len(), 2);

    let terminals = terminals_by_request(&events);
    assert_eq!(terminals.keys().collect::<Vec<_>>(), [&"r1"]);
    log.until_terminal(["r1"]).await.unwrap();
    assert_no_duplicates(&events).unwrap();
    assert_no_gaps(&events).unwrap();
}

#[tokio::test]
async fn reads_more_than_one_fetch() {
    let many: Vec<_> = (1..=2_345)
        .map(|n| event(&n.to_string(), "received", "r", n))
        .collect();
    let (_broker, log) = log_with(&many).await;
    let events = log.events(Stream::Exchanges).await.unwrap();
    assert_eq!(events.len(), many.len());
    assert_no_gaps(&events).unwrap();
}

#[tokio::test]
async fn an_empty_stream_has_no_events() {
    let (_broker, log) = log_with(&[]).await;
    assert!(log.events(Stream::Exchanges).await.unwrap().is_empty());
    assert!(log.events(Stream::Chunks).await.is_err());
}

#[tokio::test]
async fn sees_what_is_twice_and_what_is_missing() {
    let (_broker, log) = log_with(&[
        event("a", "received", "r", 1),
        event("b", "received", "r", 2),
        event("c", "received", "r", 4),
    ])
    .await;
    let mut events = log.events(Stream::Exchanges).await.unwrap();
    assert_no_duplicates(&events).unwrap();
    let gap = assert_no_gaps(&events).unwrap_err().to_string();
    assert!(
        gap.contains("after position 2") && gap.contains("Some(4)"),
        "{gap}"
    );

    let mut same_id = events[0].clone();
    same_id.json["position"] = json!(3);
    events.push(same_id);
    assert!(
        assert_no_duplicates(&events)
            .unwrap_err()
            .to_string()
            .contains("same id twice")
    );
    events[3].json["id"] = json!("d");
    events[3].json["position"] = json!(1);
    let twice = assert_no_duplicates(&events).unwrap_err().to_string();
    assert!(twice.contains("same position twice"), "{twice}");
}

#[tokio::test]
async fn what_the_archiver_tells_auditors_has_no_position() {
    let (_broker, log) = log_with(&[event("a", "received", "r", 1)]).await;
    let mut events = log.events(Stream::Exchanges).await.unwrap();
    let mut direct = events[0].clone();
    direct.stream = Stream::Audit;
    direct.json =
        json!({"id": "b", "source": "/nexus/archiver", "type": "ai.nexus.audit.backup_taken.v1"});
    events.push(direct);
    assert_no_gaps(&events).unwrap();
    events[1].json["source"] = json!("/nexus/gateway/x");
    assert!(assert_no_gaps(&events).is_err());
}
