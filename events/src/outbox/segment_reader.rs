//! Reading a segment: one record after another, over damage, up to a limit.

use std::{fs::File, io, os::unix::fs::FileExt};

use crate::outbox::segment::{FIXED_BYTES, PREFIX_BYTES, Parsed, StoredRecord, find_magic, parse};

/// Bytes read from a segment at a time: 256 KiB, several hundred chunk records.
const READ_BYTES: usize = 256 * 1024;

/// Reads the records of a segment one after another, up to a limit.
#[derive(Debug)]
pub struct SegmentReader {
    file: File,
    buffer: Vec<u8>,
    /// Where the buffer's first unread byte is in the buffer.
    start: usize,
    /// Where that byte is in the file.
    offset: u64,
}

/// What a [`SegmentReader`] found.
#[derive(Debug)]
pub enum Scanned<'a> {
    /// A record that begins at the offset.
    Record(StoredRecord<'a>),
    /// No record before the limit: the end, or a record that is not whole.
    End,
    /// Damage; the reader stepped over these bytes.
    Damage {
        /// Where it begins.
        offset: u64,
        /// How many bytes it covers.
        bytes: u64,
    },
}

impl SegmentReader {
    /// Reads from an offset at which a record begins.
    pub const fn new(file: File, offset: u64) -> Self {
        Self {
            file,
            buffer: Vec::new(),
            start: 0,
            offset,
        }
    }

    /// Where the next record begins.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// The next record that ends at or before `limit`, an offset in the file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn next(&mut self, limit: u64) -> io::Result<Scanned<'_>> {
        let mut wanted = PREFIX_BYTES + FIXED_BYTES;
        loop {
            self.fill(wanted, limit)?;
            let length = match parse(self.buffer.get(self.start..).unwrap_or_default()) {
                Parsed::Record(_, length) => length,
                // Tried once: a file that is shorter than it should be has no more to give.
                Parsed::Short(needed) if self.available(limit) >= needed && wanted < needed => {
                    wanted = needed;
                    continue;
                }
                // A record that ends behind the limit is torn, or its length is damaged.
                Parsed::Short(_) | Parsed::Damaged => return self.step_over_damage(limit),
            };
            let at = self.start;
            self.start += length;
            self.offset += u64::try_from(length).unwrap_or(0);
            return match parse(self.buffer.get(at..).unwrap_or_default()) {
                Parsed::Record(record, _) => Ok(Scanned::Record(record)),
                Parsed::Short(_) | Parsed::Damaged => Ok(Scanned::End),
            };
        }
    }

    /// Bytes between the next record and the limit.
    fn available(&self, limit: u64) -> usize {
        usize::try_from(limit.saturating_sub(self.offset)).unwrap_or(usize::MAX)
    }

    /// Makes sure that the buffer holds `wanted` bytes, or all up to the limit.
    fn fill(&mut self, wanted: usize, limit: u64) -> io::Result<()> {
        let held = self.buffer.len() - self.start;
        let available = self.available(limit);
        if held >= wanted.min(available) {
            // What lies behind the limit was not whole when it was read.
            self.buffer.truncate(self.start + held.min(available));
            return Ok(());
        }
        self.buffer.drain(..self.start);
        self.start = 0;
        let target = wanted.max(READ_BYTES).min(available);
        let old = self.buffer.len();
        self.buffer.resize(target, 0);
        let place = self.offset + u64::try_from(old).unwrap_or(0);
        let mut filled = old;
        while filled < target {
            let space = self.buffer.get_mut(filled..).unwrap_or_default();
            let at = place + u64::try_from(filled - old).unwrap_or(0);
            match self.file.read_at(space, at) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.buffer.truncate(old);
                    return Err(error);
                }
            }
        }
        self.buffer.truncate(filled);
        Ok(())
    }

    /// Looks for the next whole record behind the damage; without one it is the end.
    fn step_over_damage(&mut self, limit: u64) -> io::Result<Scanned<'static>> {
        let (from, available) = (self.offset, self.available(limit));
        // Damage is rare and a segment is small: read the rest of it whole.
        self.fill(available, limit)?;
        let rest = self.buffer.get(self.start..).unwrap_or_default();
        let mut candidate = 1;
        while let Some(place) = find_magic(rest, candidate) {
            if matches!(
                parse(rest.get(place..).unwrap_or_default()),
                Parsed::Record(..)
            ) {
                self.start += place;
                self.offset += u64::try_from(place).unwrap_or(0);
                return Ok(Scanned::Damage {
                    offset: from,
                    bytes: self.offset - from,
                });
            }
            candidate = place + 1;
        }
        Ok(Scanned::End)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use uuid::Uuid;

    use super::*;
    use crate::{
        id::{EventId, RequestId},
        outbox::segment::{Kind, Mark},
        subject::Lane,
    };

    pub(super) fn sample(position: u64, payload: &[u8]) -> Vec<u8> {
        let record = StoredRecord {
            kind: Kind::Event(Lane::Chunks),
            mark: Mark::Plain,
            position,
            id: EventId::from_uuid(Uuid::from_u128(1)),
            request: RequestId::from_uuid(Uuid::nil()),
            content_at: 3,
            subject: "nexus.chunk.1.a.b",
            payload,
        };
        let mut bytes = Vec::new();
        record.encode_head(&mut bytes).unwrap();
        bytes.extend_from_slice(payload);
        bytes
    }

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn positions(bytes: &[u8]) -> (Vec<u64>, u64, u64) {
        let mut reader = SegmentReader::new(file_of(bytes), 0);
        let (mut positions, mut damage) = (Vec::new(), 0);
        loop {
            match reader.next(u64::try_from(bytes.len()).unwrap()).unwrap() {
                Scanned::Record(record) => positions.push(record.position),
                Scanned::Damage { bytes, .. } => damage += bytes,
                Scanned::End => return (positions, damage, reader.offset()),
            }
        }
    }

    #[test]
    fn records_read_back_whatever_their_size() {
        let sizes = [0, 1, 300, READ_BYTES, READ_BYTES + 1, 3 * READ_BYTES];
        let bytes: Vec<u8> = sizes
            .iter()
            .zip(1..)
            .flat_map(|(size, position)| sample(position, &vec![b'x'; *size]))
            .collect();
        let (read, damage, end) = positions(&bytes);
        assert_eq!(read, [1, 2, 3, 4, 5, 6]);
        assert_eq!((damage, end), (0, bytes.len() as u64));
    }

    #[test]
    fn a_torn_tail_ends_the_segment_wherever_it_is_torn() {
        let whole = sample(1, b"first");
        let second = sample(2, b"second");
        for kept in 0..second.len() {
            let mut bytes = whole.clone();
            bytes.extend_from_slice(&second[..kept]);
            let (read, damage, end) = positions(&bytes);
            assert_eq!(read, [1], "torn after {kept} bytes");
            assert_eq!((damage, end), (0, whole.len() as u64));
        }
    }

    #[test]
    fn damage_in_the_middle_costs_only_the_damaged_record() {
        let records: Vec<Vec<u8>> = (1..=3)
            .map(|position| sample(position, b"payload"))
            .collect();
        let begin = records[0].len();
        for place in 0..records[1].len() {
            let mut bytes = records.concat();
            bytes[begin + place] ^= 0x40;
            let (read, damage, _) = positions(&bytes);
            assert_eq!(read, [1, 3], "flipped a bit of byte {place}");
            assert_eq!(damage, records[1].len() as u64);
        }
    }
}
