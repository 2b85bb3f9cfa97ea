//! The client's side of an exchange: fed as long as it is there.
//!
//! The exchange is a task of its own, so that it ends properly whatever the
//! client does. It hands what may be shown through a bounded channel to the
//! task that serves the client's connection. A client that reads slowly slows
//! down its provider: the channel fills, the provider's answer is not read on.
//! One that takes nothing for `STALL_MAX` is treated as gone.
//!
//! A stream that ends without its last part is broken off, not closed: a
//! client must never take half an answer for a whole one.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::Frame;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::error::ApiError;

/// Parts that wait for a client: 16.
///
/// A part is what one network read brought, mostly below 8 KiB; sixteen cover a
/// client's hiccup and keep 1 000 stalled clients below 128 MiB.
const PARTS_MAX: usize = 16;

/// How long a client may take nothing: two minutes, as long as a provider may stand still.
const STALL_MAX: Duration = Duration::from_mins(2);

/// What the client gets.
#[derive(Debug)]
pub enum Reply {
    /// A whole answer.
    Whole(Bytes),
    /// A stream of frames.
    Stream(ReplyBody),
}

/// The exchange ended without an end for its client.
#[derive(Debug, thiserror::Error)]
#[error("the exchange was broken off")]
pub struct BrokenOff;

enum Part {
    More(Bytes),
    Last(Bytes),
}

/// A streamed answer as the body of a response.
pub struct ReplyBody {
    parts: mpsc::Receiver<Part>,
    ended: bool,
}

impl std::fmt::Debug for ReplyBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplyBody").finish_non_exhaustive()
    }
}

impl http_body::Body for ReplyBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.parts.poll_recv(cx).map(|part| match part {
            Some(Part::More(bytes)) => Some(Ok(Frame::data(bytes))),
            Some(Part::Last(bytes)) => {
                self.ended = true;
                Some(Ok(Frame::data(bytes)))
            }
            None => {
                self.ended = true;
                Some(Err(BrokenOff))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// The client of one exchange.
pub(crate) struct Client {
    side: Side,
    /// Whether its stream has begun, should it be there to see it.
    began: bool,
    hard_stop: CancellationToken,
}

enum Side {
    /// It has got nothing yet.
    Waiting(oneshot::Sender<Result<Reply, ApiError>>),
    Streaming(mpsc::Sender<Part>),
    Gone,
}

/// Where the client waits for the reply.
pub(crate) type Waiting = oneshot::Receiver<Result<Reply, ApiError>>;

impl Client {
    /// A client that waits at the other end.
    pub(crate) fn waiting(hard_stop: CancellationToken) -> (Self, Waiting) {
        let (reply, waiting) = oneshot::channel();
        let side = Side::Waiting(reply);
        let client = Self {
            side,
            began: false,
            hard_stop,
        };
        (client, waiting)
    }

    /// Whether it has hung up.
    pub(crate) fn is_gone(&self) -> bool {
        match &self.side {
            Side::Waiting(reply) => reply.is_closed(),
            Side::Streaming(parts) => parts.is_closed(),
            Side::Gone => true,
        }
    }

    /// Whether its answer has begun, so that its status is settled.
    pub(super) const fn has_begun(&self) -> bool {
        self.began
    }

    /// Completes when it hangs up.
    ///
    /// # Cancel safety
    /// Nothing is lost when it is dropped.
    pub(crate) async fn hung_up(&mut self) {
        match &mut self.side {
            Side::Waiting(reply) => reply.closed().await,
            Side::Streaming(parts) => parts.closed().await,
            Side::Gone => {}
        }
    }

    /// Whether it takes what it is given at once.
    pub(super) fn has_room(&self) -> bool {
        match &self.side {
            Side::Waiting(_) | Side::Gone => true,
            Side::Streaming(parts) => parts.capacity() > 0,
        }
    }

    /// Gives it frames, the first of which begin its stream; waits while it is slow.
    pub(crate) async fn give(&mut self, frames: Bytes) {
        self.send(Part::More(frames)).await;
    }

    /// Gives it the last frames; the stream ends with them.
    pub(crate) async fn give_last(&mut self, frames: Bytes) {
        self.send(Part::Last(frames)).await;
    }

    /// Answers a client that has got nothing yet; gives the reply back to one that has.
    pub(super) fn answer(
        &mut self,
        reply: Result<Reply, ApiError>,
    ) -> Result<(), Result<Reply, ApiError>> {
        match std::mem::replace(&mut self.side, Side::Gone) {
            // A client that is gone needs no reply.
            Side::Waiting(waiting) => waiting.send(reply).or(Ok(())),
            Side::Gone => Ok(()),
            streaming @ Side::Streaming(_) => {
                self.side = streaming;
                Err(reply)
            }
        }
    }

    async fn send(&mut self, part: Part) {
        self.began = true;
        if let Side::Waiting(_) = &self.side {
            let (parts, body) = mpsc::channel(PARTS_MAX);
            let ended = false;
            let reply = Reply::Stream(ReplyBody { parts: body, ended });
            // It is waiting, so the reply does not come back.
            let _taken = self.answer(Ok(reply)).is_ok();
            self.side = Side::Streaming(parts);
        }
        let Side::Streaming(parts) = &self.side else {
            return;
        };
        let sent = match parts.try_send(part) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(part)) => tokio::select! {
                sent = timeout(STALL_MAX, parts.send(part)) => matches!(sent, Ok(Ok(()))),
                () = self.hard_stop.cancelled() => false,
            },
        };
        if !sent {
            self.side = Side::Gone;
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn streaming() -> (Client, ReplyBody) {
        let (mut client, waiting) = Client::waiting(CancellationToken::new());
        client.give(Bytes::from_static(b"1")).await;
        match waiting.await.unwrap() {
            Ok(Reply::Stream(body)) => (client, body),
            other => panic!("no stream: {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_last_part() {
        let (mut client, body) = streaming().await;
        client.give_last(Bytes::from_static(b"2")).await;
        assert_eq!(body.collect().await.unwrap().to_bytes(), "12");
    }

    #[tokio::test]
    async fn a_stream_without_a_last_part_is_broken_off() {
        let (client, body) = streaming().await;
        drop(client);
        assert!(body.collect().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_gone_after_a_while() {
        let (mut client, body) = streaming().await;
        for _ in 0..PARTS_MAX {
            assert!(!client.is_gone());
            client.give(Bytes::from_static(b"x")).await;
        }
        assert!(client.is_gone());
        assert!(
            body.collect().await.is_err(),
            "it learns that something is missing"
        );
    }

    #[tokio::test]
    async fn a_client_that_hung_up_is_noticed_and_costs_nothing() {
        let (mut client, body) = streaming().await;
        drop(body);
        client.hung_up().await;
        client.give(Bytes::from_static(b"x")).await;
        assert!(client.is_gone());
        let (mut client, waiting) = Client::waiting(CancellationToken::new());
        drop(waiting);
        client.hung_up().await;
        assert!(client.answer(Ok(Reply::Whole(Bytes::new()))).is_ok());
    }
}
