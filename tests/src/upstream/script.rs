//! Scripts: what the upstream does with one request.
//!
//! A script is data, built in one sentence, for example
//! `Script::answer().chunks(20).wait_after(7, &gate).cut_inside(12, 5)`.
//! A *chunk* is an event that carries text (or a piece of a tool call); the opening event with the
//! role and the closing ones with finish reason and usage are not counted.

mod happening;

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::content;

pub(super) use happening::{Cut, Happening, Point};

/// What to do with one request.
#[derive(Debug, Clone)]
pub struct Script {
    pub(super) reply: Reply,
    pub(super) happenings: Vec<(Point, Happening)>,
}

/// Which kind of reply it is.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    /// A chat completion in the mode that was asked for.
    Answer(Answer),
    /// The same bytes whatever was asked.
    Fixed(Fixed),
    /// Bytes that are not HTTP, then the connection is closed.
    NotHttp(Bytes),
    /// Word that the request was not processed (`REFUSED_STREAM`); in HTTP/1.1 a hang-up.
    Refused,
}

/// A chat completion.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) chunks: usize,
    pub(super) saying: Option<Vec<String>>,
    pub(super) pause: Option<Duration>,
    pub(super) usage: Usage,
    pub(super) crlf: bool,
    pub(super) comments: bool,
    pub(super) writes: Writes,
    pub(super) tool_call: Option<ToolCall>,
    pub(super) finish_reason: Option<String>,
    pub(super) done: bool,
}

/// A status, header fields and a body.
#[derive(Debug, Clone)]
pub(super) struct Fixed {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
}

/// When an answer has a usage block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usage {
    /// In a stream when `stream_options.include_usage` asks for it, else always.
    AsAsked,
    /// Never, as some compatible servers do.
    Never,
}

/// How the events of a stream are put into TCP writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writes {
    /// So many events at once; 1 is the ordinary case.
    Events(usize),
    /// Every byte alone.
    Bytes,
}

/// A call of a function, its arguments as JSON text.
#[derive(Debug, Clone)]
pub(super) struct ToolCall {
    pub(super) name: String,
    pub(super) arguments: String,
}

/// What kind of script it is.
impl Script {
    /// A polite chat completion in the mode that was asked for: five chunks, usage as asked.
    pub fn answer() -> Self {
        Self::of(Reply::Answer(Answer {
            chunks: 5,
            saying: None,
            pause: None,
            usage: Usage::AsAsked,
            crlf: false,
            comments: false,
            writes: Writes::Events(1),
            tool_call: None,
            finish_reason: None,
            done: true,
        }))
    }

    /// A status with a body of any kind; set the content type with [`Script::header`].
    pub fn status(status: u16, body: impl Into<Bytes>) -> Self {
        Self::of(Reply::Fixed(Fixed {
            status,
            headers: Vec::new(),
            body: body.into(),
        }))
    }

    /// A status with a JSON body.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::status(status, body.to_string()).header("content-type", "application/json")
    }

    /// A failure as OpenAI words it, `error.code` included.
    pub fn failure(status: u16, code: &str) -> Self {
        let kind = if status == 429 {
            "rate_limit_error"
        } else {
            "server_error"
        };
        let message = format!("upstream says {code}");
        Self::json(status, &content::error(&message, kind, Some(code)))
    }

    /// 429 with `Retry-After` in seconds.
    pub fn too_many_requests(retry_after_s: u64) -> Self {
        Self::failure(429, "rate_limit_exceeded").header("retry-after", &retry_after_s.to_string())
    }

    /// An error page from a proxy in front of a provider.
    pub fn html(status: u16) -> Self {
        Self::status(status, "<html><body><h1>Bad Gateway</h1></body></html>")
            .header("content-type", "text/html")
    }

    /// 200 with a JSON content type and a body that is not JSON.
    pub fn garbage() -> Self {
        Self::status(200, Bytes::from_static(b"\x00\xff\xfe{\"choices\": [oops"))
            .header("content-type", "application/json")
    }

    /// Bytes that are not HTTP, then the connection is closed.
    pub fn not_http() -> Self {
        Self::of(Reply::NotHttp(Bytes::from_static(
            b"220 mail.example.com ESMTP\r\n",
        )))
    }

    /// The connection is closed without an answer.
    pub fn hang_up() -> Self {
        Self::of(Reply::NotHttp(Bytes::new()))
    }

    /// The stream is refused (`REFUSED_STREAM`): nothing was done with the request.
    pub fn refuse() -> Self {
        Self::of(Reply::Refused)
    }

    fn of(reply: Reply) -> Self {
        Self {
            reply,
            happenings: Vec::new(),
        }
    }
}

/// What the answer says, and in which dress.
impl Script {
    /// So many chunks of text for each choice.
    #[must_use]
    pub fn chunks(self, count: usize) -> Self {
        self.with_answer(|answer| answer.chunks = count)
    }

    /// These texts, one chunk each, instead of the words made from the request.
    #[must_use]
    pub fn saying<'a>(self, texts: impl IntoIterator<Item = &'a str>) -> Self {
        let texts = texts.into_iter().map(str::to_owned).collect();
        self.with_answer(|answer| answer.saying = Some(texts))
    }

    /// A call of a function with these arguments, instead of text.
    #[must_use]
    pub fn tool_call(self, name: &str, arguments: &Value) -> Self {
        let call = ToolCall {
            name: name.to_owned(),
            arguments: arguments.to_string(),
        };
        self.with_answer(|answer| answer.tool_call = Some(call))
    }

    /// Another finish reason than `stop` or `tool_calls`.
    #[must_use]
    pub fn finish_reason(self, reason: &str) -> Self {
        let reason = reason.to_owned();
        self.with_answer(|answer| answer.finish_reason = Some(reason))
    }

    /// No usage block, even when it was asked for.
    #[must_use]
    pub fn without_usage(self) -> Self {
        self.with_answer(|answer| answer.usage = Usage::Never)
    }

    /// A pause before each chunk.
    #[must_use]
    pub fn pause(self, pause: Duration) -> Self {
        self.with_answer(|answer| answer.pause = Some(pause))
    }

    /// Lines end with CR LF.
    #[must_use]
    pub fn crlf(self) -> Self {
        self.with_answer(|answer| answer.crlf = true)
    }

    /// A comment line before each event, as some servers send to keep a connection alive.
    #[must_use]
    pub fn comments(self) -> Self {
        self.with_answer(|answer| answer.comments = true)
    }

    /// So many events in one TCP write.
    #[must_use]
    pub fn events_together(self, count: usize) -> Self {
        self.with_answer(|answer| answer.writes = Writes::Events(count.max(1)))
    }

    /// Every byte in a TCP write of its own.
    #[must_use]
    pub fn byte_by_byte(self) -> Self {
        self.with_answer(|answer| answer.writes = Writes::Bytes)
    }

    /// The stream ends without `[DONE]`, otherwise in order.
    #[must_use]
    pub fn without_done(self) -> Self {
        self.with_answer(|answer| answer.done = false)
    }

    /// A header field of a fixed reply.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Reply::Fixed(fixed) = &mut self.reply {
            fixed.headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    fn with_answer(mut self, change: impl FnOnce(&mut Answer)) -> Self {
        if let Reply::Answer(answer) = &mut self.reply {
            change(answer);
        }
        self
    }
}

impl Answer {
    pub(super) fn finish_reason(&self) -> &str {
        match (&self.finish_reason, &self.tool_call) {
            (Some(reason), _) => reason,
            (None, Some(_call)) => "tool_calls",
            (None, None) => "stop",
        }
    }
}
