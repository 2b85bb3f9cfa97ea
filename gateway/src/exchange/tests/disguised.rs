//! Errors that come with a success status, before an answer has said anything.

use super::*;

const ROLE: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";

/// An error as the one event of a stream.
fn event(kind: &str) -> Step {
    send(format!(
        "data: {{\"error\":{{\"message\":\"no\",\"type\":\"{kind}\"}}}}\n\n"
    ))
}

fn kinds_of_tries(tries: usize) -> Vec<&'static str> {
    let pairs = ["attempt_started", "attempt_ended"].repeat(tries);
    [&["received"][..], &pairs, &["failed"]].concat()
}

async fn check(ask: &str, script: Vec<Step>, status: u16, tries: usize) {
    let (hub, upstream) = Hub::before(script).await;
    let error = hub.chat(ask).await.unwrap().reply.unwrap_err();
    assert_eq!(error.status.as_u16(), status, "{error}");
    assert_eq!(upstream.bodies.lock().len(), tries, "{error}");
    let events = hub.ended().await;
    assert_eq!(kinds(&events), kinds_of_tries(tries), "{error}");
    let ended = events.iter().filter(|event| event.kind == "attempt_ended");
    for attempt in ended {
        assert_eq!(attempt.data["http.response.status_code"], 200);
        assert!(attempt.data["nexus.failure"]["reason"].is_string());
    }
    let terminal = terminal(&events);
    assert_eq!(terminal["http.response.status_code"], status);
    assert!(terminal["nexus.time_to_first_token_ms"].is_null());
}

/// What an error stands for, and how often a provider that is alone is asked then.
const STANDS_FOR: [(&str, u16, usize); 7] = [
    ("rate_limit_error", 429, 3),
    ("server_error", 500, 3),
    ("api_error", 500, 3),
    ("overloaded_error", 529, 3),
    ("invalid_request_error", 400, 1),
    ("authentication_error", 502, 1),
    ("strange", 502, 1),
];

#[tokio::test]
async fn it_counts_as_the_status_that_it_stands_for() {
    for (kind, status, tries) in STANDS_FOR {
        let whole = format!("{{\"error\":{{\"message\":\"no\",\"type\":\"{kind}\"}}}}");
        for ask in [ASK, ASK_STREAM] {
            let script = vec![head("200 OK", "application/json"), send(whole.clone())];
            check(ask, script, status, tries).await;
        }
        // A body that does not say what it is, in the place of a stream.
        let script = vec![head("200 OK", "text/plain"), send(whole)];
        check(ASK_STREAM, script, status, tries).await;
        check(ASK_STREAM, vec![stream_head(), event(kind)], status, tries).await;
        let after_the_role = vec![stream_head(), send(ROLE), event(kind)];
        check(ASK_STREAM, after_the_role, status, tries).await;
    }
}

#[tokio::test]
async fn a_head_without_a_body_is_no_answer() {
    let length = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n";
    for ask in [ASK, ASK_STREAM] {
        check(ask, vec![send(length)], 502, 3).await;
    }
    check(ASK_STREAM, vec![stream_head()], 502, 3).await;
    check(ASK_STREAM, vec![stream_head(), send(ROLE)], 502, 3).await;
    // Of a whole answer that breaks off something has come: it was carried out.
    check(ASK, vec![send(length), send("{")], 502, 1).await;
}

#[tokio::test]
async fn the_next_provider_answers_and_the_client_sees_one_stream() {
    let tracker = TaskTracker::new();
    for failing in [
        vec![stream_head(), send(ROLE), event("overloaded_error")],
        vec![stream_head(), send(ROLE)],
    ] {
        let answer = vec![
            stream_head(),
            send(ROLE),
            chunk(0, "ho", Some("stop")),
            send(USAGE),
            send("data: [DONE]\n\n"),
        ];
        let failing = Upstream::start(&tracker, failing).await;
        let good = Upstream::start(&tracker, answer).await;
        let hub = Hub::new(&[("a", "openai", failing.url()), ("b", "openai", good.url())]);
        // Which of them is asked first is chance: after some requests both were.
        let mut asked = 0;
        while failing.bodies.lock().is_empty() {
            let (text, ended) = read(body(hub.chat(ASK_STREAM).await)).await;
            assert!(ended && text.ends_with("data: [DONE]\n\n"), "{text}");
            assert_eq!(text.matches("\"role\"").count(), 1, "{text}");
            assert_eq!(text.matches("\"ho\"").count(), 1, "{text}");
            assert!(text.starts_with("id: 0\n"), "{text}");
            asked += 1;
            assert!(asked < 100, "one of them is never asked");
        }
        let events = hub.ended().await;
        let kinds = kinds(&events);
        let last = kinds.iter().rposition(|kind| *kind == "received").unwrap();
        let tries = ["attempt_started", "attempt_ended"];
        assert_eq!(kinds[last + 1..last + 4], [tries[0], tries[1], tries[0]]);
        assert_eq!(kinds.last(), Some(&"completed"));
    }
}

#[tokio::test]
async fn what_was_said_is_not_said_again() {
    let script = vec![
        stream_head(),
        send(ROLE),
        chunk(0, "half", None),
        event("rate_limit_error"),
    ];
    let (hub, upstream) = Hub::before(script).await;
    let (text, ended) = read(body(hub.chat(ASK_STREAM).await)).await;
    assert!(ended && text.contains("half") && text.contains("rate_limit_error"));
    assert_eq!(upstream.bodies.lock().len(), 1);
    let events = hub.ended().await;
    assert_eq!(terminal(&events)["http.response.status_code"], 200);
    let chunks = terminal(&events)["nexus.chunks"].clone();
    assert_eq!(chunks, 2, "the role was part of the answer");
}
