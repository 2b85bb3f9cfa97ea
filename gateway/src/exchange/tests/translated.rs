//! Answers of providers with a protocol of their own, on their way to client and log.

use super::*;

const EVENTS: [&str; 6] = [
    r#"{"type":"message_start","message":{"id":"msg_1","model":"m-real","usage":{"input_tokens":3,"output_tokens":1}}}"#,
    r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
    r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"ho"}}"#,
    r#"{"type":"content_block_stop","index":0}"#,
    r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":4}}"#,
    r#"{"type":"message_stop"}"#,
];

fn script(events: &[&str]) -> Vec<Step> {
    let events = events
        .iter()
        .map(|data| send(format!("event: x\ndata: {data}\n\n")));
    std::iter::once(stream_head()).chain(events).collect()
}

async fn anthropic(script: Vec<Step>) -> (Hub, Upstream) {
    let upstream = Upstream::start(&TaskTracker::new(), script).await;
    let hub = Hub::new(&[("p", "anthropic", upstream.url())]);
    (hub, upstream)
}

#[tokio::test]
async fn a_stream_is_translated_for_the_client_and_the_log() {
    let (hub, upstream) = anthropic(script(&EVENTS)).await;
    let (text, whole) = read(body(hub.chat(ASK_STREAM).await)).await;
    assert!(whole && text.ends_with("data: [DONE]\n\n"), "{text}");
    assert!(text.contains(r#""delta":{"content":"ho"}"#), "{text}");
    assert!(!text.contains("prompt_tokens"), "{text}");
    let events = hub.ended().await;
    let terminal = terminal(&events);
    assert_eq!(terminal["gen_ai.response.id"], "msg_1");
    assert_eq!(terminal["gen_ai.usage.input_tokens"], 3);
    assert_eq!(terminal["gen_ai.usage.output_tokens"], 4);
    assert_eq!(terminal["gen_ai.response.finish_reasons"], json!(["stop"]));
    assert!(upstream.bodies.lock()[0].contains(r#""model":"m-at-p""#));
}

/// Whatever is missing at the end, what had come is kept and the answer is not taken for whole.
#[tokio::test]
async fn a_translated_stream_that_is_cut_off_has_failed() {
    for end in 0..EVENTS.len() {
        let (hub, _upstream) = anthropic(script(&EVENTS[..end])).await;
        let served = hub.chat(ASK_STREAM).await.unwrap();
        if let Ok(Reply::Stream(body)) = served.reply {
            let (text, _) = read(body).await;
            assert!(!text.contains("[DONE]"), "{end}: {text}");
        }
        let events = hub.ended().await;
        assert_eq!(
            terminal(&events)["nexus.failure"]["reason"],
            "upstream_cut",
            "{end}"
        );
    }
}

#[tokio::test]
async fn what_one_provider_cannot_do_another_is_asked_for() {
    let answer = vec![head("200 OK", "application/json"), send(ANSWER)];
    let upstream = Upstream::start(&TaskTracker::new(), answer).await;
    let ask = ASK.replace("\"messages\"", "\"n\":2,\"messages\"");
    let both = [
        ("a", "anthropic", upstream.url()),
        ("b", "openai", upstream.url()),
    ];
    let hub = Hub::new(&both);
    assert!(hub.chat(&ask).await.unwrap().reply.is_ok());
    assert_eq!(terminal(&hub.ended().await)["gen_ai.provider.name"], "b");

    let hub = Hub::new(&both[..1]);
    let error = hub.chat(&ask).await.unwrap().reply.unwrap_err();
    assert_eq!(error.status.as_u16(), 400);
    assert_eq!(error.param.as_deref(), Some("n"));
    assert_eq!(error.kind, "invalid_request_error");
    assert_eq!(upstream.bodies.lock().len(), 1);
}
