//! Whatever happened to an outbox's file, recovery finds the records that are whole, and no others.
//!
//! *Why.* A process may die within a write, and disks rot. What a client saw is in the outbox alone until
//! the broker has it, so recovery must give every record that is left, must not give one that
//! nobody wrote, and must not die, because then the gateway would never start again.
//!
//! *The input.* Its first byte says what the rest is: `d`, damage to a sound segment, six bytes each (see
//! [`damage`]), `D` with another segment behind it; `m`, a segment whose checksums are set right;
//! everything else, a segment as it is.

#![no_main]

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use libfuzzer_sys::fuzz_target;
use nexus_events::{
    clock::SystemClock,
    id::{EventId, RequestId},
    outbox::{
        OpenState, Outbox, OutboxSettings, Release, SyncMode,
        fuzzing::shipments,
        segment::{Kind, Mark, StoredRecord},
        segment_reader::{Scanned, SegmentReader},
    },
    subject::Lane,
};

/// The incarnation that is recovered.
const OUTBOX: &str = "019b0000-0000-7000-8000-000000000000";

/// Bytes of a record's magic, checksum and length, and of its fixed fields.
const RECORD_BYTES_MIN: usize = 12 + 48;

/// The records of two sound segments.
static SOUND: LazyLock<[Vec<Vec<u8>>; 2]> = LazyLock::new(|| [segment(0), segment(4)]);

fuzz_target!(|input: &[u8]| {
    let Some((mode, rest)) = input.split_first() else {
        return;
    };
    let sound = &*SOUND;
    let (mut segments, is_damage) = match mode {
        b'd' | b'D' => (vec![damage(sound[0].concat(), rest)], true),
        b'm' => (vec![mended(rest)], false),
        _ => (vec![rest.to_vec()], false),
    };
    if *mode == b'D' {
        segments.push(sound[1].concat());
    }
    let dir = Dir::new();
    for (number, bytes) in (1..).zip(&segments) {
        fs::write(dir.segment(number), bytes).expect("a segment is written");
    }
    let count = segments.len();
    let found = dir.recover(count);
    if is_damage {
        let whole = whole_records(&segments[0], &sound[0]);
        assert_eq!(found.records[0], whole, "the records that are whole");
        if let Some(behind) = found.records.get(1) {
            assert_eq!(behind, &sound[1], "damage reaches the segment behind it");
        }
        for (lane, (positions, shipped)) in found.positions.iter().zip(&found.shipped).enumerate() {
            assert!(
                positions.is_sorted_by(|a, b| a < b),
                "{lane}: {positions:?}"
            );
            let shipped: Vec<u64> = shipped.iter().map(|payload| position(payload)).collect();
            assert_eq!(
                &shipped, positions,
                "what is found of lane {lane} is shipped"
            );
        }
    }
    assert_eq!(dir.recover(count), found, "recovered a second time");
});

/// Everything that recovery and reading give.
#[derive(Debug, PartialEq)]
struct Found {
    open: Vec<(RequestId, OpenState)>,
    /// The bytes of each record of each segment.
    records: Vec<Vec<Vec<u8>>>,
    /// The positions of each lane, in order.
    positions: [Vec<u64>; 3],
    /// The payloads that each lane ships.
    shipped: [Vec<Vec<u8>>; 3],
}

/// A directory of outboxes, in memory where the system has such a place.
struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        };
        let dir = dir.expect("a temporary directory is made");
        fs::create_dir(dir.path().join(OUTBOX)).expect("a directory is made");
        Self(dir)
    }

    fn segment(&self, number: usize) -> PathBuf {
        let name = format!("{number:012}.segment");
        self.0.path().join(OUTBOX).join(name)
    }

    /// Adopts the incarnation and reads all of it.
    fn recover(&self, segments: usize) -> Found {
        let settings = OutboxSettings {
            dir: self.0.path().to_owned(),
            bytes_max: 1 << 20,
            sync: SyncMode::Os,
            release: Release::Local,
        };
        let clock = Arc::new(SystemClock);
        let (next, adopted) = Outbox::open(&settings, &(clock as _)).expect("the outbox is opened");
        let [adopted] = &adopted[..] else {
            panic!("{} incarnations instead of one", adopted.len());
        };
        let mut found = Found {
            open: adopted.open_requests(),
            records: Vec::new(),
            positions: Default::default(),
            shipped: Lane::ALL.map(|lane| shipments(adopted, lane).expect("a lane is read")),
        };
        found.open.sort_by_key(|(request, _)| *request);
        let mut bytes = 0;
        for number in 1..=segments {
            bytes += read(&self.segment(number), &mut found);
        }
        assert_eq!(adopted.bytes(), bytes, "the size is the files'");
        assert!(next.retire(), "an unused incarnation leaves nothing behind");
        found
    }
}

/// Reads a segment; gives its size.
fn read(path: &Path, found: &mut Found) -> u64 {
    let file = fs::read(path).expect("a segment is read");
    let length = file.len() as u64;
    let mut reader = SegmentReader::new(File::open(path).expect("a segment is opened"), 0);
    let (mut records, mut reached) = (Vec::new(), 0);
    loop {
        match reader.next(length).expect("a segment is read") {
            Scanned::Record(record) => {
                if let Kind::Event(lane) = record.kind {
                    found.positions[lane.index()].push(record.position);
                }
                let bytes = stored(&record);
                let end = usize::try_from(reader.offset()).expect("a segment is small");
                // Written again it has the checksum that it must have had.
                assert_eq!(file.get(end - bytes.len()..end), Some(&bytes[..]));
                records.push(bytes);
            }
            Scanned::Damage { offset, bytes } => {
                assert_eq!((offset, offset + bytes), (reached, reader.offset()));
            }
            Scanned::End => break,
        }
        assert!(reached < reader.offset(), "the reader stands still");
        reached = reader.offset();
    }
    found.records.push(records);
    length
}

/// A record's bytes in a segment.
fn stored(record: &StoredRecord<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode_head(&mut bytes).expect("a record is small");
    bytes.extend_from_slice(record.payload);
    bytes
}

/// The position in a shipped payload.
fn position(payload: &[u8]) -> u64 {
    let event: serde_json::Value = serde_json::from_slice(payload).expect("an event is JSON");
    event["position"].as_u64().expect("it has a position")
}

/// A sound segment: its head, and records behind these positions.
fn segment(reached: u64) -> Vec<Vec<u8>> {
    let request = |number: u64| {
        let id = format!("019b0000-0000-7000-8000-{number:012}");
        id.parse::<RequestId>().expect("an id")
    };
    let mut head = [reached.to_le_bytes(); 3].concat();
    if reached > 0 {
        head.push(1);
        head.extend_from_slice(request(1).as_uuid().as_bytes());
    }
    let plain = StoredRecord {
        kind: Kind::Head,
        mark: Mark::Plain,
        position: 0,
        id: EventId::from_uuid(request(0).as_uuid()),
        request: request(0),
        content_at: 0,
        subject: "",
        payload: &head,
    };
    let mut records = vec![stored(&plain)];
    let marks = [
        Mark::Opens,
        Mark::Plain,
        Mark::ClosesUncounted,
        Mark::Counts,
    ];
    for (position, mark) in (reached + 1..).zip(marks) {
        for lane in Lane::ALL {
            let text = "x".repeat(lane.index() * 30);
            let payload = format!(r#"{{"data":{{"content":"{position} {text}"}}}}"#);
            records.push(stored(&StoredRecord {
                kind: Kind::Event(lane),
                mark: if lane == Lane::Exchanges {
                    mark
                } else {
                    Mark::Plain
                },
                position,
                request: request(position + 1),
                content_at: 18,
                subject: "nexus.test",
                payload: payload.as_bytes(),
                ..plain
            }));
        }
    }
    records
}

/// What disks and crashes do: flipped bits, a torn end, bytes that are missing, that are too many,
/// that are zero. Each takes six bytes: what, where (2), how long (2), which value.
///
/// A piece of the file at another place is not among them: it would be a record that was written.
fn damage(mut file: Vec<u8>, script: &[u8]) -> Vec<u8> {
    let (steps, _) = script.as_chunks::<6>();
    for [what, w0, w1, l0, l1, value] in steps {
        let from = usize::from(u16::from_le_bytes([*w0, *w1])) % (file.len() + 1);
        let length = usize::from(u16::from_le_bytes([*l0, *l1])) % 512;
        let to = (from + length).min(file.len());
        match what % 5 {
            0 => file
                .iter_mut()
                .skip(from)
                .take(1)
                .for_each(|byte| *byte ^= value),
            1 => file.truncate(from),
            2 => drop(file.drain(from..to)),
            3 => drop(file.splice(from..from, std::iter::repeat_n(*value, length))),
            _ => file[from..to].fill(0),
        }
    }
    file
}

/// The written records that lie whole in a file, in order.
fn whole_records(file: &[u8], written: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let places = (0..file.len()).map(|at| &file[at..]);
    places
        .filter(|rest| rest.starts_with(b"NXR1"))
        .filter_map(|rest| written.iter().find(|record| rest.starts_with(record)))
        .cloned()
        .collect()
}

/// Sets the checksums right, so that what lies behind them is reached.
fn mended(input: &[u8]) -> Vec<u8> {
    let (mut file, mut at) = (input.to_vec(), 0);
    while let Some(record) = file
        .get_mut(at..)
        .filter(|rest| rest.len() >= RECORD_BYTES_MIN)
    {
        let length = u32::from_le_bytes([record[8], record[9], record[10], record[11]]);
        let end = usize::try_from(length).map_or(usize::MAX, |length| length.saturating_add(12));
        if record.starts_with(b"NXR1") && (RECORD_BYTES_MIN..=record.len()).contains(&end) {
            let crc = crc32fast::hash(&record[8..end]);
            record[4..8].copy_from_slice(&crc.to_le_bytes());
            at += end;
        } else {
            at += 1;
        }
    }
    file
}
