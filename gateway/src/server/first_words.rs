//! Gives the HTTP library's own refusals the shape of all other errors.
//!
//! A request whose head cannot be read never becomes a request: the library
//! answers it itself, with a bare status (400, 414, 431), and closes the
//! connection. Clients are promised an error object, so such an answer, which
//! is known by having no body and no request id, is replaced on its way out.
//! It is the last thing written on its connection, so nothing follows it.
//!
//! What the client is still sending is then read and thrown away for a moment:
//! a connection that is closed with bytes unread is reset, and the client would
//! see that in place of the answer.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::StatusCode;
use nexus_events::{clock::SystemClock, id::RequestId};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use crate::{
    error::{ApiError, INVALID_REQUEST},
    middleware::headers_too_large,
};

/// For how long the rest is read: 2 s, some megabytes on a slow link; then the client has read the answer.
const REST_TIME: Duration = Duration::from_secs(2);

/// Bytes of the rest: 16 MiB; no head is larger by mistake.
const REST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A connection whose bare refusals are replaced.
#[derive(Debug)]
pub(super) struct FirstWords<S> {
    stream: S,
    /// The answer that takes the bare one's place, and how much of it is written.
    instead: Option<(Vec<u8>, usize)>,
    rest: Option<Rest>,
}

/// What is read after a refusal, and until when.
#[derive(Debug)]
struct Rest {
    until: Pin<Box<Sleep>>,
    bytes: usize,
    /// Whether the client was told that nothing follows.
    is_shut: bool,
}

impl Rest {
    /// Reads until the client closes, or a bound is reached.
    fn poll<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        if !self.is_shut {
            let shut = ready!(Pin::new(&mut *stream).poll_shutdown(context));
            self.is_shut = true;
            if shut.is_err() {
                return Poll::Ready(());
            }
        }
        let mut space = [0; 16 * 1024];
        loop {
            if self.bytes >= REST_BYTES_MAX || self.until.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            let mut buffer = ReadBuf::new(&mut space);
            match ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => self.bytes += buffer.filled().len(),
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
    }
}

impl<S> FirstWords<S> {
    pub(super) const fn new(stream: S) -> Self {
        Self {
            stream,
            instead: None,
            rest: None,
        }
    }
}

/// The whole answer to put in the place of a bare refusal; `None` for everything else.
fn replacement(written: &[u8]) -> Option<Vec<u8>> {
    let rest = written.strip_prefix(b"HTTP/1.1 4")?;
    let head = std::str::from_utf8(written).ok()?;
    // Complete, without a body, and not from the router, which names the request.
    if !head.ends_with("\r\n\r\n") || !head.contains("content-length: 0\r\n") {
        return None;
    }
    if head.contains("x-request-id") {
        return None;
    }
    let error = match rest.get(..2)? {
        b"31" => headers_too_large(),
        b"14" => ApiError::new(
            StatusCode::URI_TOO_LONG,
            INVALID_REQUEST,
            "uri_too_long",
            "The request's URL is too long.",
        ),
        b"00" => ApiError::new(
            StatusCode::BAD_REQUEST,
            INVALID_REQUEST,
            "malformed_http",
            "The request is not well-formed HTTP.",
        ),
        _ => return None,
    };
    let request = RequestId::draw(&SystemClock);
    let body = error.body(request);
    let mut answer = format!(
        "HTTP/1.1 {}\r\ncontent-type: application/json; charset=utf-8\r\nx-request-id: {request}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        error.status,
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    Some(answer)
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstWords<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for FirstWords<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.instead.is_none() && this.rest.is_none() {
            let Some(answer) = replacement(bytes) else {
                return Pin::new(&mut this.stream).poll_write(context, bytes);
            };
            this.instead = Some((answer, 0));
        }
        while let Some((answer, done)) = &mut this.instead {
            let rest = answer.get(*done..).unwrap_or_default();
            if rest.is_empty() {
                this.instead = None;
                this.rest = Some(Rest {
                    until: Box::pin(sleep(REST_TIME)),
                    bytes: 0,
                    is_shut: false,
                });
                break;
            }
            *done += ready!(Pin::new(&mut this.stream).poll_write(context, rest))?;
        }
        if let Some(rest) = &mut this.rest {
            ready!(rest.poll(&mut this.stream, context));
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A bare refusal is one small buffer.
        match parts {
            [one] => self.poll_write(context, one),
            _ => Pin::new(&mut self.stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A client that writes on, as long as somebody reads, and then reads the answer.
    #[tokio::test]
    async fn what_a_refused_client_still_sends_is_read() {
        let (mut client, server) = tokio::io::duplex(4096);
        let refusing = async {
            let mut server = FirstWords::new(server);
            let bare = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n\r\n";
            server.write_all(bare).await
        };
        let asking = async {
            client.write_all(&vec![b'x'; 256 * 1024]).await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            drop(client);
            answer
        };
        let (refused, answer) = tokio::join!(refusing, asking);
        refused.unwrap();
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        assert!(answer.contains("x-request-id"), "{answer}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_stops_is_not_read_for_ever() {
        let (_client, server) = tokio::io::duplex(4096);
        let mut server = FirstWords::new(server);
        let bare = b"HTTP/1.1 414 URI Too Long\r\ncontent-length: 0\r\n\r\n";
        let began = tokio::time::Instant::now();
        // It neither sends nor closes.
        server.write_all(bare).await.unwrap();
        assert_eq!(began.elapsed(), REST_TIME);
        // It sends without an end.
        let (mut client, server) = tokio::io::duplex(4096);
        let mut server = FirstWords::new(server);
        let sending = async { while client.write_all(&[b'x'; 4096]).await.is_ok() {} };
        tokio::select! {
            refused = server.write_all(bare) => refused.unwrap(),
            () = sending => panic!("it was not read"),
        }
        assert!(server.rest.is_some_and(|rest| rest.bytes >= REST_BYTES_MAX));
    }
}
