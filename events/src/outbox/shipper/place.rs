//! Where a lane is: what the stream says, and the lane's note where the stream is silent.

use std::error::Error;

use super::LaneShipper;
use crate::{
    log::{
        LogError, StreamState,
        history::{HistoryError, Stretch},
    },
    outbox::cursor::Cursor,
    subject,
};

/// Where the stream says that a lane is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The last position stored.
    pub(super) position: u64,
    /// Sequence of the cursor; 0 when there is none.
    pub(super) cursor_sequence: u64,
    /// When the stream was created, nanoseconds since 1970.
    pub(super) stream_created_ns: i128,
}

/// Why a lane ships no more.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaneEnd {
    #[error(
        "the stream's cursor is at {cursor}, but the outbox only holds {held}: it was restored from an older copy, or files were removed"
    )]
    CursorAhead { cursor: u64, held: u64 },
}

impl LaneShipper {
    /// Where the lane is: as known, or as the stream says.
    pub(super) async fn place(&mut self) -> Result<Result<Place, LaneEnd>, HistoryError> {
        if let Some(place) = self.place {
            return Ok(Ok(place));
        }
        let (stream, subject) = (
            self.lane.stream(),
            subject::cursor(self.lane, self.store.id()),
        );
        let state = self.log.stream_state(stream).await?;
        let last = self.log.last_of_subject(stream, &subject).await?;
        let (position, cursor_sequence) = match last {
            None => {
                self.complete.stored(None);
                (self.without_cursor(state).await?, 0)
            }
            Some(message) => {
                let cursor: Cursor = serde_json::from_slice(&message.payload)
                    .map_err(|error| LogError::broker("give a readable cursor", error))?;
                self.complete.stored(cursor.complete_ms);
                let stored = self.behind(message.sequence, state).await?;
                (cursor.position.max(stored), message.sequence)
            }
        };
        let place = Place {
            position,
            cursor_sequence,
            stream_created_ns: state.created_ns,
        };
        let held = self.store.last_position(self.lane);
        if position > held {
            let end = LaneEnd::CursorAhead {
                cursor: position,
                held,
            };
            if self.alive {
                return Ok(Err(end));
            }
            // Nobody appends to it any more, and the stream has all that it holds.
            tracing::error!(lane = %self.lane, outbox = %self.store.id(), error = &end as &dyn Error, "an adopted outbox lost its end after that had been shipped");
            self.store.progress.alarm(self.lane, end.to_string());
            self.store.set_shipped(self.lane, position);
        }
        self.place = Some(place);
        Ok(Ok(place))
    }

    /// The last position stored behind the lane's cursor; 0 where there is none, as it should be.
    ///
    /// A broker that is given a limit in the middle of a commit stores a part of
    /// the batch, and no cursor. Sent again, that part would be there twice.
    async fn behind(&self, cursor: u64, state: StreamState) -> Result<u64, HistoryError> {
        let stretch = Stretch {
            after: cursor,
            upto: state.last_sequence,
        };
        let (stream, outbox) = (self.lane.stream(), self.store.id());
        let search = self.log.last_position_within(stream, outbox, stretch);
        let stored = search.await?;
        if stored > 0 {
            tracing::warn!(lane = %self.lane, %outbox, cursor, stored, "the stream holds a part of a batch without its cursor");
        }
        Ok(stored)
    }

    /// The last position stored, where the stream holds no cursor.
    ///
    /// A lane that has sent something had one. It has expired, or somebody
    /// removed it: the note says what the stream acknowledged, and what was
    /// stored behind that is looked up.
    async fn without_cursor(&self, state: StreamState) -> Result<u64, HistoryError> {
        let note = self.note.read();
        let note = note.map_err(|error| LogError::broker("be asked: the note is lost", error))?;
        let Some(noted) = note else {
            return Ok(0);
        };
        // Another stream than it was noted for has none of that, nor has one that was put back.
        let is_of_stream =
            noted.stream_created_ns == state.created_ns && noted.sequence <= state.last_sequence;
        let noted = if is_of_stream { noted.position } else { 0 };
        if noted >= self.store.last_position(self.lane) {
            return Ok(noted);
        }
        let (stream, outbox) = (self.lane.stream(), self.store.id());
        let stored = self.log.last_position_of(stream, outbox).await?;
        tracing::warn!(lane = %self.lane, %outbox, noted, stored, "the stream holds no cursor of an outbox lane any more");
        Ok(noted.max(stored))
    }
}
