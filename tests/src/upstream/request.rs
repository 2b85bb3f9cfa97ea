//! What the upstream received, and what can be read out of it.

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

/// 64 header fields: a client of ours sends about ten.
const HEADERS_MAX: usize = 64;

/// 64 MiB: twice the largest body that the hub accepts.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// 256 KiB for the request line and all header fields.
const HEAD_BYTES_MAX: usize = 256 * 1024;

/// One request, exactly as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// When its last byte had been read.
    pub at: Instant,
    /// The method.
    pub method: String,
    /// The path with its query, as sent.
    pub path: String,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body, byte for byte.
    pub body: Bytes,
}

impl Request {
    /// The body as JSON; `null` if it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The model that was asked for, empty if none.
    pub fn model(&self) -> String {
        text(self.json().get("model"))
    }

    /// Whether a stream was asked for.
    pub fn wants_stream(&self) -> bool {
        self.json().get("stream") == Some(&Value::Bool(true))
    }

    /// Whether the usage chunk at the end of a stream was asked for.
    pub fn wants_usage(&self) -> bool {
        self.json().pointer("/stream_options/include_usage") == Some(&Value::Bool(true))
    }

    /// How many choices were asked for.
    pub fn choices(&self) -> usize {
        let asked = self.json().get("n").and_then(Value::as_u64).unwrap_or(1);
        usize::try_from(asked).unwrap_or(1).max(1)
    }

    /// The last word of the last user message: the test's own name for the request.
    pub fn tag(&self) -> String {
        last_user_text(&self.json())
            .split_whitespace()
            .next_back()
            .map_or_else(|| "untagged".to_owned(), str::to_owned)
    }

    /// The text of all messages, one after the other.
    pub fn prompt(&self) -> String {
        let body = self.json();
        let messages = body.get("messages").and_then(Value::as_array);
        let texts: Vec<String> = messages
            .into_iter()
            .flatten()
            .map(|message| text(message.get("content")))
            .collect();
        texts.join("\n")
    }
}

fn last_user_text(body: &Value) -> String {
    let messages = body.get("messages").and_then(Value::as_array);
    let of_user = |message: &&Value| message.get("role").is_some_and(|role| role == "user");
    messages
        .and_then(|messages| messages.iter().rev().find(of_user))
        .map(|message| text(message.get("content")))
        .unwrap_or_default()
}

/// The text of a content, which is a string or a list of parts.
fn text(content: Option<&Value>) -> String {
    match content {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let texts: Vec<&str> = parts
                .iter()
                .filter_map(|part| part.get("text")?.as_str())
                .collect();
            texts.join(" ")
        }
        _ => String::new(),
    }
}

/// Reads the next request of a connection; nothing if the client has closed it.
///
/// `buffer` holds what was read beyond the last request.
///
/// # Errors
///
/// When what comes is not HTTP/1.1 with a `Content-Length`, or exceeds a bound.
pub(super) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> Result<Option<Request>> {
    let (head_length, mut request) = loop {
        if let Some(parsed) = parse_head(buffer)? {
            break parsed;
        }
        if buffer.len() > HEAD_BYTES_MAX {
            bail!("a request head above {HEAD_BYTES_MAX} bytes");
        }
        if stream
            .read_buf(buffer)
            .await
            .context("failed to read a request")?
            == 0
        {
            return Ok(None);
        }
    };
    drop(buffer.split_to(head_length));

    let length = body_length(&request.headers)?;
    while buffer.len() < length {
        if stream
            .read_buf(buffer)
            .await
            .context("failed to read a body")?
            == 0
        {
            bail!("the client left in the middle of its body");
        }
    }
    request.body = buffer.split_to(length).freeze();
    request.at = Instant::now();
    Ok(Some(request))
}

fn parse_head(buffer: &[u8]) -> Result<Option<(usize, Request)>> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(length) = head
        .parse(buffer)
        .context("failed to parse a request head")?
    else {
        return Ok(None);
    };
    let mut headers = HeaderMap::new();
    for field in head.headers.iter() {
        let name: HeaderName = field.name.parse().context("a strange header name")?;
        headers.append(
            name,
            HeaderValue::from_bytes(field.value).context("a strange header")?,
        );
    }
    let request = Request {
        at: Instant::now(),
        method: head.method.unwrap_or_default().to_owned(),
        path: head.path.unwrap_or_default().to_owned(),
        headers,
        body: Bytes::new(),
    };
    Ok(Some((length, request)))
}

fn body_length(headers: &HeaderMap) -> Result<usize> {
    if headers.contains_key(http::header::TRANSFER_ENCODING) {
        bail!("a body without Content-Length, which no client of ours sends");
    }
    let Some(length) = headers.get(http::header::CONTENT_LENGTH) else {
        return Ok(0);
    };
    let length: usize = length
        .to_str()?
        .parse()
        .context("a strange Content-Length")?;
    anyhow::ensure!(length <= BODY_BYTES_MAX, "a body of {length} bytes");
    Ok(length)
}
