//! What is adopted: held as long as its adopter, and no burden once it is shipped.

use tempfile::TempDir;

use super::{open, record};
use crate::{
    clock::SystemClock,
    id::RequestId,
    outbox::{Adopted, AppendError},
    subject::Lane,
};

/// All of it is in the stream.
fn ship(adopted: &Adopted) {
    for lane in Lane::ALL {
        let store = adopted.store();
        store.set_shipped(lane, store.last_position(lane));
    }
}

#[test]
fn what_is_shipped_and_not_settled_takes_no_room_from_who_settles_it() {
    const BOUND: u64 = 1 << 20;
    let dir = TempDir::new().unwrap();
    // Crash after crash, each with one segment that is never freed, for it is the last.
    for _ in 0..8 {
        let (outbox, _) = open(dir.path(), BOUND);
        let mut request = outbox.admit(RequestId::draw(&SystemClock)).unwrap();
        let received = record(Lane::Exchanges, &"x".repeat(100_000));
        request.append(&received).unwrap();
        // A crash takes its locks with it.
        let home = dir.path().join(outbox.id().to_string());
        drop((request, outbox));
        assert!(home.exists());
    }
    let (outbox, adopted) = open(dir.path(), BOUND);
    assert_eq!(adopted.len(), 8);
    let end = record(Lane::Exchanges, &"x".repeat(300_000));
    outbox.append(&end).unwrap_err();
    for incarnation in &adopted {
        assert_eq!(incarnation.open_requests().len(), 1);
        ship(incarnation);
        // Twice is no more than once.
        ship(incarnation);
    }
    assert_eq!(outbox.usage().limit_bytes, BOUND);
    outbox.append(&end).unwrap();
    for incarnation in adopted {
        incarnation.remove().unwrap();
    }
    assert_eq!(outbox.usage().limit_bytes, BOUND);
}

#[test]
fn what_was_adopted_stays_locked_as_long_as_its_adopter() {
    let dir = TempDir::new().unwrap();
    let (first, _) = open(dir.path(), 1 << 20);
    first.append(&record(Lane::Audit, "x")).unwrap();
    drop(first);
    let (second, adopted) = open(dir.path(), 1 << 20);
    assert_eq!(adopted.len(), 1);
    // As the soft stop does, while the second holds ends that it has not shipped.
    drop(adopted);
    let (third, adopted) = open(dir.path(), 1 << 20);
    assert!(adopted.is_empty(), "{adopted:?}");
    drop((third, second));
    let (_fourth, adopted) = open(dir.path(), 1 << 20);
    assert_eq!(adopted.len(), 3);
}

#[test]
fn nothing_is_appended_to_an_outbox_that_was_retired() {
    let dir = TempDir::new().unwrap();
    let (outbox, _) = open(dir.path(), 1 << 20);
    let appended = outbox.append(&record(Lane::Audit, "x")).unwrap();
    assert!(!outbox.retire(), "it is not shipped");
    outbox.append(&record(Lane::Audit, "y")).unwrap();
    outbox
        .store()
        .set_shipped(Lane::Audit, appended.position + 1);
    assert!(outbox.retire());
    let late = outbox.append(&record(Lane::Audit, "z"));
    assert!(matches!(late, Err(AppendError::Io(_))), "{late:?}");
}
