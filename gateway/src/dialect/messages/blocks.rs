//! Instructions and turns of content blocks, as chat messages.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{
    super::{
        candidate::{Carriers, Extension},
        chat::{Content, Message, Part, PartKind, ToolCall},
        fields::{Fields, no_counterpart, wrong},
        keepsake,
    },
    answer::OURS,
    document,
};
use crate::protocol::openai::request::BadRequest;

/// The chat messages of a request: its instructions, and its turns.
pub(super) fn messages<'a>(
    request: &Fields<'a>,
    carriers: &mut Carriers,
) -> Result<Vec<Message<'a>>, BadRequest> {
    let mut messages = Vec::new();
    let system: Vec<Part<'a>> = blocks(request, "system")?
        .into_iter()
        .map(|block| match block {
            Block::Text(text) => Ok(Part::text(text)),
            Block::Object(block) if block.required_text("type")? == "text" => {
                part(&block, carriers)
            }
            Block::Object(block) => Err(no_counterpart(&block.at("type"))),
        })
        .collect::<Result<_, _>>()?;
    if !system.is_empty() {
        messages.push(Message::new("system", Content::of(system)));
    }
    let turns = request.objects("messages")?;
    if turns.is_empty() {
        return Err(wrong("messages", "an array of objects that is not empty"));
    }
    for turn in &turns {
        turn.only(&["role", "content"])?;
        if turn.get("content").is_none() {
            return Err(wrong(
                &turn.at("content"),
                "a string or an array of objects",
            ));
        }
        match turn.required_text("role")?.as_ref() {
            "user" => user(turn, carriers, &mut messages)?,
            "assistant" => messages.push(assistant(turn, carriers)?),
            "system" => messages.push(Message::new("system", said(turn, carriers)?)),
            _ => return Err(wrong(&turn.at("role"), "`user` or `assistant`")),
        }
    }
    Ok(messages)
}

/// A block of content; a string is one block of text.
enum Block<'a> {
    Text(Cow<'a, str>),
    Object(Fields<'a>),
}

fn blocks<'a>(fields: &Fields<'a>, name: &str) -> Result<Vec<Block<'a>>, BadRequest> {
    match fields.get(name) {
        None => Ok(Vec::new()),
        Some(raw) if raw.get().starts_with('[') => {
            let blocks = fields.objects(name)?;
            Ok(blocks.into_iter().map(Block::Object).collect())
        }
        Some(_) => {
            let expected = "a string or an array of objects";
            let text = fields.text(name);
            let text = text.map_err(|_not_text| wrong(&fields.at(name), expected))?;
            Ok(text.into_iter().map(Block::Text).collect())
        }
    }
}

fn said<'a>(fields: &Fields<'a>, carriers: &mut Carriers) -> Result<Content<'a>, BadRequest> {
    let parts = blocks(fields, "content")?
        .into_iter()
        .map(|block| match block {
            Block::Text(text) => Ok(Part::text(text)),
            Block::Object(block) => part(&block, carriers),
        });
    Ok(Content::of(parts.collect::<Result<_, _>>()?))
}

/// Results of tools are messages of their own in chat; what stands between them is the user's.
fn user<'a>(
    turn: &Fields<'a>,
    carriers: &mut Carriers,
    messages: &mut Vec<Message<'a>>,
) -> Result<(), BadRequest> {
    let mut parts = Vec::new();
    let blocks = blocks(turn, "content")?;
    let is_empty = blocks.is_empty();
    for block in blocks {
        match block {
            Block::Text(text) => parts.push(Part::text(text)),
            Block::Object(block) if block.required_text("type")? == "tool_result" => {
                if !parts.is_empty() {
                    let parts = std::mem::take(&mut parts);
                    messages.push(Message::new("user", Content::of(parts)));
                }
                messages.push(tool_result(&block, carriers)?);
            }
            Block::Object(block) => parts.push(part(&block, carriers)?),
        }
    }
    if !parts.is_empty() || is_empty {
        messages.push(Message::new("user", Content::of(parts)));
    }
    Ok(())
}

fn tool_result<'a>(
    result: &Fields<'a>,
    carriers: &mut Carriers,
) -> Result<Message<'a>, BadRequest> {
    result.only(&[
        "type",
        "tool_use_id",
        "content",
        "is_error",
        "cache_control",
    ])?;
    let mut parts = Vec::new();
    for block in blocks(result, "content")? {
        match block {
            Block::Text(text) => parts.push(Part::text(text)),
            Block::Object(block) => parts.push(part(&block, carriers)?),
        }
    }
    if parts.is_empty() {
        parts.push(Part::text(""));
    }
    // The mark holds for all that comes before it, so that of the last part is the same.
    if let Some(last) = parts.last_mut()
        && let Some(mark) = result.get("cache_control")
    {
        last.cache_control = Some(mark);
    }
    Ok(Message {
        tool_call_id: Some(result.required_text("tool_use_id")?),
        is_error: result.flag("is_error")?.unwrap_or(false),
        ..Message::new("tool", Content::of(parts))
    })
}

fn assistant<'a>(turn: &Fields<'a>, carriers: &mut Carriers) -> Result<Message<'a>, BadRequest> {
    let mut message = Message {
        role: Cow::Borrowed("assistant"),
        ..Message::default()
    };
    let (mut parts, mut kept) = (Vec::new(), Vec::new());
    for block in blocks(turn, "content")? {
        let block = match block {
            Block::Text(text) => {
                parts.push(Part::text(text));
                continue;
            }
            Block::Object(block) => block,
        };
        match block.required_text("type")?.as_ref() {
            "tool_use" => {
                message.tool_calls.push(tool_use(&block)?);
                // The last one's holds for those before it as well.
                message.cache_control = block.get("cache_control").or(message.cache_control);
            }
            "thinking" => think(&block, carriers, &mut message)?,
            "redacted_thinking" => {
                block.only(&["type", "data"])?;
                if let Some(keepsake) = keepsake::read(&block.required_text("data")?) {
                    kept.push(keepsake);
                } else {
                    carriers.must(Extension::ThinkingBlocks, &block.at("data"))?;
                    message.thinking_blocks.push(Cow::Borrowed(block.raw()));
                }
            }
            _ => parts.push(part(&block, carriers)?),
        }
    }
    keepsake::give_back(kept, &mut message.tool_calls);
    if !parts.is_empty() || message.tool_calls.is_empty() {
        if parts.is_empty() {
            parts.push(Part::text(""));
        }
        message.content = Some(Content::of(parts));
    }
    Ok(message)
}

/// Reasoning goes back to where it came from; see the module's documentation.
fn think<'a>(
    block: &Fields<'a>,
    carriers: &mut Carriers,
    message: &mut Message<'a>,
) -> Result<(), BadRequest> {
    block.only(&["type", "thinking", "signature"])?;
    let thinking = block.required_text("thinking")?;
    let signature = block.text("signature")?.unwrap_or_default();
    match signature.strip_prefix(OURS) {
        Some("reasoning") => message
            .reasoning
            .get_or_insert_default()
            .push_str(&thinking),
        Some(_) => {
            let reasoning = message.reasoning_content.get_or_insert_default();
            reasoning.push_str(&thinking);
        }
        None => {
            carriers.must(Extension::ThinkingBlocks, &block.at("signature"))?;
            message.thinking_blocks.push(Cow::Borrowed(block.raw()));
        }
    }
    Ok(())
}

fn tool_use<'a>(call: &Fields<'a>) -> Result<ToolCall<'a>, BadRequest> {
    call.only(&["type", "id", "name", "input", "cache_control", "caller"])?;
    // Anything but the model itself is code that runs at Anthropic.
    if let Some(caller) = call.object("caller")?
        && caller.required_text("type")? != "direct"
    {
        return Err(no_counterpart(&caller.at("type")));
    }
    call.required_object("input")?;
    let arguments = call.get("input").map_or("{}", RawValue::get);
    Ok(ToolCall::new(
        call.required_text("id")?,
        call.required_text("name")?,
        Cow::Borrowed(arguments),
    ))
}

/// Text, an image or a document.
fn part<'a>(block: &Fields<'a>, carriers: &mut Carriers) -> Result<Part<'a>, BadRequest> {
    let kind = match block.required_text("type")?.as_ref() {
        "text" => {
            // Citations are of what Anthropic itself looked up.
            block.only(&["type", "text", "cache_control"])?;
            PartKind::Text {
                text: block.required_text("text")?,
            }
        }
        "image" => {
            block.only(&["type", "source", "cache_control"])?;
            Part::image(source(&block.required_object("source")?)?, None).kind
        }
        "document" => document::document(block, carriers)?,
        "search_result" => document::search_result(block, carriers)?,
        _ => return Err(no_counterpart(&block.at("type"))),
    };
    Ok(Part {
        kind,
        cache_control: block.get("cache_control"),
    })
}

fn source<'a>(source: &Fields<'a>) -> Result<Cow<'a, str>, BadRequest> {
    match source.required_text("type")?.as_ref() {
        "base64" => data_url(source),
        "url" => {
            source.only(&["type", "url"])?;
            source.required_text("url")
        }
        _ => Err(no_counterpart(&source.at("type"))),
    }
}

pub(super) fn data_url<'a>(source: &Fields<'a>) -> Result<Cow<'a, str>, BadRequest> {
    source.only(&["type", "media_type", "data"])?;
    let media_type = source.required_text("media_type")?;
    let data = source.required_text("data")?;
    Ok(format!("data:{media_type};base64,{data}").into())
}
