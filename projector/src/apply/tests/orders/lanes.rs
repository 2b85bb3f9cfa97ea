//! Property: what is missing from the lanes of outboxes is counted, however the stream is cut
//! into batches, whatever comes twice, and whoever dies in between.

use std::collections::BTreeMap;

use nexus_events::{
    envelope::{NO_CONTENT, Stamp},
    exchange_event::{self, About, PresumedLost},
    id::OutboxId,
    subject::Stream,
};
use proptest::prelude::*;

use crate::testing::{DAY, Database, MemoryLog, TODAY, at, request};

/// One step of a lane: which outbox, how many positions it leaves out, and whether it comes twice.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    outbox: usize,
    missing: u64,
    twice: bool,
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let missing = prop_oneof![6 => Just(0), 1 => 1..4_u64];
    let arrival =
        (0..4_usize, missing, prop::bool::weighted(0.2)).prop_map(|(outbox, missing, twice)| {
            Arrival {
                outbox,
                missing,
                twice,
            }
        });
    prop::collection::vec(arrival, 1..30)
}

/// Two outboxes that are older than the log, and two that were opened while it was read.
///
/// Messages of a [`MemoryLog`] are stored at [`TODAY`].
fn outboxes() -> [OutboxId; 4] {
    [-DAY, -1, 1, DAY].map(|offset| OutboxId::draw(&at(TODAY + offset)))
}

/// The stream, and how many positions it lacks.
fn log_of(arrivals: &[Arrival]) -> (MemoryLog, u64) {
    let (mut log, outboxes) = (MemoryLog::new(), outboxes());
    let mut positions: BTreeMap<usize, u64> = BTreeMap::new();
    let mut gaps = 0;
    for arrival in arrivals {
        let outbox = outboxes[arrival.outbox];
        let seen = positions.get(&arrival.outbox).copied();
        let position = seen.unwrap_or(0) + arrival.missing + 1;
        positions.insert(arrival.outbox, position);
        // What an older outbox shipped before the log begins may have been purged.
        if seen.is_some() || arrival.outbox >= 2 {
            gaps += arrival.missing;
        }
        let id = request(TODAY);
        let about = About {
            source: "/nexus/test",
            request: id,
            traceparent: None,
        };
        let (data, stamp) = (PresumedLost { outbox }, Stamp::draw(&at(TODAY)));
        let record = exchange_event::record(about, stamp, ("_", "_"), &data, NO_CONTENT).unwrap();
        let payload = record.shipped(outbox, position).payload;
        for _ in 0..=usize::from(arrival.twice) {
            log.push(Stream::Exchanges, &record.subject, payload.clone());
        }
    }
    (log, gaps)
}

/// Everything that the checkpoint says, row by row.
async fn checkpoint(database: &mut Database) -> Vec<(String, i64, i64, i64)> {
    sqlx::query_as("SELECT outbox, sequence, position, gaps FROM checkpoint ORDER BY outbox")
        .fetch_all(database.writer.connection())
        .await
        .unwrap()
}

proptest! {
    // Each case builds three databases; 32 cases take some seconds.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn gaps_are_counted_however_the_stream_is_cut(
        arrivals in arrivals(),
        batches in prop::collection::vec((1..5_usize, any::<bool>()), 1..30),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (log, gaps) = log_of(&arrivals);
            let entries = log.of(Stream::Exchanges);
            let mut whole = Database::of(&log).await;
            assert_eq!(whole.writer.checkpoint().gaps(), gaps, "in one batch");
            let expected = (checkpoint(&mut whole).await, whole.dump().await);

            let mut single = Database::new().await;
            for entry in entries {
                single.apply(Stream::Exchanges, std::slice::from_ref(entry)).await;
            }
            assert_eq!(single.writer.checkpoint().gaps(), gaps, "one by one");
            assert_eq!((checkpoint(&mut single).await, single.dump().await), expected);

            let mut pieces = Database::new().await;
            let mut done = 0_usize;
            for (count, dies) in batches.iter().cycle() {
                let end = (done + count).min(entries.len());
                // A delivery begins before what was applied.
                pieces.apply(Stream::Exchanges, &entries[done.saturating_sub(2)..end]).await;
                if *dies {
                    pieces.reopen().await;
                }
                done = end;
                if done == entries.len() {
                    break;
                }
            }
            assert_eq!(pieces.writer.checkpoint().gaps(), gaps, "in pieces");
            assert_eq!((checkpoint(&mut pieces).await, pieces.dump().await), expected);
        });
    }
}
