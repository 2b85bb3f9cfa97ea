//! How far a database has got in each stream, and in the lane of each outbox.
//!
//! The checkpoint is committed with the effects of the events that it covers.
//! The stream's creation time goes with it, because the sequences of a stream
//! that was created anew mean other events; and the time at which the broker
//! stored the last event, because a stream that was put back from an older copy
//! gives the same sequences to other events. Positions in an outbox's lane grow
//! by one; a jump is proof that something was lost on the way to the log.

use std::collections::{BTreeMap, HashMap};

use nexus_events::{id::OutboxId, log::Known, subject::Stream};
use sqlx::SqliteConnection;

use crate::position::{AsOf, STREAMS};

/// Version of the code that applies events; a database of another version is rebuilt.
///
/// Raised whenever the same events would give other rows.
pub const APPLY_VERSION: i64 = 4;

/// Where one stream was read to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPosition {
    /// When the stream was created, nanoseconds since 1970; 0 when nothing was read from it.
    pub created_ns: i64,
    /// The last sequence that was applied.
    pub sequence: u64,
    /// When the event with that sequence was stored, nanoseconds since 1970; `None`: a version wrote
    /// it that did not keep that.
    pub stored_ns: Option<i64>,
    /// When the first message that was read had been stored, milliseconds since 1970.
    pub first_ms: i64,
}

/// Where one lane of one outbox was read to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LanePosition {
    /// The last position.
    position: u64,
    /// The stream's sequence of the event with that position.
    sequence: u64,
    /// Positions that never came.
    gaps: u64,
}

/// The checkpoint of a database, in memory.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    streams: BTreeMap<Stream, StreamPosition>,
    lanes: HashMap<(Stream, OutboxId), LanePosition>,
}

/// What a batch changes in the checkpoint; merged into it once the batch is committed.
#[derive(Debug)]
pub(crate) struct Advance {
    /// When the first message of the stream that this database read had been stored.
    ///
    /// Of the stream, not of what was committed before: the first batch reads as all others do.
    reading_since_ms: i64,
    lanes: HashMap<(Stream, OutboxId), LanePosition>,
    /// Positions that this batch found missing.
    pub(crate) gaps: u64,
}

/// What an event's position says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It is to be applied.
    New,
    /// The same position was applied before.
    Duplicate,
}

impl Advance {
    /// A batch that ends at this position of its stream.
    pub(crate) fn of(position: StreamPosition) -> Self {
        Self {
            reading_since_ms: position.first_ms,
            lanes: HashMap::new(),
            gaps: 0,
        }
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    stream: String,
    outbox: String,
    created_ns: i64,
    sequence: i64,
    stored_ns: Option<i64>,
    first_ms: i64,
    position: i64,
    gaps: i64,
}

impl Checkpoint {
    /// The checkpoint that a database holds; `None` when it was written by another version.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(crate) async fn load(
        connection: &mut SqliteConnection,
    ) -> Result<Option<Self>, sqlx::Error> {
        let foreign: i64 =
            sqlx::query_scalar("SELECT count(*) FROM checkpoint WHERE apply_version <> ?")
                .bind(APPLY_VERSION)
                .fetch_one(&mut *connection)
                .await?;
        if foreign > 0 {
            return Ok(None);
        }
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT stream, outbox, created_ns, sequence, stored_ns, first_ms, position, gaps
             FROM checkpoint",
        )
        .fetch_all(&mut *connection)
        .await?;
        let mut checkpoint = Self::default();
        for row in rows {
            checkpoint.add(&row);
        }
        Ok(Some(checkpoint))
    }

    fn add(&mut self, row: &Row) {
        let stream = STREAMS
            .into_iter()
            .find(|stream| stream.name() == row.stream);
        let Some(stream) = stream else {
            return;
        };
        if let Ok(outbox) = row.outbox.parse() {
            let lane = LanePosition {
                position: unsigned(row.position),
                sequence: unsigned(row.sequence),
                gaps: unsigned(row.gaps),
            };
            self.lanes.insert((stream, outbox), lane);
        } else {
            let position = StreamPosition {
                created_ns: row.created_ns,
                sequence: unsigned(row.sequence),
                stored_ns: row.stored_ns,
                first_ms: row.first_ms,
            };
            self.streams.insert(stream, position);
        }
    }

    /// Where a stream was read to.
    pub fn stream(&self, stream: Stream) -> Option<StreamPosition> {
        self.streams.get(&stream).copied()
    }

    /// What a stream must still be for this database to be read on from it.
    pub(crate) fn known(&self, stream: Stream) -> Known {
        self.stream(stream)
            .map_or_else(Known::default, |position| Known {
                created_ns: Some(position.created_ns.into()),
                sequence: position.sequence,
                stored_ns: position.stored_ns,
            })
    }

    /// The last sequence of each stream.
    pub fn as_of(&self) -> AsOf {
        let mut as_of = AsOf::default();
        for (stream, position) in &self.streams {
            as_of.set(*stream, position.sequence);
        }
        as_of
    }

    /// Positions that never came, over all lanes.
    pub fn gaps(&self) -> u64 {
        self.lanes.values().map(|lane| lane.gaps).sum()
    }

    /// Takes note of an event's position in the lane of its outbox.
    ///
    /// An outbox that is seen for the first time must begin at 1 if it was
    /// opened after this database began to read; an older one may have begun
    /// in what retention has removed.
    pub(crate) fn arrive(
        &self,
        advance: &mut Advance,
        stream: Stream,
        (outbox, position): (OutboxId, u64),
        sequence: u64,
    ) -> Arrival {
        let key = (stream, outbox);
        let known = advance
            .lanes
            .get(&key)
            .or_else(|| self.lanes.get(&key))
            .copied();
        let mut lane = known.unwrap_or_else(|| {
            let begins_at = if outbox.drawn_at().as_millis() > advance.reading_since_ms {
                0
            } else {
                position.saturating_sub(1)
            };
            LanePosition {
                position: begins_at,
                sequence,
                gaps: 0,
            }
        });
        if position <= lane.position {
            return Arrival::Duplicate;
        }
        let missing = position - lane.position - 1;
        if missing > 0 {
            advance.gaps = advance.gaps.saturating_add(missing);
            lane.gaps = lane.gaps.saturating_add(missing);
            tracing::error!(%stream, %outbox, position, missing, "events are missing from the lane of an outbox");
        }
        lane.position = position;
        lane.sequence = sequence;
        advance.lanes.insert(key, lane);
        Arrival::New
    }

    /// Writes what a batch changed, in the batch's transaction.
    ///
    /// # Errors
    /// The database cannot be written.
    pub(crate) async fn store(
        connection: &mut SqliteConnection,
        stream: Stream,
        position: StreamPosition,
        advance: &Advance,
    ) -> Result<(), sqlx::Error> {
        let row = |outbox: String, sequence: u64, lane: u64, gaps: u64| Row {
            stream: stream.name().to_owned(),
            // Only the stream's own row is held against the stream.
            stored_ns: position.stored_ns.filter(|_| outbox.is_empty()),
            outbox,
            created_ns: position.created_ns,
            sequence: signed(sequence),
            first_ms: position.first_ms,
            position: signed(lane),
            gaps: signed(gaps),
        };
        write(connection, row(String::new(), position.sequence, 0, 0)).await?;
        for ((_, outbox), lane) in &advance.lanes {
            let row = row(outbox.to_string(), lane.sequence, lane.position, lane.gaps);
            write(connection, row).await?;
        }
        Ok(())
    }

    /// Takes over what was committed.
    pub(crate) fn advance(&mut self, stream: Stream, position: StreamPosition, advance: Advance) {
        self.streams.insert(stream, position);
        self.lanes.extend(advance.lanes);
    }
}

async fn write(connection: &mut SqliteConnection, row: Row) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO checkpoint
             (stream, outbox, created_ns, sequence, stored_ns, first_ms, position, gaps,
              apply_version)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET created_ns = excluded.created_ns, sequence = excluded.sequence,
             stored_ns = excluded.stored_ns, first_ms = excluded.first_ms, position = excluded.position, gaps = excluded.gaps,
             apply_version = excluded.apply_version",
    )
    .bind(row.stream)
    .bind(row.outbox)
    .bind(row.created_ns)
    .bind(row.sequence)
    .bind(row.stored_ns)
    .bind(row.first_ms)
    .bind(row.position)
    .bind(row.gaps)
    .bind(APPLY_VERSION)
    .execute(connection)
    .await
    .map(drop)
}

/// SQLite's integers are signed; sequences and positions never come near the limit.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use nexus_events::clock::{ManualClock, UnixMillis};

    use super::*;

    fn outbox(drawn: i64) -> OutboxId {
        OutboxId::draw(&ManualClock::at(UnixMillis::from_millis(drawn)))
    }

    fn reading_since(first_ms: i64) -> Advance {
        Advance::of(StreamPosition {
            created_ns: 1,
            sequence: 10,
            stored_ns: None,
            first_ms,
        })
    }

    #[test]
    fn a_position_counts_once_and_a_jump_is_a_gap() {
        let (checkpoint, mut advance) = (Checkpoint::default(), reading_since(1000));
        let outbox = outbox(2000);
        let mut arrive = |position, sequence| {
            checkpoint.arrive(
                &mut advance,
                Stream::Exchanges,
                (outbox, position),
                sequence,
            )
        };
        assert_eq!(arrive(1, 11), Arrival::New);
        assert_eq!(arrive(1, 12), Arrival::Duplicate);
        assert_eq!(arrive(2, 13), Arrival::New);
        assert_eq!(arrive(5, 14), Arrival::New);
        assert_eq!(advance.gaps, 2);
    }

    #[test]
    fn only_an_outbox_older_than_the_reading_may_begin_later() {
        let (checkpoint, mut advance) = (Checkpoint::default(), reading_since(1000));
        let old = (outbox(500), 40);
        checkpoint.arrive(&mut advance, Stream::Exchanges, old, 11);
        assert_eq!(advance.gaps, 0);
        let new = (outbox(1500), 3);
        checkpoint.arrive(&mut advance, Stream::Exchanges, new, 12);
        assert_eq!(advance.gaps, 2);
    }
}
