//! Embeddings: what adapters get and give, and answers written in OpenAI's form.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use nexus_events::{id::RequestId, usage::TokenUsage};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{ProviderError, Target};
use crate::protocol::{
    openai::{
        embeddings::{EmbeddingsRequest, EmbeddingsResponse, Encoding, INPUTS_MAX, usage},
        response::error_object,
        text,
    },
    readable,
};

/// A request for embeddings as an adapter gets it.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddingsCall<'a> {
    /// The hub's id of the request.
    pub id: RequestId,
    /// The request.
    pub request: &'a EmbeddingsRequest<'a>,
    /// The body that it was read from.
    pub body: &'a Bytes,
    /// Where it is to go.
    pub target: Target<'a>,
}

/// An answer in OpenAI's form, with what recording needs of it.
#[derive(Debug)]
pub struct Embedded {
    /// The body for the client.
    pub body: Bytes,
    /// The model that the provider says it used.
    pub model: Option<String>,
    /// The provider's token counts.
    pub usage: Option<TokenUsage>,
    /// The provider's usage block as it came.
    pub usage_raw: Option<Box<RawValue>>,
}

/// Reads an answer that is in OpenAI's form.
///
/// # Errors
/// [`ProviderError`]: it is malformed, or an error in disguise.
pub(super) fn read(body: &Bytes) -> Result<Embedded, ProviderError> {
    let read = serde_json::from_slice::<&RawValue>(body).and_then(|json| {
        readable::check(json)?;
        serde_json::from_str::<EmbeddingsResponse<'_>>(json.get())
    });
    let response = match read {
        Ok(response) => response,
        Err(error) => {
            return Err(match error_object(body) {
                Some(object) => ProviderError::reported(object),
                None => ProviderError::malformed("The provider's answer holds no embeddings.")
                    .caused_by(error),
            });
        }
    };
    if response.data.len() > INPUTS_MAX {
        return Err(ProviderError::too_many_parts());
    }
    let model = response.model.and_then(text);
    Ok(Embedded {
        model: model.map(std::borrow::Cow::into_owned),
        usage: response.usage.and_then(usage),
        usage_raw: response.usage.map(ToOwned::to_owned),
        body: body.clone(),
    })
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Item>,
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct Item {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Float(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u64,
    total_tokens: u64,
}

/// Vectors in OpenAI's form.
pub(super) fn write(
    vectors: impl Iterator<Item = Vec<f32>>,
    encoding: Encoding,
    model: &str,
    tokens: Option<u64>,
) -> Bytes {
    let data = vectors.enumerate().map(|(index, vector)| Item {
        object: "embedding",
        index,
        embedding: match encoding {
            Encoding::Float => Vector::Float(vector),
            Encoding::Base64 => {
                let bytes: Vec<u8> = vector
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect();
                Vector::Base64(STANDARD.encode(bytes))
            }
        },
    });
    let list = List {
        object: "list",
        data: data.collect(),
        model,
        usage: tokens.map(|tokens| Usage {
            prompt_tokens: tokens,
            total_tokens: tokens,
        }),
    };
    // Strings and numbers: there is nothing in it that JSON could refuse.
    serde_json::to_vec(&list).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use nexus_events::clock::UnixMillis;

    use super::*;
    use crate::provider::{Asked, UpstreamRequest, adapter, translate::testing::target};

    #[test]
    fn vectors_are_written_in_the_form_that_was_asked_for() {
        let vectors = || vec![vec![0.5_f32, -1.0]].into_iter();
        let float = write(vectors(), Encoding::Float, "m", Some(3));
        assert_eq!(
            float,
            r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5,-1.0]}],"model":"m","usage":{"prompt_tokens":3,"total_tokens":3}}"#
        );
        let base64 = write(vectors(), Encoding::Base64, "m", None);
        assert_eq!(
            base64,
            r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":"AAAAPwAAgL8="}],"model":"m"}"#
        );
        let read = read(&float).unwrap();
        assert_eq!(
            (read.model.as_deref(), read.usage.unwrap().input_tokens),
            (Some("m"), 3)
        );
    }

    /// Where a request goes, and with which body.
    fn encoded(kind: &str, base: &str, body: &str) -> Result<(String, Bytes), ProviderError> {
        let body = Bytes::from(body.to_owned());
        let encoded = adapter(kind).unwrap().encode_embeddings(EmbeddingsCall {
            id: "0199c0de-0000-7000-8000-000000000001".parse().unwrap(),
            request: &EmbeddingsRequest::parse(&body).unwrap(),
            body: &body,
            target: target(base),
        })?;
        match encoded {
            UpstreamRequest::Http(request) => {
                assert!(request.headers.values().any(HeaderValue::is_sensitive));
                Ok((request.url.to_string(), request.body))
            }
            other @ (UpstreamRequest::WithToken(_) | UpstreamRequest::Local(_)) => {
                panic!("{other:?}")
            }
        }
    }

    #[test]
    fn each_provider_is_asked_at_its_own_address() {
        const BODY: &str = r#"{"model":"m","input":"a"}"#;
        let deployment = "http://h/openai/deployments/upstream-model";
        for (kind, base, url) in [
            ("openai", "http://h", "http://h/v1/embeddings".to_owned()),
            (
                "openai",
                "http://h/v4/?a=b",
                "http://h/v4/embeddings?a=b".to_owned(),
            ),
            (
                "openai",
                "http://h/v1/chat/completions/",
                "http://h/v1/embeddings".to_owned(),
            ),
            ("ernie", "http://h/v2", "http://h/v2/embeddings".to_owned()),
            (
                "azure",
                "http://h",
                format!("{deployment}/embeddings?api-version=2024-10-21"),
            ),
            (
                "azure",
                "http://h/openai/v1",
                "http://h/openai/v1/embeddings".to_owned(),
            ),
            (
                "gemini",
                "http://h",
                "http://h/v1beta/models/upstream-model:batchEmbedContents".to_owned(),
            ),
        ] {
            let (address, body) = encoded(kind, base, BODY).unwrap();
            assert_eq!(address, url, "{kind} {base}");
            let body = std::str::from_utf8(&body).unwrap();
            assert!(
                body.contains("upstream-model") && body.contains(r#""a""#),
                "{body}"
            );
        }
        for (kind, base) in [("openai", "http://h/ask#"), ("anthropic", "http://h")] {
            let error = encoded(kind, base, BODY).unwrap_err();
            assert_eq!(
                error.object.unwrap().param.as_deref(),
                Some("model"),
                "{kind}"
            );
        }
    }

    #[test]
    fn an_error_of_ernies_in_disguise_is_an_error() {
        let asked = Asked {
            id: "0199c0de-0000-7000-8000-000000000001".parse().unwrap(),
            time: UnixMillis::from_millis(0),
            model: "m",
            body: &Bytes::new(),
        };
        let disguised = Bytes::from_static(br#"{"error_code":18,"error_msg":"QPS"}"#);
        let error = adapter("ernie")
            .unwrap()
            .decode_embeddings(asked, disguised);
        assert_eq!(error.unwrap_err().object.unwrap().message, "QPS");
    }

    #[test]
    fn more_vectors_than_anybody_asks_for_are_too_many() {
        let body = format!(r#"{{"data":[{}]}}"#, vec!["0"; 3_000].join(","));
        let error = read(&Bytes::from(body)).unwrap_err();
        assert_eq!(
            error.reason,
            nexus_events::exchange_event::FailureReason::UpstreamTooLarge
        );
    }

    #[test]
    fn what_holds_no_vectors_is_an_error() {
        for body in ["", "[]", "{}", r#"{"data":7}"#, r#"{"data":["\ud800"]}"#] {
            let error = read(&Bytes::from(body.to_owned())).unwrap_err();
            assert!(error.object.is_none(), "{body}");
        }
        let disguised = Bytes::from_static(br#"{"error":{"message":"no"}}"#);
        assert_eq!(read(&disguised).unwrap_err().object.unwrap().message, "no");
    }
}
