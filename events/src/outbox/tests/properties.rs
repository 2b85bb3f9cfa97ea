//! Any sequence of steps, with a disk that fills up now and then, and a crash after every one.

use proptest::prelude::*;

use super::{
    crash::Wreck,
    driver::{Action, Driver, Step},
    model::Model,
};
use crate::{outbox::disk::faults::Faults, subject::Lane};

/// Bound of the outbox: 512 KiB, so that segments have 64 KiB and some thirty requests fit.
const BYTES_MAX: u64 = 512 * 1024;

fn lane() -> impl Strategy<Value = Lane> {
    prop::sample::select(Lane::ALL.to_vec())
}

/// Mostly as small as a chunk; some as large as a context, and beyond what one write takes.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0..400_usize, 3 => 0..6_000_usize, 1 => 60_000..80_000_usize]
}

fn action() -> impl Strategy<Value = Action> {
    let who = || 0..100_usize;
    prop_oneof![
        4 => size().prop_map(Action::Open),
        8 => (who(), lane(), size()).prop_map(|(who, lane, size)| Action::Append(who, lane, size)),
        2 => (who(), size()).prop_map(|(who, size)| Action::Close(who, size)),
        2 => (who(), size()).prop_map(|(who, size)| Action::CloseUncounted(who, size)),
        2 => who().prop_map(Action::Count),
        1 => who().prop_map(Action::Abandon),
        2 => size().prop_map(Action::Audit),
        2 => (lane(), any::<u64>()).prop_map(|(lane, upto)| Action::Ship(lane, upto)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let faults =
        (0..3_000_usize, any::<bool>()).prop_map(|(room, cuts_fail)| Faults { room, cuts_fail });
    let faults = prop_oneof![7 => Just(None), 1 => faults.prop_map(Some)];
    (action(), faults).prop_map(|(action, faults)| Step { action, faults })
}

/// The places in what was written last at which a crash is tried: its ends, and some between.
fn places(from: u64, to: u64, drawn: &[prop::sample::Index]) -> Vec<u64> {
    let span = usize::try_from(to - from).unwrap() + 1;
    let mut places: Vec<u64> = drawn
        .iter()
        .map(|place| from + place.index(span) as u64)
        .collect();
    places.extend([from, (from + 1).min(to), to.saturating_sub(1).max(from), to]);
    places.sort_unstable();
    places.dedup();
    places
}

/// Where the last segment ended before a step, if that is still the last segment.
fn written_from(before: &Model, after: &Model) -> u64 {
    let (old, new) = (
        before.segments.back().unwrap(),
        after.segments.back().unwrap(),
    );
    if old.number == new.number {
        old.bytes()
    } else {
        0
    }
}

proptest! {
    // A case has some hundred crashes, each of which is recovered twice.
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn the_outbox_does_what_its_model_does_and_survives_a_crash_in_every_write(
        steps in prop::collection::vec(step(), 1..50),
        drawn in prop::collection::vec(any::<prop::sample::Index>(), 3),
        batch in 1..40_usize,
    ) {
        let mut driver = Driver::new(BYTES_MAX);
        for step in steps {
            let before = driver.model.clone();
            driver.step(step);
            let from = written_from(&before, &driver.model);
            let wreck = Wreck::of(&driver);
            // Up to the file's end: a write that failed may have left half a record there.
            for place in places(from, wreck.last_bytes(), &drawn) {
                wreck.assert_recovers(place, &driver.model);
            }
        }
        driver.assert_everything_unshipped_is_read(batch);
        // What was let in can be closed with everything that its client saw, however full it is.
        driver.fill();
        driver.close_all();
        let wreck = Wreck::of(&driver);
        wreck.assert_recovers(wreck.last_bytes(), &driver.model);
    }
}

/// One of each kind of write, torn at every one of its bytes.
#[test]
fn a_crash_at_every_byte_of_every_kind_of_write_loses_only_that_write() {
    let mut driver = Driver::new(BYTES_MAX);
    let whole = |action| Step {
        action,
        faults: None,
    };
    let half = Faults {
        room: 200,
        cuts_fail: true,
    };
    let steps = [
        whole(Action::Open(40)),
        whole(Action::Append(0, Lane::Chunks, 10)),
        whole(Action::Open(0)),
        // Half a record stays behind, and the next one is written over it.
        Step {
            action: Action::Append(0, Lane::Exchanges, 500),
            faults: Some(half),
        },
        whole(Action::Close(1, 20)),
        whole(Action::CloseUncounted(0, 20)),
        whole(Action::Count(0)),
        // Two writes; and the next record begins a segment.
        whole(Action::Audit(70_000)),
        // It cannot: not even its head is written.
        Step {
            action: Action::Open(5),
            faults: Some(Faults {
                room: 30,
                cuts_fail: false,
            }),
        },
        whole(Action::Open(5)),
        whole(Action::Ship(Lane::Audit, 1)),
        whole(Action::Audit(0)),
    ];
    for step in steps {
        let before = driver.model.clone();
        driver.step(step);
        let from = written_from(&before, &driver.model);
        let wreck = Wreck::of(&driver);
        let to = wreck.last_bytes();
        // Of the one large record: its head, and then every 997th byte.
        let every = (from..=to).filter(|place| *place < from + 2_000 || place % 997 == 0);
        for place in every.chain([to]) {
            wreck.assert_recovers(place, &driver.model);
        }
    }
    assert_eq!(driver.model.segments.len(), 2);
    driver.fill();
    driver.close_all();
}
