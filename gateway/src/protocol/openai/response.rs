//! A provider's answer, whole or in chunks, as far as recording needs it.

use std::borrow::Cow;

use nexus_events::{raw_object::RawObject, usage::TokenUsage};
use serde::{Deserialize, de};
use serde_json::value::RawValue;

use super::{Text, text};
use crate::protocol::at_most::{self, AtMost};

/// Choices of one answer: 128, the largest `n` of the API.
pub const CHOICES_MAX: usize = 128;

/// An error object, and each text of it: 64 KiB; they have some hundred bytes. What is larger is
/// an answer in an error's place, and not told.
pub const ERROR_OBJECT_MAX: usize = 64 * 1024;

/// A whole answer.
#[derive(Debug, Deserialize)]
#[serde(try_from = "RawObject<'a>", bound(deserialize = "'de: 'a"))]
pub struct ChatResponse<'a> {
    /// The provider's id of the answer; a string in OpenAI's own answers.
    pub id: Option<&'a RawValue>,
    /// The model that the provider says it used.
    pub model: Option<&'a RawValue>,
    /// The choices; one more than [`CHOICES_MAX`] at most.
    pub choices: Vec<ResponseChoice<'a>>,
    /// The usage block.
    pub usage: Option<&'a RawValue>,
    /// What else it says: `system_fingerprint`, `service_tier`, a provider's own members.
    pub rest: RawObject<'a>,
}

/// One choice of a whole answer.
#[derive(Debug, Deserialize)]
#[serde(try_from = "RawObject<'a>", bound(deserialize = "'de: 'a"))]
pub struct ResponseChoice<'a> {
    /// Its index.
    pub index: u32,
    /// The assistant's message.
    pub message: &'a RawValue,
    /// Why the provider stopped.
    pub finish_reason: Option<Text<'a>>,
    /// What else it says: `logprobs`, verdicts of content filters.
    pub rest: RawObject<'a>,
}

impl<'a> TryFrom<RawObject<'a>> for ChatResponse<'a> {
    type Error = serde_json::Error;

    fn try_from(mut object: RawObject<'a>) -> Result<Self, Self::Error> {
        let choices = object.get("choices");
        let choices = choices.ok_or_else(|| de::Error::missing_field("choices"))?;
        let response = Self {
            id: given(&object, "id"),
            model: given(&object, "model"),
            choices: serde_json::from_str::<AtMost<_, CHOICES_MAX>>(choices.get())?.0,
            usage: given(&object, "usage"),
            rest: RawObject::default(),
        };
        let read = ["id", "object", "model", "choices", "usage"];
        object.retain(|name, value| !read.contains(&name) && value.get() != "null");
        Ok(Self {
            rest: object,
            ..response
        })
    }
}

impl<'a> TryFrom<RawObject<'a>> for ResponseChoice<'a> {
    type Error = serde_json::Error;

    fn try_from(mut object: RawObject<'a>) -> Result<Self, Self::Error> {
        let index = object.get("index").map(RawValue::get);
        let message = object.get("message");
        let reason = given(&object, "finish_reason").map(RawValue::get);
        let choice = Self {
            index: index.map(serde_json::from_str).transpose()?.unwrap_or(0),
            message: message.ok_or_else(|| de::Error::missing_field("message"))?,
            finish_reason: reason.map(serde_json::from_str).transpose()?,
            rest: RawObject::default(),
        };
        let read = ["index", "message", "finish_reason"];
        object.retain(|name, value| !read.contains(&name) && value.get() != "null");
        Ok(Self {
            rest: object,
            ..choice
        })
    }
}

/// A member that is there and not null.
fn given<'a>(object: &RawObject<'a>, name: &str) -> Option<&'a RawValue> {
    object.get(name).filter(|value| value.get() != "null")
}

/// A chunk of a streamed answer.
#[derive(Debug, Deserialize)]
pub struct ChatChunk<'a> {
    /// The provider's id of the answer.
    #[serde(borrow, default)]
    pub id: Option<&'a RawValue>,
    /// The model that the provider says it used.
    #[serde(borrow, default)]
    pub model: Option<&'a RawValue>,
    /// The choices that this chunk adds to, one more than [`CHOICES_MAX`] at most; none in the
    /// one that carries the usage.
    #[serde(
        borrow,
        default,
        deserialize_with = "at_most::optional::<_, _, CHOICES_MAX>"
    )]
    pub choices: Option<Vec<ChunkChoice<'a>>>,
    /// The usage block.
    #[serde(borrow, default)]
    pub usage: Option<&'a RawValue>,
    /// The tier of service that the provider gave.
    #[serde(borrow, default)]
    pub service_tier: Option<&'a RawValue>,
    /// An error in place of a chunk.
    #[serde(borrow, default)]
    pub error: Option<&'a RawValue>,
}

impl ChatChunk<'_> {
    /// Whether it carries the usage and nothing of the answer.
    pub fn is_usage_only(&self) -> bool {
        self.usage.is_some() && self.choices.as_ref().is_none_or(Vec::is_empty)
    }
}

/// What a chunk adds to one choice.
#[derive(Debug, Deserialize)]
pub struct ChunkChoice<'a> {
    /// Its index.
    #[serde(default)]
    pub index: u32,
    /// What is new of the message.
    #[serde(borrow, default)]
    pub delta: Option<RawObject<'a>>,
    /// Why the provider stopped.
    #[serde(borrow, default)]
    pub finish_reason: Option<Text<'a>>,
    /// The stop sequence that it stopped at, where it tells that: a member of vLLM's, which may
    /// hold the number of a token as well.
    #[serde(borrow, default)]
    pub stop_reason: Option<&'a RawValue>,
}

/// The tokens of a usage block; `None` when it does not tell both numbers.
pub fn usage(raw: &RawValue) -> Option<TokenUsage> {
    #[derive(Deserialize)]
    struct Usage {
        prompt_tokens: u64,
        completion_tokens: u64,
    }
    let usage: Usage = serde_json::from_str(raw.get()).ok()?;
    Some(TokenUsage {
        input_tokens: usage.prompt_tokens,
        output_tokens: usage.completion_tokens,
    })
}

/// Tokens of the prompt that the provider had cached, by its usage block.
pub fn cached_tokens(raw: &RawValue) -> u64 {
    #[derive(Deserialize)]
    struct Usage {
        prompt_tokens_details: Details,
    }
    #[derive(Deserialize)]
    struct Details {
        cached_tokens: u64,
    }
    let usage: Option<Usage> = serde_json::from_str(raw.get()).ok();
    usage.map_or(0, |usage| usage.prompt_tokens_details.cached_tokens)
}

/// An OpenAI error object, as providers send it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorObject {
    /// The sentence.
    pub message: String,
    /// The `type`.
    pub kind: Option<String>,
    /// The `code`; numbers are taken as text.
    pub code: Option<String>,
    /// The member that is wrong.
    pub param: Option<String>,
}

/// Reads `{"error": …}`; also where the error is a mere sentence, as some servers have it.
pub fn error_object(body: &[u8]) -> Option<ErrorObject> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        error: &'a RawValue,
    }
    let body: Body<'_> = serde_json::from_slice(body).ok()?;
    error_value(body.error)
}

/// Reads the value of an `error` member; `None` for null and for what is no error.
pub fn error_value(raw: &RawValue) -> Option<ErrorObject> {
    if raw.get().len() > ERROR_OBJECT_MAX {
        return Some(ErrorObject {
            message: "the provider's reason is too long to be told".to_owned(),
            ..ErrorObject::default()
        });
    }
    if let Some(message) = text(raw) {
        return Some(ErrorObject {
            message: message.into_owned(),
            ..ErrorObject::default()
        });
    }
    let members = RawObject::parse(raw.get().as_bytes()).ok()?;
    let said = |name: &str| {
        let raw = members.get(name)?;
        let is_number = raw
            .get()
            .starts_with(|first: char| first == '-' || first.is_ascii_digit());
        match text(raw) {
            None if is_number => Some(raw.get().to_owned()),
            text => text.map(Cow::into_owned),
        }
    };
    Some(ErrorObject {
        message: said("message").unwrap_or_else(|| "the provider gave no reason".to_owned()),
        kind: said("type"),
        code: said("code"),
        param: said("param"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_read_as_far_as_recording_needs() {
        let data = br#"{"id":"c1","object":"chat.completion.chunk","created":1.5,"model":"m","choices":[{"index":1,"delta":{"content":"a\"b"},"finish_reason":null,"logprobs":null}],"usage":null,"new":[]}"#;
        let chunk: ChatChunk<'_> = serde_json::from_slice(data).unwrap();
        assert!(!chunk.is_usage_only());
        let choice = &chunk.choices.unwrap()[0];
        assert_eq!(choice.index, 1);
        assert_eq!(
            choice.delta.as_ref().unwrap().get("content").unwrap().get(),
            r#""a\"b""#
        );
        assert!(choice.finish_reason.is_none());
    }

    #[test]
    fn the_usage_chunk_is_known_by_its_lack_of_choices() {
        let data =
            br#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#;
        let chunk: ChatChunk<'_> = serde_json::from_slice(data).unwrap();
        assert!(chunk.is_usage_only());
        let usage = usage(chunk.usage.unwrap()).unwrap();
        assert_eq!((usage.input_tokens, usage.output_tokens), (3, 4));
        let azure = br#"{"choices":[],"prompt_filter_results":[]}"#;
        assert!(
            !serde_json::from_slice::<ChatChunk<'_>>(azure)
                .unwrap()
                .is_usage_only()
        );
    }

    #[test]
    fn an_answer_and_an_error_object_are_bounded() {
        let many = |item: &str| format!(r#"{{"choices":[{}]}}"#, vec![item; 200].join(","));
        let whole = many(r#"{"message":{}}"#);
        let whole: ChatResponse<'_> = serde_json::from_str(&whole).unwrap();
        let chunk = many("{}");
        let chunk: ChatChunk<'_> = serde_json::from_str(&chunk).unwrap();
        let seen = CHOICES_MAX + 1;
        assert_eq!(
            (whole.choices.len(), chunk.choices.unwrap().len()),
            (seen, seen)
        );
        for long in [
            format!(r#"{{"error":{{"message":"{}"}}}}"#, "x".repeat(70_000)),
            format!(r#"{{"error":[{}0]}}"#, "0,".repeat(40_000)),
        ] {
            let object = error_object(long.as_bytes()).unwrap();
            assert!(object.message.len() < 100, "{}", object.message.len());
        }
    }

    #[test]
    fn errors_are_read_in_the_forms_that_servers_use() {
        let full =
            error_object(br#"{"error":{"message":"no","type":"t","code":429,"param":null}}"#);
        let full = full.unwrap();
        assert_eq!(
            (full.message.as_str(), full.kind.as_deref()),
            ("no", Some("t"))
        );
        assert_eq!((full.code.as_deref(), full.param), (Some("429"), None));
        assert_eq!(error_object(br#"{"error":"no"}"#).unwrap().message, "no");
        assert!(error_object(br#"{"error":null}"#).is_none());
        assert!(error_object(b"<html>").is_none());
    }
}
