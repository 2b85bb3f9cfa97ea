//! OpenAI's completions, the form before chat: a prompt and its continuation.
//!
//! Read from `https://platform.openai.com/docs/api-reference/completions` on 2026-11-28. The
//! prompt is one message of the user, so a chat model answers it rather than goes on with it.
//! `max_tokens` has no default here: 16, which the old API had, would cut nearly every answer.

mod answer;
mod request;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use serde_json::json;

use super::{Asked, Dialect, Events, candidate::Carriers, chat::Chunk, fields::Fields};
use crate::{
    limits::estimate::Estimate,
    protocol::openai::{request::BadRequest, response::ErrorObject},
    stream::sse_encode::{self, DONE},
};

/// The dialect; it keeps no state.
#[derive(Clone, Copy, Debug)]
pub struct Completions;

impl Dialect for Completions {
    fn route(&self) -> &'static str {
        "/v1/completions"
    }

    fn estimate(&self, body: &Fields<'_>) -> Estimate {
        let read = ["prompt"];
        Estimate::of_members(body.members(), &read, "max_tokens")
    }

    fn request(
        &self,
        body: &Fields<'_>,
        _: &HeaderMap,
        carriers: &mut Carriers,
    ) -> Result<Bytes, BadRequest> {
        request::to_chat(body, carriers)
    }

    fn answer(&self, asked: &Asked, chat: &[u8]) -> Result<Bytes, serde_json::Error> {
        answer::of_chat(asked, chat)
    }

    fn events(&self, mut asked: Asked) -> Box<dyn Events> {
        let wants_usage = request::wants_usage(&asked.body);
        // Not kept for as long as the stream lasts.
        asked.body = Bytes::new();
        Box::new(CompletionEvents { asked, wants_usage })
    }
}

/// The chunks of one completion.
struct CompletionEvents {
    asked: Asked,
    wants_usage: bool,
}

impl Events for CompletionEvents {
    fn chunk(&mut self, chunk: &Chunk<'_>, out: &mut BytesMut) {
        let text = answer::text(&chunk.said);
        let reason = chunk.finish_reason.as_deref().map(answer::finish_reason);
        if !text.is_empty() || reason.is_some() {
            let choices = [answer::Choice::new(&text, reason)];
            let body = answer::body(&self.asked, &chunk.model, &choices, None);
            sse_encode::frame(out, &body);
        }
        if let Some(usage) = chunk.usage.filter(|_| self.wants_usage) {
            let body = answer::body(&self.asked, &chunk.model, &[], Some(usage));
            sse_encode::frame(out, &body);
        }
    }

    fn done(&mut self, out: &mut BytesMut) {
        sse_encode::frame(out, DONE);
    }

    fn failed(&mut self, error: &ErrorObject, out: &mut BytesMut) {
        let body = json!({"error": {
            "message": error.message,
            "type": error.kind,
            "code": error.code,
            "param": error.param,
            "request_id": self.asked.id,
        }});
        sse_encode::frame(out, body.to_string().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::dialect::testing::{Goldens, refused};

    #[test]
    fn what_goes_in_and_out_is_as_the_goldens_say() {
        let goldens = Goldens::of("completions", &Completions);
        goldens.requests();
        goldens.answers();
        goldens.streams();
    }

    #[test]
    fn what_has_no_counterpart_is_refused_by_its_name() {
        for (member, param) in [
            (r#""prompt":["a","b"]"#, "prompt"),
            (r#""prompt":[]"#, "prompt"),
            (r#""prompt":[1,2]"#, "prompt"),
            (r#""prompt":[[1,2]]"#, "prompt"),
            (r#""prompt":7"#, "prompt"),
            (r#""prompt":null"#, "prompt"),
            (r#""prompt":"x","suffix":"a""#, "suffix"),
            (r#""prompt":"x","best_of":2"#, "best_of"),
            (r#""prompt":"x","n":2"#, "n"),
            (r#""prompt":"x","echo":true"#, "echo"),
            (r#""prompt":"x","logprobs":0"#, "logprobs"),
            (r#""prompt":"x","novel":1"#, "novel"),
            (r#""prompt":"x","max_tokens":0"#, "max_tokens"),
            (r#""prompt":"x","stream":"yes""#, "stream"),
            (
                r#""prompt":"x","stream_options":{"novel":1}"#,
                "stream_options.novel",
            ),
            (r#""prompt":"x","stop":7"#, "stop"),
        ] {
            let body = format!(r#"{{"model":"m",{member}}}"#);
            assert_eq!(refused(&Completions, &body), param, "{body}");
        }
        assert_eq!(refused(&Completions, r#"{"prompt":"x"}"#), "model");
    }

    #[test]
    fn whatever_a_provider_says_chunks_are_completions() {
        Goldens::of("completions", &Completions).corrupt(|events: &[Value]| {
            for event in events {
                assert_eq!(event["object"], "text_completion");
                assert!(event["choices"].as_array().unwrap().len() <= 1);
            }
        });
    }
}
