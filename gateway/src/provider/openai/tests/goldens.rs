//! Golden files of the kinds that speak OpenAI's protocol: what goes to the provider, what comes back unchanged, and
//! what of it is recorded.

use nexus_events::usage::TokenUsage;
use serde_json::json;

use super::*;
use crate::{
    exchange::answer::{Answer, content},
    provider::{
        adapter,
        translate::testing::{Goldens, respond, translate},
    },
    stream::sse_decode::SseDecoder,
};

const KINDS: [&str; 3] = ["openai", "azure", "ernie"];

#[test]
fn what_goes_in_is_as_the_goldens_say() {
    for kind in KINDS {
        Goldens::of(kind).requests();
        Goldens::of(kind).errors();
    }
}

/// What the terminal event has of an answer, in lines that people can read.
fn recorded(answer: &Answer) -> String {
    let choices = answer.choices();
    let usage = answer
        .usage()
        .map(|usage: TokenUsage| (usage.input_tokens, usage.output_tokens));
    let recorded = json!({
        "id": answer.id(), "model": answer.model(), "tokens": usage,
        "usage": answer.usage_raw(), "finish_reasons": answer.finish_reasons(),
        "content": content(&choices, answer.rest()),
    });
    serde_json::to_string_pretty(&recorded).unwrap()
}

#[test]
fn a_whole_answer_reaches_the_client_as_it_came_and_is_recorded_as_the_goldens_say() {
    for kind in KINDS {
        let goldens = Goldens::of(kind);
        for (case, body) in goldens.files(".response.json") {
            let given = respond(kind, &body).unwrap();
            assert_eq!(given, body, "{kind} {case}");
            let decoded = adapter(kind).unwrap().decode_response(&given).unwrap();
            let mut answer = Answer::default();
            answer.take(&decoded.response).unwrap();
            goldens.compare(
                &format!("{case}.recorded.json"),
                recorded(&answer).as_bytes(),
            );
        }
    }
}

#[test]
fn a_stream_reaches_the_client_as_it_came_and_is_recorded_as_the_goldens_say() {
    for kind in KINDS {
        let goldens = Goldens::of(kind);
        for (case, stream) in goldens.files(".stream.sse") {
            let given = translate(kind, "{}", &stream);
            assert!(
                given.error.is_none() && given.done,
                "{kind} {case}: {given:?}"
            );
            assert_eq!(given.frames, stream, "{kind} {case}");
            let (mut decoder, mut answer) = (SseDecoder::default(), Answer::default());
            decoder.push(Bytes::from(stream));
            while let Some(event) = decoder.next_event().unwrap() {
                if let Ok(Streamed::Chunk(chunk)) = adapter(kind).unwrap().decode_chunk(&event) {
                    answer.add(&chunk.parsed).unwrap();
                }
            }
            goldens.compare(
                &format!("{case}.stream-recorded.json"),
                recorded(&answer).as_bytes(),
            );
        }
    }
}

#[test]
fn no_answer_that_was_tampered_with_is_taken_for_a_whole_one() {
    for kind in KINDS {
        let goldens = Goldens::of(kind);
        goldens.cut_off();
        goldens.corrupt();
        for (case, disordered) in goldens.disordered() {
            // Behind its end nothing is read, so a stream that begins with it is empty.
            assert!(
                disordered.done && disordered.frames.len() < 20,
                "{kind} {case}: {disordered:?}"
            );
        }
    }
}
