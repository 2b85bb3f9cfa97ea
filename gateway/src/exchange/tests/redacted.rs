use super::*;

const WITH_SECRETS: &str = r#"{"model":"m","messages":[{"role":"user","content":"password: s3cret"}],
    "api_key":"s3cret","tools":[{"type":"mcp","headers":{"X-Mine":"s3cret"}}],"seed":1.50}"#;

#[tokio::test]
async fn secrets_in_parameters_reach_the_provider_and_no_event() {
    let (hub, upstream) = Hub::before(vec![head("200 OK", "application/json"), send(ANSWER)]).await;
    hub.chat(WITH_SECRETS).await.unwrap().reply.unwrap();
    assert_eq!(
        upstream.bodies.lock().as_slice(),
        [WITH_SECRETS
            .replace("\n    ", "")
            .replace("\"m\"", "\"m-at-p\"")]
    );
    let events = hub.ended().await;
    let content = &events[0].data["content"];
    assert_eq!(
        content["parameters"],
        json!({"model": "m", "api_key": "[redacted]", "seed": 1.50,
            "tools": [{"type": "mcp", "headers": {"X-Mine": "[redacted]"}}]})
    );
    assert_eq!(
        content["messages"],
        json!([{"role": "user", "content": "password: s3cret"}]),
        "what was said is what the log is for"
    );
}
