//! What is left of a request's body when its answer is an error.
//!
//! Most errors are made before the body is read: there is no key, or no such
//! path. A client that is still sending then sees a broken connection instead
//! of the answer, because the server closes it under unread bytes. So the rest
//! is read and thrown away first, within bounds: a caller without a key must
//! not hold a connection for long.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::time::timeout;

/// How much is thrown away at most.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    bytes: usize,
    time: Duration,
}

/// Of a body that was not asked for: 32 MiB, the largest that is ever taken, for 3 s.
const REFUSED: Bounds = Bounds {
    bytes: 32 * 1024 * 1024,
    time: Duration::from_secs(3),
};

/// Of a body that is too large: 64 MiB for 10 s. Its sender has a key, and has sent 32 MiB already
/// or announced more than that.
const TOO_LARGE: Bounds = Bounds {
    bytes: 64 * 1024 * 1024,
    time: Duration::from_secs(10),
};

/// A client that has sent nothing for 1 s waits for the answer.
const QUIET: Duration = Duration::from_secs(1);

/// The body of a request that others read; what they leave of it comes back here.
#[derive(Debug)]
pub struct Unread {
    rest: Arc<Mutex<Option<Rest>>>,
    /// Whether the client waits for leave to send, with `Expect: 100-continue`.
    waits: bool,
}

#[derive(Debug)]
struct Rest {
    body: Body,
    /// Whether anybody has asked for the first frame.
    begun: bool,
}

/// A body that gives its rest back when it is dropped.
#[derive(Debug)]
struct Lent {
    rest: Option<Rest>,
    back: Arc<Mutex<Option<Rest>>>,
}

impl Unread {
    /// The body to be read, and the place that its rest comes back to.
    pub fn of(body: Body, waits: bool) -> (Body, Self) {
        let back = Arc::default();
        let lent = Lent {
            rest: Some(Rest { body, begun: false }),
            back: Arc::clone(&back),
        };
        (Body::new(lent), Self { rest: back, waits })
    }

    /// Reads on for a while before an error goes out, keeping nothing.
    pub async fn discard(self, error: StatusCode) {
        // A body that took too long has had its time.
        if error == StatusCode::REQUEST_TIMEOUT {
            return;
        }
        let Some(mut rest) = self.rest.lock().take() else {
            return;
        };
        if self.waits && !rest.begun {
            // It has sent nothing, and asking for it would give it leave.
            return;
        }
        let bounds = match error {
            StatusCode::PAYLOAD_TOO_LARGE => TOO_LARGE,
            _ => REFUSED,
        };
        let reading = discard(&mut rest.body, bounds.bytes);
        if timeout(bounds.time, reading).await.is_err() {
            tracing::debug!("stopped discarding a body that goes on");
        }
    }
}

async fn discard(body: &mut Body, bytes_max: usize) {
    let mut bytes = 0;
    while let Ok(Some(Ok(frame))) = timeout(QUIET, body.frame()).await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > bytes_max {
            return;
        }
    }
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(rest) = &mut self.rest else {
            return Poll::Ready(None);
        };
        rest.begun = true;
        let frame = ready!(Pin::new(&mut rest.body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.rest = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let rest = self.rest.as_ref();
        rest.is_none_or(|rest| rest.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.as_ref();
        rest.map_or_else(|| SizeHint::with_exact(0), |rest| rest.body.size_hint())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let rest = self.rest.take();
        *self.back.lock() = rest.filter(|rest| !http_body::Body::is_end_stream(&rest.body));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::{StreamExt, stream};
    use tokio::time::Instant;

    use super::*;

    const MIB: usize = 1024 * 1024;

    /// Frames of 1 MiB and, when they are over, either the end or silence; how many were taken.
    fn frames(count: usize, then_silence: bool) -> (Body, Arc<AtomicUsize>) {
        let taken = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&taken);
        let frames = stream::iter(0..count).map(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; MIB]))
        });
        let body = if then_silence {
            Body::from_stream(frames.chain(stream::pending()))
        } else {
            Body::from_stream(frames)
        };
        (body, taken)
    }

    /// How many frames are taken of a body that nobody reads, and in which time.
    async fn thrown_away(
        count: usize,
        then_silence: bool,
        waits: bool,
        error: StatusCode,
    ) -> (usize, Duration) {
        let (body, taken) = frames(count, then_silence);
        let (lent, unread) = Unread::of(body, waits);
        drop(lent);
        let begun = Instant::now();
        unread.discard(error).await;
        (taken.load(Ordering::Relaxed), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_reads_is_thrown_away_within_its_bounds() {
        let (unauthorized, none) = (StatusCode::UNAUTHORIZED, Duration::ZERO);
        for (count, silence, waits, error, taken, time) in [
            (10, false, false, unauthorized, 10, none),
            (50, false, false, unauthorized, 33, none),
            (80, false, false, StatusCode::PAYLOAD_TOO_LARGE, 65, none),
            // A client that sends nothing is answered soon, with a body too large as well.
            (2, true, false, unauthorized, 2, QUIET),
            (0, true, false, StatusCode::PAYLOAD_TOO_LARGE, 0, QUIET),
            // One that waits for leave gets its answer instead, and so does one that was too slow.
            (10, false, true, unauthorized, 0, none),
            (10, true, false, StatusCode::REQUEST_TIMEOUT, 0, none),
        ] {
            let found = thrown_away(count, silence, waits, error).await;
            assert_eq!(found, (taken, time), "{count} {silence} {waits} {error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_is_given_up() {
        let drip = stream::unfold((), |()| async {
            tokio::time::sleep(QUIET / 2).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b"x")), ()))
        });
        let (lent, unread) = Unread::of(Body::from_stream(drip), false);
        drop(lent);
        let begun = Instant::now();
        unread.discard(StatusCode::UNAUTHORIZED).await;
        assert_eq!(begun.elapsed(), REFUSED.time);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_reader_leaves_comes_back_and_what_it_has_read_does_not() {
        let (body, taken) = frames(3, false);
        let (mut lent, unread) = Unread::of(body, true);
        lent.frame().await.unwrap().unwrap();
        drop(lent);
        // It was given leave to send, so it is sending.
        unread.discard(StatusCode::PAYLOAD_TOO_LARGE).await;
        assert_eq!(taken.load(Ordering::Relaxed), 3);

        let (body, _) = frames(3, false);
        let (lent, unread) = Unread::of(body, false);
        assert_eq!(lent.collect().await.unwrap().to_bytes().len(), 3 * MIB);
        assert!(unread.rest.lock().is_none());
    }
}
