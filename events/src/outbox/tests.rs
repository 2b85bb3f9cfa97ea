//! The outbox: its promises one by one, and against a model with crashes at every place.

mod adopted;
mod crash;
mod damage;
mod driver;
mod model;
mod properties;

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use tempfile::TempDir;

use super::*;
use crate::{
    clock::SystemClock,
    envelope::Stamp,
    exchange_event::{self, About, TokensCounted},
    id::{ConversationId, KeyId},
    outbox::segment_reader::{Scanned, SegmentReader},
};

fn settings(dir: &Path, bytes_max: u64) -> OutboxSettings {
    OutboxSettings {
        dir: dir.to_owned(),
        bytes_max,
        sync: SyncMode::Os,
        release: Release::Local,
    }
}

fn clock() -> SharedClock {
    Arc::new(SystemClock)
}

fn open(dir: &Path, bytes_max: u64) -> (Outbox, Vec<Adopted>) {
    Outbox::open(&settings(dir, bytes_max), &clock()).unwrap()
}

fn record(lane: Lane, content: &str) -> Record {
    let clock = SystemClock;
    let about = About {
        source: "/nexus/test",
        request: RequestId::draw(&clock),
        traceparent: None,
    };
    let data = TokensCounted {
        input_tokens: 1,
        output_tokens: 2,
        vocabulary: "test".to_owned(),
        audit: false,
        conversation: Some(ConversationId::draw(&clock)),
        key: KeyId::draw(&clock),
        provider_name: "p".to_owned(),
        configured_model: "m".to_owned(),
    };
    let stamp = Stamp::draw(&clock);
    let record = exchange_event::record(about, stamp, ("p", "m"), &data, Some(content)).unwrap();
    Record { lane, ..record }
}

/// Every event record of a directory, in order: lane, position, event id.
fn stored(dir: &Path) -> Vec<(Lane, u64, crate::id::EventId)> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "segment"))
        .collect();
    names.sort();
    let mut found = Vec::new();
    for name in names {
        let file = fs::File::open(&name).unwrap();
        let length = file.metadata().unwrap().len();
        let mut reader = SegmentReader::new(file, 0);
        loop {
            match reader.next(length).unwrap() {
                Scanned::Record(record) => {
                    if let segment::Kind::Event(lane) = record.kind {
                        found.push((lane, record.position, record.id));
                    }
                }
                Scanned::Damage { .. } => {}
                Scanned::End => break,
            }
        }
    }
    found
}

#[test]
fn what_was_appended_is_there_for_who_adopts_it() {
    let dir = TempDir::new().unwrap();
    let clock = SystemClock;
    let (outbox, adopted) = open(dir.path(), 1 << 30);
    assert!(adopted.is_empty());
    let requests: Vec<RequestId> = (0..4).map(|_| RequestId::draw(&clock)).collect();
    let mut opened: Vec<OpenRequest> = requests
        .iter()
        .map(|request| {
            let mut open = outbox.admit(*request).unwrap();
            open.append(&record(Lane::Exchanges, "received")).unwrap();
            open.append(&record(Lane::Chunks, "chunk")).unwrap();
            open
        })
        .collect();
    opened[0].close(&record(Lane::Exchanges, "done")).unwrap();
    let (_, mut count) = opened[1]
        .close_uncounted(&record(Lane::Exchanges, "done"))
        .unwrap();
    count.close(&record(Lane::Exchanges, "counted")).unwrap();
    drop(count);
    let (_, count) = opened[2]
        .close_uncounted(&record(Lane::Exchanges, "done"))
        .unwrap();
    let id = outbox.id();
    // The process dies: nothing is closed in order.
    drop((count, opened, outbox));

    let (_next, adopted) = open(dir.path(), 1 << 30);
    let [adopted] = &adopted[..] else {
        panic!("one incarnation is abandoned")
    };
    assert_eq!(adopted.id(), id);
    let mut open = adopted.open_requests();
    open.sort_by_key(|(request, _)| *request);
    let mut expected = vec![
        (requests[2], OpenState::Uncounted),
        (requests[3], OpenState::Answering),
    ];
    expected.sort_by_key(|(request, _)| *request);
    assert_eq!(open, expected);
    let found = stored(&dir.path().join(id.to_string()));
    for (lane, count) in [(Lane::Exchanges, 8), (Lane::Chunks, 4)] {
        let positions: Vec<u64> = found
            .iter()
            .filter(|(found, ..)| *found == lane)
            .map(|(_, position, _)| *position)
            .collect();
        assert_eq!(positions, (1..=count).collect::<Vec<u64>>());
    }
}

#[test]
fn a_held_incarnation_is_not_adopted() {
    let dir = TempDir::new().unwrap();
    let (first, _) = open(dir.path(), 1 << 30);
    let (second, adopted) = open(dir.path(), 1 << 30);
    assert!(adopted.is_empty());
    assert_ne!(first.id(), second.id());
}

#[test]
fn a_full_outbox_refuses_requests_and_still_closes_those_it_let_in() {
    let dir = TempDir::new().unwrap();
    let (outbox, _) = open(dir.path(), 1 << 20);
    let clock = SystemClock;
    let mut open_requests = Vec::new();
    let refused = loop {
        match outbox.admit(RequestId::draw(&clock)) {
            Ok(mut open) => match open.append(&record(Lane::Exchanges, "received")) {
                Ok(_) => open_requests.push(open),
                Err(error) => break error,
            },
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, AppendError::Full));
    assert!(open_requests.len() > 10);
    // What goes on is bounded as well, and nothing of it eats the reserve.
    let chunk = record(Lane::Chunks, &"x".repeat(1000));
    while open_requests[0].append(&chunk).is_ok() {}
    for open in &mut open_requests {
        open.close(&record(Lane::Exchanges, &"y".repeat(8 * 1024)))
            .unwrap();
    }
    let usage = outbox.usage();
    assert!(usage.used_bytes <= usage.limit_bytes);
    assert_eq!((usage.reserved_bytes, usage.open_requests), (0, 0));
}

#[test]
fn a_full_outbox_takes_audit_events_still() {
    let dir = TempDir::new().unwrap();
    let (outbox, _) = open(dir.path(), 1 << 20);
    for size in [5_000, 1] {
        let refused = record(Lane::Exchanges, &"x".repeat(size));
        while outbox.append(&refused).is_ok() {}
    }
    assert!(outbox.admit(RequestId::draw(&SystemClock)).is_err());
    assert!(outbox.usage().is_full());
    // A sixteenth of the bound, less what the test's own records miss of it.
    let mut taken = 0;
    let told = record(Lane::Audit, &"a".repeat(500));
    while outbox.append(&told).is_ok() {
        taken += 1;
    }
    assert!((50..=64).contains(&taken), "{taken}");
    let usage = outbox.usage();
    assert!(usage.used_bytes <= usage.limit_bytes, "{usage:?}");
}

#[test]
fn shipped_segments_are_freed_while_a_request_stays_open() {
    let dir = TempDir::new().unwrap();
    // Segments of 128 KiB.
    let (outbox, _) = open(dir.path(), 1 << 20);
    let clock = SystemClock;
    let request = RequestId::draw(&clock);
    let mut open_request = outbox.admit(request).unwrap();
    open_request
        .append(&record(Lane::Exchanges, "received"))
        .unwrap();
    // Several times the bound passes through, because what is shipped is freed.
    for _ in 0..400 {
        let appended = outbox
            .append(&record(Lane::Audit, &"x".repeat(10_000)))
            .unwrap();
        outbox.store().set_shipped(Lane::Audit, appended.position);
        outbox.store().set_shipped(Lane::Exchanges, 1);
    }
    assert!(outbox.usage().used_bytes < 300_000, "{:?}", outbox.usage());
    drop((open_request, outbox));
    let (_next, adopted) = open(dir.path(), 1 << 20);
    assert_eq!(
        adopted[0].open_requests(),
        [(request, OpenState::Answering)],
        "the head of the last segment tells it"
    );
}

#[test]
fn a_request_whose_end_is_damaged_is_open_again() {
    const BOUND: u64 = 1 << 20;
    let dir = TempDir::new().unwrap();
    let (outbox, _) = open(dir.path(), BOUND);
    let [ended, spoiled] = [(); 2].map(|()| {
        let request = RequestId::draw(&SystemClock);
        let mut open = outbox.admit(request).unwrap();
        open.append(&record(Lane::Exchanges, "received")).unwrap();
        let end = record(Lane::Exchanges, &format!("the end of {request}"));
        open.close(&end).unwrap();
        request
    });
    // The count of its tokens, which follows its end, is no end.
    let counted = RequestId::draw(&SystemClock);
    let mut open_request = outbox.admit(counted).unwrap();
    let received = record(Lane::Exchanges, "received");
    open_request.append(&received).unwrap();
    let end = record(Lane::Exchanges, &format!("the end of {counted}"));
    let (_, mut count) = open_request.close_uncounted(&end).unwrap();
    count.close(&record(Lane::Exchanges, "the count")).unwrap();
    drop((open_request, count));
    let home = dir.path().join(outbox.id().to_string());
    while fs::read_dir(&home).unwrap().count() < 3 {
        let filler = record(Lane::Exchanges, &"x".repeat(5_000));
        outbox.append(&filler).unwrap();
    }
    drop(outbox);
    let first = home.join("000000000001.segment");
    let mut bytes = fs::read(&first).unwrap();
    for request in [spoiled, counted] {
        let text = format!("the end of {request}");
        let place = bytes
            .windows(text.len())
            .position(|at| at == text.as_bytes());
        bytes[place.unwrap()] ^= 1;
    }
    fs::write(&first, bytes).unwrap();

    let (_next, adopted) = open(dir.path(), BOUND);
    let open: BTreeMap<_, _> = adopted[0].open_requests().into_iter().collect();
    let expected = [spoiled, counted].map(|request| (request, OpenState::Answering));
    assert_eq!(open, BTreeMap::from(expected), "{ended} has ended");
}

#[test]
fn an_attempts_end_takes_its_room_from_the_reserve() {
    const BOUND: u64 = 1 << 20;
    let dir = TempDir::new().unwrap();
    let (outbox, _) = open(dir.path(), BOUND);
    let mut request = outbox.admit(RequestId::draw(&SystemClock)).unwrap();
    request
        .append(&record(Lane::Exchanges, "received"))
        .unwrap();
    for size in [5_000, 1] {
        let filler = record(Lane::Chunks, &"x".repeat(size));
        while outbox.append(&filler).is_ok() {}
    }
    request.append(&record(Lane::Exchanges, "end")).unwrap_err();
    for _ in 0..3 {
        request.append_end(&record(Lane::Exchanges, "end")).unwrap();
        let usage = outbox.usage();
        assert!(
            usage.used_bytes + usage.reserved_bytes <= BOUND,
            "{usage:?}"
        );
    }
    request.close(&record(Lane::Exchanges, "done")).unwrap();
    assert_eq!(outbox.usage().reserved_bytes, 0);
    request
        .append_end(&record(Lane::Exchanges, "end"))
        .unwrap_err();
}

#[test]
fn an_attempts_end_leaves_the_terminal_event_its_room_however_long_it_is() {
    let dir = TempDir::new().unwrap();
    let (outbox, _) = open(dir.path(), 1 << 20);
    let mut request = outbox.admit(RequestId::draw(&SystemClock)).unwrap();
    request
        .append(&record(Lane::Exchanges, "received"))
        .unwrap();
    let chunk = record(Lane::Chunks, &"x".repeat(10_000));
    request.append(&chunk).unwrap();
    for size in [5_000, 1] {
        let filler = record(Lane::Audit, &"x".repeat(size));
        while outbox.append(&filler).is_ok() {}
    }
    // A provider with a lot to say, asked twice.
    let refused = record(Lane::Exchanges, &"no ".repeat(2_300));
    request.append_end(&refused).unwrap();
    let second = request.append_end(&refused);
    assert!(matches!(second, Err(AppendError::Full)), "{second:?}");
    // What the client saw, and 7 KiB of everything else.
    let done = record(Lane::Exchanges, &"x".repeat(17_000));
    request.close(&done).unwrap();
    assert_eq!(outbox.usage().reserved_bytes, 0);
}

#[tokio::test]
async fn release_waits_for_the_sync_and_for_the_broker() {
    let dir = TempDir::new().unwrap();
    let settings = OutboxSettings {
        sync: SyncMode::Always,
        release: Release::Stream,
        ..settings(dir.path(), 1 << 30)
    };
    let (outbox, _) = Outbox::open(&settings, &clock()).unwrap();
    let appended = outbox.append(&record(Lane::Audit, "x")).unwrap();
    let mut released = std::pin::pin!(outbox.released(appended));
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), &mut released).await;
    assert!(early.is_err(), "released before the broker had it");
    assert!(matches!(*outbox.store().synced.borrow(), Synced::Upto(end) if end >= appended.end));
    outbox.store().set_shipped(Lane::Audit, appended.position);
    released.await.unwrap();
}

#[test]
fn a_torn_record_in_a_segment_that_others_follow_is_no_damage() {
    const BOUND: u64 = 1 << 20;
    let dir = TempDir::new().unwrap();
    let (outbox, _) = open(dir.path(), BOUND);
    disk::faults::set(Some(disk::faults::Faults {
        room: 200_000,
        cuts_fail: true,
    }));
    let large = record(Lane::Audit, &"x".repeat(200_000));
    assert!(outbox.append(&large).is_err());
    disk::faults::set(None);
    // It ends before the torn one does, and ends the segment.
    let smaller = record(Lane::Audit, &"x".repeat(150_000));
    outbox.append(&smaller).unwrap();
    outbox
        .append(&record(Lane::Audit, "the next segment"))
        .unwrap();
    let (used, first) = (outbox.usage().used_bytes, outbox.store().segment_path(1));
    let end = outbox.store().segment_end(1).unwrap();
    assert!(outbox.store().segment_end(2).is_some());
    drop(outbox);
    assert_eq!(fs::metadata(first).unwrap().len(), end);
    let (_next, adopted) = open(dir.path(), BOUND);
    assert_eq!(adopted[0].bytes(), used);
}
