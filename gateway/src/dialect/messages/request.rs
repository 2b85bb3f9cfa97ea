//! From a Messages request to a chat request.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};

use super::{
    super::{
        candidate::{Carriers, Extension},
        chat::{Function, JsonSchema, Request, ResponseFormat, Tool, ToolChoice},
        fields::{Fields, no_counterpart, wrong},
    },
    blocks,
};
use crate::protocol::openai::request::BadRequest;

const MEMBERS: &[&str] = &[
    "model",
    "messages",
    "max_tokens",
    "system",
    "metadata",
    "stop_sequences",
    "stream",
    "temperature",
    "top_k",
    "top_p",
    "thinking",
    "tools",
    "tool_choice",
    "output_config",
    "service_tier",
    "context_management",
    "cache_control",
];

/// Edits of a long conversation after which an answer has the same form as without them.
///
/// Others, such as compaction, put blocks into it that the form of chat has no place for.
const EDITS: [&str; 2] = ["clear_tool_uses_20250919", "clear_thinking_20251015"];

/// Where clients name the betas that they want to use, separated by commas.
const BETAS: HeaderName = HeaderName::from_static("anthropic-beta");

/// What the client wants to be accounted for at Anthropic, in accounts that are not its own.
const REFUSED_HEADERS: [&str; 2] = ["anthropic-user-profile-id", "anthropic-workspace-id"];

/// The chat request that says the same.
pub(super) fn to_chat(
    fields: &Fields<'_>,
    headers: &HeaderMap,
    carriers: &mut Carriers,
) -> Result<Bytes, BadRequest> {
    fields.only(MEMBERS)?;
    if let Some(name) = REFUSED_HEADERS
        .iter()
        .find(|name| headers.contains_key(**name))
    {
        return Err(no_counterpart(name));
    }
    let model = fields.required_text("model")?;
    let tokens_max = fields.count("max_tokens")?;
    if tokens_max.is_none() {
        return Err(wrong("max_tokens", "a whole number above zero"));
    }
    let mut request = Request {
        model,
        messages: blocks::messages(fields, carriers)?,
        tools: tools(fields)?,
        stop: fields.value("stop_sequences", "an array of strings")?,
        user: user(fields)?,
        anthropic_beta: betas(headers),
        ..Request::default()
    };
    request.streamed(fields.flag("stream")?.unwrap_or(false));
    for name in ["temperature", "top_p", "top_k"] {
        request.same(name, fields.number(name)?);
    }
    if fields.get("top_k").is_some() {
        carriers.must(Extension::TopK, "top_k")?;
    }
    thinking(fields, carriers, &mut request)?;
    tool_choice(fields, &mut request)?;
    output_config(fields, &mut request)?;
    service_tier(fields, carriers, &mut request)?;
    context_management(fields, carriers, &mut request)?;
    if fields.object("cache_control")?.is_some() {
        request.same("cache_control", fields.get("cache_control"));
    }
    request.carried_by(carriers, tokens_max);
    request.write()
}

fn betas(headers: &HeaderMap) -> Vec<Cow<'_, str>> {
    let values = headers.get_all(BETAS).iter();
    let names = values.filter_map(|value| value.to_str().ok());
    names
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(Cow::Borrowed)
        .collect()
}

/// `auto` is what the API does without the member.
fn service_tier<'a>(
    fields: &Fields<'a>,
    carriers: &mut Carriers,
    request: &mut Request<'a>,
) -> Result<(), BadRequest> {
    match fields.text("service_tier")?.as_deref() {
        None | Some("auto") => Ok(()),
        Some("standard_only") => {
            request.same("service_tier", fields.get("service_tier"));
            carriers.must(Extension::StandardTier, "service_tier")
        }
        Some(_) => Err(wrong("service_tier", "`auto` or `standard_only`")),
    }
}

fn context_management<'a>(
    fields: &Fields<'a>,
    carriers: &mut Carriers,
    request: &mut Request<'a>,
) -> Result<(), BadRequest> {
    let Some(management) = fields.object("context_management")? else {
        return Ok(());
    };
    management.only(&["edits"])?;
    let edits = management.objects("edits")?;
    for edit in &edits {
        if !EDITS.contains(&edit.required_text("type")?.as_ref()) {
            return Err(no_counterpart(&edit.at("type")));
        }
    }
    if edits.is_empty() {
        return Ok(());
    }
    request.same("context_management", fields.get("context_management"));
    carriers.must(Extension::ContextManagement, "context_management")
}

fn user<'a>(fields: &Fields<'a>) -> Result<Option<Cow<'a, str>>, BadRequest> {
    let Some(metadata) = fields.object("metadata")? else {
        return Ok(None);
    };
    metadata.only(&["user_id"])?;
    metadata.text("user_id")
}

/// `disabled` is what the API does without the member.
fn thinking<'a>(
    fields: &Fields<'a>,
    carriers: &mut Carriers,
    request: &mut Request<'a>,
) -> Result<(), BadRequest> {
    let Some(thinking) = fields.object("thinking")? else {
        return Ok(());
    };
    if thinking.required_text("type")? != "disabled" {
        carriers.must(Extension::Thinking, "thinking")?;
        request.same("thinking", fields.get("thinking"));
    }
    Ok(())
}

fn tools<'a>(fields: &Fields<'a>) -> Result<Vec<Tool<'a>>, BadRequest> {
    let tools = fields.objects("tools")?;
    tools.iter().map(tool).collect()
}

fn tool<'a>(tool: &Fields<'a>) -> Result<Tool<'a>, BadRequest> {
    // Tools with a type of their own run at Anthropic.
    if tool.text("type")?.is_some_and(|kind| kind != "custom") {
        return Err(no_counterpart(&tool.at("type")));
    }
    tool.only(&[
        "type",
        "name",
        "description",
        "input_schema",
        "strict",
        "cache_control",
    ])?;
    tool.required_object("input_schema")?;
    Ok(Tool {
        r#type: "function",
        function: Function {
            name: tool.required_text("name")?,
            description: tool.text("description")?,
            parameters: tool.get("input_schema"),
            strict: tool.flag("strict")?.filter(|strict| *strict),
        },
        cache_control: tool.get("cache_control"),
    })
}

fn tool_choice<'a>(fields: &Fields<'a>, request: &mut Request<'a>) -> Result<(), BadRequest> {
    let Some(choice) = fields.object("tool_choice")? else {
        return Ok(());
    };
    choice.only(&["type", "name", "disable_parallel_tool_use"])?;
    request.tool_choice = Some(match choice.required_text("type")?.as_ref() {
        "auto" => ToolChoice::Mode("auto"),
        "any" => ToolChoice::Mode("required"),
        "none" => ToolChoice::Mode("none"),
        "tool" => ToolChoice::function(choice.required_text("name")?),
        _ => {
            let expected = "`auto`, `any`, `tool` or `none`";
            return Err(wrong(&choice.at("type"), expected));
        }
    });
    if choice.flag("disable_parallel_tool_use")? == Some(true) {
        request.parallel_tool_calls = Some(false);
    }
    Ok(())
}

fn output_config<'a>(fields: &Fields<'a>, request: &mut Request<'a>) -> Result<(), BadRequest> {
    let Some(config) = fields.object("output_config")? else {
        return Ok(());
    };
    config.only(&["effort", "format"])?;
    request.reasoning_effort = config.text("effort")?;
    let Some(format) = config.object("format")? else {
        return Ok(());
    };
    format.only(&["type", "schema"])?;
    if format.required_text("type")? != "json_schema" {
        return Err(no_counterpart(&format.at("type")));
    }
    format.required_object("schema")?;
    let schema = format.get("schema");
    request.response_format = schema.map(|schema| ResponseFormat {
        r#type: "json_schema",
        json_schema: Some(JsonSchema {
            name: Cow::Borrowed("answer"),
            description: None,
            schema,
            strict: Some(true),
        }),
    });
    Ok(())
}
