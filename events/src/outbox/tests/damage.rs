//! A disk that forgets: what is damaged is passed over, and nothing else is lost with it.

use std::{fs::File, os::unix::fs::FileExt, path::Path, sync::Arc};

use proptest::prelude::*;
use tempfile::TempDir;

use super::{crash::segment_files, open, record};
use crate::{
    envelope::Envelope,
    id::EventId,
    outbox::{Store, incarnation::adopt_abandoned, shipper::lane_reader::LaneReader},
    subject::Lane,
};

/// What a lane ships.
fn read(store: &Arc<Store>, lane: Lane) -> Vec<EventId> {
    let mut reader = LaneReader::new(Arc::clone(store), lane);
    let (mut after, mut found) = (0, Vec::new());
    loop {
        let batch = reader.next_batch(after, (10, usize::MAX)).unwrap();
        let Some(last) = batch.last_position else {
            return found;
        };
        after = last;
        let ids = batch
            .events
            .iter()
            .map(|event| Envelope::decode(&event.payload).unwrap().id);
        found.extend(ids);
    }
}

/// Flips a bit of a file.
fn flip(path: &Path, place: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, place).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], place).unwrap();
}

proptest! {
    // A case writes some two hundred records.
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whichever record is hit, at whichever byte, and whoever reads: the process itself, or the
    /// one that adopts what it left.
    #[test]
    fn a_damaged_record_is_missed_and_no_other(
        hit in any::<prop::sample::Index>(),
        last_of_segment in any::<bool>(),
        byte in any::<prop::sample::Index>(),
    ) {
        let dir = TempDir::new().unwrap();
        let (outbox, _) = open(dir.path(), 256 * 1024);
        let home = dir.path().join(outbox.id().to_string());
        let mut written = Vec::new();
        for number in 0..150 {
            // The third lane ends long before the last segment begins.
            let lane = Lane::ALL[number % if number < 60 { 3 } else { 2 }];
            let record = record(lane, &"x".repeat(number * 7 % 500));
            let appended = outbox.append(&record).unwrap();
            let bytes = super::model::stored_bytes(&record);
            written.push((record.lane, record.id, appended.end, bytes));
        }
        let files = segment_files(&home);
        prop_assert!(files.len() > 2, "{} segments", files.len());
        let hit = hit.index(written.len());
        let segment_of = |number: usize| written[number].2.0;
        let hit = (hit..written.len() - 1)
            .find(|number| !last_of_segment || segment_of(*number) < segment_of(number + 1))
            .unwrap_or(hit);
        let (lane, id, (segment, end), bytes) = written[hit];
        let last_of_all = id == written.last().unwrap().1;
        let place = end - 1 - byte.index(usize::try_from(bytes).unwrap()) as u64;
        flip(&files[usize::try_from(segment - 1).unwrap()], place);

        let lost = |store: &Arc<Store>| (store.joint().gaps(), store.joint().alarms());
        let survivors = |of: Lane| -> Vec<EventId> {
            written.iter().filter(|(lane, it, ..)| *lane == of && *it != id).map(|(_, id, ..)| *id).collect()
        };
        for lane in Lane::ALL {
            prop_assert_eq!(read(outbox.store(), lane), survivors(lane));
        }
        // A gap in the middle of a lane is told by the record behind it, once however often it is
        // read; at its end by who ships it, which nobody does here.
        let is_last = written[hit + 1..].iter().all(|(of, ..)| *of != lane);
        let gaps = Lane::ALL.map(|of| u64::from(of == lane && !is_last));
        let expected = (gaps, gaps.map(|gap| gap > 0));
        prop_assert_eq!(lost(outbox.store()), expected);
        read(outbox.store(), lane);
        prop_assert_eq!(lost(outbox.store()), expected);
        prop_assert_eq!((outbox.gaps(), outbox.alarmed()), expected);
        drop(outbox);
        let lengths: Vec<u64> = files.iter().map(|file| file.metadata().unwrap().len()).collect();
        let adopted = adopt_abandoned(dir.path(), &Arc::default()).unwrap();
        for lane in Lane::ALL {
            prop_assert_eq!(read(adopted[0].store(), lane), survivors(lane));
        }
        prop_assert_eq!(lost(adopted[0].store()), expected);
        prop_assert_eq!(adopted[0].alarms().len(), usize::from(!is_last));
        // The end of the last segment looks as if it were torn; nothing else is cut.
        let cut = if last_of_all { bytes } else { 0 };
        let mut expected = lengths;
        *expected.last_mut().unwrap() -= cut;
        let lengths: Vec<u64> = files.iter().map(|file| file.metadata().unwrap().len()).collect();
        prop_assert_eq!(lengths, expected);
        // Where a lane ends is known even if its last record is not: an older segment's successor
        // tells. Its cursor has to get there, or whoever waits for the lane waits for ever.
        let of_lane = written.iter().filter(|(of, ..)| *of == lane);
        let last_of_lane = of_lane.clone().next_back().is_some_and(|(_, last, ..)| *last == id);
        let told = !last_of_lane || segment < files.len() as u64;
        let expected = of_lane.count() as u64 - u64::from(!told);
        prop_assert_eq!(adopted[0].store().last_position(lane), expected);
    }
}
