//! While Redis is away a gateway counts by itself, and knows what it may have told.

use nexus_events::id::OutboxId;

use super::*;

#[tokio::test]
async fn without_redis_a_gateway_counts_its_share_and_afterwards_all_count_together() {
    let clock = Arc::new(ManualClock::at(UnixMillis::from_millis(1_795_000_000_000)));
    let mut redis = Redis::start().await.unwrap();
    let (one, _) = gateway(&redis, &clock).await;
    let (other, _) = gateway(&redis, &clock).await;
    let ids = [1, 2].map(|number| OutboxId::from_uuid(lease(number).as_uuid()));
    one.beat(ids[0]).await;
    other.beat(ids[1]).await;
    one.beat(ids[0]).await;
    let wants = |number| {
        let place = share("places", Need::Place { limit: 5 });
        let money = Need::Budget {
            limit: 100,
            amount: 10,
        };
        demand(number, vec![place, share("money", money)])
    };
    for number in 0..2 {
        assert!(one.admit(&wants(number)).await.allowed);
    }
    redis.kill().await.unwrap();
    // Two of five places are its share, and both are taken.
    assert!(!one.admit(&wants(3)).await.allowed);
    let end = |number| Settlement {
        lease: lease(number),
        shares: vec![
            ("places".to_owned(), Back::Place),
            (
                "money".to_owned(),
                Back::Budget {
                    reserved: 10,
                    spent: 10,
                },
            ),
        ],
        ended: LATE,
        counted_here: false,
    };
    assert_ne!(one.settle(&end(0)).await, Settled::Done);
    let local = one.admit(&wants(4)).await;
    assert!(local.allowed, "{local:?}");
    assert_eq!(local.standings[0].need, Need::Place { limit: 2 });
    // Twenty were reserved, half of the other eighty is its own; ten are charged, ten reserved.
    assert_eq!(local.standings[1].left, 20);

    redis.restart().await.unwrap();
    until("both see it again", Duration::from_secs(30), async || {
        let money = ["money".to_owned()];
        let seen = [
            other.open(&money, false).await,
            one.open(&money, false).await,
        ];
        if seen.iter().all(Option::is_some) {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await
    .unwrap();
    let held = Held {
        lease: lease(1),
        shares: vec![("places".to_owned(), None), ("money".to_owned(), Some(10))],
    };
    one.renew(&[held]).await;
    let shared = other.admit(&wants(7)).await;
    assert_eq!(shared.standings[0].need, Need::Place { limit: 5 });
    assert_eq!(shared.standings[0].left, 3, "its own and the renewed one");
}

#[tokio::test]
async fn a_refused_connection_did_nothing() {
    let clock = Arc::new(ManualClock::at(UnixMillis::from_millis(1_795_000_000_000)));
    let mut redis = Redis::start().await.unwrap();
    let (one, metrics) = gateway(&redis, &clock).await;
    redis.kill().await.unwrap();
    let end = settlement(1, "places", Back::Place);
    // The connection that there was broke: nobody knows.
    assert_eq!(one.settle(&end).await, Settled::Unknown);
    let began = tokio::time::Instant::now();
    // One call a second tries to connect, and is refused.
    until("three tries", Duration::from_secs(30), async || {
        assert_eq!(one.settle(&end).await, Settled::Away);
        assert_eq!(metrics.redis_up.get(), 0);
        let tried = began.elapsed() > Duration::from_secs(3);
        tried.then_some(()).ok_or("not yet")
    })
    .await
    .unwrap();
}
