//! Redis goes away and comes back: the gateway serves all the time, and forgets nothing of its own.

use super::*;
use nexus_gateway::shared::Quotas;

/// One request a second tries whether Redis is back.
const BACK_BOUND: Duration = Duration::from_secs(30);

const RATE: Rate = Rate {
    limit: 1000,
    window: Duration::from_mins(1),
};

/// Asks for something new until the gateway says what is expected of Redis.
async fn until_up(state: &RedisState, expected: bool) {
    until("the gateway sees what Redis is", BACK_BOUND, async || {
        state.take("probe", RATE).await;
        let up = state.is_up();
        if up == expected {
            Ok(())
        } else {
            Err(format!("up: {up}"))
        }
    })
    .await
    .unwrap();
}

async fn keys(redis: &Redis) -> usize {
    let mut connection = redis.connection().await.unwrap();
    redis::cmd("DBSIZE")
        .query_async(&mut connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_conversation_outlives_a_restart_of_redis() {
    let clock = Arc::new(ManualClock::at(UnixMillis::from_millis(1_795_000_000_000)));
    let mut redis = Redis::start().await.unwrap();
    let (state, metrics) = gateway(&redis, &clock).await;
    assert_eq!(metrics.redis_up.get(), 1);
    state
        .remember(scope(1), &[message(1)], end(2), Remembered::Now)
        .await;
    assert_eq!(keys(&redis).await, 1);

    redis.kill().await.unwrap();
    let before = [message(1)];
    assert_eq!(state.find_prefix(query(&before)).await.unwrap().end, end(2));
    assert!(!state.is_up());
    assert_eq!(metrics.redis_up.get(), 0);
    assert!(metrics.redis_fallbacks.get() > 0);
    // Everything goes on meanwhile.
    state
        .remember(scope(1), &[message(2)], end(4), Remembered::Now)
        .await;
    assert_eq!(
        state.holder(conversation(4), Some(key(1))).await,
        Some(key(1))
    );
    assert!(state.take("a", RATE).await.allowed);

    redis.restart().await.unwrap();
    until_up(&state, true).await;
    assert_eq!(metrics.redis_up.get(), 1);
    // Redis is empty; what the gateway knows itself still counts.
    let ids = [message(2), message(1)];
    assert_eq!(state.find_prefix(query(&ids)).await.unwrap().end, end(4));
    assert_eq!(state.holder(conversation(4), None).await, Some(key(1)));
    // And what comes now is shared again.
    let (other, _) = gateway(&redis, &clock).await;
    state
        .remember(scope(1), &[message(3)], end(6), Remembered::Now)
        .await;
    let new = [message(3)];
    assert_eq!(other.find_prefix(query(&new)).await.unwrap().end, end(6));
}

#[tokio::test]
async fn a_gateway_starts_without_redis_and_finds_it_later() {
    let clock = Arc::new(ManualClock::at(UnixMillis::from_millis(1_795_000_000_000)));
    let mut redis = Redis::start().await.unwrap();
    redis.kill().await.unwrap();
    let (state, metrics) = gateway(&redis, &clock).await;
    assert!(!state.is_up());
    assert_eq!(metrics.redis_up.get(), 0);
    assert!(state.take("a", RATE).await.allowed);
    redis.restart().await.unwrap();
    until_up(&state, true).await;
    assert_eq!(keys(&redis).await, 1);
}

#[tokio::test]
async fn a_redis_that_hangs_holds_nobody_up() {
    let clock = Arc::new(ManualClock::at(UnixMillis::from_millis(1_795_000_000_000)));
    let mut redis = Redis::start().await.unwrap();
    let (state, _) = gateway(&redis, &clock).await;
    state
        .remember(scope(1), &[message(1)], end(2), Remembered::Now)
        .await;

    redis.pause().unwrap();
    let ids = [message(1)];
    let start = tokio::time::Instant::now();
    for _ in 0..1000 {
        let found = state.find_prefix(query(&ids)).await;
        assert_eq!(found.unwrap().end, end(2));
    }
    // Three time-outs of 50 ms and then one a second; all thousand waiting would be 50 s.
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(!state.is_up());

    redis.resume().unwrap();
    until_up(&state, true).await;
    assert_eq!(state.find_prefix(query(&ids)).await.unwrap().end, end(2));
}

#[tokio::test]
async fn an_address_that_is_none_is_refused() {
    let metrics = Metrics::new().unwrap();
    let clock = Arc::new(ManualClock::at(UnixMillis::from_millis(0)));
    let url = Secret::new("postgres://127.0.0.1".to_owned());
    let refused = RedisState::connect(&url, WINDOW, memory(&clock), &metrics).await;
    assert!(refused.is_err());
}
