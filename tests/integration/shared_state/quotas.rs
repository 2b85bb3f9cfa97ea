//! Limits: all of a demand or nothing, the same in process and in Redis.

use std::collections::BTreeMap;

use nexus_events::id::{OutboxId, RequestId};
use nexus_gateway::shared::quota::{
    Back, Counted, Demand, Held, Need, Quotas, Settled, Settlement, Share, Verdict, Whose,
};
use proptest::prelude::*;

use super::*;

/// Nothing flows in while a test runs: one part of the limit takes ten minutes.
const RATE: Rate = Rate {
    limit: 3,
    window: Duration::from_mins(30),
};

fn lease(number: u8) -> RequestId {
    format!("{:032x}", u128::from(number) + 1).parse().unwrap()
}

fn share(bucket: &str, need: Need) -> Share {
    let counted = match need {
        Need::Rate { .. } => Counted::Tokens,
        Need::Place { .. } => Counted::Concurrent,
        Need::Budget { .. } => Counted::Money,
    };
    Share {
        whose: Whose::Key,
        counted,
        bucket: bucket.to_owned(),
        need,
    }
}

fn rate(amount: u32) -> Need {
    Need::Rate { rate: RATE, amount }
}

fn demand(number: u8, shares: Vec<Share>) -> Demand {
    Demand {
        lease: lease(number),
        shares,
    }
}

fn settlement(number: u8, bucket: &str, back: Back) -> Settlement {
    Settlement {
        lease: lease(number),
        shares: vec![(bucket.to_owned(), back)],
        again: false,
        counted_here: false,
    }
}

async fn both() -> [Gateways; 2] {
    [Gateways::in_process(), Gateways::in_redis().await]
}

fn left(verdict: &Verdict) -> Vec<i64> {
    verdict.standings.iter().map(|one| one.left).collect()
}

#[tokio::test]
async fn all_is_taken_or_nothing() {
    for gateways in both().await {
        let place = |limit| share("places", Need::Place { limit });
        let money = |amount| share("money", Need::Budget { limit: 100, amount });
        let wanted = vec![share("tokens", rate(2)), place(1), money(60)];
        let first = gateways.one.admit(&demand(1, wanted)).await;
        assert!(first.allowed);
        assert_eq!(left(&first)[1..], [0, 40]);
        // Each of the three has no room, and the other two keep what they have.
        for (tokens, places, amount, refusing) in [(3, 9, 1, 0), (1, 1, 1, 1), (1, 9, 41, 2)] {
            let wanted = vec![share("tokens", rate(tokens)), place(places), money(amount)];
            let refused = gateways.other.admit(&demand(2, wanted)).await;
            assert!(!refused.allowed);
            for (number, standing) in refused.standings.iter().enumerate() {
                assert_eq!(standing.fits, number != refusing, "{refused:?}");
            }
        }
        let rest = vec![share("tokens", rate(1)), place(2), money(40)];
        let rest = gateways.other.admit(&demand(2, rest)).await;
        assert!(rest.allowed);
        assert_eq!(left(&rest)[1..], [0, 0]);
    }
}

#[tokio::test]
async fn what_was_not_used_comes_back_and_what_was_used_beyond_is_a_debt() {
    for gateways in both().await {
        let Gateways { one, other, .. } = &gateways;
        let wants = |amount| demand(1, vec![share("tokens", rate(amount))]);
        let gives = |amount| settlement(1, "tokens", Back::Rate { rate: RATE, amount });
        // More than the whole limit takes the whole.
        assert!(one.admit(&wants(1_000)).await.allowed);
        assert!(!other.admit(&wants(1)).await.allowed);
        one.settle(&gives(2)).await;
        assert!(other.admit(&wants(2)).await.allowed);
        other.settle(&gives(100)).await;
        let full = one.admit(&wants(0)).await;
        assert_eq!(RATE.uses(left(&full)[0]), 3, "never more than it holds");
        one.settle(&gives(-4)).await;
        let refused = other.admit(&wants(1)).await;
        assert!(!refused.allowed && left(&refused)[0] < 0, "{refused:?}");
        gateways.pass(Duration::from_mins(9)).await;
        assert!(!other.admit(&wants(0)).await.allowed, "still in debt");
        gateways.pass(Duration::from_mins(13)).await;
        assert!(other.admit(&wants(1)).await.allowed);
    }
}

#[tokio::test]
async fn a_lease_that_nobody_renews_ends_and_one_that_is_renewed_holds() {
    for gateways in both().await {
        let Gateways { one, other, .. } = &gateways;
        let wants = |number| {
            let place = share("places", Need::Place { limit: 2 });
            let money = Need::Budget {
                limit: 10,
                amount: 5,
            };
            demand(number, vec![place, share("money", money)])
        };
        let held = Held {
            lease: lease(1),
            shares: vec![("places".to_owned(), None), ("money".to_owned(), Some(5))],
        };
        assert!(one.admit(&wants(1)).await.allowed);
        assert!(one.admit(&wants(2)).await.allowed);
        gateways.pass(Duration::from_secs(40)).await;
        one.renew(std::slice::from_ref(&held)).await;
        assert!(!other.admit(&wants(3)).await.allowed);
        gateways.pass(Duration::from_secs(40)).await;
        // The second one's gateway is gone; the first one's lives.
        assert!(other.admit(&wants(3)).await.allowed);
        assert!(!other.admit(&wants(4)).await.allowed);
        // What ended is renewed too late, and holds again.
        gateways.pass(Duration::from_secs(70)).await;
        one.renew(std::slice::from_ref(&held)).await;
        let again = other.admit(&wants(5)).await;
        assert!(again.allowed);
        assert_eq!(left(&again), [0, 0]);
    }
}

#[tokio::test]
async fn money_is_charged_once_and_what_was_spent_before_counts() {
    for gateways in both().await {
        let Gateways { one, other, .. } = &gateways;
        let wants = |amount| {
            let money = Need::Budget { limit: 100, amount };
            demand(1, vec![share("money", money)])
        };
        let charge = |reserved, spent, again| Settlement {
            again,
            ..settlement(1, "money", Back::Budget { reserved, spent })
        };
        assert!(one.admit(&wants(90)).await.allowed);
        assert_eq!(one.settle(&charge(90, 30, false)).await, Settled::Done);
        // Told a second time, it is charged only if it was not.
        one.settle(&charge(90, 30, true)).await;
        assert_eq!(left(&other.admit(&wants(0)).await), [70]);
        // Without a reservation: the model had no price when it was asked.
        other.settle(&charge(0, 5, false)).await;
        let opened = other.open("money").await.unwrap();
        assert!(!opened.seeded);
        other.seed("money", 10, true).await;
        let reopened = one.open("money").await.unwrap();
        assert_eq!((reopened.since, reopened.seeded), (opened.since, true));
        assert_eq!(left(&one.admit(&wants(0)).await), [55]);
    }
}

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
        again: false,
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
        let seen = [other.open("money").await, one.open("money").await];
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

/// One step of two gateways' life.
#[derive(Clone, Debug)]
enum Step {
    Admit(u8, u32, u32, u64),
    Settle(u8, i64, u64, bool),
    Renew(u8),
    Seed(u64),
    Pass(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u8..6, 0_u32..5, 1_u32..4, 0_u64..40)
            .prop_map(|(of, tokens, places, money)| Step::Admit(of, tokens, places, money)),
        3 => (0_u8..6, -9_i64..5, 0_u64..40, any::<bool>())
            .prop_map(|(of, tokens, spent, again)| Step::Settle(of, tokens, spent, again)),
        1 => (0_u8..6).prop_map(Step::Renew),
        1 => (0_u64..60).prop_map(Step::Seed),
        2 => (1_u64..9).prop_map(Step::Pass),
    ]
}

/// What came of it: whole uses, because in Redis time goes on by itself.
type Seen = Option<(bool, Vec<(bool, i64)>)>;

/// Takes a step; `reserved` remembers what each lease has reserved.
async fn take_step(gateways: &Gateways, step: &Step, reserved: &mut BTreeMap<u8, u64>) -> Seen {
    let (one, other) = (&gateways.one, &gateways.other);
    match *step {
        Step::Admit(of, tokens, limit, amount) => {
            let money = Need::Budget { limit: 100, amount };
            let wanted = vec![
                share("tokens", rate(tokens)),
                share("places", Need::Place { limit }),
                share("money", money),
            ];
            // A request asks once.
            if reserved.contains_key(&of) {
                return None;
            }
            let verdict = one.admit(&demand(of, wanted)).await;
            if verdict.allowed {
                reserved.insert(of, amount);
            }
            let stand = verdict.standings.iter().map(|standing| {
                let left = match standing.need {
                    Need::Rate { rate, .. } => standing
                        .left
                        .div_euclid(i64::try_from(rate.window.as_millis()).unwrap()),
                    Need::Place { .. } | Need::Budget { .. } => standing.left,
                };
                (standing.fits, left)
            });
            Some((verdict.allowed, stand.collect()))
        }
        Step::Settle(of, amount, spent, again) => {
            let reserved = reserved.remove(&of).unwrap_or(0);
            let money = Back::Budget { reserved, spent };
            let settlement = Settlement {
                counted_here: false,
                lease: lease(of),
                shares: vec![
                    ("tokens".to_owned(), Back::Rate { rate: RATE, amount }),
                    ("places".to_owned(), Back::Place),
                    ("money".to_owned(), money),
                ],
                again,
            };
            other.settle(&settlement).await;
            None
        }
        Step::Renew(of) => {
            if let Some(amount) = reserved.get(&of) {
                let held = Held {
                    lease: lease(of),
                    shares: vec![
                        ("places".to_owned(), None),
                        ("money".to_owned(), Some(*amount)),
                    ],
                };
                other.renew(&[held]).await;
            }
            None
        }
        Step::Seed(before) => {
            one.seed("money", before, true).await;
            None
        }
        Step::Pass(steps) => {
            gateways.pass(Duration::from_secs(steps * 49)).await;
            None
        }
    }
}

#[test]
fn memory_and_redis_decide_alike() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let shared = runtime.block_on(Gateways::in_redis());
    let redis = shared.redis.as_ref().unwrap();
    let steps = proptest::collection::vec(any_step(), 1..40);
    let config = ProptestConfig {
        cases: 64,
        // Without it there is no place to keep, and no way to print, the seed of a failure.
        source_file: Some(file!()),
        ..ProptestConfig::default()
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner
        .run(&steps, |steps| {
            runtime.block_on(async {
                redis.flush().await.unwrap();
                let alone = Gateways::in_process();
                let (mut here, mut there) = (BTreeMap::new(), BTreeMap::new());
                for step in &steps {
                    let expected = take_step(&alone, step, &mut here).await;
                    let seen = take_step(&shared, step, &mut there).await;
                    prop_assert_eq!(seen, expected, "{:?} of {:?}", step, &steps);
                }
                Ok(())
            })
        })
        .unwrap();
}
