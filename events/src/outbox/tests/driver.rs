//! The outbox and its model side by side: the same steps, the same outcome, the same figures.

use std::{fs, path::PathBuf, sync::Arc};

use tempfile::TempDir;

use super::{
    crash,
    model::{Append, Model, Outcome, content_bytes},
    open, record,
};
use crate::{
    clock::SystemClock,
    envelope::{Envelope, Record},
    id::{EventId, RequestId},
    outbox::{
        AppendError, Appended, OpenCount, OpenRequest, Outbox, RESERVE_BYTES, Store,
        disk::faults::{self, Faults},
        segment::Mark,
        shipper::lane_reader::LaneReader,
    },
    subject::Lane,
};

/// What is done to an outbox. Indices are taken modulo what there is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    /// Lets a request in and appends its `received`.
    Open(usize),
    /// Appends to an open request: in which lane, how large.
    Append(usize, Lane, usize),
    /// Closes an open request.
    Close(usize, usize),
    /// Closes it, with its tokens to be counted.
    CloseUncounted(usize, usize),
    /// Counts a request.
    Count(usize),
    /// Loses a request without closing it.
    Abandon(usize),
    /// Appends what belongs to no request.
    Audit(usize),
    /// The broker has stored a lane up to some position.
    Ship(Lane, u64),
}

/// An action, and what is wrong with the disk meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) action: Action,
    pub(super) faults: Option<Faults>,
}

/// An open request with what it holds in reserve, as the model knows it.
struct Held {
    open: OpenRequest,
    reserve: u64,
}

/// An outbox that is driven together with its model.
pub(super) struct Driver {
    pub(super) dir: TempDir,
    pub(super) outbox: Outbox,
    pub(super) model: Model,
    requests: Vec<Held>,
    /// Requests that are to be counted, with their reserve.
    counts: Vec<(RequestId, OpenCount, u64)>,
}

impl Driver {
    pub(super) fn new(bytes_max: u64) -> Self {
        let dir = TempDir::new().unwrap();
        let (outbox, _) = open(dir.path(), bytes_max);
        Self {
            dir,
            outbox,
            model: Model::new(bytes_max),
            requests: Vec::new(),
            counts: Vec::new(),
        }
    }

    /// The directory of the incarnation.
    pub(super) fn home(&self) -> PathBuf {
        self.dir.path().join(self.outbox.id().to_string())
    }

    /// Does it to both and compares; tells how many bytes were written at the end.
    pub(super) fn step(&mut self, step: Step) {
        faults::set(step.faults);
        self.model.cuts_fail = step.faults.is_some_and(|faults| faults.cuts_fail);
        let disk_room = step.faults.map_or(u64::MAX, |faults| faults.room as u64);
        self.act(step.action, disk_room);
        faults::set(None);
        self.model.cuts_fail = false;
        self.assert_figures();
    }

    fn act(&mut self, action: Action, disk_room: u64) {
        match action {
            Action::Open(size) => self.open(size, disk_room),
            Action::Append(who, lane, size) if !self.requests.is_empty() => {
                let who = who % self.requests.len();
                self.append(who, (lane, size), disk_room);
            }
            Action::Close(who, size) if !self.requests.is_empty() => {
                let who = who % self.requests.len();
                self.close(who, size, disk_room);
            }
            Action::CloseUncounted(who, size) if !self.requests.is_empty() => {
                let who = who % self.requests.len();
                self.close_uncounted(who, size, disk_room);
            }
            Action::Count(who) if !self.counts.is_empty() => {
                let who = who % self.counts.len();
                self.count(who, disk_room);
            }
            Action::Abandon(who) if !self.requests.is_empty() => {
                let held = self.requests.swap_remove(who % self.requests.len());
                self.model.reserved -= held.reserve;
            }
            Action::Audit(size) => {
                let audit = record(Lane::Audit, &"a".repeat(size));
                let expected = self.model.append(plain(&audit, disk_room));
                self.compare(expected, self.outbox.append(&audit), Lane::Audit);
            }
            Action::Ship(lane, upto) => {
                let upto = upto % (self.model.positions[lane.index()] + 1);
                self.model.ship(lane, upto);
                self.outbox.store().set_shipped(lane, upto);
            }
            Action::Append(..)
            | Action::Close(..)
            | Action::CloseUncounted(..)
            | Action::Count(_)
            | Action::Abandon(_) => {}
        }
    }

    fn open(&mut self, size: usize, disk_room: u64) {
        let request = RequestId::draw(&SystemClock);
        let expected = self.model.admit();
        let open = match self.outbox.admit(request) {
            Ok(open) => open,
            Err(error) => return assert_eq!(outcome(&error), expected, "{error}"),
        };
        assert_eq!(expected, Outcome::Done);
        let mut held = Held {
            open,
            reserve: RESERVE_BYTES,
        };
        let received = record(Lane::Exchanges, &"r".repeat(size));
        let append = Append {
            mark: Mark::Opens,
            request: Some(request),
            ..plain(&received, disk_room)
        };
        let expected = self.model.append(append);
        self.compare(expected, held.open.append(&received), Lane::Exchanges);
        if expected == Outcome::Done {
            self.requests.push(held);
        } else {
            // It never was: nothing of it is in the log.
            self.model.reserved -= held.reserve;
        }
    }

    fn append(&mut self, who: usize, (lane, size): (Lane, usize), disk_room: u64) {
        let chunk = record(lane, &"c".repeat(size));
        let repeated = content_bytes(&chunk);
        let mut expected = self.model.reserve(repeated);
        if expected == Outcome::Done {
            // A request has no part in the audit's share of the room, in whatever lane it writes.
            expected = self.model.append(Append {
                request: Some(self.requests[who].open.request()),
                ..plain(&chunk, disk_room)
            });
            if expected == Outcome::Done {
                self.requests[who].reserve += repeated;
            } else {
                self.model.reserved -= repeated;
            }
        }
        let appended = self.requests[who].open.append(&chunk);
        self.compare(expected, appended, lane);
    }

    fn close(&mut self, who: usize, size: usize, disk_room: u64) {
        let terminal = record(Lane::Exchanges, &"t".repeat(size));
        let expected = self.end(who, (&terminal, Mark::Closes), disk_room);
        let closed = self.requests[who].open.close(&terminal);
        self.compare(expected, closed, Lane::Exchanges);
        if expected == Outcome::Done {
            let held = self.requests.swap_remove(who);
            self.model.reserved -= held.reserve;
        }
    }

    fn close_uncounted(&mut self, who: usize, size: usize, disk_room: u64) {
        let terminal = record(Lane::Exchanges, &"t".repeat(size));
        let expected = self.end(who, (&terminal, Mark::ClosesUncounted), disk_room);
        let (closed, count) = match self.requests[who].open.close_uncounted(&terminal) {
            Ok((appended, count)) => (Ok(appended), Some(count)),
            Err(error) => (Err(error), None),
        };
        self.compare(expected, closed, Lane::Exchanges);
        if let Some(count) = count {
            let held = self.requests.swap_remove(who);
            self.model.reserved -= held.reserve;
            let reserve = match self.model.reserve(RESERVE_BYTES) {
                Outcome::Done => RESERVE_BYTES,
                Outcome::Full | Outcome::Io => 0,
            };
            self.counts.push((held.open.request(), count, reserve));
        }
    }

    /// What the model makes of a terminal event.
    fn end(&mut self, who: usize, (terminal, mark): (&Record, Mark), disk_room: u64) -> Outcome {
        let held = &self.requests[who];
        self.model.append(Append {
            mark,
            request: Some(held.open.request()),
            reserve: Some(held.reserve),
            ..plain(terminal, disk_room)
        })
    }

    fn count(&mut self, who: usize, disk_room: u64) {
        let (request, mut count, reserve) = self.counts.swap_remove(who);
        let counted = record(Lane::Exchanges, "counted");
        let expected = self.model.append(Append {
            mark: Mark::Counts,
            request: Some(request),
            reserve: Some(reserve),
            ..plain(&counted, disk_room)
        });
        self.compare(expected, count.close(&counted), Lane::Exchanges);
        self.model.reserved -= reserve;
    }

    /// Lets requests in until there is no room for another, and fills the rest to the last byte.
    pub(super) fn fill(&mut self) {
        let limit = self.model.limit_of_requests;
        // None, where records of the audit lane have filled it.
        while self.model.used() + self.model.reserved + 2 * RESERVE_BYTES < limit {
            self.open(0, u64::MAX);
        }
        // One large record, so that the last one has to begin a segment.
        if let Some(size) = self.largest_audit().checked_sub(2_000) {
            self.act(Action::Audit(size), u64::MAX);
        }
        let size = self.largest_audit();
        self.act(Action::Audit(size + 2), u64::MAX);
        self.act(Action::Audit(size.saturating_sub(1)), u64::MAX);
        self.assert_figures();
    }

    /// Content of the largest record for which there is room now, but for the one byte by which
    /// subjects differ.
    fn largest_audit(&self) -> usize {
        let held = self.model.used() + self.model.reserved + self.model.next_head_bytes();
        let overhead = super::model::stored_bytes(&record(Lane::Audit, ""));
        usize::try_from(self.model.limit.saturating_sub(held + overhead)).unwrap()
    }

    /// Closes every request that is open, each with an event as large as its reserve.
    pub(super) fn close_all(&mut self) {
        let empty = record(Lane::Exchanges, "");
        let overhead = super::model::stored_bytes(&empty);
        while let Some(held) = self.requests.last() {
            // The shard in the subject has one digit or two.
            let size = usize::try_from(held.reserve - overhead - 1).unwrap();
            let (who, before) = (self.requests.len() - 1, self.requests.len());
            self.close(who, size, u64::MAX);
            assert_eq!(self.requests.len(), before - 1, "a reserve was not enough");
            self.assert_figures();
        }
    }

    fn compare(&self, expected: Outcome, found: Result<Appended, AppendError>, lane: Lane) {
        match found {
            Ok(appended) => {
                assert_eq!(expected, Outcome::Done);
                let position = self.model.positions[lane.index()];
                assert_eq!((appended.lane, appended.position), (lane, position));
                let last = self.model.segments.back().unwrap();
                assert_eq!(appended.end, (last.number, last.bytes()));
            }
            Err(error) => assert_eq!(outcome(&error), expected, "{error}"),
        }
    }

    fn assert_figures(&self) {
        let (usage, model) = (self.outbox.usage(), &self.model);
        assert_eq!(usage.used_bytes, model.used(), "bytes used");
        assert_eq!(usage.reserved_bytes, model.reserved, "bytes reserved");
        assert_eq!(usage.open_requests, model.open.len() as u64);
        assert_eq!(usage.appended, model.positions);
        assert_eq!(usage.shipped, model.shipped);
        let bound = usage.limit_bytes + model.heads();
        assert!(
            usage.used_bytes + usage.reserved_bytes <= bound,
            "{usage:?}"
        );
        let (_file, tail) = self.outbox.store().tail().unwrap().unwrap();
        let last = model.segments.back().unwrap();
        assert_eq!(tail, (last.number, last.bytes()), "what a sync would cover");
        let mut on_disk = crash::segment_files(&self.home());
        assert_eq!(on_disk.len(), model.segments.len(), "segments");
        let last = on_disk.pop().unwrap();
        let length = fs::metadata(last).unwrap().len();
        assert!(length >= model.segments.back().unwrap().bytes());
    }

    /// Whatever the broker has not stored yet can be read, lane by lane, in batches of any size.
    pub(super) fn assert_everything_unshipped_is_read(&self, batch: usize) {
        assert_unshipped(self.outbox.store(), &self.model, batch);
    }
}

/// Reads each lane of a store as the shipper does.
pub(super) fn assert_unshipped(store: &Arc<Store>, model: &Model, batch: usize) {
    for lane in Lane::ALL {
        let mut reader = LaneReader::new(Arc::clone(store), lane);
        let mut after = model.shipped[lane.index()];
        let mut found: Vec<(u64, EventId)> = Vec::new();
        loop {
            let read = reader.next_batch(after, (batch, 2_000)).unwrap();
            let Some(last) = read.last_position else {
                break;
            };
            assert!(read.events.len() <= batch);
            let unfit = read.events.iter().any(|event| event.payload.len() > 2_000);
            assert!(
                !unfit || read.events.len() == 1,
                "too large a record comes alone"
            );
            for event in &read.events {
                let envelope = Envelope::decode(&event.payload).unwrap();
                assert_eq!(envelope.outbox, Some(store.id()));
                found.push((envelope.position.unwrap(), envelope.id));
            }
            after = last;
        }
        assert_eq!(found, model.unshipped(lane), "the {lane} lane");
    }
}

fn plain(record: &Record, disk_room: u64) -> Append<'_> {
    Append {
        record,
        mark: Mark::Plain,
        request: None,
        reserve: None,
        disk_room,
    }
}

fn outcome(error: &AppendError) -> Outcome {
    match error {
        AppendError::Full => Outcome::Full,
        AppendError::Io(_) => Outcome::Io,
        AppendError::TooLarge { .. } | AppendError::Closed => panic!("{error}"),
    }
}
