//! A streamed answer on its way to the client, event by event in a dialect's form.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};

use super::{Events, chat::Chunk};
use crate::{
    exchange::{ReplyBody, client::BrokenOff},
    protocol::openai::response::error_object,
    stream::{
        sse_decode::SseDecoder,
        sse_encode::{self, DONE},
    },
};

/// The body of a response.
///
/// It takes a part of the exchange's stream when the client takes one of it, and keeps none back,
/// so a slow client slows its provider down as it does without a translation.
pub(crate) struct Translated<B = ReplyBody> {
    chat: B,
    decoder: SseDecoder,
    events: Box<dyn Events>,
    /// Number of the first chunk that the client does not have.
    next: u32,
    ended: bool,
}

impl<B> fmt::Debug for Translated<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Translated").finish_non_exhaustive()
    }
}

impl<B> Translated<B> {
    pub(crate) fn new(chat: B, events: Box<dyn Events>) -> Self {
        Self {
            chat,
            decoder: SseDecoder::default(),
            events,
            next: 0,
            ended: false,
        }
    }

    /// The same for a client that has what was made of the chunks before a number.
    ///
    /// They are translated all the same: what comes later depends on them.
    pub(crate) fn beginning_at(mut self, next: u32) -> Self {
        self.next = next;
        self
    }

    /// Appends what a chunk says, unless the client has it.
    ///
    /// The chunk's number stands at its last frame. What the translation keeps of a chunk until
    /// later stands behind a later number, so by any number the client has the same as the hub.
    fn chunk(&mut self, chunk: &Chunk<'_>, out: &mut BytesMut) {
        let number = str::from_utf8(self.decoder.last_id()).ok();
        let number: Option<u32> = number.and_then(|digits| digits.parse().ok());
        let from = out.len();
        self.events.chunk(chunk, out);
        match number {
            Some(number) if number < self.next => out.truncate(from),
            Some(number) => sse_encode::number_last(out, from, number),
            None => {}
        }
    }

    /// Translates what has come; an error when it is no chat stream.
    fn translate(&mut self, bytes: Bytes, out: &mut BytesMut) -> Result<(), BrokenOff> {
        self.decoder.push(bytes);
        while let Some(event) = self.decoder.next_event().map_err(broken_off)? {
            if event.data == DONE {
                self.events.done(out);
                self.ended = true;
            } else if let Some(error) = error_object(&event.data) {
                self.events.failed(&error, out);
                self.ended = true;
            } else {
                let chunk = Chunk::read(&event.data).map_err(broken_off)?;
                self.chunk(&chunk, out);
            }
            if self.ended {
                break;
            }
        }
        Ok(())
    }
}

/// The engine has read every chunk before it gave it out, so nobody meets this.
fn broken_off<E: std::error::Error + 'static>(error: E) -> BrokenOff {
    tracing::error!(
        error = &error as &dyn std::error::Error,
        "a stream cannot be translated"
    );
    BrokenOff
}

impl<B: Body<Data = Bytes, Error = BrokenOff> + Unpin> Body for Translated<B> {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let mut out = BytesMut::new();
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            let part = match ready!(Pin::new(&mut self.chat).poll_frame(cx)) {
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                Some(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(BrokenOff)));
                }
            };
            if let Err(error) = self.translate(part, &mut out) {
                self.ended = true;
                return Poll::Ready(Some(Err(error)));
            }
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out.freeze()))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;
    use crate::protocol::openai::response::ErrorObject;

    /// Says what it is told.
    struct Told;

    impl Events for Told {
        fn chunk(&mut self, _: &Chunk<'_>, out: &mut BytesMut) {
            out.extend_from_slice(b"c\n\n");
        }

        fn done(&mut self, out: &mut BytesMut) {
            out.extend_from_slice(b"d");
        }

        fn failed(&mut self, error: &ErrorObject, out: &mut BytesMut) {
            out.extend_from_slice(error.message.as_bytes());
        }
    }

    async fn translated(parts: &[&'static str]) -> Result<Bytes, BrokenOff> {
        translated_from(0, parts).await
    }

    async fn translated_from(next: u32, parts: &[&'static str]) -> Result<Bytes, BrokenOff> {
        let frames: Vec<Result<_, Infallible>> = parts
            .iter()
            .map(|part| Ok(Frame::data(Bytes::from_static(part.as_bytes()))))
            .collect();
        let chat = StreamBody::new(stream::iter(frames)).map_err(|never| match never {});
        let body = Translated::new(chat, Box::new(Told)).beginning_at(next);
        Ok(body.collect().await?.to_bytes())
    }

    #[tokio::test]
    async fn events_are_translated_however_they_are_cut() {
        let parts = ["data: {}\n\nda", "ta: {}", "\n", "\ndata: [DO", "NE]\n\n"];
        assert_eq!(translated(&parts).await.unwrap(), "c\n\nc\n\nd");
    }

    #[tokio::test]
    async fn frames_have_the_number_of_their_chunk_and_those_before_are_left_out() {
        let parts = ["id: 3\ndata: {}\n\n", "id: 5\ndata: {}\n\ndata: [DONE]\n\n"];
        let whole = translated(&parts).await.unwrap();
        assert_eq!(whole, "id: 3\nc\n\nid: 5\nc\n\nd");
        let rest = translated_from(4, &parts).await.unwrap();
        assert_eq!(rest, "id: 5\nc\n\nd");
        assert_eq!(translated_from(6, &parts).await.unwrap(), "d");
    }

    #[tokio::test]
    async fn what_comes_after_the_end_is_nothing() {
        let parts = ["data: [DONE]\n\ndata: {}\n\n", "data: {}\n\n"];
        assert_eq!(translated(&parts).await.unwrap(), "d");
    }

    #[tokio::test]
    async fn an_error_is_an_end() {
        let parts = ["data: {}\n\n", "data: {\"error\":{\"message\":\"no\"}}\n\n"];
        assert_eq!(translated(&parts).await.unwrap(), "c\n\nno");
    }

    #[tokio::test]
    async fn a_stream_without_an_end_is_broken_off() {
        translated(&["data: {}\n\n"]).await.unwrap_err();
        translated(&["data: 7\n\n", "data: [DONE]\n\n"])
            .await
            .unwrap_err();
    }
}
