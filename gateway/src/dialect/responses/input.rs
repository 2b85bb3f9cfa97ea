//! Instructions and input items, as chat messages.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{
    super::{
        candidate::{Carriers, Extension},
        chat::{Content, File, Message, Part, PartKind, ToolCall},
        fields::{Fields, no_counterpart, wrong},
        keepsake::{self, Keepsake},
    },
    item::IN_REASONING,
};
use crate::protocol::openai::request::BadRequest;

/// The chat messages of a request.
pub(super) fn messages<'a>(
    request: &Fields<'a>,
    carriers: &mut Carriers,
) -> Result<Vec<Message<'a>>, BadRequest> {
    let mut messages = Vec::new();
    if let Some(instructions) = request.text("instructions")? {
        messages.push(Message::new("system", Content::Text(instructions)));
    }
    let expected = "a string or an array of objects that is not empty";
    let Some(raw) = request.get("input") else {
        return Err(wrong("input", expected));
    };
    if !raw.get().starts_with('[') {
        let text = request.text("input");
        let text = text.map_err(|_no_text| wrong("input", expected))?;
        let text = text.unwrap_or_default();
        messages.push(Message::new("user", Content::Text(text)));
        return Ok(messages);
    }
    let mut kept = Vec::new();
    let items = request.objects("input")?;
    if items.is_empty() {
        return Err(wrong("input", expected));
    }
    for item in &items {
        match item.text("type")?.as_deref() {
            None | Some("message") => said(item, &mut messages)?,
            Some("function_call") => {
                let call = function_call(item)?;
                let calls = &mut answer(&mut messages).tool_calls;
                calls.push(call);
                keepsake::give_back(std::mem::take(&mut kept), calls);
            }
            Some("function_call_output") => messages.push(output(item)?),
            Some("reasoning") => match encrypted(item)? {
                Encrypted::Nothing => reasoning(item, &mut messages)?,
                Encrypted::OfCall(keepsake) => kept.push(keepsake),
                Encrypted::Thinking(block) => {
                    carriers.must(Extension::ThinkingBlocks, &item.at("encrypted_content"))?;
                    let blocks = &mut answer_begun(&mut messages).thinking_blocks;
                    blocks.push(Cow::Owned(block));
                }
            },
            Some(_) => return Err(no_counterpart(&item.at("type"))),
        }
    }
    Ok(messages)
}

/// The answer that an item is a part of: in chat, reasoning, text and calls are one message.
fn answer<'m, 'a>(messages: &'m mut Vec<Message<'a>>) -> &'m mut Message<'a> {
    let last = match messages.pop_if(|last| last.role == "assistant") {
        Some(last) => last,
        None => Message {
            role: Cow::Borrowed("assistant"),
            ..Message::default()
        },
    };
    messages.push_mut(last)
}

fn said<'a>(item: &Fields<'a>, messages: &mut Vec<Message<'a>>) -> Result<(), BadRequest> {
    // `phase` is refused: chat has no place for it, and models that know it miss it.
    item.only(&["type", "role", "content", "id", "status"])?;
    let role = item.required_text("role")?;
    let content = content(item, "content")?;
    match role.as_ref() {
        "user" | "system" | "developer" => messages.push(Message::new(role, content)),
        "assistant" => {
            // Text that follows text or calls is an answer of its own.
            let goes_on = messages.last().is_some_and(|last| {
                last.role == "assistant" && last.content.is_none() && last.tool_calls.is_empty()
            });
            if goes_on {
                answer(messages).content = Some(content);
            } else {
                messages.push(Message::new(role, content));
            }
        }
        _ => {
            return Err(wrong(
                &item.at("role"),
                "`user`, `assistant`, `system` or `developer`",
            ));
        }
    }
    Ok(())
}

fn function_call<'a>(item: &Fields<'a>) -> Result<ToolCall<'a>, BadRequest> {
    item.only(&["type", "call_id", "name", "arguments", "id", "status"])?;
    Ok(ToolCall::new(
        item.required_text("call_id")?,
        item.required_text("name")?,
        item.required_text("arguments")?,
    ))
}

fn output<'a>(item: &Fields<'a>) -> Result<Message<'a>, BadRequest> {
    item.only(&["type", "call_id", "output", "id", "status"])?;
    Ok(Message {
        tool_call_id: Some(item.required_text("call_id")?),
        ..Message::new("tool", content(item, "output")?)
    })
}

/// What the hub itself has put where encrypted reasoning stands.
enum Encrypted {
    Nothing,
    /// What goes back with a call.
    OfCall(Keepsake),
    /// A whole block of Anthropic's; the text beside it is in it as well.
    Thinking(Box<RawValue>),
}

/// Reads it; anybody else's is refused.
fn encrypted(item: &Fields<'_>) -> Result<Encrypted, BadRequest> {
    let text = item.text("encrypted_content")?.unwrap_or_default();
    if text.is_empty() {
        return Ok(Encrypted::Nothing);
    }
    item.only(&[
        "type",
        "id",
        "summary",
        "content",
        "status",
        "encrypted_content",
    ])?;
    if let Some(block) = keepsake::thinking(&text) {
        return Ok(Encrypted::Thinking(block));
    }
    let keepsake = keepsake::read(&text);
    let keepsake = keepsake.ok_or_else(|| no_counterpart(&item.at("encrypted_content")))?;
    Ok(Encrypted::OfCall(keepsake))
}

/// The answer that reasoning belongs to: the one before it as long as that has said nothing else.
fn answer_begun<'m, 'a>(messages: &'m mut Vec<Message<'a>>) -> &'m mut Message<'a> {
    let goes_on = |last: &Message<'_>| last.content.is_none() && last.tool_calls.is_empty();
    if !messages.last().is_some_and(goes_on) {
        messages.push(Message {
            role: Cow::Borrowed("assistant"),
            ..Message::default()
        });
    }
    answer(messages)
}

/// Reasoning in plain text goes back into the member that it came in; a summary of another's
/// stands for it where there is nothing else.
fn reasoning<'a>(item: &Fields<'a>, messages: &mut Vec<Message<'a>>) -> Result<(), BadRequest> {
    item.only(&["type", "id", "summary", "content", "status"])?;
    let (summary, content) = (thoughts(item, "summary")?, thoughts(item, "content")?);
    let text = match (summary.is_empty(), content.is_empty()) {
        (false, false) => return Err(no_counterpart(&item.at("summary"))),
        (false, true) => summary,
        (true, _) => content,
    };
    if text.is_empty() {
        return Ok(());
    }
    let id = item.text("id")?.unwrap_or_default();
    let message = answer_begun(messages);
    if id.starts_with(IN_REASONING) {
        message.reasoning = Some(text);
    } else {
        message.reasoning_content = Some(text);
    }
    Ok(())
}

/// The texts of some parts, put together.
fn thoughts(item: &Fields<'_>, name: &str) -> Result<String, BadRequest> {
    let parts = item.objects(name)?;
    let texts = parts.iter().map(|part| {
        part.only(&["type", "text"])?;
        part.required_text("text")
    });
    texts.collect()
}

fn content<'a>(item: &Fields<'a>, name: &str) -> Result<Content<'a>, BadRequest> {
    let expected = "a string or an array of objects";
    match item.get(name) {
        Some(raw) if raw.get().starts_with('[') => {
            let parts = item.objects(name)?;
            let parts = parts.iter().map(part);
            Ok(Content::of(parts.collect::<Result<_, _>>()?))
        }
        _ => match item.text(name) {
            Ok(Some(text)) => Ok(Content::Text(text)),
            Ok(None) | Err(_) => Err(wrong(&item.at(name), expected)),
        },
    }
}

fn part<'a>(part: &Fields<'a>) -> Result<Part<'a>, BadRequest> {
    match part.required_text("type")?.as_ref() {
        "input_text" => {
            part.only(&["type", "text"])?;
            Ok(Part::text(part.required_text("text")?))
        }
        "output_text" => {
            // What stands beside the text tells about it and is not said to a model.
            part.only(&["type", "text", "annotations", "logprobs"])?;
            Ok(Part::text(part.required_text("text")?))
        }
        "refusal" => {
            part.only(&["type", "refusal"])?;
            let refusal = part.required_text("refusal")?;
            Ok(Part::new(PartKind::Refusal { refusal }))
        }
        "input_image" => {
            part.only(&["type", "image_url", "detail"])?;
            Ok(Part::image(
                part.required_text("image_url")?,
                part.text("detail")?,
            ))
        }
        "input_file" => {
            part.only(&["type", "file_data", "filename"])?;
            let file = File {
                filename: part.text("filename")?,
                file_data: part.required_text("file_data")?,
            };
            Ok(Part::new(PartKind::File { file }))
        }
        _ => Err(no_counterpart(&part.at("type"))),
    }
}
