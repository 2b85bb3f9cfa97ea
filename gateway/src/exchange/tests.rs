use std::{sync::Arc, time::Duration};

use http_body_util::BodyExt;
use nexus_events::config_event::OnDisconnect;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use self::hub::{Hub, Recorded, Step, Upstream, chunk, head, send, stream_head};
use super::{client::BrokenOff, *};

mod audit;
mod configured;
mod disguised;
mod embeddings;
mod entered;
mod failures;
mod hub;
pub(crate) mod panics;
mod redacted;
mod slow_clients;
mod translated;

const ASK: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
const ASK_STREAM: &str =
    r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
const ANSWER: &str = r#"{"id":"r-1","model":"m-real","choices":[{"index":0,"message":{"role":"assistant","content":"ho"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#;
const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}\n\n";

fn kinds(events: &[Recorded]) -> Vec<&str> {
    events.iter().map(|event| event.kind.as_str()).collect()
}

/// The one terminal event.
fn terminal(events: &[Recorded]) -> &Value {
    let mut terminals = events
        .iter()
        .filter(|event| matches!(event.kind.as_str(), "completed" | "failed"));
    let terminal = terminals.next().expect("a terminal event");
    assert!(
        terminals.next().is_none(),
        "two terminal events: {:?}",
        kinds(events)
    );
    &terminal.data
}

fn body(served: Result<Served, Refused>) -> ReplyBody {
    match served.unwrap().reply.unwrap() {
        Reply::Stream(body) => body,
        Reply::Whole(body) => panic!("no stream: {body:?}"),
    }
}

/// Everything that a client reads of a stream, and whether it ended as it should.
async fn read(mut body: ReplyBody) -> (String, bool) {
    let mut text = String::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => text += std::str::from_utf8(frame.data_ref().unwrap()).unwrap(),
            Err(BrokenOff) => return (text, false),
        }
    }
    (text, true)
}

#[tokio::test]
async fn a_whole_answer_is_recorded_before_it_is_given() {
    let (hub, upstream) = Hub::before(vec![head("200 OK", "application/json"), send(ANSWER)]).await;
    let Ok(Reply::Whole(body)) = hub.chat(ASK).await.unwrap().reply else {
        panic!("no whole answer");
    };
    assert_eq!(body, ANSWER);
    assert_eq!(
        kinds(&hub.recorded()),
        ["received", "attempt_started", "attempt_ended", "completed"],
        "all of it was written before the client had a byte"
    );
    assert_eq!(
        upstream.bodies.lock().as_slice(),
        [ASK.replace("\"m\"", "\"m-at-p\"")]
    );
    let events = hub.ended().await;
    let received = &events[0].data;
    assert_eq!(
        received["content"]["messages"],
        json!([{"role": "user", "content": "hi"}])
    );
    assert_eq!(received["content"]["parameters"], json!({"model": "m"}));
    assert_eq!(events[1].data["nexus.upstream_model"], "m-at-p");
    assert_eq!(events[2].data["http.response.status_code"], 200);
    let terminal = terminal(&events);
    assert_eq!(terminal["gen_ai.usage.output_tokens"], 4);
    assert_eq!(terminal["nexus.usage.source"], "provider");
    assert_eq!(terminal["nexus.usage.raw"]["total_tokens"], 7);
    assert_eq!(terminal["gen_ai.response.finish_reasons"], json!(["stop"]));
    assert_eq!(terminal["gen_ai.response.model"], "m-real");
    assert_eq!(
        terminal["content"]["choices"][0]["message"]["content"],
        "ho"
    );
    assert_eq!(
        terminal["nexus.message.parent"],
        received["nexus.message.ids"][0]
    );
    assert_eq!(terminal["nexus.message.ids"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_chunk_is_recorded_before_it_is_given_and_the_end_before_the_mark() {
    let gates: Vec<_> = (0..3).map(|_| Arc::new(Notify::new())).collect();
    let wait = |index: usize| Step::Wait(Arc::clone(&gates[index]));
    let (hub, upstream) = Hub::before(vec![
        stream_head(),
        chunk(0, "o", None),
        wait(0),
        chunk(0, "ne", Some("stop")),
        send(USAGE),
        wait(1),
        send("data: [DONE]\n\n"),
    ])
    .await;
    let mut body = body(hub.chat(ASK_STREAM).await);
    let mut seen = Vec::new();
    for (gate, chunks, ends) in [(0, 1, 0), (1, 2, 0)] {
        seen.push(body.frame().await.unwrap().unwrap().into_data().unwrap());
        let recorded = hub.recorded();
        let count = |kind: &str| recorded.iter().filter(|event| event.kind == kind).count();
        assert!(count("streamed") >= chunks, "{:?}", kinds(&recorded));
        assert_eq!(count("completed"), ends);
        gates[gate].notify_one();
    }
    let (rest, ended) = read(body).await;
    assert!(ended);
    assert_eq!(rest, "data: [DONE]\n\n");
    assert!(
        !String::from_utf8_lossy(&seen.concat()).contains("usage"),
        "the usage chunk is the hub's own"
    );
    assert_eq!(hub.recorded().last().unwrap().kind, "completed");
    assert!(upstream.bodies.lock()[0].contains(r#""stream_options":{"include_usage":true}"#));
    let events = hub.ended().await;
    let indices: Vec<_> = events
        .iter()
        .filter_map(|event| event.data["index"].as_u64())
        .collect();
    assert_eq!(indices, [0, 1, 2]);
    let terminal = terminal(&events);
    assert_eq!(
        terminal["content"]["choices"][0]["message"]["content"],
        "one"
    );
    assert_eq!(
        (
            &terminal["nexus.chunks"],
            &terminal["gen_ai.usage.input_tokens"]
        ),
        (&json!(3), &json!(3))
    );
    assert!(terminal["nexus.time_to_first_token_ms"].is_u64());
}

#[tokio::test]
async fn a_client_that_asks_for_the_usage_gets_it() {
    let script = vec![
        stream_head(),
        chunk(0, "one", Some("stop")),
        send(USAGE),
        send("data: [DONE]\n\n"),
    ];
    let (hub, _upstream) = Hub::before(script).await;
    let ask = ASK_STREAM.replace(
        "\"stream\":true",
        r#""stream":true,"stream_options":{"include_usage":true}"#,
    );
    let (text, ended) = read(body(hub.chat(&ask).await)).await;
    assert!(
        ended && text.ends_with(&format!("{USAGE}data: [DONE]\n\n")),
        "{text}"
    );
}

#[tokio::test]
async fn a_stream_that_is_finished_needs_no_mark() {
    let (hub, _upstream) = Hub::before(vec![stream_head(), chunk(0, "one", Some("stop"))]).await;
    let (text, ended) = read(body(hub.chat(ASK_STREAM).await)).await;
    assert!(ended && text.ends_with("data: [DONE]\n\n"), "{text}");
    let events = hub.ended().await;
    assert_eq!(
        kinds(&events)[events.len() - 2..],
        ["completed", "tokens_counted"]
    );
}

#[tokio::test]
async fn what_the_provider_did_not_count_the_gateway_counts() {
    let answer = ANSWER.replace("usage", "no_usage");
    let (hub, _upstream) =
        Hub::before(vec![head("200 OK", "application/json"), send(answer)]).await;
    assert!(hub.chat(ASK).await.unwrap().reply.is_ok());
    let events = hub.ended().await;
    assert_eq!(terminal(&events)["nexus.usage.source"], Value::Null);
    let counted = &events.last().unwrap().data;
    assert_eq!(counted["gen_ai.usage.output_tokens"], 1);
    assert_eq!(counted["nexus.tokens.vocabulary"], "for m-at-p");
}

#[tokio::test]
async fn another_provider_is_asked_where_the_first_failed() {
    let tracker = TaskTracker::new();
    let bad = Upstream::start(&tracker, vec![head("503 No", "text/plain"), send("no")]).await;
    let good = Upstream::start(
        &tracker,
        vec![head("200 OK", "application/json"), send(ANSWER)],
    )
    .await;
    let hub = Hub::new(&[("a", "openai", bad.url()), ("b", "openai", good.url())]);
    assert!(hub.chat(ASK).await.unwrap().reply.is_ok());
    let events = hub.ended().await;
    assert_eq!(
        kinds(&events),
        [
            "received",
            "attempt_started",
            "attempt_ended",
            "attempt_started",
            "attempt_ended",
            "completed"
        ]
    );
    assert_eq!(events[2].data["nexus.failure"]["reason"], "upstream_status");
    assert_eq!(events[4].data["nexus.failure"], Value::Null);
    assert_eq!(terminal(&events)["gen_ai.provider.name"], "b");
    assert_eq!(terminal(&events)["nexus.attempts"], 2);
    assert!(good.bodies.lock()[0].contains("m-at-b"));
}

#[tokio::test]
async fn an_exchange_is_finished_without_its_client() {
    for ask in [ASK_STREAM, ASK] {
        let gate = Arc::new(Notify::new());
        let rest = if ask == ASK {
            vec![head("200 OK", "application/json"), send(ANSWER)]
        } else {
            vec![
                stream_head(),
                chunk(0, "o", None),
                chunk(0, "ne", Some("stop")),
                send(USAGE),
                send("data: [DONE]\n\n"),
            ]
        };
        let script = [vec![Step::Wait(Arc::clone(&gate))], rest].concat();
        let (hub, upstream) = Hub::before(script).await;
        {
            let chat = hub.chat(ask);
            tokio::pin!(chat);
            while upstream.bodies.lock().is_empty() {
                tokio::select! {
                    _ = &mut chat => panic!("answered too early"),
                    () = tokio::time::sleep(Duration::from_millis(5)) => {}
                }
            }
        }
        gate.notify_one();
        let events = hub.ended().await;
        let terminal = terminal(&events);
        assert_eq!(terminal["nexus.client_gone"], true);
        assert_eq!(terminal["nexus.failure"], Value::Null);
        assert_eq!(terminal["gen_ai.usage.output_tokens"], 4);
    }
}

#[tokio::test]
async fn an_exchange_is_cancelled_with_its_client_where_the_key_says_so() {
    let upstream = Upstream::start(
        &TaskTracker::new(),
        vec![stream_head(), chunk(0, "half", None), Step::Hang],
    )
    .await;
    let providers = [("p", "openai", upstream.url())];
    let hub = Hub::with(&providers, OnDisconnect::Cancel, 1 << 30);
    let mut body = body(hub.chat(ASK_STREAM).await);
    body.frame().await.unwrap().unwrap();
    drop(body);
    let events = hub.ended().await;
    let terminal = terminal(&events);
    assert_eq!(terminal["nexus.failure"]["reason"], "client_cancelled");
    assert_eq!(terminal["nexus.client_gone"], true);
    assert_eq!(
        terminal["content"]["choices"][0]["message"]["content"],
        "half"
    );
}

#[tokio::test]
async fn echo_answers_both_ways_and_conversations_go_on() {
    let hub = Hub::new(&[("echo", "echo", String::new())]);
    let first = hub.chat(ASK_STREAM).await.unwrap();
    let conversation = first.conversation;
    let (text, ended) = read(body(Ok(first))).await;
    assert!(
        ended && text.contains("\"hi\"") && text.ends_with("data: [DONE]\n\n"),
        "{text}"
    );
    let again = r#"{"model":"m","messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"hi"},{"role":"user","content":"and"}]}"#;
    let second = hub.chat(again).await.unwrap();
    assert_eq!(second.conversation, conversation);
    let events = hub.ended().await;
    let received: Vec<_> = events
        .iter()
        .filter(|event| event.kind == "received")
        .collect();
    assert_eq!(
        received[1].data["content"]["messages"]
            .as_array()
            .unwrap()
            .len(),
        1,
        "each message is stored once"
    );
    assert_eq!(
        events.last().unwrap().data["nexus.usage.source"],
        "provider"
    );
}

#[tokio::test]
async fn what_cannot_be_served_leaves_no_trace() {
    let hub = Hub::new(&[("echo", "echo", String::new())]);
    for (ask, status, model) in [
        ("{", 400, None),
        (r#"{"model":"m","messages":[]}"#, 400, None),
        (
            r#"{"model":"other","messages":[{"role":"user"}]}"#,
            404,
            Some("other"),
        ),
    ] {
        let refused = hub.chat(ask).await.unwrap_err();
        assert_eq!(refused.error.status.as_u16(), status, "{ask}");
        assert_eq!(refused.model.as_deref(), model);
    }
    assert!(hub.ended().await.is_empty());
}
