//! From a Responses request to a chat request.

use std::borrow::Cow;

use bytes::Bytes;

use super::{
    super::{
        candidate::Carriers,
        chat::{Function, JsonSchema, Request, ResponseFormat, Tool, ToolChoice},
        fields::{Fields, no_counterpart, wrong},
    },
    input,
};
use crate::protocol::openai::{Text, request::BadRequest};

const MEMBERS: &[&str] = &[
    "model",
    "input",
    "instructions",
    "max_output_tokens",
    "temperature",
    "top_p",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "text",
    "reasoning",
    "include",
    "metadata",
    "store",
    "stream",
    "stream_options",
    "truncation",
    "background",
    "top_logprobs",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "service_tier",
];

/// Texts that chat completions have under the same name.
const SAME: [&str; 4] = [
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "service_tier",
];

/// The chat request that says the same.
pub(super) fn to_chat(fields: &Fields<'_>, carriers: &mut Carriers) -> Result<Bytes, BadRequest> {
    fields.only(MEMBERS)?;
    makes_no_difference(fields)?;
    let mut request = Request {
        model: fields.required_text("model")?,
        messages: input::messages(fields, carriers)?,
        tools: tools(fields)?,
        parallel_tool_calls: fields.flag("parallel_tool_calls")?,
        user: fields.text("user")?,
        ..Request::default()
    };
    request.streamed(fields.flag("stream")?.unwrap_or(false));
    for name in ["temperature", "top_p"] {
        request.same(name, fields.number(name)?);
    }
    for name in SAME {
        fields.text(name)?;
        request.same(name, fields.get(name));
    }
    tool_choice(fields, &mut request)?;
    text(fields, &mut request)?;
    reasoning(fields, &mut request)?;
    // Without tools there is nothing to choose from, and some providers say so with an error.
    if request.tools.is_empty() {
        request.parallel_tool_calls = None;
        if matches!(request.tool_choice, Some(ToolChoice::Mode("auto" | "none"))) {
            request.tool_choice = None;
        }
    }
    request.carried_by(carriers, fields.count("max_output_tokens")?);
    request.write()
}

/// Members that are accepted with the one value that asks for nothing.
fn makes_no_difference(fields: &Fields<'_>) -> Result<(), BadRequest> {
    fields.flag("store")?;
    fields.object("metadata")?;
    if fields.flag("background")? == Some(true) {
        return Err(no_counterpart("background"));
    }
    if fields
        .text("truncation")?
        .is_some_and(|how| how != "disabled")
    {
        return Err(no_counterpart("truncation"));
    }
    let expected = "a whole number";
    if fields.value::<u64>("top_logprobs", expected)?.unwrap_or(0) > 0 {
        return Err(no_counterpart("top_logprobs"));
    }
    if let Some(options) = fields.object("stream_options")? {
        options.only(&["include_obfuscation"])?;
        if options.flag("include_obfuscation")? == Some(true) {
            return Err(no_counterpart(&options.at("include_obfuscation")));
        }
    }
    let included: Option<Vec<Text<'_>>> = fields.value("include", "an array of strings")?;
    let included = included.unwrap_or_default();
    if included
        .iter()
        .any(|what| what.as_str() != "reasoning.encrypted_content")
    {
        return Err(no_counterpart("include"));
    }
    Ok(())
}

fn tools<'a>(fields: &Fields<'a>) -> Result<Vec<Tool<'a>>, BadRequest> {
    let tools = fields.objects("tools")?;
    tools.iter().map(tool).collect()
}

fn tool<'a>(tool: &Fields<'a>) -> Result<Tool<'a>, BadRequest> {
    if tool.required_text("type")? != "function" {
        return Err(no_counterpart(&tool.at("type")));
    }
    tool.only(&["type", "name", "description", "parameters", "strict"])?;
    tool.object("parameters")?;
    Ok(Tool {
        r#type: "function",
        function: Function {
            name: tool.required_text("name")?,
            description: tool.text("description")?,
            parameters: tool.get("parameters"),
            strict: tool.flag("strict")?,
        },
        cache_control: None,
    })
}

fn tool_choice<'a>(fields: &Fields<'a>, request: &mut Request<'a>) -> Result<(), BadRequest> {
    let Some(raw) = fields.get("tool_choice") else {
        return Ok(());
    };
    let choice = if raw.get().starts_with('"') {
        match fields.required_text("tool_choice")?.as_ref() {
            "none" => ToolChoice::Mode("none"),
            "auto" => ToolChoice::Mode("auto"),
            "required" => ToolChoice::Mode("required"),
            _ => {
                let expected = "`none`, `auto`, `required` or a function";
                return Err(wrong("tool_choice", expected));
            }
        }
    } else {
        let choice = fields.required_object("tool_choice")?;
        if choice.required_text("type")? != "function" {
            return Err(no_counterpart(&choice.at("type")));
        }
        choice.only(&["type", "name"])?;
        ToolChoice::function(choice.required_text("name")?)
    };
    request.tool_choice = Some(choice);
    Ok(())
}

fn text<'a>(fields: &Fields<'a>, request: &mut Request<'a>) -> Result<(), BadRequest> {
    let Some(text) = fields.object("text")? else {
        return Ok(());
    };
    text.only(&["format", "verbosity"])?;
    text.text("verbosity")?;
    request.same("verbosity", text.get("verbosity"));
    let Some(format) = text.object("format")? else {
        return Ok(());
    };
    format.only(&["type", "name", "description", "schema", "strict"])?;
    let (r#type, json_schema) = match format.required_text("type")?.as_ref() {
        "text" => return Ok(()),
        "json_object" => ("json_object", None),
        "json_schema" => ("json_schema", Some(json_schema(&format)?)),
        _ => return Err(no_counterpart(&format.at("type"))),
    };
    request.response_format = Some(ResponseFormat {
        r#type,
        json_schema,
    });
    Ok(())
}

fn json_schema<'a>(format: &Fields<'a>) -> Result<JsonSchema<'a>, BadRequest> {
    let schema = format.object("schema")?.and(format.get("schema"));
    Ok(JsonSchema {
        name: format.required_text("name")?,
        description: format.text("description")?,
        schema: schema.ok_or_else(|| wrong(&format.at("schema"), "an object"))?,
        strict: format.flag("strict")?,
    })
}

/// What a provider tells of its reasoning is passed on anyway, which is all that `auto` asks for.
fn reasoning<'a>(fields: &Fields<'a>, request: &mut Request<'a>) -> Result<(), BadRequest> {
    let Some(reasoning) = fields.object("reasoning")? else {
        return Ok(());
    };
    reasoning.only(&["effort", "summary", "generate_summary"])?;
    for name in ["summary", "generate_summary"] {
        let asked: Option<Cow<'_, str>> = reasoning.text(name)?;
        if asked.is_some_and(|asked| asked != "auto") {
            return Err(no_counterpart(&reasoning.at(name)));
        }
    }
    request.reasoning_effort = reasoning.text("effort")?;
    Ok(())
}
