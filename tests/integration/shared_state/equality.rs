//! Memory and Redis answer alike, whatever is asked in whatever order.

use proptest::prelude::*;

use super::*;

const RATE: Rate = Rate {
    limit: 3,
    window: Duration::from_mins(10),
};

/// One step of a gateway's life.
#[derive(Clone, Debug)]
enum Step {
    Find(Vec<u8>, Option<u8>),
    Remember(Vec<u8>, u8, Remembered),
    Hold(u8, Option<u8>),
    Take(u8),
    Peek(u8),
    Pass(Duration),
}

/// What came of it; times that pass by themselves in Redis are left out.
#[derive(Debug, PartialEq)]
enum Seen {
    Prefix(Option<Prefix>),
    Holder(Option<KeyId>),
    Taken(bool, u32),
    Nothing,
}

fn any_step() -> impl Strategy<Value = Step> {
    let ids = || proptest::collection::vec(0_u8..5, 1..4);
    let remembered = prop_oneof![
        Just(Remembered::Now),
        // No sum of the times below is a whole window: the two clocks need not agree to the
        // millisecond.
        (1_u64..40).prop_map(|steps| Remembered::Ago(Duration::from_secs(steps * 49))),
    ];
    prop_oneof![
        3 => (ids(), proptest::option::of(0_u8..7)).prop_map(|(ids, of)| Step::Find(ids, of)),
        3 => (ids(), 0_u8..7, remembered).prop_map(|(ids, end, at)| Step::Remember(ids, end, at)),
        1 => (0_u8..3, proptest::option::of(0_u8..3)).prop_map(|(of, by)| Step::Hold(of, by)),
        2 => (0_u8..2).prop_map(Step::Take),
        2 => (0_u8..2).prop_map(Step::Peek),
        1 => (1_u64..30).prop_map(|steps| Step::Pass(Duration::from_secs(steps * 49))),
    ]
}

async fn take_step(gateways: &Gateways, step: &Step, turn: usize) -> Seen {
    // One writes and the other reads, so that the reader knows it all from Redis.
    let (writer, reader) = (&gateways.one, &gateways.other);
    let any = if turn.is_multiple_of(2) {
        writer
    } else {
        reader
    };
    let messages = |ids: &[u8]| ids.iter().copied().map(message).collect::<Vec<_>>();
    match step {
        Step::Find(ids, of) => {
            let ids = messages(ids);
            let query = PrefixQuery {
                conversation: of.map(|number| conversation(number.into())),
                ..query(&ids)
            };
            Seen::Prefix(reader.find_prefix(query).await)
        }
        Step::Remember(ids, number, at) => {
            writer
                .remember(scope(1), &messages(ids), end(*number), *at)
                .await;
            Seen::Nothing
        }
        Step::Hold(of, by) => {
            let claimant = by.map(|number| key(number.into()));
            Seen::Holder(any.holder(conversation((*of).into()), claimant).await)
        }
        Step::Take(bucket) => {
            let decision = any.take(&format!("bucket{bucket}"), RATE).await;
            Seen::Taken(decision.allowed, decision.remaining)
        }
        // Looked at twice: the first look takes nothing.
        Step::Peek(bucket) => {
            let bucket = format!("bucket{bucket}");
            let _first = any.peek(&bucket, RATE).await;
            let decision = any.peek(&bucket, RATE).await;
            Seen::Taken(decision.allowed, decision.remaining)
        }
        Step::Pass(time) => {
            gateways.pass(*time).await;
            Seen::Nothing
        }
    }
}

#[test]
fn memory_and_redis_answer_alike() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let shared = runtime.block_on(Gateways::in_redis());
    let redis = shared.redis.as_ref().unwrap();
    let steps = proptest::collection::vec(any_step(), 1..40);
    let mut runner = runner(48, file!());
    runner
        .run(&steps, |steps| {
            runtime.block_on(async {
                redis.flush().await.unwrap();
                let clock = Arc::new(ManualClock::at(UnixMillis::from_millis(1_795_000_000_000)));
                let shared = Gateways {
                    one: Arc::new(gateway(redis, &clock).await.0),
                    other: Arc::new(gateway(redis, &clock).await.0),
                    clock,
                    redis: None,
                };
                let alone = Gateways::in_process();
                for (turn, step) in steps.iter().enumerate() {
                    let expected = take_step(&alone, step, turn).await;
                    if let Step::Pass(time) = step {
                        age(redis.connection().await.unwrap(), *time).await;
                    }
                    let seen = take_step(&shared, step, turn).await;
                    prop_assert_eq!(seen, expected, "step {} {:?}", turn, step);
                }
                Ok(())
            })
        })
        .unwrap();
}
