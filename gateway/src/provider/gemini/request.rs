//! From a chat request to a `generateContent` request.

mod contents;

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use self::contents::{Content, Contents};
use super::super::{
    ProviderError,
    translate::{
        members::{text, value, wrong},
        message,
        request::{
            Function, ResponseFormat, ToolChoice, choice_without_tools, count, number,
            response_format, stop, tool_choice, tools, without_counterpart,
        },
    },
};
use crate::protocol::openai::{is_null, request::ChatRequest};

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    system_instruction: Option<Content<'a>>,
    contents: Vec<Content<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<[Tools<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_config: Option<ToolConfig<'a>>,
    generation_config: GenerationConfig<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Tools<'a> {
    function_declarations: Vec<Declaration<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Declaration<'a> {
    name: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<Cow<'a, str>>,
    /// `parameters` would take a part of JSON Schema only.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters_json_schema: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToolConfig<'a> {
    function_calling_config: FunctionCallingConfig<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FunctionCallingConfig<'a> {
    mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_function_names: Option<[Cow<'a, str>; 1]>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct GenerationConfig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    candidate_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_sequences: Option<Vec<Cow<'a, str>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    response_logprobs: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_mime_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_json_schema: Option<Cow<'a, RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_config: Option<ThinkingConfig>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ThinkingConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_level: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_budget: Option<u32>,
    /// Who asks for reasoning gets to see it, as `reasoning_content`.
    include_thoughts: bool,
}

/// What takes more than one member to decide.
#[derive(Default)]
struct Draft<'a> {
    config: GenerationConfig<'a>,
    max_tokens: Option<u64>,
    functions: Vec<Function<'a>>,
    tool_choice: Option<ToolChoice<'a>>,
}

/// The body for Gemini.
///
/// # Errors
/// [`ProviderError`], naming the member that Gemini has no counterpart for.
pub(super) fn encode(request: &ChatRequest<'_>, model: &str) -> Result<Bytes, ProviderError> {
    let mut draft = Draft::default();
    for (name, raw) in request.members.iter().filter(|(_, raw)| !is_null(raw)) {
        draft.member(name, raw, model)?;
    }
    draft.config.max_output_tokens = draft.config.max_output_tokens.or(draft.max_tokens);
    let contents = Contents::of(message::read(request)?, model)?;
    let body = Body {
        system_instruction: contents.system,
        contents: contents.turns,
        tool_config: draft.tool_config()?,
        tools: declarations(draft.functions),
        generation_config: draft.config,
    };
    let written = serde_json::to_vec(&body).map_err(|error| {
        ProviderError::unsupported("messages", "The request cannot be written.").caused_by(error)
    })?;
    Ok(written.into())
}

impl<'a> Draft<'a> {
    fn member(&mut self, name: &str, raw: &'a RawValue, model: &str) -> Result<(), ProviderError> {
        let config = &mut self.config;
        match name {
            "n" => config.candidate_count = Some(count(name, raw)?),
            "max_tokens" => self.max_tokens = Some(count(name, raw)?),
            "max_completion_tokens" => config.max_output_tokens = Some(count(name, raw)?),
            "stop" => config.stop_sequences = Some(stop(raw)?),
            "temperature" => config.temperature = Some(number(name, raw)?),
            "top_p" => config.top_p = Some(number(name, raw)?),
            "seed" => config.seed = Some(number(name, raw)?),
            "presence_penalty" => config.presence_penalty = Some(number(name, raw)?),
            "frequency_penalty" => config.frequency_penalty = Some(number(name, raw)?),
            "logprobs" => config.response_logprobs = value(name, raw, "a boolean")?,
            "top_logprobs" => {
                let logprobs = value(name, raw, "a whole number")?;
                config.logprobs = Some(logprobs).filter(|&logprobs| logprobs > 0);
            }
            "response_format" => match response_format(raw)? {
                ResponseFormat::Text => {}
                ResponseFormat::JsonObject => config.response_mime_type = Some(JSON),
                ResponseFormat::JsonSchema(schema) => {
                    config.response_mime_type = Some(JSON);
                    config.response_json_schema = Some(schema);
                }
            },
            "reasoning_effort" => {
                config.thinking_config = Some(thinking(text(name, raw)?.as_ref(), model)?);
            }
            "tools" => self.functions = tools(raw)?,
            "tool_choice" => self.tool_choice = Some(tool_choice(raw)?),
            // The end user matters to the hub, which records the name; Gemini knows no users.
            "user" | "safety_identifier" => {}
            // Gemini's own, which clients send beside OpenAI's.
            "top_k" => config.top_k = Some(number(name, raw)?),
            _ => without_counterpart(name, raw)?,
        }
        Ok(())
    }

    fn tool_config(&mut self) -> Result<Option<ToolConfig<'a>>, ProviderError> {
        if self.functions.is_empty() {
            choice_without_tools(self.tool_choice.as_ref())?;
            return Ok(None);
        }
        let strict = self.functions.iter().any(|function| function.strict);
        let (mode, name) = match self.tool_choice.take() {
            // The model may call functions, and where it does, it keeps to their schemas.
            None | Some(ToolChoice::Auto) if strict => ("VALIDATED", None),
            None => return Ok(None),
            Some(ToolChoice::Auto) => ("AUTO", None),
            Some(ToolChoice::None) => ("NONE", None),
            Some(ToolChoice::Required) => ("ANY", None),
            Some(ToolChoice::Function(name)) => ("ANY", Some(name)),
        };
        Ok(Some(ToolConfig {
            function_calling_config: FunctionCallingConfig {
                mode,
                allowed_function_names: name.map(|name| [name]),
            },
        }))
    }
}

const JSON: &str = "application/json";

fn declarations(functions: Vec<Function<'_>>) -> Option<[Tools<'_>; 1]> {
    let declarations = functions.into_iter().map(|function| Declaration {
        name: function.name,
        description: function.description,
        parameters_json_schema: function.parameters,
    });
    let function_declarations: Vec<_> = declarations.collect();
    (!function_declarations.is_empty()).then_some([Tools {
        function_declarations,
    }])
}

/// Gemini 2.5 takes a budget of tokens, later models a level; the budgets are those that Google's
/// own OpenAI endpoint puts in the place of the levels.
fn thinking(effort: &str, model: &str) -> Result<ThinkingConfig, ProviderError> {
    let (level, budget) = match effort {
        "none" => (None, Some(0)),
        "minimal" => (Some("minimal"), Some(1024)),
        "low" => (Some("low"), Some(1024)),
        "medium" => (Some("medium"), Some(8192)),
        "high" => (Some("high"), Some(24_576)),
        _ => (None, None),
    };
    let by_budget = model.starts_with("gemini-2");
    let (thinking_level, thinking_budget) = if by_budget {
        (None, budget)
    } else {
        (level, None)
    };
    if thinking_level.is_none() && thinking_budget.is_none() {
        let expected = "`minimal`, `low`, `medium` or `high` for the provider of this model";
        return Err(wrong("reasoning_effort", expected));
    }
    Ok(ThinkingConfig {
        thinking_level,
        thinking_budget,
        include_thoughts: effort != "none",
    })
}
