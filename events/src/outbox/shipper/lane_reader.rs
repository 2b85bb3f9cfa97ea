//! Reads one lane's records from the segments, for the next batch.

use std::{fs::File, io, sync::Arc};

use crate::{
    envelope,
    id::EventId,
    outbox::{
        Store,
        batch::{BYTES_MAX, Outgoing},
        segment::Kind,
        segment_reader::{Scanned, SegmentReader},
    },
    subject::Lane,
};

/// The next events of a lane.
#[derive(Debug, Default)]
pub(in crate::outbox) struct Batch {
    pub(in crate::outbox) events: Vec<Outgoing>,
    /// Content to be put into the object store before the events that refer to it.
    pub(super) bodies: Vec<(EventId, Vec<u8>)>,
    pub(super) first_position: Option<u64>,
    pub(in crate::outbox) last_position: Option<u64>,
    /// The last position that the segments claim to hold, when nothing behind `after` was found
    /// up to their end: above `after` it was there once and is damaged.
    pub(super) end: Option<u64>,
}

/// Reads a lane; keeps its place in the current segment between batches.
#[derive(Debug)]
pub(in crate::outbox) struct LaneReader {
    store: Arc<Store>,
    lane: Lane,
    place: Option<ReadPlace>,
}

#[derive(Debug)]
struct ReadPlace {
    segment: u64,
    reader: SegmentReader,
    /// The last position that was read.
    position: u64,
}

impl LaneReader {
    pub(in crate::outbox) const fn new(store: Arc<Store>, lane: Lane) -> Self {
        Self {
            store,
            lane,
            place: None,
        }
    }

    /// The events after a position that are there now: at most so many, and with
    /// their content at most [`BYTES_MAX`] unless the first alone has more. An
    /// event above `payload_max` bytes comes alone.
    ///
    /// # Errors
    /// A segment cannot be read.
    pub(in crate::outbox) fn next_batch(
        &mut self,
        after: u64,
        (events_max, payload_max): (usize, usize),
    ) -> io::Result<Batch> {
        let mut batch = Batch::default();
        let mut bytes = 0;
        // Asked before the segments' ends are: what comes later is not missed.
        let claimed = self.store.last_position(self.lane);
        // Taken out, so that after an error the next batch starts from the segments.
        let kept = self.place.take().filter(|place| place.position == after);
        let Some(mut place) = kept.map_or_else(|| self.open(after), |place| Ok(Some(place)))?
        else {
            batch.end = Some(claimed);
            return Ok(batch);
        };
        while batch.events.len() < events_max && bytes < BYTES_MAX {
            let Some(limit) = self.store.segment_end(place.segment) else {
                // Freed: everything in it was shipped. The lane may go on behind it.
                match self.open(place.position)? {
                    Some(next) => place = next,
                    None => break,
                }
                continue;
            };
            match place.reader.next(limit)? {
                Scanned::Record(record) => {
                    if record.kind != Kind::Event(self.lane) || record.position <= after {
                        continue;
                    }
                    let before = record.position - 1;
                    (self.store.progress).gap(self.lane, place.position, before);
                    let shipment = envelope::ship(
                        record.payload,
                        record.content_at,
                        record.id,
                        (self.store.id(), record.position),
                    );
                    let unfit = shipment.payload.len() > payload_max;
                    if unfit && !batch.events.is_empty() {
                        // The place is given up: the next batch finds it again.
                        return Ok(batch);
                    }
                    let content = shipment.content.as_ref().map_or(0, Vec::len);
                    bytes += if unfit {
                        BYTES_MAX
                    } else {
                        shipment.payload.len() + content
                    };
                    batch.first_position.get_or_insert(record.position);
                    batch.last_position = Some(record.position);
                    place.position = record.position;
                    batch
                        .bodies
                        .extend(shipment.content.map(|content| (record.id, content)));
                    batch.events.push(Outgoing {
                        subject: record.subject.to_owned(),
                        payload: shipment.payload.into(),
                    });
                }
                Scanned::Damage { offset, bytes } => {
                    tracing::error!(
                        segment = place.segment,
                        offset,
                        bytes,
                        "stepped over damage in an outbox segment"
                    );
                }
                // Nothing more before the limit, even where damage hides what should be there.
                Scanned::End => match self.next_segment(&place, limit)? {
                    Some(next) => place = next,
                    None => break,
                },
            }
        }
        if batch.events.is_empty() {
            batch.end = Some(claimed);
        }
        self.place = Some(place);
        Ok(batch)
    }

    /// The segment behind a place that was read up to `limit`, if the lane goes on there.
    fn next_segment(&self, place: &ReadPlace, limit: u64) -> io::Result<Option<ReadPlace>> {
        let read = (place.segment, limit);
        match (self.store).segment_behind(self.lane, place.position, read) {
            Some(number) => self.at(number, place.position).map(Some),
            None => Ok(None),
        }
    }

    fn open(&self, after: u64) -> io::Result<Option<ReadPlace>> {
        match self.store.segment_after(self.lane, after) {
            Some(number) => self.at(number, after).map(Some),
            None => Ok(None),
        }
    }

    fn at(&self, segment: u64, position: u64) -> io::Result<ReadPlace> {
        let file = File::open(self.store.segment_path(segment))?;
        Ok(ReadPlace {
            segment,
            reader: SegmentReader::new(file, 0),
            position,
        })
    }
}
