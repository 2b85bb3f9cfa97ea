//! One incarnation: the only code that appends to it.
//!
//! The own incarnation has a writer; an adopted one has none. Everything else
//! (sizes, freeing, what is shipped) is the same for both.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::{
    envelope::Record,
    id::{OutboxId, RequestId},
    outbox::{
        AppendError, Appended, RECORD_BYTES_MAX, Usage,
        adopted::OpenState,
        head::track,
        joint::{Budget, Joint},
        progress::Progress,
        segment::{Kind, Mark, StoredRecord},
        segments::{SEGMENT_BYTES, SegmentInfo, Segments},
    },
    subject::Lane,
};

/// How much room an append may take.
#[derive(Clone, Copy, Debug)]
pub(super) enum Room {
    /// What is neither used nor reserved, nor held for the audit lane.
    Free,
    /// What is neither used nor reserved: for the audit lane.
    Audit,
    /// That, and this much that the request holds in reserve: what fits in the reserve always has room.
    Reserve(u64),
}

/// A record of the store, with what the store needs to know beside it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) record: &'a Record,
    pub(super) mark: Mark,
    pub(super) request: RequestId,
}

/// How far the files are on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Synced {
    /// Up to this offset of this segment.
    Upto((u64, u64)),
    /// A sync failed: what it would have covered may be lost, so nothing is released any more.
    Failed,
}

/// What a store begins with.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) segments: BTreeMap<u64, SegmentInfo>,
    pub(super) positions: [u64; 3],
    pub(super) open: HashMap<RequestId, OpenState>,
}

/// A directory that is held.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) id: OutboxId,
    pub(super) dir: PathBuf,
    /// Held open for its lock.
    pub(super) _lock: File,
}

/// An incarnation.
#[derive(Debug)]
pub(crate) struct Store {
    home: Home,
    budget: Budget,
    state: Mutex<State>,
    pub(super) progress: Progress,
    pub(super) synced: watch::Sender<Synced>,
    pub(super) sync_wanted: Notify,
}

#[derive(Debug)]
struct State {
    segments: Segments,
    positions: [u64; 3],
    open: HashMap<RequestId, OpenState>,
    reserved: u64,
    /// What an adopted incarnation takes of the bound, in bytes; 0 for the own one.
    charged: u64,
    /// Nothing is appended any more.
    retired: bool,
}

impl Store {
    /// A store over what recovery found; without a writer.
    pub(super) fn adopted(home: Home, contents: Contents, joint: &Arc<Joint>) -> Self {
        let budget = Budget::Adopted {
            joint: Arc::clone(joint),
        };
        let store = Self::new(home, budget, (SEGMENT_BYTES, false), contents);
        let mut state = store.state.lock();
        state.charged = state.segments.used;
        joint.take(state.charged);
        drop(state);
        store
    }

    /// A new incarnation with an empty first segment.
    ///
    /// # Errors
    /// The file cannot be made.
    pub(super) fn create(home: Home, budget: Budget, syncs: bool) -> io::Result<Self> {
        let contents = Contents {
            segments: BTreeMap::new(),
            positions: [0; 3],
            open: HashMap::new(),
        };
        let bound = match &budget {
            Budget::Own { bound, .. } => *bound,
            Budget::Adopted { .. } => 0,
        };
        let segment_bytes = SEGMENT_BYTES.min(bound / 8);
        let store = Self::new(home, budget, (segment_bytes, syncs), contents);
        store.state.lock().segments.roll([0; 3], &HashMap::new())?;
        Ok(store)
    }

    fn new(
        home: Home,
        budget: Budget,
        (segment_bytes, syncs): (u64, bool),
        contents: Contents,
    ) -> Self {
        let segments = Segments {
            dir: home.dir.clone(),
            syncs,
            segment_bytes,
            used: contents.segments.values().map(|info| info.end).sum(),
            files: contents.segments,
            writer: None,
            sync_failed: false,
        };
        Self {
            home,
            progress: Progress::new(Arc::clone(budget.joint())),
            budget,
            state: Mutex::new(State {
                segments,
                positions: contents.positions,
                open: contents.open,
                reserved: 0,
                charged: 0,
                retired: false,
            }),
            synced: watch::Sender::new(Synced::Upto((0, 0))),
            sync_wanted: Notify::new(),
        }
    }

    pub(super) const fn id(&self) -> OutboxId {
        self.home.id
    }

    #[cfg(test)]
    pub(super) const fn joint(&self) -> &Arc<Joint> {
        self.budget.joint()
    }

    pub(super) fn dir(&self) -> &Path {
        &self.home.dir
    }

    /// Appends a record that belongs to no open request.
    pub(super) fn append(&self, record: &Record) -> Result<Appended, AppendError> {
        let entry = Entry {
            record,
            mark: Mark::Plain,
            request: RequestId::from_uuid(Uuid::nil()),
        };
        let is_audit = record.lane == Lane::Audit;
        self.append_entry(entry, if is_audit { Room::Audit } else { Room::Free })
    }

    /// Appends a record; all of it, or nothing.
    pub(super) fn append_entry(
        &self,
        entry: Entry<'_>,
        room: Room,
    ) -> Result<Appended, AppendError> {
        let lane = entry.record.lane;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.retired {
            // The file is about to be removed, or is: what it took would be lost in silence.
            return Err(AppendError::Io(io::ErrorKind::NotFound.into()));
        }
        let position = lane_of(&state.positions, lane) + 1;
        let stored = StoredRecord {
            kind: Kind::Event(lane),
            mark: entry.mark,
            position,
            id: entry.record.id,
            request: entry.request,
            content_at: entry.record.content_at,
            subject: &entry.record.subject,
            payload: &entry.record.payload,
        };
        let bytes = stored.stored_bytes();
        if bytes > RECORD_BYTES_MAX {
            return Err(AppendError::TooLarge { bytes });
        }
        if !self.has_room(state, to_u64(bytes), room) {
            return Err(AppendError::Full);
        }
        let rolled = state.segments.roll_if_large(state.positions, &state.open);
        if state.segments.sync_failed {
            // What the segment before holds may not be on the disk, and a later sync would not tell.
            self.synced.send_replace(Synced::Failed);
        }
        let written = rolled.and_then(|()| state.segments.write(&stored));
        let end = written.map_err(AppendError::Io)?;
        if let Some(reached) = state.positions.get_mut(lane.index()) {
            *reached = position;
        }
        if let Some(mut segment) = state.segments.files.last_entry() {
            segment.get_mut().reached = state.positions;
        }
        track(&mut state.open, entry.mark, entry.request);
        drop(guard);
        self.progress.tell_appended(lane);
        Ok(Appended {
            lane,
            position,
            end,
        })
    }

    fn has_room(&self, state: &State, bytes: u64, room: Room) -> bool {
        let requests = self.budget.limit_of_requests();
        let (reserve, limit) = match room {
            Room::Free => (0, requests),
            Room::Audit => (0, self.budget.limit()),
            // The head of a segment may come on top: a few bytes for each open request.
            Room::Reserve(reserve) if bytes <= reserve => return true,
            Room::Reserve(reserve) => (reserve, requests),
        };
        let taken = state.reserved.saturating_sub(reserve) + state.segments.used;
        let head = state.segments.next_head_bytes(state.open.len());
        taken.saturating_add(head).saturating_add(bytes) <= limit
    }

    /// Holds `bytes` more in reserve, if there is room.
    pub(super) fn reserve(&self, bytes: u64) -> Result<(), AppendError> {
        let mut state = self.state.lock();
        let held = state.segments.used + state.reserved;
        if held.saturating_add(bytes) > self.budget.limit_of_requests() {
            return Err(AppendError::Full);
        }
        state.reserved += bytes;
        Ok(())
    }

    /// Gives reserved bytes back.
    pub(super) fn unreserve(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.reserved = state.reserved.saturating_sub(bytes);
    }

    /// The last position appended to a lane.
    pub(super) fn last_position(&self, lane: Lane) -> u64 {
        lane_of(&self.state.lock().positions, lane)
    }

    /// The number of the segment that holds the position after `position` in a lane.
    pub(super) fn segment_after(&self, lane: Lane, position: u64) -> Option<u64> {
        let state = self.state.lock();
        let mut segments = state.segments.files.iter();
        segments
            .find(|(_, segment)| lane_of(&segment.reached, lane) > position)
            .map(|(number, _)| *number)
    }

    /// The number of the segment in which a lane goes on after `position`, for who has read
    /// `segment` up to `limit`.
    ///
    /// `None` also when more was appended to that segment meanwhile.
    pub(super) fn segment_behind(
        &self,
        lane: Lane,
        position: u64,
        (segment, limit): (u64, u64),
    ) -> Option<u64> {
        let state = self.state.lock();
        let files = &state.segments.files;
        if files.get(&segment).is_some_and(|info| info.end > limit) {
            return None;
        }
        let mut behind = files.range(segment.saturating_add(1)..);
        behind
            .find(|(_, info)| lane_of(&info.reached, lane) > position)
            .map(|(number, _)| *number)
    }

    /// Where a segment ends at present; `None` when it was freed.
    pub(super) fn segment_end(&self, number: u64) -> Option<u64> {
        let state = self.state.lock();
        state.segments.files.get(&number).map(|info| info.end)
    }

    /// The path of a segment.
    pub(super) fn segment_path(&self, number: u64) -> PathBuf {
        self.state.lock().segments.path(number)
    }

    /// Notes that the broker has stored a lane up to a position, and frees what is no longer needed.
    pub(super) fn set_shipped(&self, lane: Lane, position: u64) {
        self.progress.set_shipped(lane, position);
        let shipped = self.progress.shipped();
        let mut state = self.state.lock();
        let before = state.segments.used;
        state.segments.free(shipped);
        let freed = before - state.segments.used;
        let mut lanes = state.positions.iter().zip(&shipped);
        // What is shipped whole and only waits for its requests to be settled must not take the
        // room that their ends need.
        let is_shipped = lanes.all(|(reached, shipped)| shipped >= reached);
        let bytes = if is_shipped { u64::MAX } else { freed };
        self.give_back(&mut state, bytes);
    }

    /// Gives back what an adopted incarnation takes of the bound, at most so many bytes.
    fn give_back(&self, state: &mut State, bytes: u64) {
        let bytes = bytes.min(state.charged);
        state.charged -= bytes;
        self.budget.joint().give_back(bytes);
    }

    pub(super) fn usage(&self) -> Usage {
        let state = self.state.lock();
        Usage {
            used_bytes: state.segments.used,
            reserved_bytes: state.reserved,
            limit_bytes: self.budget.limit(),
            audit_bytes: self.budget.held_for_audit(),
            open_requests: to_u64(state.open.len()),
            appended: state.positions,
            shipped: self.progress.shipped(),
            lost: self.progress.lost(),
        }
    }

    /// The requests that are open, and how.
    pub(super) fn open_requests(&self) -> Vec<(RequestId, OpenState)> {
        let state = self.state.lock();
        state.open.iter().map(|(id, open)| (*id, *open)).collect()
    }

    /// Where the last segment ends, and a handle to sync it with.
    pub(super) fn tail(&self) -> io::Result<Option<(File, (u64, u64))>> {
        let state = self.state.lock();
        let Some(writer) = &state.segments.writer else {
            return Ok(None);
        };
        let info = state.segments.files.get(&writer.number);
        let end = info.map_or(0, |info| info.end);
        Ok(Some((writer.file.try_clone()?, (writer.number, end))))
    }

    /// Removes the directory with all segments.
    pub(super) fn remove(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.home.dir)?;
        let mut state = self.state.lock();
        state.segments.used = 0;
        self.give_back(&mut state, u64::MAX);
        Ok(())
    }

    /// Ends the appending if everything is shipped and closed; tells whether.
    pub(super) fn retire(&self) -> bool {
        let mut state = self.state.lock();
        let is_done = state.positions == self.progress.shipped() && state.open.is_empty();
        state.retired |= is_done;
        is_done
    }
}

fn lane_of(positions: &[u64; 3], lane: Lane) -> u64 {
    positions.get(lane.index()).copied().unwrap_or(0)
}

fn to_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
