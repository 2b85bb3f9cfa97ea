use nexus_events::{clock::UnixMillis, id::RequestId};

use super::*;
use crate::{
    protocol::openai::{request::ChatRequest, response, text},
    provider::Target,
    stream::sse_decode::SseDecoder,
};

fn answer(body: &str) -> LocalAnswer {
    let body = Bytes::from(body.to_owned());
    let id: RequestId = "0199c0de-0000-7000-8000-000000000001".parse().unwrap();
    let request = Echo.encode(ProviderCall {
        id,
        time: UnixMillis::from_millis(1_795_000_000_000),
        request: &ChatRequest::parse(&body).unwrap(),
        body: &body,
        target: Target {
            server_url: "",
            server_key: None,
            model: "echo",
        },
    });
    match request.unwrap() {
        UpstreamRequest::Local(answer) => answer,
        UpstreamRequest::Http(_) | UpstreamRequest::WithToken(_) => panic!("echo needs no network"),
    }
}

/// The pieces of content, the finish reason and the completion tokens of a stream.
fn streamed(body: &str) -> (Vec<String>, String, u64) {
    let mut decoder = SseDecoder::default();
    let (mut pieces, mut finish, mut tokens) = (Vec::new(), String::new(), 0);
    let mut done = 0;
    for bytes in answer(body).body {
        decoder.push(bytes);
        let event = decoder.next_event().unwrap().unwrap();
        match Echo.decode_chunk(&event).unwrap() {
            Streamed::Chunk(chunk) => {
                if let Some(raw) = chunk.parsed.usage {
                    tokens = response::usage(raw).unwrap().output_tokens;
                }
                for choice in chunk.parsed.choices.unwrap() {
                    finish = choice
                        .finish_reason
                        .map_or(finish, |reason| reason.0.into());
                    let delta = choice.delta.unwrap();
                    pieces.extend(delta.get("content").map(|raw| text(raw).unwrap().into()));
                }
            }
            Streamed::Done => done += 1,
            Streamed::Nothing => panic!("echo says nothing for nothing"),
        }
    }
    assert_eq!(done, 1);
    (pieces, finish, tokens)
}

#[test]
fn a_stream_says_the_last_user_message_word_by_word() {
    let body = r#"{"model":"echo","stream":true,"messages":[{"role":"user","content":"old"},{"role":"assistant","content":"old"},{"role":"user","content":" one  two\nthr\u00e9e"},{"role":"assistant","content":"x"}]}"#;
    let (pieces, finish, tokens) = streamed(body);
    assert_eq!(pieces, ["", " one  ", "two\n", "thrée"]);
    assert_eq!((finish.as_str(), tokens), ("stop", 3));
}

#[test]
fn parts_are_read_and_limits_kept() {
    let parts = r#"{"model":"echo","stream":true,"max_tokens":2,"messages":[{"role":"user","content":[{"type":"text","text":"one two "},{"type":"image_url"},{"type":"text","text":"three"}]}]}"#;
    assert_eq!(streamed(parts).0.concat(), "one two ");
    assert_eq!(streamed(parts).1, "length");
    let empty = r#"{"model":"echo","stream":true,"messages":[{"role":"user","content":null}]}"#;
    assert_eq!(streamed(empty).0, [""]);
    let long = format!(
        r#"{{"model":"echo","messages":[{{"role":"user","content":"{}"}}]}}"#,
        "word ".repeat(300_000)
    );
    let body = answer(&long).body.next().unwrap();
    assert!(body.len() <= 1024 * 1024 + 1024);
}

#[test]
fn a_whole_answer_is_one_body_with_usage() {
    let mut answer = answer(
        r#"{"model":"echo","messages":[{"role":"system","content":"be nice"},{"role":"user","content":"a b"}]}"#,
    );
    let body = answer.body.next().unwrap();
    assert!(answer.body.next().is_none());
    let decoded = Echo.decode_response(&body).unwrap();
    let usage = response::usage(decoded.response.usage.unwrap()).unwrap();
    assert_eq!((usage.input_tokens, usage.output_tokens), (4, 2));
    assert_eq!(
        decoded.response.choices[0].message.get(),
        r#"{"role":"assistant","content":"a b"}"#
    );
}
