//! From a chat request to one of version 1.

use std::{borrow::Cow, collections::HashMap};

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::super::{
    ProviderError,
    translate::{
        members::{no_counterpart, text, wrong},
        message::{self, Message, Part, PartKind, ToolCall, ToolResult},
        request::{
            Function, ResponseFormat, ToolChoice, choice_without_tools, count, number,
            response_format, stop, tool_choice, tools, without_counterpart,
        },
    },
};
use crate::protocol::openai::{is_null, request::ChatRequest};

#[derive(Default, Serialize)]
struct Body<'a> {
    messages: Vec<Turn<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    penalty_score: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<Vec<Cow<'a, str>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disable_search: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    functions: Option<Vec<Declaration<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Chosen<'a>>,
}

/// A message; those of one role in a row are one, because roles alternate.
#[derive(Serialize)]
struct Turn<'a> {
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
    content: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_call: Option<Call<'a>>,
}

#[derive(Serialize)]
struct Call<'a> {
    name: Cow<'a, str>,
    /// A JSON object as a string.
    arguments: String,
}

#[derive(Serialize)]
struct Declaration<'a> {
    name: Cow<'a, str>,
    /// Required, and so are the parameters.
    description: Cow<'a, str>,
    parameters: Cow<'a, RawValue>,
}

#[derive(Serialize)]
struct Chosen<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    function: Named<'a>,
}

#[derive(Serialize)]
struct Named<'a> {
    name: Cow<'a, str>,
}

/// What takes more than one member to decide.
#[derive(Default)]
struct Draft<'a> {
    body: Body<'a>,
    max_tokens: Option<u64>,
    functions: Vec<Function<'a>>,
    tool_choice: Option<ToolChoice<'a>>,
}

/// The body for the provider.
///
/// # Errors
/// [`ProviderError`], naming the member that it has no counterpart for.
pub(super) fn encode(request: &ChatRequest<'_>) -> Result<Bytes, ProviderError> {
    let mut draft = Draft::default();
    for (name, raw) in request.members.iter().filter(|(_, raw)| !is_null(raw)) {
        draft.member(name, raw)?;
    }
    let mut body = draft.finish()?;
    body.stream = request.stream;
    turns(&mut body, message::read(request)?)?;
    let written = serde_json::to_vec(&body).map_err(unwritten)?;
    Ok(written.into())
}

impl<'a> Draft<'a> {
    fn member(&mut self, name: &str, raw: &'a RawValue) -> Result<(), ProviderError> {
        let body = &mut self.body;
        match name {
            "max_tokens" => self.max_tokens = Some(count(name, raw)?),
            "max_completion_tokens" => body.max_output_tokens = Some(count(name, raw)?),
            "stop" => body.stop = Some(stop(raw)?),
            "temperature" => body.temperature = Some(number(name, raw)?),
            "top_p" => body.top_p = Some(number(name, raw)?),
            "user" => body.user_id = Some(text(name, raw)?),
            "response_format" => match response_format(raw)? {
                ResponseFormat::Text => {}
                ResponseFormat::JsonObject => body.response_format = Some("json_object"),
                ResponseFormat::JsonSchema(_) => return Err(no_counterpart("response_format")),
            },
            "tools" => self.functions = tools(raw)?,
            "tool_choice" => self.tool_choice = Some(tool_choice(raw)?),
            // The end user matters to the hub, which records the name; an answer holds one call at
            // most.
            "safety_identifier" | "parallel_tool_calls" => {}
            // The provider's own, which clients send beside OpenAI's.
            "penalty_score" => body.penalty_score = Some(number(name, raw)?),
            "disable_search" => body.disable_search = Some(raw),
            _ => without_counterpart(name, raw)?,
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Body<'a>, ProviderError> {
        let body = &mut self.body;
        body.max_output_tokens = body.max_output_tokens.or(self.max_tokens);
        if self.functions.is_empty() {
            choice_without_tools(self.tool_choice.as_ref())?;
            return Ok(self.body);
        }
        match self.tool_choice {
            None | Some(ToolChoice::Auto) => {}
            // Functions that are not to be called are not shown.
            Some(ToolChoice::None) => return Ok(self.body),
            Some(ToolChoice::Required) => return Err(no_counterpart("tool_choice")),
            Some(ToolChoice::Function(name)) => {
                body.tool_choice = Some(Chosen {
                    kind: "function",
                    function: Named { name },
                });
            }
        }
        let declared = self.functions.into_iter().enumerate();
        let declared = declared.map(|(index, function)| declaration(index, function));
        body.functions = Some(declared.collect::<Result<_, _>>()?);
        Ok(self.body)
    }
}

fn declaration(index: usize, function: Function<'_>) -> Result<Declaration<'_>, ProviderError> {
    if function.strict {
        return Err(no_counterpart(&format!("tools[{index}].function.strict")));
    }
    let parameters = if let Some(parameters) = function.parameters {
        Cow::Borrowed(parameters)
    } else {
        let none = serde_json::json!({"type": "object", "properties": {}});
        Cow::Owned(to_raw_value(&none).map_err(unwritten)?)
    };
    Ok(Declaration {
        name: function.name,
        description: function.description.unwrap_or_default(),
        parameters,
    })
}

fn turns<'a>(body: &mut Body<'a>, messages: Vec<Message<'a>>) -> Result<(), ProviderError> {
    let mut called: HashMap<Cow<'a, str>, Cow<'a, str>> = HashMap::new();
    for (index, message) in messages.into_iter().enumerate() {
        match message {
            Message::System(parts) => {
                join(body.system.get_or_insert_default(), &words(&parts)?);
            }
            Message::User(parts) => body.say("user", words(&parts)?),
            Message::Assistant {
                content,
                tool_calls,
                ..
            } => {
                body.say("assistant", words(&content)?);
                let one = one_call(index, tool_calls)?;
                if let Some(call) = &one {
                    called.insert(call.id.clone(), call.name.clone());
                }
                body.call(one);
            }
            Message::Tool(ToolResult {
                failed: Some(path), ..
            }) => return Err(no_counterpart(&path)),
            Message::Tool(result) => {
                let name = result.name.or_else(|| called.get(&result.call).cloned());
                let name = name.ok_or_else(|| wrong(&result.path, "the id of an earlier call"))?;
                body.messages.push(Turn {
                    role: "function",
                    name: Some(name),
                    content: words(&result.content)?,
                    function_call: None,
                });
            }
        }
    }
    Ok(())
}

impl<'a> Body<'a> {
    /// Adds to the last message if it is that role's and holds no call.
    fn say(&mut self, role: &'static str, content: String) {
        match self.messages.last_mut() {
            Some(last) if last.role == role && last.function_call.is_none() => {
                join(&mut last.content, &content);
            }
            _ => self.messages.push(Turn {
                role,
                name: None,
                content,
                function_call: None,
            }),
        }
    }

    /// Notes the call of the assistant's message that was said last.
    fn call(&mut self, call: Option<ToolCall<'a>>) {
        if let (Some(call), Some(last)) = (call, self.messages.last_mut()) {
            last.function_call = Some(Call {
                name: call.name,
                arguments: call.arguments.get().to_owned(),
            });
        }
    }
}

fn one_call(index: usize, calls: Vec<ToolCall<'_>>) -> Result<Option<ToolCall<'_>>, ProviderError> {
    let mut calls = calls.into_iter();
    let first = calls.next();
    if calls.next().is_some() {
        return Err(no_counterpart(&format!("messages[{index}].tool_calls[1]")));
    }
    Ok(first)
}

/// The text of a message; nothing else can be said.
fn words(parts: &[Part<'_>]) -> Result<String, ProviderError> {
    let mut said = String::new();
    for part in parts {
        match &part.kind {
            PartKind::Text(text) => join(&mut said, text),
            PartKind::Image(_)
            | PartKind::File { .. }
            | PartKind::Audio { .. }
            | PartKind::Block(_) => {
                return Err(no_counterpart(&part.path));
            }
        }
    }
    Ok(said)
}

/// Parts of one message are paragraphs.
fn join(said: &mut String, text: &str) {
    if !said.is_empty() && !text.is_empty() {
        said.push_str("\n\n");
    }
    said.push_str(text);
}

fn unwritten(error: serde_json::Error) -> ProviderError {
    ProviderError::unsupported("messages", "The request cannot be written.").caused_by(error)
}
