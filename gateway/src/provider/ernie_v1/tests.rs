use nexus_events::exchange_event::FailureReason;

use super::*;
use crate::provider::{
    Target, adapter,
    translate::testing::{Goldens, encode_with, refused, respond, translate},
};

const KIND: &str = "ernie_v1";

fn target(server_url: &str) -> Target<'_> {
    Target {
        server_url,
        server_key: Some("the-api-key:the-secret-key"),
        model: "completions_pro",
    }
}

fn encode(body: &str) -> Result<TokenRequest, ProviderError> {
    encode_at("http://provider.test", body)
}

fn encode_at(server_url: &str, body: &str) -> Result<TokenRequest, ProviderError> {
    let body = Bytes::from(body.to_owned());
    match encode_with(KIND, &body, target(server_url))? {
        UpstreamRequest::WithToken(request) => Ok(request),
        other @ (UpstreamRequest::Http(_) | UpstreamRequest::Local(_)) => {
            panic!("no token: {other:?}")
        }
    }
}

fn ask(members: &str) -> String {
    format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}]{members}}}"#)
}

#[test]
fn what_goes_in_and_out_is_as_the_goldens_say() {
    let goldens = Goldens::of(KIND);
    goldens.requests();
    goldens.responses();
    goldens.streams();
    goldens.errors();
}

#[test]
fn no_half_answer_is_taken_for_a_whole_one_and_nothing_panics() {
    let goldens = Goldens::of(KIND);
    goldens.cut_off();
    goldens.corrupt();
    for (what, outcome) in goldens.disordered() {
        assert!(
            !outcome.done || outcome.error.is_none(),
            "{what}: {outcome:?}"
        );
    }
}

#[test]
fn the_addresses_are_below_the_host_whatever_was_copied() {
    let chat = "/rpc/2.0/ai_custom/v1/wenxinworkshop/chat/completions_pro";
    for (base, front) in [
        ("https://aip.baidubce.com", "https://aip.baidubce.com"),
        (" https://aip.baidubce.com/ ", "https://aip.baidubce.com"),
        (
            "https://aip.baidubce.com/rpc/2.0/ai_custom/v1/wenxinworkshop/chat/",
            "https://aip.baidubce.com",
        ),
        ("http://proxy:1/baidu", "http://proxy:1/baidu"),
    ] {
        let request = encode_at(base, &ask("")).unwrap();
        assert_eq!(request.request.url.as_str(), format!("{front}{chat}"));
        assert_eq!(
            request.grant.url.as_str(),
            format!("{front}/oauth/2.0/token")
        );
    }
}

#[test]
fn the_keys_are_in_no_text() {
    let request = encode(&ask("")).unwrap();
    assert_eq!(request.grant.api_key.expose(), "the-api-key");
    assert_eq!(request.grant.secret_key.expose(), "the-secret-key");
    let body = String::from_utf8(request.request.body.to_vec()).unwrap();
    let told = format!("{request:?} {body}");
    let told = format!("{told} {:?}", UpstreamRequest::WithToken(request));
    assert!(!told.contains("the-"), "{told}");
    for key in [None, Some("only-one"), Some(":x"), Some("x:")] {
        let bad = Target {
            server_key: key,
            ..target("http://x")
        };
        let error = encode_with(KIND, &Bytes::from(ask("")), bad).unwrap_err();
        assert_eq!(error.reason, FailureReason::Internal);
        assert!(!format!("{error:?}").contains("only-one"));
    }
}

#[test]
fn what_has_no_counterpart_is_refused_by_its_name() {
    let tool = r#"{"type":"function","function":{"name":"f"}}"#;
    for (members, param) in [
        (r#","n":2"#.to_owned(), "n"),
        (r#","seed":1"#.to_owned(), "seed"),
        (r#","logit_bias":{"1":2}"#.to_owned(), "logit_bias"),
        (
            r#","response_format":{"type":"json_schema","json_schema":{"schema":{}}}"#.to_owned(),
            "response_format",
        ),
        (
            format!(r#","tools":[{tool}],"tool_choice":"required""#),
            "tool_choice",
        ),
        (
            r#","tools":[{"type":"function","function":{"name":"f","strict":true}}]"#.to_owned(),
            "tools[0].function.strict",
        ),
    ] {
        assert_eq!(refused(encode(&ask(&members))), param);
    }
    let call = r#"{"id":"1","type":"function","function":{"name":"f","arguments":""}}"#;
    let hi = r#"{"role":"user","content":"hi"}"#;
    for (messages, param) in [
        (
            format!(r#"{hi},{{"role":"system","content":"x"}}"#),
            "messages[1]",
        ),
        (
            format!(r#"{hi},{{"role":"assistant","tool_calls":[{call},{call}]}}"#),
            "messages[1].tool_calls[1]",
        ),
        (
            r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://x"}}]}"#
                .to_owned(),
            "messages[0].content[0]",
        ),
        (
            format!(r#"{hi},{{"role":"tool","tool_call_id":"9","content":"x"}}"#),
            "messages[1].tool_call_id",
        ),
    ] {
        let body = format!(r#"{{"model":"m","messages":[{messages}]}}"#);
        assert_eq!(refused(encode(&body)), param);
    }
}

#[test]
fn errors_in_disguise_are_errors() {
    let limit = br#"{"error_code":18,"error_msg":"qps"}"#;
    let error = respond(KIND, limit).unwrap_err();
    assert_eq!(error.client_status(), StatusCode::TOO_MANY_REQUESTS);
    let stream = translate(
        KIND,
        "{}",
        b"data: {\"error_code\":336000,\"error_msg\":\"no\"}\n\n",
    );
    assert!(!stream.done);
    assert_eq!(stream.error.unwrap().reason, FailureReason::UpstreamError);
    assert!(adapter(KIND).is_some());
}

#[test]
fn only_what_is_said_of_the_token_draws_another_one() {
    for refusal in [
        r#"{"error_code":110,"error_msg":"Access token invalid or no longer valid"}"#,
        r#" {"error_code":111,"error_msg":"Access token expired"}"#,
        "data: {\"error_code\":110,\"error_msg\":\"x\"}\n\n",
    ] {
        assert!(response::refuses_token(refusal.as_bytes()), "{refusal}");
    }
    for other in [
        r#"{"error_code":18,"error_msg":"110"}"#,
        r#"{"result":"110"}"#,
        "data: {\"result\":\"\"}\n\n",
        "",
    ] {
        assert!(!response::refuses_token(other.as_bytes()), "{other}");
    }
}
