//! Applies events to the tables: the only code that writes them.
//!
//! *What it promises.* The tables are a function of which prefixes of the
//! streams were applied. They do not depend on how the streams interleave or
//! how they are cut into batches, and an event that comes twice changes
//! nothing. For this each rule that ties two streams together is checked from
//! both sides:
//!
//! - An exchange that was drawn before the retention's cutoff is left aside
//!   when it comes later, and removed when it came before.
//! - A day whose rollup was read takes nothing from events; a rollup replaces
//!   what events had given its day. A day that retention has passed and that
//!   has no rollup (yet) has no statistics.
//! - A conversation counts on the day on which it began. Its id tells when, or
//!   the rollup of a closed day does, or else the first of its requests.
//! - A message, a request or a conversation that is seen in part waits for
//!   the rest: every event fills what it knows.
//!
//! *What it never uses*: the clock, chance, the environment, secrets.

mod accounting;
mod audit;
mod config;
mod content;
mod conversation;
mod entry;
mod exchange;
mod exchange_table;
mod exchanges;
mod message;
mod retention;
mod rollup;
#[cfg(test)]
mod tests;
mod upsert;
mod usage;

use std::{collections::BTreeSet, path::Path};

use nexus_events::{envelope::Envelope, id::RequestId, subject::Stream};
use sqlx::{Connection, SqliteConnection};

pub use entry::{Body, Entry};
pub(crate) use retention::id_bound;
pub(crate) use usage::DAY_MS;

use crate::{
    checkpoint::{Advance, Arrival, Checkpoint, StreamPosition},
    database::{self, OpenError},
    dead_letter::DeadLetter,
    position::AsOf,
};
pub(crate) use entry::explain;
use entry::{Content, Reason};

/// What ties the streams together, kept in memory beside its tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// Requests that were drawn before this are gone; the start of a day in UTC.
    cutoff_ms: i64,
    /// Dead letters of `NEXUS_EXCHANGES` below this sequence are gone.
    exchanges_sequence: i64,
    /// Audit events below this sequence are gone.
    audit_sequence: i64,
    /// Days whose rollup was read.
    closed_days: BTreeSet<i64>,
}

impl Known {
    async fn load(connection: &mut SqliteConnection) -> Result<Self, sqlx::Error> {
        let (cutoff_ms, exchanges_sequence, audit_sequence) =
            sqlx::query_as("SELECT cutoff_ms, exchanges_sequence, audit_sequence FROM retention")
                .fetch_one(&mut *connection)
                .await?;
        let closed: Vec<i64> = sqlx::query_scalar("SELECT day_ms FROM closed_days")
            .fetch_all(&mut *connection)
            .await?;
        Ok(Self {
            cutoff_ms,
            exchanges_sequence,
            audit_sequence,
            closed_days: closed.into_iter().collect(),
        })
    }

    /// Whether a day takes what events say.
    fn is_open(&self, day_ms: i64) -> bool {
        day_ms >= self.cutoff_ms && !self.closed_days.contains(&day_ms)
    }
}

/// What came of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Events that were new.
    pub events: u64,
    /// Of these, events that went to `dead_letter`.
    pub dead_letters: u64,
    /// Positions that the batch found missing in the lanes of outboxes.
    pub gaps: u64,
}

impl Applied {
    /// Adds what came of the next part.
    pub(crate) const fn add(&mut self, other: Self) {
        self.events += other.events;
        self.dead_letters += other.dead_letters;
        self.gaps += other.gaps;
    }
}

/// The one writer of a database.
#[derive(Debug)]
pub struct Writer {
    connection: SqliteConnection,
    checkpoint: Checkpoint,
    known: Known,
    leaves_content_aside: bool,
}

/// A database that cannot be written to.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    /// See [`OpenError`].
    #[error("the read model could not be opened")]
    Open(#[from] OpenError),
    /// It was written by another version of the apply code; it has to be rebuilt.
    #[error("the read model was written by another version of the program")]
    OtherVersion,
    /// The database failed.
    #[error("the read model could not be written")]
    Database(#[from] sqlx::Error),
}

/// Where a batch comes from: the stream, and when it was created.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The stream.
    pub stream: Stream,
    /// When it was created, nanoseconds since 1970.
    pub created_ns: i64,
}

impl Writer {
    /// Opens a database, or creates it.
    ///
    /// # Errors
    /// [`WriterError`].
    pub async fn open(path: &Path) -> Result<Self, WriterError> {
        let mut connection = database::open_writer(path).await?;
        let checkpoint = Checkpoint::load(&mut connection)
            .await?
            .ok_or(WriterError::OtherVersion)?;
        let known = Known::load(&mut connection).await?;
        Ok(Self {
            connection,
            checkpoint,
            known,
            leaves_content_aside: false,
        })
    }

    /// From now on what was said is neither read nor stored: for a database whose statistics
    /// alone are wanted.
    pub(crate) const fn leave_content_aside(&mut self) {
        self.leaves_content_aside = true;
    }

    /// Whether what was said is neither read nor stored.
    pub(crate) const fn leaves_content_aside(&self) -> bool {
        self.leaves_content_aside
    }

    /// The checkpoint of the database.
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// How far the streams were applied.
    pub fn as_of(&self) -> AsOf {
        self.checkpoint.as_of()
    }

    /// The moment before which requests are gone, milliseconds since 1970; 0: none are.
    pub const fn cutoff_ms(&self) -> i64 {
        self.known.cutoff_ms
    }

    /// Applies events of one stream, in its order, and the checkpoint, in one transaction.
    ///
    /// Events at or below the checkpoint are left aside: they were applied before.
    ///
    /// # Errors
    /// [`WriterError::Database`]; nothing was applied then.
    pub async fn apply(
        &mut self,
        origin: Origin,
        entries: &[Entry],
    ) -> Result<Applied, WriterError> {
        let stream = origin.stream;
        let position = self.checkpoint.stream(stream);
        let done = position.map_or(0, |position| position.sequence);
        let fresh = entries.partition_point(|entry| entry.message.sequence <= done);
        let entries = entries.get(fresh..).unwrap_or_default();
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Ok(Applied::default());
        };
        let position = StreamPosition {
            created_ns: origin.created_ns,
            sequence: last.message.sequence,
            stored_ns: Some(last.message.stored_ns),
            first_ms: position.map_or(first.message.time.as_millis(), |position| position.first_ms),
        };
        let mut batch = Batch {
            stream,
            known: self.known.clone(),
            leaves_content_aside: self.leaves_content_aside,
            advance: Advance::of(position),
            dead: Vec::new(),
            events: 0,
        };
        let mut transaction = self.connection.begin().await?;
        batch
            .apply(&mut transaction, &self.checkpoint, entries)
            .await?;
        let dead_letters = batch.dead.len().try_into().unwrap_or(u64::MAX);
        for letter in batch.dead {
            letter.keep(&mut transaction, stream).await?;
        }
        Checkpoint::store(&mut transaction, stream, position, &batch.advance).await?;
        transaction.commit().await?;
        let applied = Applied {
            events: batch.events,
            dead_letters,
            gaps: batch.advance.gaps,
        };
        self.known = batch.known;
        self.checkpoint.advance(stream, position, batch.advance);
        Ok(applied)
    }

    /// The connection itself, for tests that look at the tables.
    #[cfg(test)]
    pub(crate) const fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }

    /// Closes the database; its last connection folds the write-ahead log into the file.
    ///
    /// # Errors
    /// The database failed.
    pub async fn close(self) -> Result<(), WriterError> {
        Ok(self.connection.close().await?)
    }
}

/// What one transaction does.
struct Batch<'a> {
    stream: Stream,
    known: Known,
    leaves_content_aside: bool,
    advance: Advance,
    dead: Vec<DeadLetter<'a>>,
    events: u64,
}

impl<'a> Batch<'a> {
    async fn apply(
        &mut self,
        connection: &mut SqliteConnection,
        checkpoint: &Checkpoint,
        entries: &'a [Entry],
    ) -> Result<(), sqlx::Error> {
        let fresh = self.arrive(checkpoint, entries);
        match self.stream {
            Stream::Exchanges => self.exchanges(connection, &fresh).await,
            Stream::Config => {
                for (envelope, entry) in &fresh {
                    let outcome = config::apply(connection, envelope, &entry.message).await?;
                    self.note(entry, outcome);
                }
                Ok(())
            }
            Stream::Audit => {
                for (envelope, entry) in &fresh {
                    let known = &mut self.known;
                    let outcome = audit::apply(connection, known, envelope, &entry.message).await?;
                    self.note(entry, outcome);
                }
                Ok(())
            }
            Stream::Rollups => {
                for (envelope, entry) in &fresh {
                    let known = &mut self.known;
                    let outcome =
                        rollup::apply(connection, known, envelope, &entry.message).await?;
                    self.note(entry, outcome);
                }
                Ok(())
            }
            // Chunks are not projected; `completed` carries what statistics need.
            Stream::Chunks => Ok(()),
        }
    }

    /// Reads the envelopes and leaves aside what its position says came before.
    fn arrive(
        &mut self,
        checkpoint: &Checkpoint,
        entries: &'a [Entry],
    ) -> Vec<(Envelope<'a>, &'a Entry)> {
        let mut fresh = Vec::with_capacity(entries.len());
        for entry in entries {
            match Envelope::decode(&entry.message.payload) {
                Ok(envelope) => {
                    let arrival = entry::lane_of(&envelope).map_or(Arrival::New, |lane| {
                        let sequence = entry.message.sequence;
                        checkpoint.arrive(&mut self.advance, self.stream, lane, sequence)
                    });
                    if arrival == Arrival::New {
                        self.events += 1;
                        fresh.push((envelope, entry));
                    }
                }
                Err(error) => {
                    self.events += 1;
                    self.bury(entry, None, explain(&error));
                }
            }
        }
        fresh
    }

    async fn exchanges(
        &mut self,
        connection: &mut SqliteConnection,
        fresh: &[(Envelope<'a>, &'a Entry)],
    ) -> Result<(), sqlx::Error> {
        let mut events = Vec::with_capacity(fresh.len());
        for (envelope, entry) in fresh {
            match entry::exchange(envelope, entry, !self.leaves_content_aside) {
                Ok(event) => {
                    if let Content::Unreadable(reason) = &event.content {
                        // The event itself counts; only what was said is not there.
                        let reason = format!("content: {reason}");
                        self.bury(entry, Some(event.request), reason);
                    }
                    events.push(event);
                }
                Err(reason) => self.bury(entry, entry::request_of(envelope), reason),
            }
        }
        exchanges::apply(connection, &self.known, &events).await
    }

    fn note(&mut self, entry: &'a Entry, outcome: Result<(), Reason>) {
        if let Err(reason) = outcome {
            self.bury(entry, None, reason);
        }
    }

    /// Keeps an event that cannot be applied, unless retention has passed it.
    fn bury(&mut self, entry: &'a Entry, request: Option<RequestId>, reason: Reason) {
        let (stream, sequence) = (self.stream, entry.message.sequence);
        let kept_from = match stream {
            Stream::Exchanges => self.known.exchanges_sequence,
            Stream::Audit => self.known.audit_sequence,
            Stream::Config | Stream::Rollups | Stream::Chunks => 0,
        };
        let expired = crate::checkpoint::signed(sequence) < kept_from
            || request.is_some_and(|id| id.drawn_at().as_millis() < self.known.cutoff_ms);
        if !expired {
            tracing::warn!(%stream, sequence, reason, "event cannot be applied; kept as a dead letter");
            let message = &entry.message;
            self.dead.push(DeadLetter {
                message,
                request,
                reason,
            });
        }
    }
}

/// Texts as a JSON array, for `json_each`: one statement for any number of keys.
fn json_list<T: std::fmt::Display>(keys: impl Iterator<Item = T>) -> String {
    let keys: Vec<String> = keys.map(|key| key.to_string()).collect();
    serde_json::to_string(&keys).unwrap_or_default()
}
