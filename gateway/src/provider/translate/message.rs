//! The messages of a request, read to the last member.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::members::{Members, no_counterpart, text, value, wrong};
use crate::{protocol::openai::request::ChatRequest, provider::ProviderError};

/// One message.
#[derive(Debug)]
pub(in crate::provider) enum Message<'a> {
    /// An instruction: of role `system` or, as newer clients call it, `developer`.
    System(Vec<Part<'a>>),
    User(Vec<Part<'a>>),
    Assistant {
        content: Vec<Part<'a>>,
        tool_calls: Vec<ToolCall<'a>>,
        /// Anthropic's reasoning as it gave it: objects of a known `type`. Nobody else can read it.
        thinking_blocks: Vec<&'a RawValue>,
        /// Anthropic's mark behind its last tool call.
        cache_control: Option<&'a RawValue>,
    },
    /// What a tool gave back.
    Tool(ToolResult<'a>),
}

/// A piece of a message's content.
#[derive(Debug)]
pub(in crate::provider) struct Part<'a> {
    /// Where in the request it stands.
    pub(in crate::provider) path: String,
    pub(in crate::provider) kind: PartKind<'a>,
    /// Anthropic's mark for its cache, which clients set through other gateways too. Elsewhere it
    /// is void: it changes what an answer costs, not what it says.
    pub(in crate::provider) cache_control: Option<&'a RawValue>,
}

#[derive(Debug)]
pub(in crate::provider) enum PartKind<'a> {
    Text(Cow<'a, str>),
    Image(Cow<'a, str>),
    File {
        name: Option<Cow<'a, str>>,
        data_url: Cow<'a, str>,
    },
    Audio {
        format: Cow<'a, str>,
        base64: Cow<'a, str>,
    },
    /// A document or a search result as Anthropic has it; nobody else can read it.
    Block(&'a RawValue),
}

/// A tool that the model wanted to be called.
#[derive(Debug)]
pub(in crate::provider) struct ToolCall<'a> {
    pub(in crate::provider) id: Cow<'a, str>,
    pub(in crate::provider) name: Cow<'a, str>,
    /// A JSON object.
    pub(in crate::provider) arguments: Box<RawValue>,
    /// What a provider wants to see again, in the form that Google's own OpenAI endpoint has.
    pub(in crate::provider) extra_content: Option<&'a RawValue>,
}

#[derive(Debug)]
pub(in crate::provider) struct ToolResult<'a> {
    pub(in crate::provider) path: String,
    pub(in crate::provider) call: Cow<'a, str>,
    pub(in crate::provider) name: Option<Cow<'a, str>>,
    pub(in crate::provider) content: Vec<Part<'a>>,
    /// Where in the request it stands that the tool failed; `None` where it did not.
    pub(in crate::provider) failed: Option<String>,
}

/// Reads the messages.
///
/// Instructions stand before all else in every protocol but OpenAI's. One that comes later is
/// refused: moved to the front it would be in force for what was said before it, and given to the
/// user it would lose its authority. The next provider may take it as it stands.
///
/// # Errors
/// [`ProviderError`]: something in them has no counterpart in any other protocol.
pub(in crate::provider) fn read<'a>(
    request: &ChatRequest<'a>,
) -> Result<Vec<Message<'a>>, ProviderError> {
    let mut messages = Vec::with_capacity(request.messages.len());
    let mut has_begun = false;
    for (index, raw) in request.messages.iter().enumerate() {
        let path = format!("messages[{index}]");
        let message = message(&Members::read(path.as_str(), raw)?)?;
        let is_instruction = matches!(message, Message::System(_));
        if is_instruction && has_begun {
            return Err(late_instruction(&path));
        }
        has_begun |= !is_instruction;
        messages.push(message);
    }
    Ok(messages)
}

fn late_instruction(path: &str) -> ProviderError {
    let message = format!(
        "The provider of this model takes system and developer messages before all others only: \
         `{path}` is one that comes later."
    );
    ProviderError::unsupported(path, message)
}

fn message<'a>(members: &Members<'a>) -> Result<Message<'a>, ProviderError> {
    let role = members.required_text("role")?;
    match role.as_ref() {
        "system" | "developer" => {
            members.only(&["role", "content"])?;
            Ok(Message::System(content(members)?))
        }
        "user" => {
            members.only(&["role", "content"])?;
            Ok(Message::User(content(members)?))
        }
        "assistant" => assistant(members),
        "tool" => {
            members.only(&["role", "content", "tool_call_id", "name", "is_error"])?;
            // No part of OpenAI's form: the dialect of Anthropic's clients has it from them.
            let is_error = members.get("is_error");
            let is_error = is_error.map(|raw| value(&members.at("is_error"), raw, "a boolean"));
            let is_error: bool = is_error.transpose()?.unwrap_or(false);
            Ok(Message::Tool(ToolResult {
                path: members.at("tool_call_id"),
                call: members.required_text("tool_call_id")?,
                name: members.text("name")?,
                content: content(members)?,
                failed: is_error.then(|| members.at("is_error")),
            }))
        }
        _ => Err(no_counterpart(&members.at("role"))),
    }
}

fn assistant<'a>(members: &Members<'a>) -> Result<Message<'a>, ProviderError> {
    // Reasoning in plain text and annotations are what an earlier answer came with. Providers take
    // reasoning only with its signature, and read no annotations: they say nothing to the model.
    members.only(&[
        "role",
        "content",
        "tool_calls",
        "refusal",
        "reasoning_content",
        "reasoning",
        "thinking_blocks",
        "annotations",
        "cache_control",
    ])?;
    let mut content = content(members)?;
    if let Some(refusal) = members.text("refusal")? {
        content.push(Part {
            path: members.at("refusal"),
            kind: PartKind::Text(refusal),
            cache_control: None,
        });
    }
    let tool_calls = list(members, "tool_calls")?;
    let tool_calls = tool_calls.iter().map(|(call, _)| tool_call(call));
    let thinking_blocks = list(members, "thinking_blocks")?;
    let thinking_blocks =
        thinking_blocks
            .iter()
            .map(|(block, raw)| match block.required_text("type")?.as_ref() {
                "thinking" | "redacted_thinking" => Ok(*raw),
                _ => Err(no_counterpart(&block.at("type"))),
            });
    Ok(Message::Assistant {
        content,
        tool_calls: tool_calls.collect::<Result<_, _>>()?,
        thinking_blocks: thinking_blocks.collect::<Result<_, ProviderError>>()?,
        cache_control: members.get("cache_control"),
    })
}

/// A member that is an array of objects, each read and as it came.
fn list<'a>(
    members: &Members<'a>,
    name: &str,
) -> Result<Vec<(Members<'a>, &'a RawValue)>, ProviderError> {
    let at = members.at(name);
    let Some(raw) = members.get(name) else {
        return Ok(Vec::new());
    };
    let items: Vec<&RawValue> = value(&at, raw, "an array of objects")?;
    let items = items.into_iter().enumerate();
    items
        .map(|(index, raw)| Ok((Members::read(format!("{at}[{index}]"), raw)?, raw)))
        .collect()
}

fn tool_call<'a>(members: &Members<'a>) -> Result<ToolCall<'a>, ProviderError> {
    // `index` is what careless clients leave of the stream that they put together.
    members.only(&["id", "type", "function", "index", "extra_content"])?;
    if members.text("type")?.is_some_and(|kind| kind != "function") {
        return Err(no_counterpart(&members.at("type")));
    }
    let function = members
        .object("function")?
        .ok_or_else(|| wrong(&members.at("function"), "an object"))?;
    function.only(&["name", "arguments"])?;
    let arguments = function.text("arguments")?.unwrap_or_default();
    Ok(ToolCall {
        id: members.required_text("id")?,
        name: function.required_text("name")?,
        arguments: object(&arguments)
            .ok_or_else(|| wrong(&function.at("arguments"), "a JSON object as a string"))?,
        extra_content: members.get("extra_content"),
    })
}

/// Arguments are a string that holds an object; of a tool without any, it may be empty.
fn object(arguments: &str) -> Option<Box<RawValue>> {
    let arguments = match arguments.trim() {
        "" => "{}",
        arguments => arguments,
    };
    let raw = RawValue::from_string(arguments.to_owned()).ok()?;
    raw.get().starts_with('{').then_some(raw)
}

fn content<'a>(members: &Members<'a>) -> Result<Vec<Part<'a>>, ProviderError> {
    let at = members.at("content");
    let Some(raw) = members.get("content") else {
        return Ok(Vec::new());
    };
    if !raw.get().starts_with('[') {
        let kind = PartKind::Text(text(&at, raw)?);
        return Ok(vec![Part {
            path: at,
            kind,
            cache_control: None,
        }]);
    }
    let parts: Vec<&RawValue> = value(&at, raw, "a string or an array of objects")?;
    let parts = parts.into_iter().enumerate();
    parts
        .map(|(index, raw)| part(format!("{at}[{index}]"), raw))
        .collect()
}

fn part(path: String, raw: &RawValue) -> Result<Part<'_>, ProviderError> {
    let members = Members::read(path.as_str(), raw)?;
    let kind = members.required_text("type")?;
    if matches!(kind.as_ref(), "document" | "search_result") {
        // OpenAI's form has no place for the citations of an answer.
        if let Some(citations) = members.object("citations")?
            && citations
                .get("enabled")
                .is_some_and(|raw| raw.get() != "false")
        {
            return Err(no_counterpart(&citations.at("enabled")));
        }
        return Ok(Part {
            path,
            kind: PartKind::Block(raw),
            cache_control: members.get("cache_control"),
        });
    }
    members.only(&["type", kind.as_ref(), "cache_control"])?;
    let kind = match kind.as_ref() {
        "text" => PartKind::Text(members.required_text("text")?),
        "refusal" => PartKind::Text(members.required_text("refusal")?),
        "image_url" => image(&inner(&members, "image_url")?)?,
        "file" => file(&inner(&members, "file")?)?,
        "input_audio" => audio(&inner(&members, "input_audio")?)?,
        _ => return Err(no_counterpart(&members.at("type"))),
    };
    Ok(Part {
        path,
        kind,
        cache_control: members.get("cache_control"),
    })
}

fn inner<'a>(members: &Members<'a>, name: &str) -> Result<Members<'a>, ProviderError> {
    members
        .object(name)?
        .ok_or_else(|| wrong(&members.at(name), "an object"))
}

fn image<'a>(image: &Members<'a>) -> Result<PartKind<'a>, ProviderError> {
    image.only(&["url", "detail"])?;
    // Others look at each image in full: `low` would be a saving that does not come.
    match image.text("detail")?.as_deref() {
        None | Some("auto" | "high") => Ok(PartKind::Image(image.required_text("url")?)),
        Some(_) => Err(no_counterpart(&image.at("detail"))),
    }
}

fn file<'a>(file: &Members<'a>) -> Result<PartKind<'a>, ProviderError> {
    // `file_id` names a file that only OpenAI has.
    file.only(&["filename", "file_data"])?;
    Ok(PartKind::File {
        name: file.text("filename")?,
        data_url: file.required_text("file_data")?,
    })
}

fn audio<'a>(audio: &Members<'a>) -> Result<PartKind<'a>, ProviderError> {
    audio.only(&["data", "format"])?;
    Ok(PartKind::Audio {
        format: audio.required_text("format")?,
        base64: audio.required_text("data")?,
    })
}
