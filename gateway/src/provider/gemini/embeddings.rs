//! Embeddings by `batchEmbedContents`.
//!
//! Read from `https://ai.google.dev/api/embeddings` on 2026-11-28. It takes texts only.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::{
    Asked, ProviderError,
    embeddings::{self, Embedded},
    translate::{
        members::{is_void, no_counterpart},
        read,
    },
};
use crate::protocol::openai::embeddings::{EmbeddingsRequest, Input};

#[derive(Serialize)]
struct Body<'a> {
    requests: Vec<Request<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    model: &'a str,
    content: Content<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_dimensionality: Option<u64>,
}

#[derive(Serialize)]
struct Content<'a> {
    parts: [Part<'a>; 1],
}

#[derive(Serialize)]
struct Part<'a> {
    text: &'a str,
}

/// The body for Google; `model` with its collection.
pub(super) fn encode(request: &EmbeddingsRequest<'_>, model: &str) -> Result<Bytes, ProviderError> {
    const KNOWN: [&str; 5] = ["model", "input", "dimensions", "encoding_format", "user"];
    for (name, value) in request.members.iter() {
        if !KNOWN.contains(&name) && !is_void(value) {
            return Err(no_counterpart(name));
        }
    }
    let requests = request.inputs.iter().map(|input| match input {
        Input::Text(text) => Ok(Request {
            model,
            content: Content {
                parts: [Part { text }],
            },
            output_dimensionality: request.dimensions,
        }),
        Input::Tokens(_) => Err(ProviderError::unsupported(
            "input",
            "The provider of this model takes texts, no tokens, in `input`.",
        )),
    });
    let body = Body {
        requests: requests.collect::<Result<_, _>>()?,
    };
    let written = serde_json::to_vec(&body).map_err(|error| {
        ProviderError::unsupported("input", "The request cannot be written.").caused_by(error)
    })?;
    Ok(written.into())
}

#[derive(Deserialize)]
struct Answer {
    embeddings: Vec<Values>,
    #[serde(default, rename = "usageMetadata")]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Values {
    values: Vec<f32>,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default, rename = "promptTokenCount")]
    prompt: Option<u64>,
}

/// The answer in OpenAI's form.
pub(super) fn translate(asked: Asked<'_>, body: &[u8]) -> Result<Embedded, ProviderError> {
    let answer: Answer = read(body)?;
    let request = EmbeddingsRequest::parse(asked.body);
    let (encoding, inputs) = request.map_or_else(
        |_unreadable| Default::default(),
        |request| (request.encoding, request.inputs.len()),
    );
    let is_sound = |one: &Values| one.values.iter().all(|value| value.is_finite());
    if answer.embeddings.len() != inputs || !answer.embeddings.iter().all(is_sound) {
        let message = "The provider gave not one vector for each input.";
        return Err(ProviderError::malformed(message));
    }
    let vectors = answer.embeddings.into_iter().map(|one| one.values);
    let tokens = answer.usage.and_then(|usage| usage.prompt);
    let written = embeddings::write(vectors, encoding, asked.model, tokens);
    embeddings::read(&written)
}

#[cfg(test)]
mod tests {
    use nexus_events::clock::UnixMillis;

    use super::*;

    fn encoded(body: &str) -> Result<String, ProviderError> {
        let request = EmbeddingsRequest::parse(body.as_bytes()).unwrap();
        let body = encode(&request, "models/embed")?;
        Ok(String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn texts_are_asked_for_all_at_once() {
        let body = r#"{"model":"m","input":["a","b"],"dimensions":8,"user":"ann"}"#;
        assert_eq!(
            encoded(body).unwrap(),
            concat!(
                r#"{"requests":[{"model":"models/embed","content":{"parts":[{"text":"a"}]},"outputDimensionality":8},"#,
                r#"{"model":"models/embed","content":{"parts":[{"text":"b"}]},"outputDimensionality":8}]}"#
            )
        );
        for (body, param) in [
            (r#"{"model":"m","input":[1,2]}"#, "input"),
            (r#"{"model":"m","input":"a","novel":1}"#, "novel"),
        ] {
            let object = encoded(body).unwrap_err().object.unwrap();
            assert_eq!(object.param.as_deref(), Some(param));
        }
    }

    #[test]
    fn vectors_come_in_the_form_that_was_asked_for() {
        let body = Bytes::from_static(br#"{"model":"m","input":"a","encoding_format":"base64"}"#);
        let asked = Asked {
            id: "0199c0de-0000-7000-8000-000000000001".parse().unwrap(),
            time: UnixMillis::from_millis(0),
            model: "m",
            body: &body,
        };
        let answer =
            br#"{"embeddings":[{"values":[0.5,-1]}],"usageMetadata":{"promptTokenCount":3}}"#;
        let embedded = translate(asked, answer).unwrap();
        assert_eq!(embedded.usage.unwrap().input_tokens, 3);
        assert!(embedded.body.ends_with(br#""embedding":"AAAAPwAAgL8="}],"model":"m","usage":{"prompt_tokens":3,"total_tokens":3}}"#));
        let uncounted = translate(asked, br#"{"embeddings":[{"values":[1]}]}"#).unwrap();
        assert!(uncounted.usage.is_none());
        for malformed in [
            &b"[]"[..],
            b"{}",
            br#"{"embeddings":[{"values":["a"]}]}"#,
            br#"{"embeddings":[]}"#,
            br#"{"embeddings":[{"values":[1]},{"values":[1]}]}"#,
            br#"{"embeddings":[{"values":[1e39]}]}"#,
        ] {
            translate(asked, malformed).unwrap_err();
        }
    }
}
