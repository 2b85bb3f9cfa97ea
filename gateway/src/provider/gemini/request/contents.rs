//! Messages as Gemini has them: contents made of parts, instructions apart.

use std::{borrow::Cow, collections::HashMap};

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::super::super::{
    ProviderError,
    translate::{
        data_url::DataUrl,
        members::{no_counterpart, wrong},
        message::{Message, Part as Given, PartKind, ToolCall, ToolResult},
    },
};

/// What Gemini 3 takes in place of the signature that it wants with each first function call of a
/// turn, where another model made the call. Google names it for this very case.
const SIGNED_BY_ANOTHER: &str = "skip_thought_signature_validator";

/// A conversation.
#[derive(Debug, Default)]
pub(super) struct Contents<'a> {
    /// Instructions, which stand before all else.
    pub(super) system: Option<Content<'a>>,
    pub(super) turns: Vec<Content<'a>>,
    /// The functions that were called, by the ids of the calls.
    called: HashMap<Cow<'a, str>, Cow<'a, str>>,
    needs_signatures: bool,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Content<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    parts: Vec<Part<'a>>,
}

#[derive(Debug, Serialize)]
struct Part<'a> {
    #[serde(flatten)]
    kind: Kind<'a>,
    #[serde(rename = "thoughtSignature", skip_serializing_if = "Option::is_none")]
    thought_signature: Option<Cow<'a, str>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum Kind<'a> {
    Text(Cow<'a, str>),
    #[serde(rename_all = "camelCase")]
    InlineData {
        mime_type: Cow<'a, str>,
        data: Cow<'a, str>,
    },
    FunctionCall {
        id: Cow<'a, str>,
        name: Cow<'a, str>,
        args: Box<RawValue>,
    },
    FunctionResponse {
        id: Cow<'a, str>,
        name: Cow<'a, str>,
        response: Box<RawValue>,
    },
}

impl<'a> From<Kind<'a>> for Part<'a> {
    fn from(kind: Kind<'a>) -> Self {
        Self {
            kind,
            thought_signature: None,
        }
    }
}

impl<'a> Contents<'a> {
    pub(super) fn of(messages: Vec<Message<'a>>, model: &str) -> Result<Self, ProviderError> {
        let mut contents = Self {
            // Earlier models know signatures, but do not insist on them.
            needs_signatures: !model.starts_with("gemini-1") && !model.starts_with("gemini-2"),
            ..Self::default()
        };
        for message in messages {
            contents.add(message)?;
        }
        Ok(contents)
    }

    fn add(&mut self, message: Message<'a>) -> Result<(), ProviderError> {
        match message {
            Message::System(given) => {
                for part in given {
                    if !matches!(part.kind, PartKind::Text(_)) {
                        return Err(no_counterpart(&part.path));
                    }
                    let system = self.system.get_or_insert_default();
                    system.parts.extend(self::part(part)?);
                }
            }
            Message::User(given) => {
                let parts = parts(given)?;
                self.turn("user", parts);
            }
            Message::Assistant {
                content,
                tool_calls,
                ..
            } => {
                let mut parts = parts(content)?;
                parts.extend(self.calls(tool_calls));
                self.turn("model", parts);
            }
            Message::Tool(result) => {
                let response = self.response(result)?;
                self.turn("user", vec![response.into()]);
            }
        }
        Ok(())
    }

    /// Adds to the last content if it is that role's, so that the results of functions that were
    /// called together come together. A message that holds nothing is no content.
    fn turn(&mut self, role: &'static str, parts: Vec<Part<'a>>) {
        if parts.is_empty() {
            return;
        }
        match self.turns.last_mut() {
            Some(last) if last.role == Some(role) => last.parts.extend(parts),
            _ => self.turns.push(Content {
                role: Some(role),
                parts,
            }),
        }
    }

    fn calls(&mut self, calls: Vec<ToolCall<'a>>) -> Vec<Part<'a>> {
        let mut parts: Vec<Part<'a>> = Vec::with_capacity(calls.len());
        for call in calls {
            self.called.insert(call.id.clone(), call.name.clone());
            let thought_signature = call.extra_content.and_then(signature);
            let kind = Kind::FunctionCall {
                id: call.id,
                name: call.name,
                args: call.arguments,
            };
            parts.push(Part {
                kind,
                thought_signature,
            });
        }
        let signed = parts.iter().any(|part| part.thought_signature.is_some());
        if let Some(first) = parts.first_mut()
            && self.needs_signatures
            && !signed
        {
            first.thought_signature = Some(SIGNED_BY_ANOTHER.into());
        }
        parts
    }

    fn response(&self, result: ToolResult<'a>) -> Result<Kind<'a>, ProviderError> {
        let name = self.called.get(&result.call).cloned().or(result.name);
        let name = name.ok_or_else(|| wrong(&result.path, "the id of an earlier tool call"))?;
        let mut text = String::new();
        for part in &result.content {
            let PartKind::Text(piece) = &part.kind else {
                return Err(no_counterpart(&part.path));
            };
            text += piece;
        }
        let response = match result.failed {
            Some(_) => to_raw_value(&Failure { error: &text }).ok(),
            None => object(&text),
        };
        let response = response
            .ok_or_else(|| wrong(&result.path, "of a message whose content can be written"))?;
        Ok(Kind::FunctionResponse {
            id: result.call,
            name,
            response,
        })
    }
}

/// The signature that came with a call, in the form in which it was given to the client.
fn signature(extra_content: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Extra<'a> {
        #[serde(borrow)]
        google: Google<'a>,
    }
    #[derive(Deserialize)]
    struct Google<'a> {
        #[serde(borrow)]
        thought_signature: Cow<'a, str>,
    }
    let extra: Extra<'_> = serde_json::from_str(extra_content.get()).ok()?;
    Some(extra.google.thought_signature)
}

/// What a function that failed gives back: `error` is the member that Gemini looks for.
#[derive(Serialize)]
struct Failure<'a> {
    error: &'a str,
}

/// A function gives back an object; `output` is the member that Gemini looks for in one that holds
/// plain text.
fn object(text: &str) -> Option<Box<RawValue>> {
    #[derive(Serialize)]
    struct Output<'a> {
        output: &'a str,
    }
    let raw = RawValue::from_string(text.trim().to_owned()).ok();
    match raw.filter(|raw| raw.get().starts_with('{')) {
        Some(object) => Some(object),
        None => to_raw_value(&Output { output: text }).ok(),
    }
}

fn parts(given: Vec<Given<'_>>) -> Result<Vec<Part<'_>>, ProviderError> {
    let parts = given.into_iter().map(part);
    parts.filter_map(Result::transpose).collect()
}

/// `None` for text that is empty.
fn part(given: Given<'_>) -> Result<Option<Part<'_>>, ProviderError> {
    let kind = match given.kind {
        PartKind::Text(text) if text.is_empty() => return Ok(None),
        PartKind::Text(text) => Kind::Text(text),
        PartKind::Image(url) => inline(&url, &format!("{}.image_url.url", given.path))?,
        PartKind::File { data_url, .. } => {
            inline(&data_url, &format!("{}.file.file_data", given.path))?
        }
        PartKind::Audio { format, base64 } => Kind::InlineData {
            mime_type: format!("audio/{format}").into(),
            data: base64,
        },
        PartKind::Block(_) => return Err(no_counterpart(&format!("{}.type", given.path))),
    };
    Ok(Some(kind.into()))
}

/// Gemini fetches nothing from elsewhere, and neither does the hub on a client's behalf.
fn inline<'a>(url: &str, param: &str) -> Result<Kind<'a>, ProviderError> {
    let data = DataUrl::parse(url)
        .ok_or_else(|| wrong(param, "a base64 data URL for the provider of this model"))?;
    Ok(Kind::InlineData {
        mime_type: data.media_type.to_owned().into(),
        data: data.base64.to_owned().into(),
    })
}
