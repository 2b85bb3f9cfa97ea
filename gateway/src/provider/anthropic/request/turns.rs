//! Messages as Anthropic has them: turns of content blocks, instructions apart.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use super::super::super::{
    ProviderError,
    translate::{
        data_url::DataUrl,
        members::{no_counterpart, wrong},
        message::{Message, Part, PartKind, ToolCall, ToolResult},
    },
};

/// A conversation.
#[derive(Debug, Default)]
pub(super) struct Turns<'a> {
    /// Instructions, which stand before all else.
    pub(super) system: Vec<Block<'a>>,
    pub(super) turns: Vec<Turn<'a>>,
}

#[derive(Debug, Serialize)]
pub(super) struct Turn<'a> {
    role: &'static str,
    content: Vec<Block<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Block<'a> {
    /// As Anthropic has it; the signature of its reasoning holds for these very bytes.
    AsGiven(&'a RawValue),
    Made(Made<'a>),
}

#[derive(Debug, Serialize)]
pub(super) struct Made<'a> {
    #[serde(flatten)]
    kind: Kind<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<&'a RawValue>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Kind<'a> {
    Text {
        text: Cow<'a, str>,
    },
    Image {
        source: Source<'a>,
    },
    Document {
        source: Source<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<Cow<'a, str>>,
    },
    ToolUse {
        id: Cow<'a, str>,
        name: Cow<'a, str>,
        input: Box<RawValue>,
    },
    ToolResult {
        tool_use_id: Cow<'a, str>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        content: Vec<Block<'a>>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
    },
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Source<'a> {
    Base64 {
        media_type: Cow<'a, str>,
        data: Cow<'a, str>,
    },
    Url {
        url: Cow<'a, str>,
    },
}

impl<'a> Turns<'a> {
    pub(super) fn of(messages: Vec<Message<'a>>) -> Result<Self, ProviderError> {
        let mut turns = Self::default();
        for message in messages {
            turns.add(message)?;
        }
        turns.drop_empty_answer();
        Ok(turns)
    }

    fn add(&mut self, message: Message<'a>) -> Result<(), ProviderError> {
        match message {
            Message::System(parts) => {
                for part in parts {
                    if !matches!(part.kind, PartKind::Text(_)) {
                        return Err(no_counterpart(&part.path));
                    }
                    self.system.extend(block(part)?);
                }
            }
            Message::User(parts) => {
                let blocks = blocks(parts)?;
                self.turn("user").extend(blocks);
            }
            Message::Assistant {
                content,
                tool_calls,
                thinking_blocks,
                cache_control,
            } => {
                let blocks = blocks(content)?;
                let turn = self.turn("assistant");
                turn.extend(thinking_blocks.into_iter().map(Block::AsGiven));
                turn.extend(blocks);
                turn.extend(tool_calls.into_iter().map(tool_use));
                // It stands behind all that the turn says.
                if let Some(Block::Made(last)) = turn.last_mut() {
                    last.cache_control = cache_control.or(last.cache_control);
                }
            }
            Message::Tool(result) => {
                let result = tool_result(result)?;
                self.turn("user").push(result);
            }
        }
        Ok(())
    }

    /// The content of the last turn if it is that role's, else of a new one.
    ///
    /// All results of the tools that one turn calls must stand in the turn after it, at its
    /// beginning: that is where merging puts them.
    fn turn(&mut self, role: &'static str) -> &mut Vec<Block<'a>> {
        self.drop_empty_answer();
        let turn = match self.turns.pop_if(|turn| turn.role == role) {
            Some(turn) => turn,
            None => Turn {
                role,
                content: Vec::new(),
            },
        };
        &mut self.turns.push_mut(turn).content
    }

    /// An answer that held nothing is no turn: Anthropic would refuse it.
    fn drop_empty_answer(&mut self) {
        self.turns
            .pop_if(|turn| turn.role == "assistant" && turn.content.is_empty());
    }
}

fn blocks(parts: Vec<Part<'_>>) -> Result<Vec<Block<'_>>, ProviderError> {
    let blocks = parts.into_iter().map(block);
    blocks.filter_map(Result::transpose).collect()
}

/// `None` for text that is empty: Anthropic refuses such blocks, and they say nothing.
fn block(part: Part<'_>) -> Result<Option<Block<'_>>, ProviderError> {
    let kind = match part.kind {
        PartKind::Text(text) if text.is_empty() => return Ok(None),
        PartKind::Text(text) => Kind::Text { text },
        PartKind::Image(url) => Kind::Image {
            source: source(url, &part.path)?,
        },
        PartKind::File { name, data_url } => {
            let source = source(data_url, &part.path)?;
            if !matches!(&source, Source::Base64 { media_type, .. } if media_type == "application/pdf")
            {
                let expected = "a PDF in a data URL for the provider of this model";
                return Err(wrong(&format!("{}.file.file_data", part.path), expected));
            }
            Kind::Document {
                source,
                title: name,
            }
        }
        PartKind::Block(raw) => return Ok(Some(Block::AsGiven(raw))),
        PartKind::Audio { .. } => return Err(no_counterpart(&format!("{}.type", part.path))),
    };
    Ok(Some(Block::Made(Made {
        kind,
        cache_control: part.cache_control,
    })))
}

fn source<'a>(url: Cow<'a, str>, path: &str) -> Result<Source<'a>, ProviderError> {
    if let Some(data) = DataUrl::parse(&url) {
        return Ok(Source::Base64 {
            media_type: data.media_type.to_owned().into(),
            data: data.base64.to_owned().into(),
        });
    }
    if url.starts_with("https://") || url.starts_with("http://") {
        return Ok(Source::Url { url });
    }
    let expected = "an http, https or base64 data URL";
    Err(wrong(&format!("{path}.image_url.url"), expected))
}

fn tool_use(call: ToolCall<'_>) -> Block<'_> {
    Block::Made(Made {
        kind: Kind::ToolUse {
            id: call.id,
            name: call.name,
            input: call.arguments,
        },
        cache_control: None,
    })
}

fn tool_result(result: ToolResult<'_>) -> Result<Block<'_>, ProviderError> {
    Ok(Block::Made(Made {
        kind: Kind::ToolResult {
            tool_use_id: result.call,
            content: blocks(result.content)?,
            is_error: result.failed.is_some(),
        },
        cache_control: None,
    }))
}
