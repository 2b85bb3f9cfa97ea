//! What an abandoned incarnation's files hold.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io,
    path::Path,
};

use crate::outbox::{
    head::{decode_head, track},
    segment::Kind,
    segment_reader::{Scanned, SegmentReader},
    segments::{SegmentInfo, segment_name, segment_number},
    store::Contents,
};

/// Scans every segment in order and cuts a torn tail.
///
/// Damage that is followed by whole records is stepped over and told: the gap
/// in the positions is what readers see of it. Only the last segment can be
/// torn by a crash; the same in an older one is damage too, and is left as it
/// is for whoever wants to look at it. A request whose end may have been in the
/// damage counts as open: whoever closes it asks the log.
///
/// # Errors
/// A file cannot be read or cut.
pub(super) fn recover(dir: &Path) -> io::Result<Contents> {
    let mut contents = Contents {
        segments: BTreeMap::new(),
        positions: [0; 3],
        open: HashMap::new(),
    };
    let numbers = segment_numbers(dir)?;
    let mut damaged = false;
    for number in &numbers {
        let path = dir.join(segment_name(*number));
        let file = File::options().read(true).write(true).open(&path)?;
        let length = file.metadata()?.len();
        let mut end = scan(&file, length, &mut contents, &mut damaged)?;
        if end < length && numbers.last() == Some(number) {
            tracing::warn!(path = %path.display(), bytes = length - end, "cut a torn record at the end of an outbox segment");
            file.set_len(end)?;
        } else if end < length {
            tracing::error!(path = %path.display(), offset = end, bytes = length - end, "the end of an outbox segment is damaged; readers will see the gap");
            end = length;
            damaged = true;
        }
        let number = *number;
        let reached = contents.positions;
        contents
            .segments
            .insert(number, SegmentInfo { end, reached });
    }
    Ok(contents)
}

/// The numbers of the segment files, in order.
fn segment_numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        numbers.extend(name.to_str().and_then(segment_number));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Adds what one segment holds; gives where its last whole record ends.
fn scan(file: &File, length: u64, contents: &mut Contents, damaged: &mut bool) -> io::Result<u64> {
    let mut reader = SegmentReader::new(file.try_clone()?, 0);
    loop {
        match reader.next(length)? {
            Scanned::Record(record) => match record.kind {
                Kind::Head => {
                    if let Some((positions, open)) = decode_head(record.payload) {
                        contents.positions = positions;
                        let before = std::mem::replace(&mut contents.open, open);
                        if *damaged {
                            // The head does not tell that their end cannot be read any more.
                            for (request, state) in before {
                                contents.open.entry(request).or_insert(state);
                            }
                        }
                    }
                }
                Kind::Event(lane) => {
                    if let Some(reached) = contents.positions.get_mut(lane.index()) {
                        *reached = record.position.max(*reached);
                    }
                    track(&mut contents.open, record.mark, record.request);
                }
            },
            Scanned::Damage { offset, bytes } => {
                tracing::error!(
                    offset,
                    bytes,
                    "an outbox segment is damaged; readers will see the gap"
                );
                *damaged = true;
            }
            Scanned::End => return Ok(reader.offset()),
        }
    }
}
