//! The client against the upstream, which speaks the same protocol as the hub.

use super::*;
use crate::upstream::{Script, Upstream, content};

fn client_of(upstream: &Upstream) -> Client {
    Client::new(&format!("http://{}", upstream.host_port()))
        .unwrap()
        .with_key("k")
        .unwrap()
}

fn body(tag: &str) -> Value {
    json!({"model": "gpt-test", "messages": [{"role": "user", "content": tag}]})
}

#[tokio::test]
async fn reads_both_modes() {
    let upstream = Upstream::start().await.unwrap();
    let client = client_of(&upstream);
    let answer = client
        .chat(&body("one"))
        .await
        .unwrap()
        .expect(200)
        .unwrap();
    assert_eq!(answer.content(), content::text("one", 0, 5));
    let mut stream = client.chat_stream(&body("two")).await.unwrap();
    let seen = stream.end().await.unwrap();
    assert_eq!(seen.ending(), Ending::Done);
    assert_eq!(seen.text(0), content::text("two", 0, 5));
    assert_eq!(seen.data().last(), Some(&"[DONE]"));
    let asked = &upstream.exchanges()[1].request;
    assert_eq!(asked.header("authorization"), Some("Bearer k"));
}

#[tokio::test]
async fn finds_a_series_among_metrics() {
    let upstream = Upstream::start().await.unwrap();
    let text = "# TYPE a counter\na{x=\"1\"} 2\na_total 3.5\na 4\n";
    upstream.once(Script::status(200, text));
    let answer = client_of(&upstream).chat(&body("m")).await.unwrap();
    assert_eq!(answer.metric("a"), Some(4.0));
    assert_eq!(answer.metric("a{x=\"1\"}"), Some(2.0));
    assert_eq!(answer.metric("b"), None);
}

#[tokio::test]
async fn tells_the_endings_apart() {
    let upstream = Upstream::start().await.unwrap();
    let client = client_of(&upstream);
    let mut endings = Vec::new();
    for script in [
        Script::answer().cut_after(2),
        Script::answer().reset_after(2),
        Script::answer().end_after(2),
        Script::answer().half_event_after(2),
        Script::answer().insert_after(2, "data: [DONE]\n\n"),
        Script::answer().error_event_after(2, "overloaded"),
        Script::too_many_requests(1),
    ] {
        upstream.once(script);
        let mut stream = client.chat_stream(&body("x")).await.unwrap();
        endings.push(stream.end().await.unwrap().ending());
    }
    let shown: Vec<String> = endings.iter().map(|ending| format!("{ending:?}")).collect();
    assert!(
        shown[0].starts_with("Cut(\"error decoding response body"),
        "{shown:?}"
    );
    assert!(
        shown[1].starts_with("Cut(\"error decoding response body"),
        "{shown:?}"
    );
    assert_eq!(shown[2], "Cut(\"ended without [DONE]\")");
    assert!(
        shown[3].starts_with("Cut(\"half an event: data: "),
        "{shown:?}"
    );
    assert_eq!(shown[4], "Cut(\"[DONE] came 2 times\")");
    assert!(
        shown[5].starts_with("ErrorEvent(") && shown[5].contains("overloaded"),
        "{shown:?}"
    );
    assert!(
        shown[6].starts_with("Refused(") && shown[6].contains("rate_limit"),
        "{shown:?}"
    );
}

#[tokio::test]
async fn keeps_what_it_saw_of_a_stream_that_is_left() {
    let upstream = Upstream::start().await.unwrap();
    upstream.always(Script::answer().stall_after(3));
    let client = client_of(&upstream);
    let mut stream = client.chat_stream(&body("left")).await.unwrap();
    // The opening event and three chunks.
    stream.chunks(4).await.unwrap();
    let seen = stream.hang_up().await.unwrap();
    assert_eq!(seen.ending(), Ending::HungUp);
    assert_eq!(seen.text(0), content::text("left", 0, 3));
    let exchange = upstream.idle().await.unwrap().pop().unwrap();
    assert_eq!(exchange.end, Some(crate::upstream::End::ClientLeft));
}
