//! For the fuzz targets only: what an adopted incarnation would ship.

use std::{io, sync::Arc};

use crate::{
    outbox::{Adopted, shipper::lane_reader::LaneReader},
    subject::Lane,
};

/// The payloads that a lane of an adopted incarnation ships, in small batches; every other one by
/// a reader that has to find its place.
///
/// # Errors
/// A segment cannot be read.
pub fn shipments(adopted: &Adopted, lane: Lane) -> io::Result<Vec<Vec<u8>>> {
    const EVENTS_MAX: usize = 2;
    let (mut found, mut after) = (Vec::new(), 0);
    loop {
        let mut reader = LaneReader::new(Arc::clone(adopted.store()), lane);
        for _ in 0..2 {
            let batch = reader.next_batch(after, (EVENTS_MAX, usize::MAX))?;
            let Some(last) = batch.last_position else {
                return Ok(found);
            };
            after = last;
            found.extend(batch.events.into_iter().map(|event| event.payload.to_vec()));
        }
    }
}
