//! What happens on the way of a reply: gates, pauses, stalls, cuts, and bytes of the test's own.

use std::time::Duration;

use bytes::Bytes;

use super::Script;
use crate::gate::Gate;
use crate::upstream::content;

/// A place in the course of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::upstream) enum Point {
    /// The request has been read and nothing was sent.
    BeforeHeaders,
    /// Status and header fields have been sent; of a body, nothing.
    AfterHeaders,
    /// So many chunks have been sent; 0 is after the opening event.
    AfterChunks(usize),
    /// Everything has been sent but `[DONE]`.
    BeforeDone,
}

/// What happens at a point.
#[derive(Debug, Clone)]
pub(in crate::upstream) enum Happening {
    /// Wait until the test opens the gate.
    Wait(Gate),
    /// Wait for a duration (a slow provider, not a means of ordering).
    Pause(Duration),
    /// Go silent for ever.
    Stall,
    /// Send these bytes as they are.
    Insert(Bytes),
    /// Send so many bytes of the next event, then end in this way.
    End { bytes_of_next: usize, how: Cut },
}

/// How a reply ends before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::upstream) enum Cut {
    /// The HTTP body ends as if it were complete.
    Orderly,
    /// The connection is closed in the middle of the body.
    Close,
    /// The connection is reset.
    Reset,
}

/// What happens on the way. Happenings at the same point happen in the order they were given.
impl Script {
    /// Waits at the gate before anything is sent.
    #[must_use]
    pub fn wait_before_headers(self, gate: &Gate) -> Self {
        self.at(Point::BeforeHeaders, Happening::Wait(gate.clone()))
    }

    /// Waits at the gate after `count` chunks.
    #[must_use]
    pub fn wait_after(self, count: usize, gate: &Gate) -> Self {
        self.at(Point::AfterChunks(count), Happening::Wait(gate.clone()))
    }

    /// Waits at the gate when only `[DONE]` is missing.
    #[must_use]
    pub fn wait_before_done(self, gate: &Gate) -> Self {
        self.at(Point::BeforeDone, Happening::Wait(gate.clone()))
    }

    /// Takes its time before anything is sent.
    #[must_use]
    pub fn pause_before_headers(self, pause: Duration) -> Self {
        self.at(Point::BeforeHeaders, Happening::Pause(pause))
    }

    /// Never answers.
    #[must_use]
    pub fn stall_before_headers(self) -> Self {
        self.at(Point::BeforeHeaders, Happening::Stall)
    }

    /// Sends status and header fields, then nothing more.
    #[must_use]
    pub fn stall_after_headers(self) -> Self {
        self.at(Point::AfterHeaders, Happening::Stall)
    }

    /// Goes silent after `count` chunks.
    #[must_use]
    pub fn stall_after(self, count: usize) -> Self {
        self.at(Point::AfterChunks(count), Happening::Stall)
    }

    /// Closes the connection after `count` chunks, in the middle of the body.
    #[must_use]
    pub fn cut_after(self, count: usize) -> Self {
        self.cut_inside(count, 0)
    }

    /// Closes the connection after `count` chunks and `bytes` bytes of the next event.
    ///
    /// In a non-stream answer the whole body is the next event after 0 chunks.
    #[must_use]
    pub fn cut_inside(self, count: usize, bytes: usize) -> Self {
        self.end(count, bytes, Cut::Close)
    }

    /// Resets the connection after `count` chunks.
    #[must_use]
    pub fn reset_after(self, count: usize) -> Self {
        self.reset_inside(count, 0)
    }

    /// Resets the connection after `count` chunks and `bytes` bytes of the next event.
    #[must_use]
    pub fn reset_inside(self, count: usize, bytes: usize) -> Self {
        self.end(count, bytes, Cut::Reset)
    }

    /// Ends the body after `count` chunks as if it were complete: no finish reason, no `[DONE]`.
    #[must_use]
    pub fn end_after(self, count: usize) -> Self {
        self.end(count, 0, Cut::Orderly)
    }

    /// Ends the body after `count` chunks and half of the next event as if it were complete.
    #[must_use]
    pub fn half_event_after(self, count: usize) -> Self {
        // 24 bytes: `data: {"id":"chatcmpl-` is behind us, the event's end is far away.
        self.end(count, 24, Cut::Orderly)
    }

    /// Sends an event whose data is not JSON after `count` chunks, and goes on.
    #[must_use]
    pub fn garbage_after(self, count: usize) -> Self {
        self.insert_after(count, "data: {\"id\": oops\n\n")
    }

    /// Sends an error event after `count` chunks, as providers do that fail half-way, and ends.
    #[must_use]
    pub fn error_event_after(self, count: usize, code: &str) -> Self {
        let error = content::error("the engine fell over", "server_error", Some(code));
        self.insert_after(count, &format!("data: {error}\n\n"))
            .end_after(count)
    }

    /// Sends these bytes as they are after `count` chunks, and goes on.
    #[must_use]
    pub fn insert_after(self, count: usize, bytes: &str) -> Self {
        let bytes = Bytes::copy_from_slice(bytes.as_bytes());
        self.at(Point::AfterChunks(count), Happening::Insert(bytes))
    }

    fn end(self, count: usize, bytes_of_next: usize, how: Cut) -> Self {
        self.at(
            Point::AfterChunks(count),
            Happening::End { bytes_of_next, how },
        )
    }

    fn at(mut self, point: Point, happening: Happening) -> Self {
        self.happenings.push((point, happening));
        self
    }
}
