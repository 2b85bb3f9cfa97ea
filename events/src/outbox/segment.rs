//! Segment files: the format of a record.
//!
//! ```text
//! magic  u32   "NXR1"
//! crc    u32   CRC-32 of everything that follows
//! length u32   bytes after this field
//! kind   u8    0–2: a lane's event; 255: the head of a segment
//! mark   u8    0 plain, 1 opens a request, 2 closes it, 3 closes it but for counting, 4 counts it
//! subject length u16
//! content_at u32, position u64, event id 16 bytes, request id 16 bytes
//! subject, payload
//! ```
//!
//! Little-endian. The magic lets a scan find the next record after a damaged
//! one; the CRC tells whether it is one.

use std::io;

use uuid::Uuid;

use crate::{
    id::{EventId, RequestId},
    outbox::RECORD_BYTES_MAX,
    subject::Lane,
};

/// Begins every record: `NXR1`.
const MAGIC: [u8; 4] = *b"NXR1";

/// Magic, CRC and length.
pub(super) const PREFIX_BYTES: usize = 12;

/// The fixed fields after the length.
pub(super) const FIXED_BYTES: usize = 1 + 1 + 2 + 4 + 8 + 16 + 16;

/// Kind of the record at a segment's head.
const KIND_HEAD: u8 = 255;

/// What a record does to the request that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Nothing.
    Plain,
    /// Opens it: `received`.
    Opens,
    /// Closes it: a terminal event with usage, or after which nothing is to count.
    Closes,
    /// Closes it, but its tokens are still to be counted.
    ClosesUncounted,
    /// Counts its tokens.
    Counts,
}

impl Mark {
    const fn to_byte(self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::Opens => 1,
            Self::Closes => 2,
            Self::ClosesUncounted => 3,
            Self::Counts => 4,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Plain,
            1 => Self::Opens,
            2 => Self::Closes,
            3 => Self::ClosesUncounted,
            4 => Self::Counts,
            _ => return None,
        })
    }
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An event of a lane.
    Event(Lane),
    /// The head of a segment: positions reached and open requests, see the `store`.
    Head,
}

/// A record's fields; the texts are borrowed from where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredRecord<'a> {
    /// What it is.
    pub kind: Kind,
    /// What it does to its request.
    pub mark: Mark,
    /// Its position in the lane.
    pub position: u64,
    /// The event's id.
    pub id: EventId,
    /// The request that it belongs to, nil for none.
    pub request: RequestId,
    /// Where `data.content` begins in the payload, 0 for none.
    pub content_at: u32,
    /// The NATS subject.
    pub subject: &'a str,
    /// The envelope, or the head's content.
    pub payload: &'a [u8],
}

impl StoredRecord<'_> {
    /// Bytes of the record in a segment.
    pub const fn stored_bytes(&self) -> usize {
        PREFIX_BYTES + FIXED_BYTES + self.subject.len() + self.payload.len()
    }

    /// Writes everything but the payload into the (cleared) buffer.
    ///
    /// # Errors
    /// `InvalidInput` when the subject or the record is too long for its length field.
    pub fn encode_head(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let kind = match self.kind {
            Kind::Event(lane) => lane.number(),
            Kind::Head => KIND_HEAD,
        };
        let body = self.stored_bytes() - PREFIX_BYTES;
        buffer.clear();
        buffer.extend_from_slice(&MAGIC);
        buffer.extend_from_slice(&[0; 4]);
        buffer.extend_from_slice(&u32::try_from(body).map_err(too_long)?.to_le_bytes());
        buffer.push(kind);
        buffer.push(self.mark.to_byte());
        let subject_length = u16::try_from(self.subject.len()).map_err(too_long)?;
        buffer.extend_from_slice(&subject_length.to_le_bytes());
        buffer.extend_from_slice(&self.content_at.to_le_bytes());
        buffer.extend_from_slice(&self.position.to_le_bytes());
        buffer.extend_from_slice(self.id.as_uuid().as_bytes());
        buffer.extend_from_slice(self.request.as_uuid().as_bytes());
        buffer.extend_from_slice(self.subject.as_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(buffer.get(8..).unwrap_or_default());
        crc.update(self.payload);
        if let Some(field) = buffer.get_mut(4..8) {
            field.copy_from_slice(&crc.finalize().to_le_bytes());
        }
        Ok(())
    }
}

/// What lies at some place of a segment.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A record; and how many bytes it takes.
    Record(StoredRecord<'a>, usize),
    /// The bytes end before the record does; this many are needed at least.
    Short(usize),
    /// No record.
    Damaged,
}

/// Reads the record at the beginning of `bytes`.
pub fn parse(bytes: &[u8]) -> Parsed<'_> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() else {
        let torn = MAGIC.starts_with(bytes.get(..bytes.len().min(4)).unwrap_or_default());
        return if torn {
            Parsed::Short(PREFIX_BYTES)
        } else {
            Parsed::Damaged
        };
    };
    let [m0, m1, m2, m3, c0, c1, c2, c3, l0, l1, l2, l3] = *prefix;
    let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
    if [m0, m1, m2, m3] != MAGIC || !(FIXED_BYTES..=RECORD_BYTES_MAX).contains(&length) {
        return Parsed::Damaged;
    }
    let Some(body) = rest.get(..length) else {
        return Parsed::Short(PREFIX_BYTES + length);
    };
    let mut crc = crc32fast::Hasher::new();
    crc.update(&[l0, l1, l2, l3]);
    crc.update(body);
    if crc.finalize() != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Parsed::Damaged;
    }
    parse_body(body).map_or(Parsed::Damaged, |record| {
        Parsed::Record(record, PREFIX_BYTES + length)
    })
}

fn parse_body(body: &[u8]) -> Option<StoredRecord<'_>> {
    let (kind, rest) = body.split_first()?;
    let (mark, rest) = rest.split_first()?;
    let (subject_length, rest) = rest.split_first_chunk::<2>()?;
    let (content_at, rest) = rest.split_first_chunk::<4>()?;
    let (position, rest) = rest.split_first_chunk::<8>()?;
    let (id, rest) = rest.split_first_chunk::<16>()?;
    let (request, rest) = rest.split_first_chunk::<16>()?;
    let (subject, payload) =
        rest.split_at_checked(usize::from(u16::from_le_bytes(*subject_length)))?;
    Some(StoredRecord {
        kind: match *kind {
            KIND_HEAD => Kind::Head,
            number => Kind::Event(Lane::from_number(number)?),
        },
        mark: Mark::from_byte(*mark)?,
        position: u64::from_le_bytes(*position),
        id: EventId::from_uuid(Uuid::from_bytes(*id)),
        request: RequestId::from_uuid(Uuid::from_bytes(*request)),
        content_at: u32::from_le_bytes(*content_at),
        subject: std::str::from_utf8(subject).ok()?,
        payload,
    })
}

/// The place of the next magic at or after `from`, if there is one.
pub fn find_magic(bytes: &[u8], from: usize) -> Option<usize> {
    let found = bytes
        .get(from..)?
        .windows(MAGIC.len())
        .position(|window| window == MAGIC)?;
    Some(from + found)
}
