//! From a chat request to a Messages request.

mod turns;

use std::borrow::Cow;

use bytes::Bytes;
use nexus_events::raw_object::RawObject;
use serde::Serialize;
use serde_json::value::RawValue;

use self::turns::Turns;
use super::super::{
    ProviderError,
    translate::{
        members::{no_counterpart, text, value, wrong},
        message,
        request::{
            Function, ResponseFormat, ToolChoice, choice_without_tools, count, number,
            response_format, stop, tool_choice, tools, without_counterpart,
        },
    },
};
use crate::protocol::openai::{is_null, request::ChatRequest};

/// Tokens of an answer for which the client names no bound, as the API demands one: 8192.
///
/// It is the most that every model since Claude 3.5 grants, and thinking has to find room in it.
const MAX_TOKENS: u64 = 8192;

/// The same for the models before Claude 3.5, which refuse more: 4096.
const MAX_TOKENS_EARLY: u64 = 4096;

/// The beta that `context_management` belongs to.
const CONTEXT_MANAGEMENT: &str = "context-management-2025-06-27";

#[derive(Default, Serialize)]
struct Body<'a> {
    model: &'a str,
    max_tokens: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    system: Vec<turns::Block<'a>>,
    messages: Vec<turns::Turn<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<OutputConfig<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_sequences: Option<Vec<Cow<'a, str>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context_management: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stream: bool,
}

#[derive(Serialize)]
struct Metadata<'a> {
    user_id: Cow<'a, str>,
}

#[derive(Serialize)]
struct Tool<'a> {
    name: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<Cow<'a, str>>,
    input_schema: InputSchema<'a>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    strict: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum InputSchema<'a> {
    Given(&'a RawValue),
    /// A function without parameters: the API demands a schema.
    Empty {
        r#type: &'static str,
    },
}

#[derive(Serialize)]
struct Choice<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    disable_parallel_tool_use: bool,
}

#[derive(Default, Serialize)]
struct OutputConfig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<Format<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effort: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
struct Format<'a> {
    r#type: &'static str,
    schema: Cow<'a, RawValue>,
}

/// What takes more than one member to decide.
#[derive(Default)]
struct Draft<'a> {
    body: Body<'a>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    tool_choice: Option<ToolChoice<'a>>,
    one_tool_at_a_time: bool,
    betas: Vec<Cow<'a, str>>,
}

/// A request for Anthropic.
pub(super) struct Encoded {
    pub(super) body: Bytes,
    /// The betas that it makes use of, as their header says them.
    pub(super) betas: Option<String>,
}

/// The request for Anthropic.
///
/// # Errors
/// [`ProviderError`], naming the member that Anthropic has no counterpart for.
pub(super) fn encode(request: &ChatRequest<'_>, model: &str) -> Result<Encoded, ProviderError> {
    let mut draft = Draft::default();
    draft.read(&request.members)?;
    let turns = Turns::of(message::read(request)?)?;
    let tool_choice = draft.choice()?;
    let betas = draft.betas();
    let body = Body {
        model,
        max_tokens: draft
            .max_completion_tokens
            .or(draft.max_tokens)
            .unwrap_or_else(|| max_tokens(model)),
        system: turns.system,
        messages: turns.turns,
        tool_choice,
        stream: request.stream,
        ..draft.body
    };
    let written = serde_json::to_vec(&body).map_err(|error| {
        ProviderError::unsupported("messages", "The request cannot be written.").caused_by(error)
    })?;
    Ok(Encoded {
        body: written.into(),
        betas,
    })
}

impl<'a> Draft<'a> {
    fn read(&mut self, members: &RawObject<'a>) -> Result<(), ProviderError> {
        for (name, raw) in members.iter().filter(|(_, raw)| !is_null(raw)) {
            self.member(name, raw)?;
        }
        Ok(())
    }

    fn member(&mut self, name: &str, raw: &'a RawValue) -> Result<(), ProviderError> {
        let body = &mut self.body;
        match name {
            "max_tokens" => self.max_tokens = Some(count(name, raw)?),
            "max_completion_tokens" => self.max_completion_tokens = Some(count(name, raw)?),
            "stop" => body.stop_sequences = Some(stop(raw)?),
            "temperature" => body.temperature = Some(temperature(name, raw)?),
            "top_p" => body.top_p = Some(number(name, raw)?),
            // Two names for one thing; the newer one has the say.
            "safety_identifier" => {
                let user_id = text(name, raw)?;
                body.metadata = Some(Metadata { user_id });
            }
            "user" => {
                let user_id = text(name, raw)?;
                body.metadata.get_or_insert(Metadata { user_id });
            }
            "tools" => body.tools = tools(raw)?.into_iter().map(tool).collect(),
            "tool_choice" => self.tool_choice = Some(tool_choice(raw)?),
            "parallel_tool_calls" => {
                self.one_tool_at_a_time = !value::<bool>(name, raw, "a boolean")?;
            }
            "response_format" => match response_format(raw)? {
                ResponseFormat::Text => {}
                // There is no JSON without a schema; asking for it in words would be no promise.
                ResponseFormat::JsonObject => return Err(no_counterpart("response_format.type")),
                ResponseFormat::JsonSchema(schema) => {
                    let r#type = "json_schema";
                    let config = body.output_config.get_or_insert_default();
                    config.format = Some(Format { r#type, schema });
                }
            },
            "reasoning_effort" => {
                let effort = effort(name, raw)?;
                body.output_config.get_or_insert_default().effort = Some(effort);
            }
            // Anthropic's own, which clients send beside OpenAI's.
            "top_k" => body.top_k = Some(number(name, raw)?),
            "thinking" => body.thinking = Some(raw),
            "context_management" => body.context_management = Some(raw),
            "cache_control" => body.cache_control = Some(raw),
            "anthropic_beta" => self.betas = value(name, raw, "an array of strings")?,
            "service_tier" => body.service_tier = service_tier(name, raw)?,
            _ => without_counterpart(name, raw)?,
        }
        Ok(())
    }

    /// What is still a beta and stands in the body is named as well, whoever forgot it.
    fn betas(&mut self) -> Option<String> {
        let begins = |name: &Cow<'_, str>| name.starts_with("context-management-");
        if self.body.context_management.is_some() && !self.betas.iter().any(begins) {
            self.betas.push(CONTEXT_MANAGEMENT.into());
        }
        (!self.betas.is_empty()).then(|| self.betas.join(","))
    }

    fn choice(&mut self) -> Result<Option<Choice<'a>>, ProviderError> {
        if self.body.tools.is_empty() {
            choice_without_tools(self.tool_choice.as_ref())?;
            return Ok(None);
        }
        let (r#type, name) = match self.tool_choice.take() {
            None if !self.one_tool_at_a_time => return Ok(None),
            None | Some(ToolChoice::Auto) => ("auto", None),
            Some(ToolChoice::None) => ("none", None),
            Some(ToolChoice::Required) => ("any", None),
            Some(ToolChoice::Function(name)) => ("tool", Some(name)),
        };
        Ok(Some(Choice {
            r#type,
            name,
            disable_parallel_tool_use: self.one_tool_at_a_time && r#type != "none",
        }))
    }
}

/// The bound of an answer for which the client names none, by the provider's name of the model.
///
/// Models before Claude 3.5 write no more than 4096 tokens, and refuse a larger bound.
fn max_tokens(model: &str) -> u64 {
    // Resellers put the vendor's name in front: `anthropic/claude-3-haiku`, `anthropic.claude-v2`.
    let name = model.find("claude").and_then(|at| model.get(at..));
    let is_early = name.is_some_and(|name| {
        [
            "claude-instant",
            "claude-2",
            "claude-v2",
            "claude-3-haiku",
            "claude-3-sonnet",
            "claude-3-opus",
        ]
        .iter()
        .any(|early| name.starts_with(early))
    });
    if is_early {
        MAX_TOKENS_EARLY
    } else {
        MAX_TOKENS
    }
}

/// `default` is OpenAI's word for the tier that is nobody's own.
fn service_tier(name: &str, raw: &RawValue) -> Result<Option<&'static str>, ProviderError> {
    match text(name, raw)?.as_ref() {
        "auto" => Ok(None),
        "default" | "standard_only" => Ok(Some("standard_only")),
        _ => Err(no_counterpart(name)),
    }
}

/// OpenAI's scale ends at 2, Anthropic's at 1.
fn temperature<'a>(name: &str, raw: &'a RawValue) -> Result<&'a RawValue, ProviderError> {
    let expected = "a number from 0 to 1 for the provider of this model";
    if (0.0..=1.0).contains(&value::<f64>(name, raw, expected)?) {
        Ok(raw)
    } else {
        Err(wrong(name, expected))
    }
}

/// How hard the model tries, with or without thinking; it cannot be told not to think by it.
fn effort<'a>(name: &str, raw: &'a RawValue) -> Result<Cow<'a, str>, ProviderError> {
    let effort = text(name, raw)?;
    if matches!(effort.as_ref(), "low" | "medium" | "high" | "xhigh" | "max") {
        Ok(effort)
    } else {
        let expected = "`low`, `medium`, `high` or `xhigh` for the provider of this model";
        Err(wrong(name, expected))
    }
}

fn tool(function: Function<'_>) -> Tool<'_> {
    let empty = InputSchema::Empty { r#type: "object" };
    Tool {
        name: function.name,
        description: function.description,
        input_schema: function.parameters.map_or(empty, InputSchema::Given),
        strict: function.strict,
        cache_control: function.cache_control,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_model_is_asked_for_more_than_it_grants() {
        for (model, expected) in [
            ("claude-3-haiku-20240307", 4096),
            ("anthropic/claude-3-opus", 4096),
            ("anthropic.claude-v2:1", 4096),
            ("claude-instant-1.2", 4096),
            ("claude-3-5-haiku-latest", 8192),
            ("claude-3.5-sonnet", 8192),
            ("claude-3-7-sonnet", 8192),
            ("claude-haiku-4-5", 8192),
            ("my-own", 8192),
        ] {
            assert_eq!(max_tokens(model), expected, "{model}");
        }
    }
}
