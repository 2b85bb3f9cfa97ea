//! Property: the same prefixes give the same tables, however the streams interleave, wherever
//! they are cut, and whatever comes twice.

mod closed;
mod configured;
mod generated;
mod lanes;
mod once_failed;

use nexus_events::{envelope::Envelope, subject::Stream};
use proptest::prelude::*;

use self::generated::{Case, case, log_of};
use crate::{
    position::STREAMS,
    testing::{Database, MemoryLog},
};

/// Applies the log in pieces: the cuts say which stream goes on and how far.
async fn apply_in_pieces(
    database: &mut Database,
    log: &MemoryLog,
    cuts: &[(usize, usize)],
    again: bool,
) {
    let mut done = [0_usize; STREAMS.len()];
    let rest = [0, 1, 2, 3].map(|stream| (stream, usize::MAX));
    for (which, count) in cuts.iter().chain(&rest) {
        let entries = log.of(STREAMS[*which]);
        let end = done[*which].saturating_add(*count).min(entries.len());
        // A redelivery begins before what was applied.
        let begin = if again {
            done[*which].saturating_sub(3)
        } else {
            done[*which]
        };
        database.apply(STREAMS[*which], &entries[begin..end]).await;
        done[*which] = end;
    }
}

/// The rows of `conversations` and the totals are what their parts add up to.
async fn assert_sums(database: &mut Database) {
    for (what, statement) in [
        (
            "requests",
            "SELECT (SELECT requests FROM usage_totals)
                 - (SELECT coalesce(sum(requests), 0) FROM usage_hourly)",
        ),
        (
            "tokens",
            "SELECT (SELECT prompt_tokens + completion_tokens FROM usage_totals)
                 - (SELECT coalesce(sum(prompt_tokens + completion_tokens), 0) FROM usage_hourly)",
        ),
        (
            "conversations",
            "SELECT (SELECT conversations FROM usage_totals)
                 - (SELECT coalesce(sum(conversations), 0) FROM conversation_days)",
        ),
        (
            "exchanges of conversations",
            "SELECT (SELECT coalesce(sum(requests), 0) FROM conversations)
                 - (SELECT count(*) FROM exchanges WHERE conversation_id IS NOT NULL)",
        ),
        (
            "errors of conversations",
            "SELECT (SELECT coalesce(sum(errors), 0) FROM conversations)
                 - (SELECT count(*) FROM exchanges WHERE state = 'failed')",
        ),
        (
            "tokens of conversations",
            "SELECT (SELECT coalesce(sum(prompt_tokens + completion_tokens), 0) FROM conversations)
                 - (SELECT coalesce(sum(tokens), 0) FROM chat_stats)",
        ),
        ("gaps", "SELECT coalesce(sum(gaps), 0) FROM checkpoint"),
    ] {
        assert_eq!(database.number(statement).await, 0, "{what}");
    }
}

/// A log gives the same tables applied twice, in pieces, with repetitions, and when retention
/// has purged what it may.
async fn assert_order_does_not_matter(case: &Case) {
    let (log, purgeable) = log_of(case);
    let mut whole = Database::of(&log).await;
    assert_sums(&mut whole).await;
    let expected = whole.dump().await;

    whole.apply_all(&log).await;
    assert_same(&expected, &whole.dump().await, "applied twice");

    let mut pieces = Database::new().await;
    apply_in_pieces(&mut pieces, &log, &case.cuts, false).await;
    assert_same(&expected, &pieces.dump().await, "in pieces");

    let mut again = Database::new().await;
    apply_in_pieces(&mut again, &log, &case.cuts, true).await;
    assert_same(&expected, &again.dump().await, "with repetitions");

    let mut echoed = Database::new().await;
    apply_in_pieces(&mut echoed, &with_echoes(&log, case), &case.cuts, false).await;
    assert_same(
        &expected,
        &echoed.dump().await,
        "with events that are stored twice",
    );

    let mut purged = MemoryLog::new();
    purged.streams = log.streams.clone();
    let exchanges = purged.streams.entry(Stream::Exchanges).or_default();
    exchanges.retain(|entry| entry.message.sequence >= purgeable);
    let audit = purged.streams.entry(Stream::Audit).or_default();
    audit.retain(|entry| case.cutoff.is_none() || entry.message.sequence >= 2);
    let mut rebuilt = Database::of(&purged).await;
    assert_same(&expected, &rebuilt.dump().await, "from the purged log");
}

proptest! {
    // Each case builds up to six databases; 32 cases take some seconds.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_same_prefixes_give_the_same_tables(case in case()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(assert_order_does_not_matter(&case));
    }

    /// No stream has to be read to its end: two databases that read the same prefixes are the same.
    #[test]
    fn any_interleaving_of_the_same_prefixes_gives_the_same_tables(
        case in case(),
        prefixes in prop::array::uniform4(any::<prop::sample::Index>()),
        order in Just([0, 1, 2, 3_usize]).prop_shuffle(),
        cuts in prop::collection::vec((0..4_usize, 1..6_usize), 0..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let log = beginning(log_of(&case).0, prefixes);
            let mut in_order = Database::new().await;
            for stream in order {
                in_order.apply(STREAMS[stream], log.of(STREAMS[stream])).await;
            }
            let expected = in_order.dump().await;
            assert_sums(&mut in_order).await;

            let mut reversed = Database::new().await;
            for stream in order.into_iter().rev() {
                for entry in log.of(STREAMS[stream]) {
                    reversed.apply(STREAMS[stream], std::slice::from_ref(entry)).await;
                }
            }
            assert_same(&expected, &reversed.dump().await, "the other way round, one by one");

            let mut pieces = Database::new().await;
            apply_in_pieces(&mut pieces, &log, &cuts, true).await;
            assert_same(&expected, &pieces.dump().await, "in pieces, with repetitions");
        });
    }

    /// The checkpoint is what its transaction says: a writer that dies between any two of its
    /// commits, and opens the database again, goes on as if it had never died.
    #[test]
    fn a_writer_that_dies_between_commits_goes_on(case in case()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (log, _) = log_of(&case);
            let expected = Database::of(&log).await.dump().await;
            let mut database = Database::new().await;
            let mut done = [0_usize; STREAMS.len()];
            for (which, count) in case.cuts.iter().take(6) {
                let entries = log.of(STREAMS[*which]);
                let end = done[*which].saturating_add(*count).min(entries.len());
                database.apply(STREAMS[*which], &entries[done[*which]..end]).await;
                done[*which] = end;
                database.reopen().await;
            }
            // Whoever comes back reads from the start: the checkpoint alone says what was applied.
            database.apply_all(&log).await;
            assert_same(&expected, &database.dump().await, "after restarts");
        });
    }
}

/// What has been stored of the log so far: each stream up to some event.
fn beginning(log: MemoryLog, prefixes: [prop::sample::Index; STREAMS.len()]) -> MemoryLog {
    let mut beginning = log;
    for (stream, prefix) in STREAMS.into_iter().zip(prefixes) {
        let entries = beginning.streams.entry(stream).or_default();
        entries.truncate(prefix.index(entries.len() + 1));
    }
    beginning
}

/// The log with some of its events stored once more, as by an outbox that shipped them twice.
fn with_echoes(log: &MemoryLog, case: &Case) -> MemoryLog {
    let mut echoed = MemoryLog::new();
    echoed.streams = log.streams.clone();
    let events: Vec<_> = log
        .of(Stream::Exchanges)
        .iter()
        .filter(|entry| Envelope::decode(&entry.message.payload).is_ok())
        .collect();
    for echo in case.echoes.iter().filter(|_| !events.is_empty()) {
        let message = &echo.get(&events).message;
        echoed.push(
            Stream::Exchanges,
            &message.subject,
            message.payload.to_vec(),
        );
    }
    echoed
}

/// Compares dumps and shows the first line that differs.
fn assert_same(expected: &[String], found: &[String], what: &str) {
    let differs = expected
        .iter()
        .zip(found)
        .find(|(expected, found)| expected != found);
    assert_eq!(differs, None, "{what}");
    assert_eq!(expected.len(), found.len(), "{what}: {:?}", found.last());
}
