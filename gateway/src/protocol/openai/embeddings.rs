//! OpenAI's embeddings, as clients ask for them and providers answer.
//!
//! Read from `https://platform.openai.com/docs/api-reference/embeddings` on 2026-11-28. As with
//! chat, members that the hub does not know reach the provider as they came.

use std::borrow::Cow;

use bytes::Bytes;
use nexus_events::{raw_object::RawObject, usage::TokenUsage};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::protocol::at_most::{self, AtMost, Texts};

use super::{
    Text, is_null,
    request::{BadRequest, bounded, member, members, model},
};

/// Inputs of one request: 2 048, as many as the API takes.
pub const INPUTS_MAX: usize = 2048;

/// Tokens of one input: 65 536, eight times what the API takes.
pub const TOKENS_MAX: usize = 65_536;

/// A request for embeddings that can be routed and recorded.
#[derive(Debug)]
pub struct EmbeddingsRequest<'a> {
    /// Every member of the body as it came.
    pub members: RawObject<'a>,
    /// The model that the client asks for.
    pub model: Cow<'a, str>,
    /// What is to be embedded.
    pub inputs: Vec<Input<'a>>,
    /// The form of the vectors.
    pub encoding: Encoding,
    /// The length of the vectors, where the client wants another than the model's own.
    pub dimensions: Option<u64>,
    /// The end user that the client names.
    pub user: Option<Cow<'a, str>>,
}

/// One thing to be embedded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// A text.
    Text(Cow<'a, str>),
    /// The tokens of a text.
    Tokens(Vec<u64>),
}

/// The form of a vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// An array of numbers.
    #[default]
    Float,
    /// Numbers of four bytes each, the least significant first, in base64.
    Base64,
}

impl<'a> EmbeddingsRequest<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// [`BadRequest`]: it is no JSON object, names a member twice, lacks what
    /// is required, holds a wrong type or exceeds a bound.
    pub fn parse(body: &'a [u8]) -> Result<Self, BadRequest> {
        let members = members(body)?;
        let model = model(&members)?;
        let encoding = member(&members, "encoding_format", "`float` or `base64`")?;
        let dimensions = member(&members, "dimensions", "a whole number above zero")?;
        if dimensions == Some(0) {
            let message = "`dimensions` must be a whole number above zero.";
            return Err(BadRequest::new("dimensions", message));
        }
        let user = member::<Text<'_>>(&members, "user", "a string")?.map(|text| text.0);
        bounded("user", user.as_ref())?;
        Ok(Self {
            inputs: inputs(&members)?,
            encoding: encoding.unwrap_or_default(),
            dimensions,
            members,
            model,
            user,
        })
    }

    /// The body for a provider that knows the model by another name: the very bytes of the client
    /// where it is the same.
    pub fn body_for(&self, body: &Bytes, model: &str) -> Bytes {
        if model == self.model {
            return body.clone();
        }
        let Ok(model) = to_raw_value(model) else {
            return body.clone();
        };
        let mut members = RawObject::default();
        for (name, value) in self.members.iter() {
            let value = if name == "model" { &*model } else { value };
            members.push(name, value);
        }
        // What was read as JSON can be written as JSON.
        serde_json::to_vec(&members).unwrap_or_default().into()
    }
}

fn inputs<'a>(members: &RawObject<'a>) -> Result<Vec<Input<'a>>, BadRequest> {
    type Tokens = AtMost<u64, TOKENS_MAX>;
    let expected = "a string, an array of strings, or arrays of tokens";
    let required = || BadRequest::new("input", "`input` is required.");
    let raw = members.get("input").filter(|raw| !is_null(raw));
    let text = raw.ok_or_else(required)?.get();
    // What it is shows at its beginning, so nothing has to be kept before it is known.
    let first = text.trim_start_matches('[').trim_start();
    let is_list_of_lists = text
        .strip_prefix('[')
        .is_some_and(|rest| rest.trim_start().starts_with('['));
    let inputs: Vec<Input<'a>> = if is_list_of_lists {
        let several = member::<AtMost<Tokens, INPUTS_MAX>>(members, "input", expected)?;
        let several = several.ok_or_else(required)?.0.into_iter();
        several.map(|tokens| Input::Tokens(tokens.0)).collect()
    } else if text.starts_with('"') || first.starts_with(['"', ']']) {
        let texts = member::<Texts<'a, INPUTS_MAX>>(members, "input", expected)?;
        let texts = texts.ok_or_else(required)?.0.into_iter();
        texts.map(Input::Text).collect()
    } else {
        let tokens = member::<Tokens>(members, "input", expected)?;
        vec![Input::Tokens(tokens.ok_or_else(required)?.0)]
    };
    let is_too_long =
        |input: &Input<'_>| matches!(input, Input::Tokens(tokens) if tokens.len() > TOKENS_MAX);
    if inputs.iter().any(is_too_long) {
        let message = format!("An entry of `input` must not have more than {TOKENS_MAX} tokens.");
        return Err(BadRequest::new("input", message));
    }
    if inputs.is_empty() {
        return Err(BadRequest::new("input", "`input` must not be empty."));
    }
    if inputs.len() > INPUTS_MAX {
        let message = format!("`input` must not have more than {INPUTS_MAX} entries.");
        return Err(BadRequest::new("input", message));
    }
    Ok(inputs)
}

/// An answer, as far as recording needs it.
#[derive(Debug, Deserialize)]
pub struct EmbeddingsResponse<'a> {
    /// The model that the provider says it used.
    #[serde(borrow, default)]
    pub model: Option<&'a RawValue>,
    /// The vectors; one more than [`INPUTS_MAX`] at most.
    #[serde(borrow, deserialize_with = "at_most::list::<_, _, INPUTS_MAX>")]
    pub data: Vec<&'a RawValue>,
    /// The usage block.
    #[serde(borrow, default)]
    pub usage: Option<&'a RawValue>,
}

/// The tokens of a usage block, all of them of the input.
pub fn usage(raw: &RawValue) -> Option<TokenUsage> {
    #[derive(Deserialize)]
    struct Usage {
        prompt_tokens: u64,
    }
    let usage: Usage = serde_json::from_str(raw.get()).ok()?;
    Some(TokenUsage {
        input_tokens: usage.prompt_tokens,
        output_tokens: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(input: &str) -> Result<Vec<Input<'static>>, BadRequest> {
        let body = format!(r#"{{"model":"m","input":{input}}}"#);
        EmbeddingsRequest::parse(body.as_bytes()).map(|request| {
            let inputs = request.inputs.into_iter();
            let owned = |input| match input {
                Input::Text(text) => Input::Text(Cow::Owned(Cow::into_owned(text))),
                Input::Tokens(tokens) => Input::Tokens(tokens),
            };
            inputs.map(owned).collect()
        })
    }

    #[test]
    fn inputs_come_in_four_forms() {
        let text = |text: &'static str| Input::Text(text.into());
        for (input, expected) in [
            (r#""a""#, vec![text("a")]),
            (r#"["a","b\n"]"#, vec![text("a"), text("b\n")]),
            ("[1,2]", vec![Input::Tokens(vec![1, 2])]),
            (
                "[[1],[2,3]]",
                vec![Input::Tokens(vec![1]), Input::Tokens(vec![2, 3])],
            ),
        ] {
            assert_eq!(parse(input).unwrap(), expected);
        }
        let many = format!("[{}]", vec![r#""x""#; INPUTS_MAX + 1].join(","));
        let long = format!("[{}]", vec!["1"; TOKENS_MAX + 1].join(","));
        let one_is_long = format!("[[1],{long}]");
        for bad in [
            "null",
            "[]",
            "7",
            "{}",
            r#"["a",1]"#,
            "[-1]",
            "[1.5]",
            &many,
            &long,
            &one_is_long,
            "[[1],2]",
        ] {
            assert_eq!(
                parse(bad).unwrap_err().param.as_deref(),
                Some("input"),
                "{bad}"
            );
        }
    }

    #[test]
    fn other_members_are_checked_as_far_as_they_matter() {
        for (member, param) in [
            (r#""dimensions":0"#, "dimensions"),
            (r#""dimensions":"8""#, "dimensions"),
            (r#""encoding_format":"hex""#, "encoding_format"),
            (r#""user":7"#, "user"),
            (r#""model":"m""#, "model"),
        ] {
            let body = format!(r#"{{"model":"m","input":"x",{member}}}"#);
            let error = EmbeddingsRequest::parse(body.as_bytes()).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{member}");
        }
    }

    #[test]
    fn only_the_models_name_changes() {
        let body = Bytes::from_static(br#"{"input":[1, 2],"model":"m","novel":{"a" :1.0}}"#);
        let request = EmbeddingsRequest::parse(&body).unwrap();
        assert_eq!(request.body_for(&body, "m"), body);
        let changed = request.body_for(&body, "other");
        assert_eq!(
            changed,
            r#"{"input":[1, 2],"model":"other","novel":{"a" :1.0}}"#
        );
    }
}
