//! Embeddings take the way of every exchange, without a conversation.

use super::*;

const INPUT: &str = r#"{"model":"m","input":["a","b"]}"#;
const VECTORS: &str = r#"{"object":"list","model":"m-real","data":[{"object":"embedding","index":0,"embedding":[0.5]}],"usage":{"prompt_tokens":3,"total_tokens":3}}"#;

fn script(status: &str, body: &str) -> Vec<Step> {
    vec![head(status, "application/json"), send(body.to_owned())]
}

impl Hub {
    async fn embed(&self, body: &str) -> Result<Served, Refused> {
        let ask = Ask {
            operation: Operation::Embeddings,
            route: "/v1/embeddings",
            ..self.ask(body)
        };
        self.engine.begin(ask).await
    }
}

#[tokio::test]
async fn vectors_reach_the_client_and_their_usage_the_log() {
    let (hub, upstream) = Hub::before(script("200 OK", VECTORS)).await;
    let served = hub.embed(INPUT).await.unwrap();
    assert!(served.conversation.is_none());
    match served.reply.unwrap() {
        Reply::Whole(body) => assert_eq!(body, VECTORS),
        Reply::Stream(body) => panic!("{body:?}"),
    }
    let asked = upstream.bodies.lock()[0].clone();
    assert_eq!(asked, r#"{"model":"m-at-p","input":["a","b"]}"#);
    let events = hub.ended().await;
    let expected = ["received", "attempt_started", "attempt_ended", "completed"];
    assert_eq!(kinds(&events), expected);
    let (received, terminal) = (&events[0].data, terminal(&events));
    for event in [received, terminal] {
        assert_eq!(event["gen_ai.operation.name"], "embeddings");
        assert!(event.get("gen_ai.conversation.id").is_none());
    }
    assert_eq!(
        received["content"]["parameters"]["input"],
        json!(["a", "b"])
    );
    assert_eq!(terminal["gen_ai.usage.input_tokens"], 3);
    assert_eq!(terminal["gen_ai.response.model"], "m-real");
    assert!(terminal.get("content").is_none());
}

#[tokio::test]
async fn tokens_are_counted_where_the_provider_does_not() {
    let (hub, _upstream) = Hub::before(script("200 OK", r#"{"data":[{}]}"#)).await;
    hub.embed(INPUT).await.unwrap().reply.unwrap();
    let events = hub.ended().await;
    assert_eq!(kinds(&events).last(), Some(&"tokens_counted"));
    assert!(terminal(&events).get("nexus.usage.source").is_none());
}

#[tokio::test]
async fn a_failure_is_the_clients_to_know_and_recorded_once() {
    let broken = r#"{"error":{"message":"no","code":"broken"}}"#;
    for (status, body, reason, code) in [
        ("500 No", broken, "upstream_status", 500),
        ("200 OK", broken, "upstream_error", 502),
        ("200 OK", r#"{"data":7}"#, "upstream_malformed", 502),
    ] {
        let (hub, _upstream) = Hub::before(script(status, body)).await;
        let error = hub.embed(INPUT).await.unwrap().reply.unwrap_err();
        assert_eq!(error.status.as_u16(), code, "{status} {body}");
        let events = hub.ended().await;
        assert_eq!(terminal(&events)["nexus.failure"]["reason"], reason);
    }
}

#[tokio::test]
async fn who_offers_none_says_so_and_the_next_one_is_asked() {
    let upstream = Upstream::start(&TaskTracker::new(), script("200 OK", VECTORS)).await;
    let hub = Hub::new(&[
        ("a", "anthropic", upstream.url()),
        ("b", "openai", upstream.url()),
    ]);
    hub.embed(INPUT).await.unwrap().reply.unwrap();
    assert_eq!(terminal(&hub.ended().await)["nexus.attempts"], 2);

    let hub = Hub::new(&[("a", "anthropic", upstream.url())]);
    let error = hub.embed(INPUT).await.unwrap().reply.unwrap_err();
    assert_eq!(
        (error.status.as_u16(), error.param.as_deref()),
        (400, Some("model"))
    );
    assert_eq!(upstream.bodies.lock().len(), 1);
}
