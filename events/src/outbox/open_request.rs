//! A request that is under way: what may be appended for it, and the room that it holds.
//!
//! The reserve grows with the content that was appended, because the terminal
//! event repeats it: a request that was let in can always be closed with
//! everything that its client saw.

use std::sync::Arc;

use crate::{
    envelope::Record,
    id::RequestId,
    outbox::{
        AppendError, Appended, RESERVE_BYTES, Store,
        segment::{FIXED_BYTES, Mark, PREFIX_BYTES},
        store::{Entry, Room},
    },
};

/// What the ends of attempts leave of the reserve: 8 KiB, more than the largest terminal event
/// without its content.
const TERMINAL_BYTES: u64 = RESERVE_BYTES / 2;

/// An open request, from `received` to its terminal event.
///
/// Dropped without [`OpenRequest::close`] it stays open on disk, and is closed
/// as lost after a restart. Every path through an exchange closes it.
#[derive(Debug)]
pub struct OpenRequest {
    store: Arc<Store>,
    request: RequestId,
    reserve: u64,
    /// What the ends of attempts must leave of the reserve: the terminal event's.
    kept: u64,
    opened: bool,
    closed: bool,
}

/// A request that is closed, but whose tokens are still to be counted.
#[derive(Debug)]
pub struct OpenCount {
    store: Arc<Store>,
    request: RequestId,
    reserve: u64,
}

impl OpenRequest {
    pub(super) fn admit(store: Arc<Store>, request: RequestId) -> Result<Self, AppendError> {
        store.reserve(RESERVE_BYTES)?;
        Ok(Self {
            store,
            request,
            reserve: RESERVE_BYTES,
            kept: TERMINAL_BYTES,
            opened: false,
            closed: false,
        })
    }

    /// The request.
    pub const fn request(&self) -> RequestId {
        self.request
    }

    /// Appends `received` (the first record), an attempt or a chunk.
    ///
    /// # Errors
    /// [`AppendError::Full`] also when the record fits but its repetition in
    /// the terminal event would not.
    pub fn append(&mut self, record: &Record) -> Result<Appended, AppendError> {
        if self.closed {
            return Err(AppendError::Closed);
        }
        let mark = if self.opened {
            Mark::Plain
        } else {
            Mark::Opens
        };
        // The request's own content is not repeated in its terminal event.
        let repeated = if self.opened {
            content_bytes(record)
        } else {
            0
        };
        self.store.reserve(repeated)?;
        let appended = self
            .store
            .append_entry(self.entry(record, mark), Room::Free);
        if appended.is_ok() {
            self.reserve += repeated;
            self.kept += repeated;
            self.opened = true;
        } else {
            self.store.unreserve(repeated);
        }
        appended
    }

    /// Appends the end of an attempt, from the reserve: it must stand before the terminal event.
    ///
    /// It leaves what the terminal event needs, however much a provider had to say.
    ///
    /// # Errors
    /// As [`OpenRequest::close`].
    pub fn append_end(&mut self, attempt_ended: &Record) -> Result<Appended, AppendError> {
        if self.closed {
            return Err(AppendError::Closed);
        }
        let entry = self.entry(attempt_ended, Mark::Plain);
        let own = self.reserve.saturating_sub(self.kept);
        let appended = self.store.append_entry(entry, Room::Reserve(own))?;
        let spent = stored_bytes(attempt_ended).min(own);
        self.reserve -= spent;
        self.store.unreserve(spent);
        Ok(appended)
    }

    /// Appends the terminal event, from the reserve, and ends the request.
    ///
    /// # Errors
    /// [`AppendError::Full`] when it is larger than the reserve and there is no
    /// other room: try again without the content. [`AppendError::Io`].
    pub fn close(&mut self, terminal: &Record) -> Result<Appended, AppendError> {
        self.end(terminal, Mark::Closes)
    }

    /// The same for a terminal event whose tokens are still to be counted.
    ///
    /// # Errors
    /// As [`OpenRequest::close`].
    pub fn close_uncounted(
        &mut self,
        terminal: &Record,
    ) -> Result<(Appended, OpenCount), AppendError> {
        let appended = self.end(terminal, Mark::ClosesUncounted)?;
        // `end` gave the whole reserve back; the count takes its share again.
        // Without room for it the count must find room when it comes, or is
        // made up after a restart.
        let reserved = self.store.reserve(RESERVE_BYTES).is_ok();
        let count = OpenCount {
            store: Arc::clone(&self.store),
            request: self.request,
            reserve: if reserved { RESERVE_BYTES } else { 0 },
        };
        Ok((appended, count))
    }

    fn end(&mut self, terminal: &Record, mark: Mark) -> Result<Appended, AppendError> {
        if self.closed {
            return Err(AppendError::Closed);
        }
        let entry = self.entry(terminal, mark);
        let appended = self
            .store
            .append_entry(entry, Room::Reserve(self.reserve))?;
        self.closed = true;
        self.store.unreserve(std::mem::take(&mut self.reserve));
        Ok(appended)
    }

    const fn entry<'a>(&self, record: &'a Record, mark: Mark) -> Entry<'a> {
        Entry {
            record,
            mark,
            request: self.request,
        }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.store.unreserve(self.reserve);
        if self.opened && !self.closed {
            tracing::error!(request.id = %self.request, "an exchange ended without its terminal event; it is closed after a restart");
        }
    }
}

impl OpenCount {
    /// Appends `tokens_counted`.
    ///
    /// # Errors
    /// See [`AppendError`]; it may be tried again. Dropped without having been
    /// closed, the request stays open for counting, and is counted after a restart.
    pub fn close(&mut self, tokens_counted: &Record) -> Result<Appended, AppendError> {
        let entry = Entry {
            record: tokens_counted,
            mark: Mark::Counts,
            request: self.request,
        };
        let room = Room::Reserve(self.reserve);
        let appended = self.store.append_entry(entry, room)?;
        self.store.unreserve(std::mem::take(&mut self.reserve));
        Ok(appended)
    }
}

impl Drop for OpenCount {
    fn drop(&mut self) {
        self.store.unreserve(self.reserve);
    }
}

/// Size of a record in a segment in bytes.
fn stored_bytes(record: &Record) -> u64 {
    let bytes = PREFIX_BYTES + FIXED_BYTES + record.subject.len() + record.payload.len();
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Size of a record's message content in bytes.
fn content_bytes(record: &Record) -> u64 {
    if record.content_at == 0 {
        return 0;
    }
    let content_at = usize::try_from(record.content_at).unwrap_or(0);
    u64::try_from(record.payload.len().saturating_sub(content_at)).unwrap_or(0)
}
