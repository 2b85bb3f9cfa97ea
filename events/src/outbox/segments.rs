//! The segment files of an incarnation: written at the end, freed at the beginning.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use uuid::Uuid;

use crate::{
    id::{EventId, RequestId},
    outbox::{
        adopted::OpenState,
        disk, head,
        segment::{FIXED_BYTES, Kind, Mark, PREFIX_BYTES, StoredRecord},
    },
    private,
};

/// Largest segment that is still appended to: 16 MiB, so that space is freed in small steps.
pub(super) const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

/// Records up to this size are written with one system call: 64 KiB.
///
/// Copying a larger payload to put it behind its header would cost more than a second call.
const ONE_WRITE_BYTES: usize = 64 * 1024;

/// A segment file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SegmentInfo {
    /// Where its last whole record ends.
    pub(super) end: u64,
    /// The last position of each lane up to its end.
    pub(super) reached: [u64; 3],
}

/// The segments of one incarnation, by number from 1.
#[derive(Debug)]
pub(super) struct Segments {
    pub(super) dir: PathBuf,
    /// Whether files are ever forced to the disk.
    pub(super) syncs: bool,
    /// A segment of this size is not appended to any more.
    pub(super) segment_bytes: u64,
    pub(super) files: BTreeMap<u64, SegmentInfo>,
    /// The file of the last segment; `None` for an adopted incarnation.
    pub(super) writer: Option<Writer>,
    /// Bytes of all segments.
    pub(super) used: u64,
    /// Whether a segment could not be forced to the disk: the kernel tells that only once.
    pub(super) sync_failed: bool,
}

/// The segment that is appended to.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) file: File,
    pub(super) number: u64,
    buffer: Vec<u8>,
}

impl Segments {
    /// Writes a record at the end, all of it or nothing; gives the segment and the record's end.
    pub(super) fn write(&mut self, record: &StoredRecord<'_>) -> io::Result<(u64, u64)> {
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let writer = self.writer.as_mut().ok_or_else(gone)?;
        let segment = self.files.get_mut(&writer.number).ok_or_else(gone)?;
        record.encode_head(&mut writer.buffer)?;
        let head = to_u64(writer.buffer.len());
        let written = if record.payload.len() <= ONE_WRITE_BYTES {
            writer.buffer.extend_from_slice(record.payload);
            disk::write_all_at(&writer.file, &writer.buffer, segment.end)
        } else {
            disk::write_all_at(&writer.file, &writer.buffer, segment.end)
                .and_then(|()| disk::write_all_at(&writer.file, record.payload, segment.end + head))
        };
        if let Err(error) = written {
            // What was written in part is overwritten by the next record; it
            // is cut as well, so that a scan after a crash finds nothing there.
            if let Err(cut) = disk::cut(&writer.file, segment.end) {
                tracing::error!(
                    error = &cut as &dyn std::error::Error,
                    "a torn record could not be cut"
                );
            }
            return Err(error);
        }
        let bytes = to_u64(record.stored_bytes());
        segment.end += bytes;
        self.used += bytes;
        Ok((writer.number, segment.end))
    }

    /// Begins a new segment when the last one is large.
    pub(super) fn roll_if_large(
        &mut self,
        positions: [u64; 3],
        open: &HashMap<RequestId, OpenState>,
    ) -> io::Result<()> {
        if self.is_large() {
            self.roll(positions, open)
        } else {
            Ok(())
        }
    }

    /// What the next record takes besides its own bytes: the head of a new segment, or nothing.
    pub(super) fn next_head_bytes(&self, open: usize) -> u64 {
        if self.is_large() {
            to_u64(PREFIX_BYTES + FIXED_BYTES + head::encoded_bytes(open))
        } else {
            0
        }
    }

    fn is_large(&self) -> bool {
        let end = self.files.last_key_value().map_or(0, |(_, last)| last.end);
        end >= self.segment_bytes
    }

    /// Begins a new segment whose head tells the positions and the open requests.
    pub(super) fn roll(
        &mut self,
        positions: [u64; 3],
        open: &HashMap<RequestId, OpenState>,
    ) -> io::Result<()> {
        let last = self.files.last_key_value();
        let number = last.map_or(1, |(number, _)| number + 1);
        if let (Some((_, last)), Some(writer)) = (last, &self.writer) {
            // A torn record that could not be cut would pass for damage in a segment that others follow.
            disk::cut(&writer.file, last.end)?;
        }
        if let Some(writer) = self.writer.as_ref().filter(|_| self.syncs) {
            // The sync thread only knows the last segment.
            if let Err(error) = writer.file.sync_data() {
                self.sync_failed = true;
                return Err(error);
            }
        }
        let path = self.path(number);
        let file = private::options()
            .create_new(true)
            .read(true)
            .write(true)
            .open(&path)?;
        let writer = Writer {
            file,
            number,
            buffer: Vec::new(),
        };
        let old = self.writer.replace(writer);
        let info = SegmentInfo {
            end: 0,
            reached: positions,
        };
        self.files.insert(number, info);
        let head = head::encode_head(positions, open);
        let record = StoredRecord {
            kind: Kind::Head,
            mark: Mark::Plain,
            position: 0,
            id: EventId::from_uuid(Uuid::nil()),
            request: RequestId::from_uuid(Uuid::nil()),
            content_at: 0,
            subject: "",
            payload: &head,
        };
        if let Err(error) = self.write(&record).and_then(|_| self.sync_dir()) {
            // Without its head the new segment is of no use: go on with the old one.
            self.used -= self.files.remove(&number).map_or(0, |new| new.end);
            self.writer = old;
            fs::remove_file(&path)?;
            return Err(error);
        }
        Ok(())
    }

    /// Removes segments from the beginning whose every record is shipped; never the last one.
    pub(super) fn free(&mut self, shipped: [u64; 3]) {
        while self.files.len() > 1 {
            let Some((number, segment)) = self.files.first_key_value() else {
                return;
            };
            let (number, segment) = (*number, *segment);
            let mut lanes = segment.reached.iter().zip(&shipped);
            if !lanes.all(|(reached, shipped)| shipped >= reached) {
                return;
            }
            if let Err(error) = fs::remove_file(self.path(number)) {
                // It is tried again with the next batch; the space is still used.
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    number,
                    "a shipped segment could not be removed"
                );
                return;
            }
            self.files.remove(&number);
            self.used = self.used.saturating_sub(segment.end);
        }
    }

    /// The path of a segment.
    pub(super) fn path(&self, number: u64) -> PathBuf {
        self.dir.join(segment_name(number))
    }

    /// Makes a new file's name durable, where the mode asks for durability.
    fn sync_dir(&self) -> io::Result<()> {
        if self.syncs {
            sync_dir(&self.dir)
        } else {
            Ok(())
        }
    }
}

/// The file name of a segment; sorts by number.
pub(super) fn segment_name(number: u64) -> String {
    format!("{number:012}.segment")
}

/// The number of a segment file.
pub(super) fn segment_number(name: &str) -> Option<u64> {
    name.strip_suffix(".segment")?.parse().ok()
}

/// Forces a directory's entries to the disk.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn to_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
