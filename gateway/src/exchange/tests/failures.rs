//! Every way in which an exchange fails, and what its client and its log get to see.

use super::*;
use crate::{provider::transport::TransportSettings, stream::sse_decode::EVENT_BYTES_MAX};

/// Before its first byte, a client gets the error as its answer.
#[tokio::test]
async fn a_failure_before_the_first_byte_is_an_answer() {
    let json = || head("200 OK", "application/json");
    let status = |status: &str| {
        vec![
            head(status, "application/json"),
            send(r#"{"error":{"message":"no, sk-1","type":"t","code":"c"}}"#),
        ]
    };
    let cases: Vec<(&str, Vec<Step>, u16, &str)> = vec![
        ("status", status("500 No"), 500, "upstream_status"),
        ("client's fault", status("400 No"), 400, "upstream_status"),
        ("our key", status("401 No"), 502, "upstream_status"),
        (
            "redirect",
            vec![head("302 No", "text/html")],
            502,
            "upstream_status",
        ),
        ("late", vec![Step::Hang], 504, "upstream_timeout"),
        ("cut", vec![], 502, "upstream_cut"),
        (
            "garbage",
            vec![json(), send("<html>")],
            502,
            "upstream_malformed",
        ),
        (
            "error in disguise",
            vec![json(), send(r#"{"error":{"message":"no"}}"#)],
            502,
            "upstream_error",
        ),
        (
            "stall",
            vec![json(), send("{"), Step::Hang],
            504,
            "upstream_stalled",
        ),
    ];
    for ask in [ASK, ASK_STREAM] {
        for (what, script, status, reason) in cases.clone() {
            let (hub, _upstream) = Hub::before(script).await;
            let error = hub.chat(ask).await.unwrap().reply.unwrap_err();
            assert_eq!(error.status.as_u16(), status, "{what}: {error}");
            assert!(!error.message.contains("sk-1"), "{error}");
            let events = hub.ended().await;
            let terminal = terminal(&events);
            assert_eq!(terminal["nexus.failure"]["reason"], reason, "{what}");
            assert_eq!(terminal["http.response.status_code"], status, "{what}");
            assert_eq!(terminal["gen_ai.usage.output_tokens"], 0, "{what}");
            // A provider that is alone is asked again where that may help.
            let attempts = if ["status", "cut"].contains(&what) {
                3
            } else {
                1
            };
            let pairs = ["attempt_started", "attempt_ended"].repeat(attempts);
            let expected = [&["received"][..], &pairs, &["failed"]].concat();
            assert_eq!(kinds(&events), expected, "{what}");
        }
    }
}

#[tokio::test]
async fn no_connection_and_no_stream_are_answers_as_well() {
    let hub = Hub::new(&[("p", "openai", "http://127.0.0.1:1".to_owned())]);
    assert_eq!(
        hub.chat(ASK)
            .await
            .unwrap()
            .reply
            .unwrap_err()
            .status
            .as_u16(),
        502
    );
    assert_eq!(
        terminal(&hub.ended().await)["nexus.failure"]["reason"],
        "upstream_refused"
    );
    for first in [
        send("data: {\n\n"),
        send("data: [1]\n\n"),
        send("data: {\"ha"),
        send(""),
    ] {
        let (hub, _upstream) = Hub::before(vec![stream_head(), first]).await;
        let error = hub.chat(ASK_STREAM).await.unwrap().reply.unwrap_err();
        assert_eq!(error.status.as_u16(), 502);
        assert_eq!(kinds(&hub.ended().await).last(), Some(&"failed"));
    }
}

/// A stream that breaks off after it said `half`, and the reason.
fn broken_streams() -> [(&'static str, Vec<Step>, &'static str); 7] {
    let chunked = send(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    );
    let first = send(
        "26\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"half\"}}]}\n\n\r\n"
            .replace("26", "33"),
    );
    let large = format!("data: {}", "x".repeat(EVENT_BYTES_MAX + 1));
    [
        (
            "no mark",
            vec![stream_head(), chunk(0, "half", None)],
            "upstream_cut",
        ),
        (
            "half an event",
            vec![
                stream_head(),
                chunk(0, "half", Some("stop")),
                send("data: {"),
            ],
            "upstream_cut",
        ),
        (
            "connection cut",
            vec![chunked, first, send("7\r\nda")],
            "upstream_cut",
        ),
        (
            "garbage",
            vec![
                stream_head(),
                chunk(0, "half", None),
                send("data: <html>\n\n"),
            ],
            "upstream_malformed",
        ),
        (
            "too large",
            vec![stream_head(), chunk(0, "half", None), send(large)],
            "upstream_too_large",
        ),
        (
            "error",
            vec![
                stream_head(),
                chunk(0, "half", None),
                send("data: {\"error\":{\"message\":\"no\"}}\n\n"),
            ],
            "upstream_error",
        ),
        (
            "stall",
            vec![stream_head(), chunk(0, "half", None), Step::Hang],
            "upstream_stalled",
        ),
    ]
}

/// After its first byte, a client gets the error in the stream, and no mark.
#[tokio::test]
async fn a_failure_after_the_first_byte_is_an_event_of_the_stream() {
    for (what, script, reason) in broken_streams() {
        let (hub, _upstream) = Hub::before(script).await;
        let (text, ended) = read(body(hub.chat(ASK_STREAM).await)).await;
        let last = text.trim_end().rsplit("data: ").next().unwrap();
        let error: Value = serde_json::from_str(last).unwrap_or_else(|_| panic!("{what}: {text}"));
        assert!(
            error["error"]["message"].is_string() && ended,
            "{what}: {text}"
        );
        assert!(!text.contains("[DONE]"), "{what}");
        let events = hub.ended().await;
        let terminal = terminal(&events);
        assert_eq!(terminal["nexus.failure"]["reason"], reason, "{what}");
        assert_eq!(terminal["http.response.status_code"], 200, "{what}");
        assert_eq!(
            terminal["content"]["choices"][0]["message"]["content"], "half",
            "{what}"
        );
        assert_eq!(kinds(&events).last(), Some(&"tokens_counted"), "{what}");
    }
}

#[tokio::test]
async fn a_full_outbox_ends_a_stream_and_refuses_the_next_request() {
    let chunks = (0..4000).map(|_| chunk(0, &"x".repeat(500), None));
    let script = std::iter::once(stream_head()).chain(chunks).collect();
    let upstream = Upstream::start(&TaskTracker::new(), script).await;
    let hub = Hub::with(
        &[("p", "openai", upstream.url())],
        OnDisconnect::Finish,
        600 * 1024,
    );
    let (text, _) = read(body(hub.chat(ASK_STREAM).await)).await;
    assert!(text.contains("outbox_full"), "{}", text.len());
    let mut refusal = None;
    for _ in 0..200 {
        match hub.chat(ASK).await {
            Err(refused) => refusal = Some(refused),
            Ok(_) => continue,
        }
        break;
    }
    let refusal = refusal.expect("an outbox that is full refuses requests");
    assert_eq!(
        (refusal.error.status.as_u16(), refusal.model.as_deref()),
        (503, Some("m"))
    );
    let events = hub.ended().await;
    let failed = events.iter().find(|event| event.kind == "failed").unwrap();
    assert_eq!(failed.data["nexus.failure"]["reason"], "outbox_full");
    let given = text.matches("xxx\"").count();
    let said = failed.data["content"]["choices"][0]["message"]["content"]
        .as_str()
        .unwrap();
    assert!(
        given > 0 && said.len() == given * 500,
        "what the client saw is in the end event"
    );
}

#[tokio::test]
async fn a_hard_stop_ends_what_is_under_way() {
    let (hub, _upstream) =
        Hub::before(vec![stream_head(), chunk(0, "half", None), Step::Hang]).await;
    let mut body = body(hub.chat(ASK_STREAM).await);
    body.frame().await.unwrap().unwrap();
    hub.parts.hard_stop.cancel();
    let (text, ended) = read(body).await;
    assert!(ended && text.contains("shutting_down"), "{text}");
    assert_eq!(
        terminal(&hub.ended().await)["nexus.failure"]["reason"],
        "shutdown"
    );
}

#[tokio::test]
async fn a_panic_ends_in_a_terminal_event() {
    let upstream = Upstream::start(
        &TaskTracker::new(),
        vec![stream_head(), chunk(0, "x", None)],
    )
    .await;
    let hub = Hub::new(&[("p", "panics", upstream.url())]);
    let error = hub.chat(ASK_STREAM).await.unwrap().reply.unwrap_err();
    assert_eq!(error.status.as_u16(), 500);
    assert_eq!(
        terminal(&hub.ended().await)["nexus.failure"]["reason"],
        "internal"
    );
}

/// A connection that is kept alive by comments would keep the exchange open for ever.
#[tokio::test]
async fn a_stream_that_adds_nothing_for_too_long_is_ended() {
    let gate = Arc::new(Notify::new());
    let script = vec![
        stream_head(),
        chunk(0, "half", None),
        Step::Wait(Arc::clone(&gate)),
        send(": still here\n\n"),
        Step::Hang,
    ];
    let (hub, _upstream) = Hub::before(script).await;
    let hub = hub.bounded(TransportSettings {
        idle: Duration::from_hours(2),
        ..TransportSettings::default()
    });
    let mut body = body(hub.chat(ASK_STREAM).await);
    body.frame().await.unwrap().unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_mins(31)).await;
    tokio::time::resume();
    gate.notify_one();
    let bound = Duration::from_secs(30);
    let (text, ended) = tokio::time::timeout(bound, read(body)).await.unwrap();
    assert!(ended && text.contains("upstream_stalled"), "{text}");
    assert!(text.contains("30 minutes"), "{text}");
}
