use std::sync::Arc;

use nexus_events::{
    clock::{Clock, ManualClock},
    exchange_event::TokensCounted,
    id::{ConversationId, KeyId},
};
use tokio::time::Instant;

use super::*;

const DAY: Duration = Duration::from_hours(24);

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The broker's clock.
fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(UnixMillis::from_millis(1_795_478_400_000)))
}

#[test]
fn who_was_not_heard_of_is_lost_after_a_minute_and_given_up_after_a_day() {
    let clock = clock();
    let heard = clock.now();
    let judge = |still| judge(clock.now(), heard, still, DAY);
    assert_eq!(judge(DAY), Verdict::Alive);
    clock.advance(seconds(59));
    assert_eq!(judge(SEEN_STILL), Verdict::Alive);
    clock.advance(seconds(1));
    assert_eq!(judge(SEEN_STILL), Verdict::Lost);
    clock.advance(seconds(24 * 60 * 60 - 61));
    assert_eq!(judge(SEEN_STILL), Verdict::Lost);
    clock.advance(seconds(1));
    assert_eq!(judge(SEEN_STILL), Verdict::GivenUp);
}

#[test]
fn an_old_cursor_alone_makes_nobody_lost() {
    let clock = clock();
    let heard = clock.now();
    // The broker was away for two days, or its clock was set forward.
    clock.advance(2 * DAY);
    for still in [Duration::ZERO, seconds(29)] {
        assert_eq!(judge(clock.now(), heard, still, DAY), Verdict::Alive);
    }
    // Set back: it was heard of in the future.
    let future = clock.now().plus(DAY);
    assert_eq!(judge(clock.now(), future, DAY, DAY), Verdict::Alive);
}

#[test]
fn a_request_is_due_a_day_after_it_was_presumed_lost() {
    let clock = clock();
    let marked = clock.now();
    clock.advance(seconds(24 * 60 * 60 - 1));
    assert!(!is_due(clock.now(), marked, DAY));
    clock.advance(seconds(1));
    assert!(is_due(clock.now(), marked, DAY));
}

#[test]
fn a_cursor_that_moves_or_is_not_looked_at_is_not_still() {
    let (begin, clock) = (Instant::now(), clock());
    let outbox = OutboxId::draw(&*clock);
    let mut watch = Watch::default();
    let look = |watch: &mut Watch, sequence, second| {
        let at = begin + seconds(second);
        let look = Look {
            sequence,
            asked: at,
            answered: at,
        };
        watch.look(outbox, look)
    };
    assert_eq!(look(&mut watch, 5, 0), Duration::ZERO);
    assert_eq!(look(&mut watch, 5, 15), seconds(15));
    assert_eq!(look(&mut watch, 5, 30), SEEN_STILL);
    // Longer than two looks may be apart.
    assert_eq!(look(&mut watch, 5, 61), Duration::ZERO);
    assert_eq!(look(&mut watch, 5, 76), seconds(15));
    watch.keep_only(&[outbox]);
    assert_eq!(look(&mut watch, 5, 91), SEEN_STILL);
    watch.keep_only(&[]);
    assert_eq!(look(&mut watch, 5, 106), Duration::ZERO);
    assert_eq!(look(&mut watch, 5, 136), SEEN_STILL);
    watch.forget();
    assert_eq!(look(&mut watch, 5, 151), Duration::ZERO);
    assert_eq!(look(&mut watch, 6, 166), Duration::ZERO);
}

fn unsettled(clock: &ManualClock) -> UnsettledRequest {
    UnsettledRequest {
        request: RequestId::draw(clock),
        received: 1,
        presumed_lost: None,
        terminal: None,
    }
}

fn message(record: &Record, outbox: OutboxId) -> Message {
    Message {
        sequence: 1,
        time: UnixMillis::from_millis(0),
        stored_ns: 0,
        subject: record.subject.clone(),
        payload: record.shipped(outbox, 1).payload.into(),
        pending: 0,
    }
}

fn counted(request: RequestId, audit: bool, clock: &ManualClock) -> Record {
    let about = About {
        source: "/nexus/test",
        request,
        traceparent: None,
    };
    let data = TokensCounted {
        input_tokens: 1,
        output_tokens: 1,
        vocabulary: "v".to_owned(),
        audit,
        conversation: Some(ConversationId::draw(clock)),
        key: KeyId::draw(clock),
        provider_name: "p".to_owned(),
        configured_model: "m".to_owned(),
    };
    exchange_event::record(about, Stamp::draw(clock), ("p", "m"), &data, NO_CONTENT).unwrap()
}

#[test]
fn what_the_read_model_has_not_read_counts() {
    let clock = clock();
    let [one, two, other] = [(); 3].map(|()| unsettled(&clock));
    let outbox = OutboxId::draw(&*clock);
    let mut news = News::of(&[one, two]);
    assert!(news.leaves_unmarked(&one) && news.leaves_unfinished(&one));
    let mark = |request| presumed_lost(request, outbox, "/x", Stamp::draw(&*clock)).unwrap();
    news.see(&message(&mark(one.request), outbox));
    news.see(&message(&mark(other.request), outbox));
    assert!(!news.leaves_unmarked(&one) && news.leaves_unfinished(&one));
    assert!(news.leaves_unmarked(&two) && news.leaves_unmarked(&other));
    // A count that checks the provider's is none that fills in.
    news.see(&message(&counted(two.request, true, &clock), outbox));
    assert!(news.leaves_unfinished(&two));
    news.see(&message(&counted(two.request, false, &clock), outbox));
    assert!(!news.leaves_unfinished(&two));
}

#[test]
fn an_end_of_a_version_that_is_not_known_is_an_end() {
    let clock = clock();
    let one = unsettled(&clock);
    let outbox = OutboxId::draw(&*clock);
    let mut record = presumed_lost(one.request, outbox, "/x", Stamp::draw(&*clock)).unwrap();
    record.subject = subject::exchange(one.request, "completed", "p", "m");
    let payload = String::from_utf8(record.payload).unwrap();
    let newer = "ai.nexus.exchange.completed.v9";
    record.payload = payload
        .replace("ai.nexus.exchange.presumed_lost.v1", newer)
        .into();
    let mut news = News::of(&[one]);
    news.see(&message(&record, outbox));
    assert!(!news.leaves_unmarked(&one) && !news.leaves_unfinished(&one));
}

#[test]
fn received_is_of_one_request_and_one_outbox() {
    let clock = clock();
    let one = unsettled(&clock);
    let (outbox, other) = (OutboxId::draw(&*clock), OutboxId::draw(&*clock));
    let mut record = presumed_lost(one.request, outbox, "/x", Stamp::draw(&*clock)).unwrap();
    assert!(!is_received(&message(&record, outbox), one.request, outbox));
    record.subject = subject::exchange(one.request, "received", "_", "_");
    let message = message(&record, outbox);
    assert!(is_received(&message, one.request, outbox));
    assert!(!is_received(&message, one.request, other));
    assert!(!is_received(&message, unsettled(&clock).request, outbox));
}
