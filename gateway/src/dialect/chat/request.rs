//! A chat request as dialects write it.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::protocol::openai::request::BadRequest;

/// A chat request in the making; absent members are left out.
#[derive(Debug, Default, Serialize)]
pub(in crate::dialect) struct Request<'a> {
    pub(in crate::dialect) model: Cow<'a, str>,
    pub(in crate::dialect) messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(in crate::dialect) tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::dialect) tool_choice: Option<ToolChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::dialect) parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::dialect) max_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::dialect) max_completion_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::dialect) stop: Option<Vec<Cow<'a, str>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::dialect) response_format: Option<ResponseFormat<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::dialect) reasoning_effort: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::dialect) user: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::dialect) stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::dialect) stream_options: Option<StreamOptions>,
    /// Names of Anthropic's betas.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(in crate::dialect) anthropic_beta: Vec<Cow<'a, str>>,
    /// Members that are the same in both forms.
    #[serde(flatten)]
    pub(in crate::dialect) same: BTreeMap<&'static str, &'a RawValue>,
}

#[derive(Debug, Serialize)]
pub(in crate::dialect) struct StreamOptions {
    include_usage: bool,
}

#[derive(Debug, Default, Serialize)]
pub(in crate::dialect) struct Message<'a> {
    pub(in crate::dialect) role: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::dialect) content: Option<Content<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::dialect) reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::dialect) reasoning: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(in crate::dialect) thinking_blocks: Vec<Cow<'a, RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(in crate::dialect) tool_calls: Vec<ToolCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::dialect) tool_call_id: Option<Cow<'a, str>>,
    /// The tool failed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::dialect) is_error: bool,
    /// A mark behind its last tool call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::dialect) cache_control: Option<&'a RawValue>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(in crate::dialect) enum Content<'a> {
    Text(Cow<'a, str>),
    Parts(Vec<Part<'a>>),
}

#[derive(Debug, Serialize)]
pub(in crate::dialect) struct Part<'a> {
    #[serde(flatten)]
    pub(in crate::dialect) kind: PartKind<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::dialect) cache_control: Option<&'a RawValue>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(in crate::dialect) enum PartKind<'a> {
    Text {
        text: Cow<'a, str>,
    },
    ImageUrl {
        image_url: ImageUrl<'a>,
    },
    File {
        file: File<'a>,
    },
    Refusal {
        refusal: Cow<'a, str>,
    },
    /// Anthropic's, as it came.
    Document {
        source: &'a RawValue,
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        context: Option<&'a RawValue>,
    },
    /// Anthropic's, as it came.
    SearchResult {
        source: Cow<'a, str>,
        title: Cow<'a, str>,
        content: &'a RawValue,
    },
}

#[derive(Debug, Serialize)]
pub(in crate::dialect) struct ImageUrl<'a> {
    pub(in crate::dialect) url: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::dialect) detail: Option<Cow<'a, str>>,
}

#[derive(Debug, Serialize)]
pub(in crate::dialect) struct File<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::dialect) filename: Option<Cow<'a, str>>,
    pub(in crate::dialect) file_data: Cow<'a, str>,
}

#[derive(Debug, Serialize)]
pub(in crate::dialect) struct ToolCall<'a> {
    pub(in crate::dialect) id: Cow<'a, str>,
    pub(in crate::dialect) r#type: &'static str,
    pub(in crate::dialect) function: FunctionCall<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::dialect) extra_content: Option<Box<RawValue>>,
}

#[derive(Debug, Serialize)]
pub(in crate::dialect) struct FunctionCall<'a> {
    pub(in crate::dialect) name: Cow<'a, str>,
    pub(in crate::dialect) arguments: Cow<'a, str>,
}

#[derive(Debug, Serialize)]
pub(in crate::dialect) struct Tool<'a> {
    pub(in crate::dialect) r#type: &'static str,
    pub(in crate::dialect) function: Function<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::dialect) cache_control: Option<&'a RawValue>,
}

#[derive(Debug, Serialize)]
pub(in crate::dialect) struct Function<'a> {
    pub(in crate::dialect) name: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::dialect) description: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::dialect) parameters: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::dialect) strict: Option<bool>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(in crate::dialect) enum ToolChoice<'a> {
    /// `none`, `auto`, `required`.
    Mode(&'static str),
    Function {
        r#type: &'static str,
        function: Named<'a>,
    },
}

#[derive(Debug, Serialize)]
pub(in crate::dialect) struct Named<'a> {
    pub(in crate::dialect) name: Cow<'a, str>,
}

#[derive(Debug, Serialize)]
pub(in crate::dialect) struct ResponseFormat<'a> {
    pub(in crate::dialect) r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::dialect) json_schema: Option<JsonSchema<'a>>,
}

#[derive(Debug, Serialize)]
pub(in crate::dialect) struct JsonSchema<'a> {
    pub(in crate::dialect) name: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::dialect) description: Option<Cow<'a, str>>,
    pub(in crate::dialect) schema: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::dialect) strict: Option<bool>,
}

impl<'a> Request<'a> {
    /// Sets whether the answer is to be streamed; a stream always tells its usage.
    pub(in crate::dialect) fn streamed(&mut self, stream: bool) {
        self.stream = stream;
        self.stream_options = stream.then_some(StreamOptions {
            include_usage: true,
        });
    }

    /// Takes a member over as it came.
    pub(in crate::dialect) fn same(&mut self, name: &'static str, value: Option<&'a RawValue>) {
        if let Some(value) = value {
            self.same.insert(name, value);
        }
    }

    pub(in crate::dialect) fn write(&self) -> Result<Bytes, BadRequest> {
        let written = serde_json::to_vec(self).map_err(|error| BadRequest {
            param: None,
            message: format!("The request cannot be translated: {error}."),
        })?;
        Ok(written.into())
    }
}

impl<'a> Message<'a> {
    pub(in crate::dialect) fn new(role: impl Into<Cow<'a, str>>, content: Content<'a>) -> Self {
        Self {
            role: role.into(),
            content: Some(content),
            ..Self::default()
        }
    }
}

impl<'a> Content<'a> {
    /// Parts as simple as they can be said: one text is a string.
    pub(in crate::dialect) fn of(mut parts: Vec<Part<'a>>) -> Self {
        match parts.as_mut_slice() {
            [
                Part {
                    kind: PartKind::Text { text },
                    cache_control: None,
                },
            ] => Self::Text(std::mem::take(text)),
            _ => Self::Parts(parts),
        }
    }
}

impl<'a> Part<'a> {
    pub(in crate::dialect) const fn new(kind: PartKind<'a>) -> Self {
        Self {
            kind,
            cache_control: None,
        }
    }

    pub(in crate::dialect) fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::new(PartKind::Text { text: text.into() })
    }

    pub(in crate::dialect) const fn image(url: Cow<'a, str>, detail: Option<Cow<'a, str>>) -> Self {
        Self::new(PartKind::ImageUrl {
            image_url: ImageUrl { url, detail },
        })
    }
}

impl<'a> ToolCall<'a> {
    pub(in crate::dialect) const fn new(
        id: Cow<'a, str>,
        name: Cow<'a, str>,
        arguments: Cow<'a, str>,
    ) -> Self {
        Self {
            id,
            r#type: "function",
            function: FunctionCall { name, arguments },
            extra_content: None,
        }
    }
}

impl<'a> ToolChoice<'a> {
    pub(in crate::dialect) const fn function(name: Cow<'a, str>) -> Self {
        Self::Function {
            r#type: "function",
            function: Named { name },
        }
    }
}
