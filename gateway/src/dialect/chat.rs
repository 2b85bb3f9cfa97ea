//! Chat completions as dialects write requests and read answers.

mod answer;
mod calls;
mod carried;
mod request;

pub(crate) use answer::Chunk;
pub(super) use answer::{Answer, Call, Said, Thinking, Usage};
pub(super) use calls::{Begin, Order, Piece};
pub(super) use request::{
    Content, File, Function, JsonSchema, Message, Part, PartKind, Request, ResponseFormat, Tool,
    ToolCall, ToolChoice,
};
