use super::*;
use crate::provider::{
    Target, adapter,
    translate::testing::{encode, target},
};

const BODY: &[u8] =
    br#"{"model":"m","messages":[{"role":"user","content":"hi"}],"novel":[1.0],"stream":true}"#;

#[test]
fn every_way_to_write_a_base_url_leads_to_the_deployment() {
    let whole = "/openai/deployments/gpt%2F4/chat/completions?api-version=2024-10-21";
    for (base, path) in [
        ("", whole),
        ("/", whole),
        ("/openai", whole),
        ("/openai/deployments/gpt%2F4", whole),
        ("/openai/deployments/gpt%2F4/chat/completions", whole),
        (
            "?api-version=2025-04-01-preview",
            "/openai/deployments/gpt%2F4/chat/completions?api-version=2025-04-01-preview",
        ),
        (
            "/gateway/?a=b",
            "/gateway/openai/deployments/gpt%2F4/chat/completions?a=b&api-version=2024-10-21",
        ),
        ("/openai/v1/", "/openai/v1/chat/completions"),
        ("/ask#", "/ask"),
    ] {
        let host = "https://hub.openai.azure.com";
        let base = format!("{host}{base}");
        let target = Target {
            model: "gpt/4",
            ..target(&base)
        };
        let request = encode("azure", &Bytes::from_static(BODY), target).unwrap();
        assert_eq!(request.url.as_str(), format!("{host}{path}"), "{base}");
        assert_eq!(request.headers["api-key"], "secret");
        assert!(!request.headers.contains_key("authorization"));
        assert!(!format!("{request:?}").contains("secret"));
    }
    for base in ["", "azure.com", "ftp://h/"] {
        assert!(
            encode("azure", &Bytes::from_static(BODY), target(base)).is_err(),
            "{base}"
        );
    }
}

#[test]
fn the_body_goes_through_raw() {
    let request = encode("azure", &Bytes::from_static(BODY), target("http://h")).unwrap();
    assert_eq!(
        request.body,
        r#"{"model":"upstream-model","messages":[{"role":"user","content":"hi"}],"novel":[1.0],"stream":true,"stream_options":{"include_usage":true}}"#
    );
}

#[test]
fn a_first_chunk_with_the_verdict_on_the_prompt_is_a_chunk() {
    let event = SseEvent {
        data: Bytes::from_static(br#"{"id":"","object":"","created":0,"model":"","choices":[],"prompt_filter_results":[{"prompt_index":0,"content_filter_results":{}}]}"#),
        ..SseEvent::default()
    };
    let azure = adapter("azure").unwrap();
    let Ok(Streamed::Chunk(chunk)) = azure.decode_chunk(&event) else {
        panic!("no chunk");
    };
    assert_eq!(chunk.json.get().as_bytes(), event.data);
    assert!(!chunk.parsed.is_usage_only());
}

#[test]
fn errors_are_read_in_the_forms_that_azure_uses() {
    let azure = adapter("azure").unwrap();
    let decode = |status: u16, body: &str| {
        let status = StatusCode::from_u16(status).unwrap();
        azure.decode_error(status, &HeaderMap::new(), body.as_bytes())
    };
    let filtered = decode(
        400,
        r#"{"error":{"message":"filtered","type":null,"param":"prompt","code":"content_filter","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
    );
    let object = filtered.object.unwrap();
    assert_eq!(object.code.as_deref(), Some("content_filter"));
    assert_eq!(object.param.as_deref(), Some("prompt"));
    let denied = decode(401, r#"{"statusCode":401,"message":"Access denied"}"#);
    assert!(denied.is_our_key());
    assert_eq!(denied.object.unwrap().message, "Access denied");
}
