//! Instructions and input items, as chat messages.

use std::borrow::Cow;

use super::{
    super::{
        chat::{Content, File, Message, Part, PartKind, ToolCall},
        fields::{Fields, no_counterpart, wrong},
        keepsake::{self, Keepsake},
    },
    item::IN_REASONING,
};
use crate::protocol::openai::request::BadRequest;

/// The chat messages of a request.
pub(super) fn messages<'a>(request: &Fields<'a>) -> Result<Vec<Message<'a>>, BadRequest> {
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
                Some(keepsake) => kept.push(keepsake),
                None => reasoning(item, &mut messages)?,
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
    item.only(&["type", "role", "content", "id", "status", "phase"])?;
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

/// What the hub itself has put where encrypted reasoning stands; anybody else's is refused.
fn encrypted(item: &Fields<'_>) -> Result<Option<Keepsake>, BadRequest> {
    match item.text("encrypted_content")? {
        None => Ok(None),
        Some(text) if text.is_empty() => Ok(None),
        Some(text) => match keepsake::read(&text) {
            Some(keepsake) => Ok(Some(keepsake)),
            None => Err(no_counterpart(&item.at("encrypted_content"))),
        },
    }
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
    let goes_on = |last: &Message<'_>| last.content.is_none() && last.tool_calls.is_empty();
    if !messages.last().is_some_and(goes_on) {
        messages.push(Message {
            role: Cow::Borrowed("assistant"),
            ..Message::default()
        });
    }
    let message = answer(messages);
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
