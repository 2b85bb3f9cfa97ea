//! The upstream against a client that reads every byte itself.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::gate::Gate;
use crate::sse::Decoder;

/// What came back on the wire, and how the connection ended.
struct Wire {
    bytes: String,
    was_reset: bool,
}

async fn ask(upstream: &Upstream, body: &Value) -> Wire {
    let mut stream = open(upstream, body).await;
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes).await;
    Wire {
        bytes: String::from_utf8_lossy(&bytes).into_owned(),
        was_reset: end.is_err(),
    }
}

async fn open(upstream: &Upstream, body: &Value) -> TcpStream {
    let body = body.to_string();
    let mut stream = TcpStream::connect(upstream.host_port()).await.unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-mark: 7\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    stream
}

/// Asks and leaves once `last` has come, since the connection stays open.
async fn ask_until(upstream: &Upstream, body: &Value, last: &str) -> String {
    let mut stream = open(upstream, body).await;
    let mut bytes = Vec::new();
    while !String::from_utf8_lossy(&bytes).contains(last) {
        let reading = tokio::time::timeout(ARRIVAL_BOUND, stream.read_buf(&mut bytes)).await;
        let count = reading.expect("the upstream went silent").unwrap();
        assert!(count > 0, "ended before {last:?}");
    }
    // Lossy: byte by byte, the framing stands inside the characters.
    String::from_utf8_lossy(&bytes).into_owned()
}

fn streamed(tag: &str) -> Value {
    json!({
        "model": "gpt-test", "stream": true, "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": format!("hello {tag}")}],
    })
}

fn plain(tag: &str) -> Value {
    json!({"model": "gpt-test", "messages": [{"role": "user", "content": format!("hello {tag}")}]})
}

#[tokio::test]
async fn is_polite_in_both_modes() {
    let upstream = Upstream::start().await.unwrap();

    let wire = ask_until(&upstream, &plain("a-1"), "total_tokens").await;
    assert!(wire.starts_with("HTTP/1.1 200 OK\r\n"), "{wire}");
    let wire = ask_until(&upstream, &streamed("a-2"), "[DONE]").await;
    assert_eq!(wire.matches("[DONE]").count(), 1);

    let exchanges = upstream.exchanges();
    assert_eq!(exchanges[0].text(0), content::text("a-1", 0, 5));
    assert_eq!(exchanges[0].request.header("x-mark"), Some("7"));
    assert_eq!(exchanges[0].request.json(), plain("a-1"));
    assert_eq!(exchanges[1].text(0), content::text("a-2", 0, 5));
    let chunks = exchanges[1].chunks();
    // role, five words, finish reason, usage
    assert_eq!(chunks.len(), 8);
    assert_eq!(chunks[7]["usage"]["completion_tokens"], 5);
    assert_eq!(upstream.exchanges_of("a-2").len(), 1);

    let mut second_turn = plain("a-3");
    let turn = json!({"role": "user", "content": [{"type": "text", "text": "and a-4"}]});
    second_turn["messages"].as_array_mut().unwrap().push(turn);
    ask_until(&upstream, &second_turn, "a-4:0").await;
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let upstream = Upstream::start().await.unwrap();
    let http = reqwest_client();
    for turn in 0..3 {
        let url = format!("{}/chat/completions", upstream.url());
        let body = plain(&turn.to_string()).to_string();
        let answer = http.post(url).body(body).send().await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        let text = answer.pointer("/choices/0/message/content").unwrap();
        assert_eq!(*text, content::text(&turn.to_string(), 0, 5));
    }
    let models = http
        .get(format!("{}/models", upstream.url()))
        .send()
        .await
        .unwrap();
    assert_eq!(models.status(), 200);
    assert_eq!(upstream.connections(), 1);
    let ends: Vec<_> = upstream
        .exchanges()
        .iter()
        .map(|exchange| exchange.end)
        .collect();
    assert_eq!(ends, [Some(End::Complete); 3]);
}

#[tokio::test]
async fn usage_comes_only_when_asked_for_or_never() {
    let upstream = Upstream::start().await.unwrap();
    let mut body = streamed("u");
    body.as_object_mut().unwrap().remove("stream_options");
    assert!(
        !ask_until(&upstream, &body, "[DONE]")
            .await
            .contains("usage")
    );
    upstream.once(Script::answer().without_usage());
    assert!(
        !ask_until(&upstream, &streamed("u"), "[DONE]")
            .await
            .contains("usage")
    );
}

#[tokio::test]
async fn cuts_at_the_byte_that_was_named() {
    let upstream = Upstream::start().await.unwrap();
    upstream.once(Script::answer().cut_inside(2, 9));
    let wire = ask(&upstream, &streamed("cut")).await;
    assert!(!wire.was_reset);
    assert!(
        wire.bytes.ends_with("9\r\ndata: {\"c\r\n"),
        "{}",
        wire.bytes
    );
    let exchange = upstream.idle().await.unwrap().pop().unwrap();
    assert_eq!(exchange.text(0), content::text("cut", 0, 2));
    assert_eq!(exchange.end, Some(End::Closed));

    upstream.once(Script::answer().cut_inside(0, 10));
    let wire = ask(&upstream, &plain("cut")).await;
    let (_head, body) = wire.bytes.split_once("\r\n\r\n").unwrap();
    assert_eq!(body.len(), 10);

    upstream.once(Script::answer().reset_after(3));
    let wire = ask(&upstream, &streamed("rst")).await;
    assert!(wire.was_reset);
    assert!(wire.bytes.contains("rst:2 ") && !wire.bytes.contains("rst:3 "));
}

#[tokio::test]
async fn an_orderly_end_can_be_untrue() {
    let upstream = Upstream::start().await.unwrap();
    upstream.once(Script::answer().half_event_after(1));
    let wire = ask_until(&upstream, &streamed("half"), "\r\n0\r\n\r\n").await;
    assert!(
        !wire.contains("half:1") && !wire.contains("[DONE]"),
        "{wire}"
    );
    upstream.once(Script::answer().error_event_after(1, "engine_overloaded"));
    let wire = ask_until(&upstream, &streamed("err"), "\r\n0\r\n\r\n").await;
    assert!(wire.contains("engine_overloaded") && !wire.contains("finish_reason\":\"stop"));
    upstream.once(Script::answer().without_done());
    let wire = ask_until(&upstream, &streamed("end"), "\r\n0\r\n\r\n").await;
    assert!(wire.contains("\"finish_reason\":\"stop\"") && !wire.contains("[DONE]"));
}

#[tokio::test]
async fn a_gate_holds_the_stream_at_its_point() {
    let upstream = Upstream::start().await.unwrap();
    let gate = Gate::closed();
    upstream.always(Script::answer().wait_after(2, &gate));
    let body = streamed("gate");
    let mut asking = Box::pin(ask_until(&upstream, &body, "[DONE]"));
    tokio::select! {
        _ = &mut asking => panic!("went through a closed gate"),
        reached = gate.reached_by(1) => reached.unwrap(),
    }
    assert_eq!(
        upstream.the_exchange().unwrap().text(0),
        content::text("gate", 0, 2)
    );
    gate.open();
    assert!(asking.await.contains("gate:4"));
}

#[tokio::test]
async fn notices_a_client_that_leaves() {
    let upstream = Upstream::start().await.unwrap();
    upstream.always(Script::answer().stall_after(1));
    // It has all that there is to get before it leaves, so no write can fail.
    ask_until(&upstream, &streamed("bye"), "bye:0").await;
    assert_eq!(upstream.idle().await.unwrap()[0].end, Some(End::ClientLeft));
}

#[tokio::test]
async fn every_dress_says_the_same() {
    let upstream = Upstream::start().await.unwrap();
    let plain = ask_until(&upstream, &streamed("same"), "[DONE]").await;
    assert!(plain.contains("same:4"));
    let reference = upstream.exchanges()[0].events();
    let dresses = [
        Script::answer().crlf(),
        Script::answer().comments(),
        Script::answer().events_together(3),
        Script::answer().byte_by_byte(),
    ];
    for dress in dresses {
        upstream.once(dress.clone());
        // Drained to the end of chunked coding, which every dress has.
        ask_until(&upstream, &streamed("same"), "\r\n0\r\n\r\n").await;
        let exchange = upstream.idle().await.unwrap().pop().unwrap();
        assert_eq!(exchange.events(), reference, "{dress:?}");
    }
    let writes: Vec<usize> = upstream
        .exchanges()
        .iter()
        .map(|one| one.sent.len())
        .collect();
    assert_eq!(writes[3], 3, "9 events in threes");
    assert_eq!(
        writes[4],
        upstream.exchanges()[4].body().len(),
        "every byte alone"
    );
    assert_eq!(
        Decoder::decode_all(&upstream.exchanges()[4].body()),
        reference
    );
}

#[tokio::test]
async fn several_choices_and_tool_calls() {
    let upstream = Upstream::start().await.unwrap();
    let mut body = streamed("multi");
    body["n"] = json!(2);
    ask_until(&upstream, &body, "[DONE]").await;
    let exchange = upstream.idle().await.unwrap().pop().unwrap();
    assert_eq!(exchange.text(0), content::text("multi", 0, 5));
    assert_eq!(exchange.text(1), content::text("multi", 1, 5));

    let arguments = json!({"city": "Zürich", "days": 3});
    upstream.once(Script::answer().tool_call("weather", &arguments));
    ask_until(&upstream, &streamed("tool"), "[DONE]").await;
    let chunks = upstream.idle().await.unwrap().pop().unwrap().chunks();
    let pieces = chunks.iter().filter_map(|chunk| {
        chunk
            .pointer("/choices/0/delta/tool_calls/0/function/arguments")?
            .as_str()
    });
    let joined: String = pieces.collect();
    assert_eq!(serde_json::from_str::<Value>(&joined).unwrap(), arguments);
    let last = chunks
        .iter()
        .find_map(|chunk| chunk.pointer("/choices/0/finish_reason")?.as_str());
    assert_eq!(last, Some("tool_calls"));
}

#[tokio::test]
async fn scripts_are_chosen_from_the_queue_then_by_model_then_by_standing_order() {
    let upstream = Upstream::start().await.unwrap();
    upstream.for_model("gpt-test", Script::html(502));
    upstream.once(Script::too_many_requests(3));
    let wire = ask_until(&upstream, &plain("1"), "rate_limit_exceeded").await;
    assert!(
        wire.starts_with("HTTP/1.1 429 Too Many Requests\r\n"),
        "{wire}"
    );
    assert!(wire.contains("retry-after: 3\r\n"), "{wire}");
    assert!(
        ask_until(&upstream, &plain("2"), "</html>")
            .await
            .starts_with("HTTP/1.1 502 ")
    );

    upstream.choose(|request| Script::failure(500, &request.tag()));
    let mut other = plain("chosen");
    other["model"] = json!("another");
    ask_until(&upstream, &other, "upstream says chosen").await;

    upstream.once(Script::hang_up());
    assert_eq!(ask(&upstream, &plain("4")).await.bytes, "");
    upstream.once(Script::not_http());
    assert!(ask(&upstream, &plain("5")).await.bytes.starts_with("220 "));
    assert!(
        reqwest_client()
            .get(Upstream::refusing_url().unwrap())
            .send()
            .await
            .is_err()
    );
}

fn reqwest_client() -> reqwest::Client {
    crate::client::http().unwrap()
}
