//! The outbox: where an event is safe before the world sees its effect.
//!
//! # Why
//! The broker may be slow, away or restarting; a client must not notice, and
//! nothing that it saw may be missing from the log. So a gateway appends each
//! event to a file on its own disk, which takes microseconds and survives the
//! death of any process, and ships it to the broker at leisure.
//!
//! # How
//! A process start opens a new *incarnation*: a directory of its own, named by
//! the outbox id and held by a file lock. It appends only there. Directories
//! that nobody holds are adopted: drained, their open requests closed, and
//! removed; nothing is ever appended to them. So a restored snapshot, a
//! shortened tail or two containers on one volume cannot reuse a position.
//!
//! An incarnation is a sequence of segment files ([`segment`]) that hold the
//! records of three lanes, one for each stream. Positions count from 1 in each
//! lane. A segment begins with the positions reached and the requests that
//! were open, so that older segments can be freed while a request goes on.
//! A segment is freed when every lane has shipped what it holds.
//!
//! # Promises
//! * A record counts as appended when `write(2)` has returned: no buffer of
//!   ours is in between. A write that failed leaves nothing behind.
//! * Recovery cuts a torn tail and nothing else. Damage elsewhere is stepped
//!   over and told; the gap in the positions proves it to every reader.
//! * The size is bounded. Each open request holds a reserve for its terminal
//!   event, so a request that was let in can always be closed. Some room is
//!   held for the audit lane, so that what is refused meanwhile is told.
//! * A lane ships strictly in order, each event once ([`shipper`]).
//!
//! # Never
//! Nothing is dropped, and nothing waits for the broker but who asks to.

mod adopted;
mod batch;
mod cursor;
mod disk;
#[doc(hidden)]
pub mod fuzzing;
mod head;
mod incarnation;
mod joint;
mod note_of;
mod open_request;
mod progress;
mod recover;
pub mod segment;
pub mod segment_reader;
mod segments;
pub mod set_aside;
pub mod shipper;
mod store;
mod sync;
#[cfg(test)]
mod tests;

use std::{io, path::PathBuf, sync::Arc};

use crate::{
    clock::SharedClock,
    envelope::Record,
    id::{OutboxId, RequestId},
    subject::Lane,
};

pub use adopted::{Adopted, OpenState};
pub use cursor::Cursor;
use joint::Joint;
pub use note_of::InLog;
pub use open_request::{OpenCount, OpenRequest};
pub use shipper::Shipper;
pub(crate) use store::Store;
use store::Synced;

/// Largest record: 33 MiB, for a request body of 32 MiB with its envelope.
pub const RECORD_BYTES_MAX: usize = 33 * 1024 * 1024;

/// Reserve of a request that has not answered anything yet: 16 KiB, several
/// times the largest terminal event without content.
pub const RESERVE_BYTES: u64 = 16 * 1024;

/// Room that a new request needs: its reserve, and 48 KiB for a body of a usual size.
const REQUEST_BYTES: u64 = 4 * RESERVE_BYTES;

/// When the outbox's files are forced to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncMode {
    /// When the operating system likes: survives the death of processes.
    #[default]
    Os,
    /// Every 200 ms.
    Interval,
    /// Before a byte is released; appends that wait share one sync.
    Always,
}

/// When a byte may leave the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Release {
    /// When its record is in the outbox.
    #[default]
    Local,
    /// When the broker has acknowledged its record: survives the loss of the host.
    Stream,
}

/// How an outbox is kept.
#[derive(Clone, Debug)]
pub struct OutboxSettings {
    /// The directory below which each incarnation has its own.
    pub dir: PathBuf,
    /// Bound on the size of all incarnations of this process, adopted ones included, in bytes.
    pub bytes_max: u64,
    /// When files are forced to the disk.
    pub sync: SyncMode,
    /// When a byte may leave the gateway.
    pub release: Release,
}

/// Why an outbox could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("the outbox could not {doing} {}", path.display())]
pub struct OpenError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Why a record was not appended. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The outbox is at its bound; it has room again when the broker has taken some of it.
    #[error("the outbox is full")]
    Full,
    /// The record is larger than any record may be.
    #[error("the record has {bytes} bytes, more than {RECORD_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The file could not be written: disk full, disk broken.
    #[error("the outbox could not be written")]
    Io(#[source] io::Error),
    /// The request has had its terminal event.
    #[error("the request is closed already")]
    Closed,
}

impl AppendError {
    /// Whether there was no room: in the outbox, or on the disk beneath it.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Full => true,
            Self::Io(error) => matches!(
                error.kind(),
                io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::FileTooLarge
            ),
            Self::TooLarge { .. } | Self::Closed => false,
        }
    }
}

/// Where a record was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The lane.
    pub lane: Lane,
    /// The position in the lane, from 1.
    pub position: u64,
    /// The segment, and the offset of the record's end in it.
    pub(crate) end: (u64, u64),
}

/// Why a byte may not leave the gateway.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The file could not be forced to the disk.
    #[error("the outbox could not be synced")]
    Sync,
    /// The lane does not ship any more.
    #[error("the {0} lane has stopped")]
    LaneStopped(Lane),
}

/// What an outbox holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk.
    pub used_bytes: u64,
    /// Bytes held for the terminal events of open requests.
    pub reserved_bytes: u64,
    /// The bound, less what adopted incarnations still take.
    pub limit_bytes: u64,
    /// Bytes of the bound that are held for the audit lane.
    pub audit_bytes: u64,
    /// Number of open requests.
    pub open_requests: u64,
    /// The last position appended, by lane.
    pub appended: [u64; 3],
    /// The last position that the broker has stored, by lane.
    pub shipped: [u64; 3],
    /// The last position that is damaged and never will be, by lane.
    pub lost: [u64; 3],
}

impl Usage {
    /// Whether new requests are refused: there is no room for one of a usual size and its reserve.
    pub const fn is_full(&self) -> bool {
        let held = self.used_bytes.saturating_add(self.reserved_bytes);
        let held = held.saturating_add(self.audit_bytes);
        held.saturating_add(REQUEST_BYTES) > self.limit_bytes
    }
}

/// The outbox of a process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outbox {
    store: Arc<Store>,
    release: Release,
    sync: SyncMode,
    joint: Arc<Joint>,
    /// Adopted incarnations stay locked as long as this one, and longer by a moment: until it is
    /// shipped it may hold the ends of their requests, and who adopted them alone would write
    /// second ones. So they stand behind `store`.
    _adopted: Arc<[Arc<Store>]>,
}

impl Outbox {
    /// Opens a new incarnation and adopts every other that nobody holds.
    ///
    /// # Errors
    /// [`OpenError`] when the directory cannot be made, read or locked.
    pub fn open(
        settings: &OutboxSettings,
        clock: &SharedClock,
    ) -> Result<(Self, Vec<Adopted>), OpenError> {
        let joint = Arc::new(Joint::default());
        let adopted = incarnation::adopt_abandoned(&settings.dir, &joint)?;
        let store = incarnation::create(settings, clock, &joint)?;
        let outbox = Self {
            store: Arc::new(store),
            release: settings.release,
            sync: settings.sync,
            joint,
            _adopted: adopted.iter().map(|it| Arc::clone(it.store())).collect(),
        };
        sync::start(&outbox.store, settings.sync).map_err(|source| OpenError {
            doing: "start the sync thread for",
            path: settings.dir.clone(),
            source,
        })?;
        Ok((outbox, adopted))
    }

    /// The id of this incarnation.
    pub fn id(&self) -> OutboxId {
        self.store.id()
    }

    /// Lets a request in: holds a reserve for its terminal event.
    ///
    /// # Errors
    /// [`AppendError::Full`].
    pub fn admit(&self, request: RequestId) -> Result<OpenRequest, AppendError> {
        OpenRequest::admit(Arc::clone(&self.store), request)
    }

    /// Appends a record that belongs to no open request: audit, `rejected`.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing of the record is left behind.
    pub fn append(&self, record: &Record) -> Result<Appended, AppendError> {
        self.store.append(record)
    }

    /// Waits until what was appended may leave the gateway.
    ///
    /// Returns at once with the default settings.
    ///
    /// # Errors
    /// See [`ReleaseError`].
    pub async fn released(&self, appended: Appended) -> Result<(), ReleaseError> {
        self.synced(appended).await?;
        if self.release == Release::Stream {
            self.stored(appended).await?;
        }
        Ok(())
    }

    /// Waits until what was appended is as safe on this machine as `NEXUS_OUTBOX_SYNC` says.
    ///
    /// # Errors
    /// [`ReleaseError::Sync`].
    pub async fn synced(&self, appended: Appended) -> Result<(), ReleaseError> {
        if self.sync == SyncMode::Always {
            self.store.synced(appended.end).await?;
        }
        Ok(())
    }

    /// Waits until the broker has stored what was appended, whatever the release setting.
    ///
    /// # Errors
    /// [`ReleaseError::LaneStopped`].
    pub async fn stored(&self, appended: Appended) -> Result<(), ReleaseError> {
        let progress = &self.store.progress;
        progress
            .shipped_upto(appended.lane, appended.position)
            .await
    }

    /// Waits until the broker has stored everything that was appended to a lane so far.
    ///
    /// # Errors
    /// [`ReleaseError::LaneStopped`].
    pub async fn stored_so_far(&self, lane: Lane) -> Result<(), ReleaseError> {
        let position = self.store.last_position(lane);
        self.store.progress.shipped_upto(lane, position).await
    }

    /// What it holds.
    pub fn usage(&self) -> Usage {
        self.store.usage()
    }

    /// Whether a lane has shipped everything that was appended to it so far.
    pub fn is_shipped(&self) -> bool {
        let usage = self.usage();
        usage.appended == usage.shipped
    }

    /// Whether a sync failed: with [`SyncMode::Always`] nothing is released any more.
    pub fn sync_failed(&self) -> bool {
        *self.store.synced.borrow() == Synced::Failed
    }

    /// Events that were appended and cannot be read any more, by lane; those of adopted
    /// incarnations included.
    pub fn gaps(&self) -> [u64; 3] {
        self.joint.gaps()
    }

    /// Records that the broker could not take since the start, by lane; those of adopted
    /// incarnations included. They lie in the folder of [`set_aside`].
    pub fn set_aside(&self) -> [u64; 3] {
        self.joint.all_set_aside()
    }

    /// In which lanes something happened since the start that somebody should look into, those of
    /// adopted incarnations included.
    pub fn alarmed(&self) -> [bool; 3] {
        self.joint.alarms()
    }

    /// Which lanes have stopped for good or lost events, with the reason.
    pub fn alarms(&self) -> Vec<(Lane, String)> {
        let progress = &self.store.progress;
        let mut alarms = progress.stopped_lanes();
        alarms.extend(progress.alarms());
        alarms
    }

    /// Removes the incarnation's directory if everything is shipped and closed; tells whether.
    ///
    /// For an orderly end only: what is appended afterwards is refused.
    pub fn retire(&self) -> bool {
        self.store.retire() && self.store.remove().is_ok()
    }

    pub(crate) const fn store(&self) -> &Arc<Store> {
        &self.store
    }
}
