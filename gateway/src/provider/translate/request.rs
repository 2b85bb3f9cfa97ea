//! The members of a request beside its messages.

use std::borrow::Cow;

use nexus_events::raw_object::RawObject;
use serde::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use super::members::{Members, is_void, no_counterpart, text, value, wrong};
use crate::{
    protocol::{
        at_most::{STOPS_MAX, Texts},
        openai::{self, Text},
    },
    provider::ProviderError,
};

/// A function that the model may call.
#[derive(Debug)]
pub(in crate::provider) struct Function<'a> {
    pub(in crate::provider) name: Cow<'a, str>,
    pub(in crate::provider) description: Option<Cow<'a, str>>,
    /// The JSON Schema of its arguments.
    pub(in crate::provider) parameters: Option<&'a RawValue>,
    /// Whether the arguments must keep to the schema.
    pub(in crate::provider) strict: bool,
    pub(in crate::provider) cache_control: Option<&'a RawValue>,
}

/// Whether the model is to call a function.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::provider) enum ToolChoice<'a> {
    None,
    Auto,
    /// Some function, whichever.
    Required,
    /// This function.
    Function(Cow<'a, str>),
}

/// The form that the answer is to have.
#[derive(Debug)]
pub(in crate::provider) enum ResponseFormat<'a> {
    Text,
    JsonObject,
    JsonSchema(Cow<'a, RawValue>),
}

/// Accepts a member that the adapter knows nothing of where it makes no difference, and refuses it
/// by its name where it does.
pub(in crate::provider) fn without_counterpart(
    name: &str,
    raw: &RawValue,
) -> Result<(), ProviderError> {
    let default = match name {
        // What the hub reads itself.
        "model" | "messages" | "stream" |
        // Hints about the cost of an answer, not about what it says.
        "prompt_cache_key" | "prompt_cache_retention" | "prompt_cache_options" | "cache_control"
        => true,
        "stream_options" => {
            // The usage is told to whoever asks for it; nobody else makes all chunks alike in length.
            let options = Members::read(name, raw)?;
            let asked = options.get("include_obfuscation");
            if asked.is_some_and(|raw| raw.get() != "false") {
                return Err(no_counterpart(&options.at("include_obfuscation")));
            }
            options.only(&["include_usage", "include_obfuscation"])?;
            true
        }
        // Without any of its members it asks for a search all the same.
        "web_search_options" => return Err(no_counterpart(name)),
        "n" => raw.get() == "1",
        "logprobs" | "store" => raw.get() == "false",
        "top_logprobs" => raw.get() == "0",
        "presence_penalty" | "frequency_penalty" => {
            value::<f64>(name, raw, "a number")? == 0.0
        }
        "parallel_tool_calls" => raw.get() == "true",
        "service_tier" => matches!(raw.get(), r#""auto""# | r#""default""#),
        "verbosity" => raw.get() == r#""medium""#,
        "modalities" => value::<Vec<Text<'_>>>(name, raw, "an array of strings")?
            .iter()
            .all(|modality| modality.as_str() == "text"),
        _ => false,
    };
    if default || is_void(raw) {
        Ok(())
    } else {
        Err(no_counterpart(name))
    }
}

/// `stop`: one string or several.
pub(in crate::provider) fn stop(raw: &RawValue) -> Result<Vec<Cow<'_, str>>, ProviderError> {
    let expected = format!("a string or an array of at most {STOPS_MAX} strings");
    let stop: Texts<'_, STOPS_MAX> = value("stop", raw, &expected)?;
    if stop.0.len() > STOPS_MAX {
        return Err(wrong("stop", &expected));
    }
    Ok(stop.0)
}

/// A count such as `max_tokens`, of one at least.
pub(in crate::provider) fn count(name: &str, raw: &RawValue) -> Result<u64, ProviderError> {
    let expected = "a whole number above zero";
    match value(name, raw, expected)? {
        0 => Err(wrong(name, expected)),
        count => Ok(count),
    }
}

/// A number, checked and passed on as the client wrote it.
pub(in crate::provider) fn number<'a>(
    name: &str,
    raw: &'a RawValue,
) -> Result<&'a RawValue, ProviderError> {
    value::<f64>(name, raw, "a number").map(|_| raw)
}

pub(in crate::provider) fn tools(raw: &RawValue) -> Result<Vec<Function<'_>>, ProviderError> {
    let tools: Vec<&RawValue> = value("tools", raw, "an array of objects")?;
    let tools = tools.into_iter().enumerate();
    tools
        .map(|(index, raw)| tool(&Members::read(format!("tools[{index}]"), raw)?))
        .collect()
}

fn tool<'a>(tool: &Members<'a>) -> Result<Function<'a>, ProviderError> {
    tool.only(&["type", "function", "cache_control"])?;
    if tool.required_text("type")? != "function" {
        return Err(no_counterpart(&tool.at("type")));
    }
    let function = tool
        .object("function")?
        .ok_or_else(|| wrong(&tool.at("function"), "an object"))?;
    function.only(&["name", "description", "parameters", "strict"])?;
    if let Some(parameters) = function.get("parameters") {
        Members::read(function.at("parameters"), parameters)?;
    }
    let strict = function.get("strict");
    Ok(Function {
        name: function.required_text("name")?,
        description: function.text("description")?,
        parameters: function.get("parameters"),
        strict: strict
            .map(|raw| value(&function.at("strict"), raw, "a boolean"))
            .transpose()?
            .unwrap_or(false),
        cache_control: tool.get("cache_control"),
    })
}

pub(in crate::provider) fn tool_choice(raw: &RawValue) -> Result<ToolChoice<'_>, ProviderError> {
    let name = "tool_choice";
    if raw.get().starts_with('"') {
        return match text(name, raw)?.as_ref() {
            "none" => Ok(ToolChoice::None),
            "auto" => Ok(ToolChoice::Auto),
            "required" => Ok(ToolChoice::Required),
            _ => Err(wrong(name, "`none`, `auto`, `required` or a function")),
        };
    }
    let choice = Members::read(name, raw)?;
    choice.only(&["type", "function"])?;
    match choice.object("function")? {
        Some(function) => {
            function.only(&["name"])?;
            Ok(ToolChoice::Function(function.required_text("name")?))
        }
        None => Err(no_counterpart(&choice.at("type"))),
    }
}

pub(in crate::provider) fn response_format(
    raw: &RawValue,
) -> Result<ResponseFormat<'_>, ProviderError> {
    let format = Members::read("response_format", raw)?;
    format.only(&["type", "json_schema"])?;
    match format.required_text("type")?.as_ref() {
        "text" => Ok(ResponseFormat::Text),
        "json_object" => Ok(ResponseFormat::JsonObject),
        "json_schema" => {
            let expected = "an object with a `schema`";
            let described = format
                .object("json_schema")?
                .ok_or_else(|| wrong(&format.at("json_schema"), expected))?;
            // The name is for the reader, and both providers keep to every schema strictly.
            described.only(&["name", "description", "schema", "strict"])?;
            let schema = described
                .object("schema")?
                .and(described.get("schema"))
                .ok_or_else(|| wrong(&described.at("schema"), "an object"))?;
            let description = described.text("description")?;
            with_description(schema, description.as_deref()).map(ResponseFormat::JsonSchema)
        }
        _ => Err(no_counterpart(&format.at("type"))),
    }
}

/// What the answer is for, where the schema itself has its place for it: before its own words.
fn with_description<'a>(
    schema: &'a RawValue,
    description: Option<&str>,
) -> Result<Cow<'a, RawValue>, ProviderError> {
    let Some(description) = description.filter(|text| !text.is_empty()) else {
        return Ok(Cow::Borrowed(schema));
    };
    let param = "response_format.json_schema.schema";
    let unreadable = |error: serde_json::Error| wrong(param, "an object").caused_by(error);
    let mut members = RawObject::parse(schema.get().as_bytes()).map_err(unreadable)?;
    let own = members.get("description").and_then(openai::text);
    let both = match own {
        Some(own) => format!("{description}\n\n{own}"),
        None => description.to_owned(),
    };
    members.retain(|name, _| name != "description");
    let both = to_raw_value(&both).map_err(unreadable)?;
    let described: Vec<(&str, &RawValue)> = std::iter::once(("description", &*both))
        .chain(members.iter())
        .collect();
    let schema = InOrder(described);
    to_raw_value(&schema).map(Cow::Owned).map_err(unreadable)
}

/// Members in an order that is kept.
struct InOrder<'a>(Vec<(&'a str, &'a RawValue)>);

impl Serialize for InOrder<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

/// Refuses a choice that demands a call where there is nothing to be called.
///
/// # Errors
/// [`ProviderError`], naming `tool_choice`.
pub(in crate::provider) fn choice_without_tools(
    choice: Option<&ToolChoice<'_>>,
) -> Result<(), ProviderError> {
    match choice {
        None | Some(ToolChoice::None | ToolChoice::Auto) => Ok(()),
        Some(ToolChoice::Required | ToolChoice::Function(_)) => {
            Err(wrong("tool_choice", "`none` or `auto` without `tools`"))
        }
    }
}
