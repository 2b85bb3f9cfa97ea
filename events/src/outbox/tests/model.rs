//! What the outbox is said to do, done in the simplest way: lists, no files.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    envelope::Record,
    id::{EventId, RequestId},
    outbox::{
        OpenState, RESERVE_BYTES,
        segment::{FIXED_BYTES, Mark, PREFIX_BYTES},
    },
    subject::Lane,
};

/// Which requests are open, and how.
pub(super) type Open = BTreeMap<RequestId, OpenState>;

/// A record that was appended.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) lane: Lane,
    pub(super) position: u64,
    pub(super) id: EventId,
    pub(super) bytes: u64,
    /// What was open after it.
    pub(super) open: Open,
}

/// A segment, as the model has it.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) head_bytes: u64,
    /// What was open when it began.
    pub(super) open: Open,
    /// The last position of each lane when it began.
    pub(super) positions: [u64; 3],
    pub(super) records: Vec<Written>,
}

impl Segment {
    pub(super) fn bytes(&self) -> u64 {
        self.head_bytes + self.records.iter().map(|record| record.bytes).sum::<u64>()
    }

    /// The last position of each lane up to its end.
    fn reached(&self) -> [u64; 3] {
        let mut reached = self.positions;
        for record in &self.records {
            reached[record.lane.index()] = record.position;
        }
        reached
    }
}

/// What comes of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Full,
    /// The disk refused a write.
    Io,
}

/// An outbox.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) limit: u64,
    /// What is left of it for requests.
    pub(super) limit_of_requests: u64,
    segment_bytes: u64,
    pub(super) segments: VecDeque<Segment>,
    pub(super) positions: [u64; 3],
    pub(super) shipped: [u64; 3],
    pub(super) reserved: u64,
    pub(super) open: Open,
    /// Whether the disk refuses to cut a file at present.
    pub(super) cuts_fail: bool,
}

/// An append, as the model sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Append<'a> {
    pub(super) record: &'a Record,
    pub(super) mark: Mark,
    pub(super) request: Option<RequestId>,
    /// What its request holds in reserve, where it may be used.
    pub(super) reserve: Option<u64>,
    /// How many bytes the disk takes.
    pub(super) disk_room: u64,
}

impl Model {
    pub(super) fn new(limit: u64) -> Self {
        let mut model = Self {
            limit,
            limit_of_requests: limit - limit / 16,
            segment_bytes: limit / 8,
            segments: VecDeque::new(),
            positions: [0; 3],
            shipped: [0; 3],
            reserved: 0,
            open: Open::new(),
            cuts_fail: false,
        };
        model.begin_segment();
        model
    }

    pub(super) fn used(&self) -> u64 {
        self.segments.iter().map(Segment::bytes).sum()
    }

    /// Bytes of all heads: by so much the outbox may be larger than its bound.
    pub(super) fn heads(&self) -> u64 {
        self.segments.iter().map(|segment| segment.head_bytes).sum()
    }

    fn head_bytes(&self) -> u64 {
        (PREFIX_BYTES + FIXED_BYTES + 24 + 17 * self.open.len()) as u64
    }

    /// What the next record takes besides its own bytes.
    pub(super) fn next_head_bytes(&self) -> u64 {
        if self.segments.back().unwrap().bytes() >= self.segment_bytes {
            self.head_bytes()
        } else {
            0
        }
    }

    fn begin_segment(&mut self) {
        let number = self.segments.back().map_or(1, |last| last.number + 1);
        self.segments.push_back(Segment {
            number,
            head_bytes: self.head_bytes(),
            open: self.open.clone(),
            positions: self.positions,
            records: Vec::new(),
        });
    }

    /// Holds a reserve, if there is room.
    pub(super) fn reserve(&mut self, bytes: u64) -> Outcome {
        if self.used() + self.reserved + bytes > self.limit_of_requests {
            return Outcome::Full;
        }
        self.reserved += bytes;
        Outcome::Done
    }

    pub(super) fn admit(&mut self) -> Outcome {
        self.reserve(RESERVE_BYTES)
    }

    /// Appends a record: all of it, or nothing.
    pub(super) fn append(&mut self, append: Append<'_>) -> Outcome {
        let bytes = stored_bytes(append.record);
        let head = self.next_head_bytes();
        let reserve = append.reserve.unwrap_or(0);
        let fits_in_reserve = append.reserve.is_some_and(|reserve| bytes <= reserve);
        let limit = match append.record.lane {
            Lane::Audit if append.mark == Mark::Plain && append.request.is_none() => self.limit,
            Lane::Audit | Lane::Exchanges | Lane::Chunks => self.limit_of_requests,
        };
        if !fits_in_reserve && self.used() + self.reserved - reserve + head + bytes > limit {
            return Outcome::Full;
        }
        if head > 0 {
            // The segment that ends is cut where its last record ends.
            if self.cuts_fail || append.disk_room < head {
                return Outcome::Io;
            }
            self.begin_segment();
        }
        if append.disk_room < head + bytes {
            return Outcome::Io;
        }
        self.write(append, bytes);
        Outcome::Done
    }

    fn write(&mut self, append: Append<'_>, bytes: u64) {
        let lane = append.record.lane;
        let position = &mut self.positions[lane.index()];
        *position += 1;
        let position = *position;
        match (append.mark, append.request) {
            (Mark::Opens, Some(request)) => {
                self.open.insert(request, OpenState::Answering);
            }
            (Mark::ClosesUncounted, Some(request)) => {
                self.open.insert(request, OpenState::Uncounted);
            }
            (Mark::Closes | Mark::Counts, Some(request)) => {
                self.open.remove(&request);
            }
            (Mark::Plain, _) | (_, None) => {}
        }
        let written = Written {
            lane,
            position,
            id: append.record.id,
            bytes,
            open: self.open.clone(),
        };
        self.segments.back_mut().unwrap().records.push(written);
    }

    /// The broker has stored a lane up to a position: what nobody needs goes.
    pub(super) fn ship(&mut self, lane: Lane, position: u64) {
        let shipped = &mut self.shipped[lane.index()];
        *shipped = position.max(*shipped);
        while self.segments.len() > 1 {
            let reached = self.segments[0].reached();
            if reached
                .iter()
                .zip(&self.shipped)
                .any(|(reached, shipped)| shipped < reached)
            {
                return;
            }
            self.segments.pop_front();
        }
    }

    /// The records of a lane that are not shipped, in order.
    pub(super) fn unshipped(&self, lane: Lane) -> Vec<(u64, EventId)> {
        self.segments
            .iter()
            .flat_map(|segment| &segment.records)
            .filter(|record| record.lane == lane && record.position > self.shipped[lane.index()])
            .map(|record| (record.position, record.id))
            .collect()
    }

    /// The model of what a crash leaves, if the last segment ends after so many bytes.
    pub(super) fn crashed(&self, last_segment_bytes: u64) -> Self {
        let mut crashed = self.clone();
        crashed.reserved = 0;
        let mut last = crashed.segments.pop_back().unwrap();
        (crashed.open, crashed.positions) = (last.open.clone(), last.positions);
        let mut end = last.head_bytes;
        // A segment with a torn head is empty, and its head said what all before had said.
        let records = std::mem::take(&mut last.records);
        if last_segment_bytes < last.head_bytes {
            last.head_bytes = 0;
        } else {
            for record in records {
                end += record.bytes;
                if end > last_segment_bytes {
                    break;
                }
                crashed.open.clone_from(&record.open);
                crashed.positions[record.lane.index()] = record.position;
                last.records.push(record);
            }
        }
        crashed.segments.push_back(last);
        crashed
    }
}

/// Size of a record in a segment.
pub(super) fn stored_bytes(record: &Record) -> u64 {
    (PREFIX_BYTES + FIXED_BYTES + record.subject.len() + record.payload.len()) as u64
}

/// Size of a record's content, which the terminal event repeats.
pub(super) fn content_bytes(record: &Record) -> u64 {
    match record.content_at {
        0 => 0,
        at => record.payload.len() as u64 - u64::from(at),
    }
}
