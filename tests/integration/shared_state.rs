//! What gateways share: the same promises in process and in Redis, and through an outage of Redis.
//!
//! Every promise is looked at with two gateways. In process they are one; in Redis each has a
//! memory of its own, so what the second one knows it knows from Redis.
#![expect(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected stops there"
)]

use std::sync::Arc;
use std::time::Duration;

use nexus_events::clock::{ManualClock, SharedClock, UnixMillis};
use nexus_events::id::{ConversationId, KeyId};
use nexus_events::message_id::MessageId;
use nexus_gateway::metrics::Metrics;
use nexus_gateway::settings::Secret;
use nexus_gateway::shared::{
    ExchangeEnd, MemoryState, Prefix, PrefixQuery, Rate, RedisState, Remembered, ScopeId,
    SharedState, StoredSystem, SystemDigest, WINDOW,
};
use nexus_tests::{Redis, until};
use proptest::test_runner::TestRunner;
use redis::aio::MultiplexedConnection;

mod equality;
mod outage;
mod quotas;

/// Most of a window.
const ALMOST: Duration = Duration::from_secs(30 * 60 - 10);

/// Draws so many cases; `file`, the test's own, is where the seed of a failure is kept.
fn runner(cases: u32, file: &'static str) -> TestRunner {
    TestRunner::new(proptest::test_runner::Config {
        cases,
        source_file: Some(file),
        ..proptest::test_runner::Config::default()
    })
}

/// Two gateways and the means to let time pass.
struct Gateways {
    one: Arc<dyn SharedState>,
    other: Arc<dyn SharedState>,
    clock: Arc<ManualClock>,
    redis: Option<Redis>,
}

impl Gateways {
    fn in_process() -> Self {
        let clock = Arc::new(ManualClock::at(UnixMillis::from_millis(1_795_000_000_000)));
        let one: Arc<dyn SharedState> = Arc::new(memory(&clock));
        Self {
            other: Arc::clone(&one),
            one,
            clock,
            redis: None,
        }
    }

    async fn in_redis() -> Self {
        let clock = Arc::new(ManualClock::at(UnixMillis::from_millis(1_795_000_000_000)));
        let redis = Redis::start().await.unwrap();
        let (one, _) = gateway(&redis, &clock).await;
        let (other, _) = gateway(&redis, &clock).await;
        assert!(one.is_up() && other.is_up());
        Self {
            one: Arc::new(one),
            other: Arc::new(other),
            clock,
            redis: Some(redis),
        }
    }

    /// Makes everything that much older, in Redis too.
    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
        if let Some(redis) = &self.redis {
            age(redis.connection().await.unwrap(), time).await;
        }
    }
}

fn memory(clock: &Arc<ManualClock>) -> MemoryState {
    MemoryState::new(Arc::clone(clock) as SharedClock, WINDOW)
}

async fn gateway(redis: &Redis, clock: &Arc<ManualClock>) -> (RedisState, Metrics) {
    let metrics = Metrics::new().unwrap();
    let url = Secret::new(redis.url());
    let state = RedisState::connect(&url, WINDOW, memory(clock), &metrics).await;
    (state.unwrap(), metrics)
}

/// Redis has no clock that a test could move, so its keys get less time to live.
async fn age(mut connection: MultiplexedConnection, time: Duration) {
    const AGE: &str = r"
        for _, key in ipairs(redis.call('KEYS', '*')) do
          local left = redis.call('PTTL', key) - ARGV[1]
          local sort = redis.call('TYPE', key).ok
          if sort == 'hash' then
            redis.call('HINCRBY', key, 'at', -ARGV[1])
            for _, moment in ipairs({'since', 'last'}) do
              if redis.call('HEXISTS', key, moment) == 1 then
                redis.call('HINCRBY', key, moment, -ARGV[1])
              end
            end
          end
          if sort == 'zset' then
            for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do
              redis.call('ZINCRBY', key, -ARGV[1], member)
            end
          end
          if left > 0 then redis.call('PEXPIRE', key, left) else redis.call('DEL', key) end
        end";
    let millis = u64::try_from(time.as_millis()).unwrap();
    redis::Script::new(AGE)
        .arg(millis)
        .invoke_async::<()>(&mut connection)
        .await
        .unwrap();
}

fn scope(number: u8) -> ScopeId {
    ScopeId::from_bytes([number; 16])
}

fn message(number: u8) -> MessageId {
    MessageId::from_bytes([number; 16])
}

fn conversation(number: u128) -> ConversationId {
    format!("{number:032x}").parse().unwrap()
}

fn key(number: u128) -> KeyId {
    format!("{number:032x}").parse().unwrap()
}

/// An exchange that ended; with system messages where the number is even.
fn end(number: u8) -> ExchangeEnd {
    let system = StoredSystem {
        digest: SystemDigest::from_bytes([number; 16]),
        full_in: format!("{:032x}", u128::from(number) + 1).parse().unwrap(),
    };
    ExchangeEnd {
        conversation: conversation(number.into()),
        system: number.is_multiple_of(2).then_some(system),
    }
}

fn query(ids: &[MessageId]) -> PrefixQuery<'_> {
    PrefixQuery {
        scope: scope(1),
        ids,
        conversation: None,
    }
}

fn within(conversation: ConversationId, ids: &[MessageId]) -> PrefixQuery<'_> {
    PrefixQuery {
        conversation: Some(conversation),
        ..query(ids)
    }
}

/// Runs a promise over both.
macro_rules! promise {
    ($name:ident, $check:ident) => {
        mod $name {
            use super::*;

            #[tokio::test]
            async fn in_process() {
                $check(Gateways::in_process()).await;
            }

            #[tokio::test]
            async fn in_redis() {
                $check(Gateways::in_redis().await).await;
            }
        }
    };
}

promise!(the_longest_prefix_is_found_by_every_gateway, longest_prefix);
promise!(a_prefix_lives_for_the_window_after_its_last_use, window);
promise!(one_message_can_end_several_conversations, several);
promise!(what_is_seeded_gives_way_to_what_is_known, seeding);
promise!(the_first_key_holds_a_conversation, holders);
promise!(a_bucket_is_shared_and_fills_again, buckets);

async fn longest_prefix(gateways: Gateways) {
    let Gateways { one, other, .. } = &gateways;
    let ids = [message(3), message(2), message(1)];
    assert_eq!(one.find_prefix(query(&ids)).await, None);
    one.remember(scope(1), &[message(1)], end(10), Remembered::Now)
        .await;
    one.remember(
        scope(1),
        &[message(2), message(9)],
        end(11),
        Remembered::Now,
    )
    .await;
    let found = Some(Prefix {
        index: 1,
        end: end(11),
    });
    assert_eq!(other.find_prefix(query(&ids)).await, found);
    let found = Some(Prefix {
        index: 0,
        end: end(10),
    });
    assert_eq!(other.find_prefix(query(&ids[2..])).await, found);
    let elsewhere = PrefixQuery {
        scope: scope(2),
        ..query(&ids)
    };
    assert_eq!(other.find_prefix(elsewhere).await, None);
}

async fn window(gateways: Gateways) {
    let Gateways { one, other, .. } = &gateways;
    let ids = [message(2), message(1)];
    one.remember(scope(1), &[message(1)], end(10), Remembered::Now)
        .await;
    one.remember(scope(1), &[message(2)], end(10), Remembered::Now)
        .await;
    for _ in 0..3 {
        gateways.pass(ALMOST).await;
        assert_eq!(other.find_prefix(query(&ids)).await.unwrap().index, 0);
    }
    // The shorter prefix was kept alive along with the longer one.
    assert!(other.find_prefix(query(&ids[1..])).await.is_some());
    gateways.pass(WINDOW).await;
    assert_eq!(other.find_prefix(query(&ids)).await, None);
}

async fn several(gateways: Gateways) {
    let Gateways { one, other, .. } = &gateways;
    let ids = [message(1)];
    for number in 1..=6 {
        one.remember(scope(1), &ids, end(number), Remembered::Now)
            .await;
    }
    one.remember(scope(1), &ids, end(3), Remembered::Now).await;
    assert_eq!(other.find_prefix(query(&ids)).await.unwrap().end, end(3));
    // The latest four: 3 came again, 1 and 2 are out.
    for (number, known) in [
        (1, false),
        (2, false),
        (3, true),
        (4, true),
        (5, true),
        (6, true),
    ] {
        let found = other.find_prefix(within(conversation(number), &ids)).await;
        assert_eq!(found.is_some(), known, "conversation {number}");
    }
    // The conversation decides before the length does.
    one.remember(scope(1), &[message(2)], end(9), Remembered::Now)
        .await;
    let both = [message(2), message(1)];
    let found = other.find_prefix(within(conversation(4), &both)).await;
    assert_eq!(
        found,
        Some(Prefix {
            index: 1,
            end: end(4)
        })
    );
}

async fn seeding(gateways: Gateways) {
    let Gateways { one, other, .. } = &gateways;
    let ids = [message(1)];
    let ago = |minutes| Remembered::Ago(Duration::from_mins(minutes));
    one.remember(scope(1), &ids, end(2), Remembered::Now).await;
    let bare = ExchangeEnd {
        system: None,
        ..end(2)
    };
    one.remember(scope(1), &ids, bare, ago(1)).await;
    one.remember(scope(1), &ids, end(3), ago(1)).await;
    assert_eq!(other.find_prefix(query(&ids)).await.unwrap().end, end(2));
    assert!(
        other
            .find_prefix(within(conversation(3), &ids))
            .await
            .is_some()
    );

    let old = [message(2)];
    one.remember(scope(1), &old, end(4), ago(30)).await;
    assert_eq!(other.find_prefix(query(&old)).await, None, "over already");
    one.remember(scope(1), &old, end(4), ago(29)).await;
    let other_old = [message(3)];
    one.remember(scope(1), &other_old, end(4), ago(29)).await;
    gateways.pass(Duration::from_secs(30)).await;
    assert!(other.find_prefix(query(&other_old)).await.is_some());
    gateways.pass(Duration::from_secs(20)).await;
    // What was seeded has only the rest of its window.
    gateways.pass(Duration::from_secs(10)).await;
    assert_eq!(other.find_prefix(query(&old)).await, None);
}

async fn holders(gateways: Gateways) {
    let Gateways { one, other, .. } = &gateways;
    let (mine, yours) = (Some(key(1)), Some(key(2)));
    assert_eq!(one.holder(conversation(1), None).await, None);
    assert_eq!(one.holder(conversation(1), mine).await, mine);
    assert_eq!(other.holder(conversation(1), yours).await, mine);
    assert_eq!(other.holder(conversation(2), yours).await, yours);
    for _ in 0..3 {
        gateways.pass(ALMOST).await;
        assert_eq!(one.holder(conversation(1), None).await, mine);
    }
    assert_eq!(
        one.holder(conversation(2), None).await,
        None,
        "not used for a window"
    );
}

async fn buckets(gateways: Gateways) {
    let Gateways { one, other, .. } = &gateways;
    // Far slower than the test, so that its own time does not count.
    let rate = Rate {
        limit: 3,
        window: Duration::from_mins(15),
    };
    let remaining = [
        one.take("a", rate).await,
        other.take("a", rate).await,
        one.take("a", rate).await,
    ]
    .map(|decision| (decision.allowed, decision.remaining));
    assert_eq!(remaining, [(true, 2), (true, 1), (true, 0)]);
    let refused = other.take("a", rate).await;
    assert!(!refused.allowed);
    assert!(
        close(refused.retry_after, Duration::from_mins(5)),
        "{refused:?}"
    );
    assert!(
        close(refused.reset_after, Duration::from_mins(15)),
        "{refused:?}"
    );
    assert!(other.take("b", rate).await.allowed, "another bucket");

    gateways.pass(Duration::from_mins(5)).await;
    assert!(one.take("a", rate).await.allowed);
    assert!(!other.take("a", rate).await.allowed);
    gateways.pass(Duration::from_hours(1)).await;
    assert_eq!(
        other.take("a", rate).await.remaining,
        2,
        "never more than the limit"
    );
}

/// Within the time that a test may take on a busy machine.
fn close(one: Duration, other: Duration) -> bool {
    one.abs_diff(other) < Duration::from_secs(30)
}
