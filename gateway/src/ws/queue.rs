//! The frames that wait for a client, bounded by their number and by their bytes.
//!
//! Requests of one connection share it. Who has a frame for a client that reads slowly waits for
//! room before the frame is made, so what waits outside is no more than the answer itself.

use std::sync::Arc;

use axum::extract::ws::Utf8Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

use super::{STALL_MAX, WAITING_BYTES_MAX, WAITING_MAX};

/// The client hung up, or reads nothing.
#[derive(Debug)]
pub(super) struct Gone;

/// Where frames go in; a cheap handle.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    frames: mpsc::Sender<Waiting>,
    bytes: Arc<Semaphore>,
}

/// A frame on its way; it takes room until it is dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) frame: Utf8Bytes,
    _room: OwnedSemaphorePermit,
}

impl Queue {
    /// A queue and where its frames come out.
    pub(super) fn new() -> (Self, mpsc::Receiver<Waiting>) {
        let (frames, out) = mpsc::channel(WAITING_MAX);
        let bytes = Arc::new(Semaphore::new(WAITING_BYTES_MAX));
        (Self { frames, bytes }, out)
    }

    /// Sends a frame; waits while the client is slow.
    ///
    /// # Errors
    /// [`Gone`]: nobody takes frames any more, or there was no room for [`STALL_MAX`].
    pub(super) async fn send(&self, frame: Utf8Bytes) -> Result<(), Gone> {
        self.send_made(frame.len(), || frame).await
    }

    /// The same for a frame around so many bytes that is made when there is room for it.
    ///
    /// One that is larger than the whole room waits until the queue is empty and fills it alone.
    ///
    /// # Errors
    /// As of [`Self::send`].
    pub(super) async fn send_made(
        &self,
        bytes: usize,
        frame: impl FnOnce() -> Utf8Bytes,
    ) -> Result<(), Gone> {
        let bytes = u32::try_from(bytes.clamp(1, WAITING_BYTES_MAX)).unwrap_or(u32::MAX);
        let sending = async {
            let room = Arc::clone(&self.bytes).acquire_many_owned(bytes).await;
            let waiting = Waiting {
                _room: room.map_err(|_closed| Gone)?,
                frame: frame(),
            };
            self.frames.send(waiting).await.map_err(|_closed| Gone)
        };
        timeout(STALL_MAX, sending).await.unwrap_or(Err(Gone))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn frame(bytes: usize) -> Utf8Bytes {
        "x".repeat(bytes).into()
    }

    #[tokio::test]
    async fn large_frames_wait_for_room_and_come_in_order() {
        let (queue, mut out) = Queue::new();
        let half = WAITING_BYTES_MAX / 2;
        for _ in 0..2 {
            queue.send(frame(half)).await.unwrap();
        }
        let mut third = Box::pin(queue.send(frame(half + 1)));
        assert!((&mut third).now_or_never().is_none(), "there is no room");
        drop(out.recv().await.unwrap());
        assert!((&mut third).now_or_never().is_none(), "half is not enough");
        drop(out.recv().await.unwrap());
        third.await.unwrap();
        assert_eq!(out.recv().await.unwrap().frame.len(), half + 1);
    }

    #[tokio::test]
    async fn a_frame_that_is_written_takes_room_until_it_is_out() {
        let (queue, mut out) = Queue::new();
        queue.send(frame(WAITING_BYTES_MAX)).await.unwrap();
        let written = out.recv().await.unwrap();
        let mut next = Box::pin(queue.send(frame(1)));
        assert!((&mut next).now_or_never().is_none());
        drop(written);
        next.await.unwrap();
    }

    #[tokio::test]
    async fn a_frame_larger_than_the_room_goes_alone_and_is_not_made_before() {
        let (queue, mut out) = Queue::new();
        queue.send(frame(1)).await.unwrap();
        let made = std::cell::Cell::new(false);
        let huge = queue.send_made(WAITING_BYTES_MAX * 8, || {
            made.set(true);
            frame(1)
        });
        let mut huge = Box::pin(huge);
        assert!((&mut huge).now_or_never().is_none());
        assert!(!made.get());
        drop(out.recv().await.unwrap());
        huge.await.unwrap();
        assert!(made.get());
    }

    #[tokio::test]
    async fn small_frames_are_bounded_by_their_number() {
        let (queue, _out) = Queue::new();
        for _ in 0..WAITING_MAX {
            queue.send(frame(1)).await.unwrap();
        }
        assert!(queue.send(frame(1)).now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_gone_after_a_while() {
        let (queue, out) = Queue::new();
        queue.send(frame(WAITING_BYTES_MAX)).await.unwrap();
        queue.send(frame(1)).await.unwrap_err();
        drop(out);
        queue.send(frame(1)).await.unwrap_err();
    }
}
