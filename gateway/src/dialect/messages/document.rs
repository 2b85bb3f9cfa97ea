//! Documents and search results: what a model is to read.
//!
//! A PDF in base64 is a file in chat, which others can read as well. Whatever else the API has goes
//! on as it came, to those only that know it.

use super::{
    super::{
        candidate::{Carriers, Extension},
        chat::{File, PartKind},
        fields::{Fields, no_counterpart, wrong},
    },
    blocks::data_url,
};
use crate::protocol::openai::request::BadRequest;

pub(super) fn document<'a>(
    block: &Fields<'a>,
    carriers: &mut Carriers,
) -> Result<PartKind<'a>, BadRequest> {
    let known = ["source", "title", "context", "citations", "cache_control"];
    block.only(&[&["type"], &known[..]].concat())?;
    without_citations(block)?;
    let (title, context) = (block.text("title")?, block.text("context")?);
    let source = block.required_object("source")?;
    let members: &[&str] = match source.required_text("type")?.as_ref() {
        "base64" if context.is_none() => {
            return Ok(PartKind::File {
                file: File {
                    filename: title,
                    file_data: data_url(&source)?,
                },
            });
        }
        "base64" | "text" => &["type", "media_type", "data"],
        "url" => &["type", "url"],
        "content" => &["type", "content"],
        // A file that lies at Anthropic, in an account that is not the client's own.
        _ => return Err(no_counterpart(&source.at("type"))),
    };
    source.only(members)?;
    for name in members {
        if source.get(name).is_none() {
            return Err(wrong(&source.at(name), "given"));
        }
    }
    carriers.must(Extension::Blocks, &source.at("type"))?;
    Ok(PartKind::Document {
        source: source.raw(),
        title: block.get("title"),
        context: block.get("context"),
    })
}

pub(super) fn search_result<'a>(
    block: &Fields<'a>,
    carriers: &mut Carriers,
) -> Result<PartKind<'a>, BadRequest> {
    let known = ["source", "title", "content", "citations", "cache_control"];
    block.only(&[&["type"], &known[..]].concat())?;
    without_citations(block)?;
    block.objects("content")?;
    let Some(content) = block.get("content") else {
        return Err(wrong(&block.at("content"), "an array of objects"));
    };
    let kind = PartKind::SearchResult {
        source: block.required_text("source")?,
        title: block.required_text("title")?,
        content,
    };
    carriers.must(Extension::Blocks, &block.at("type"))?;
    Ok(kind)
}

/// The form of chat has no place for the citations of an answer.
fn without_citations(block: &Fields<'_>) -> Result<(), BadRequest> {
    let Some(citations) = block.object("citations")? else {
        return Ok(());
    };
    citations.only(&["enabled"])?;
    if citations.flag("enabled")? == Some(true) {
        return Err(no_counterpart(&citations.at("enabled")));
    }
    Ok(())
}
