//! Whatever happens to limits, in process and in Redis the same comes of it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// One step of two gateways' life.
#[derive(Clone, Debug)]
enum Step {
    Admit(u8, u32, u32, u64),
    Settle(u8, i64, u64, i64),
    Again(u8, u64),
    Renew(u8),
    Late(u8),
    Afresh,
    Seed(u64, u64, bool),
    Pass(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u8..6, 0_u32..5, 1_u32..4, 0_u64..40)
            .prop_map(|(of, tokens, places, money)| Step::Admit(of, tokens, places, money)),
        3 => (0_u8..6, -99_i64..5, 0_u64..40, -1_i64..=1)
            .prop_map(|(of, tokens, spent, ended)| Step::Settle(of, tokens, spent, ended)),
        1 => (0_u8..6, 0_u64..40).prop_map(|(of, spent)| Step::Again(of, spent)),
        1 => (0_u8..6).prop_map(Step::Renew),
        1 => (0_u8..6).prop_map(Step::Late),
        1 => Just(Step::Afresh),
        1 => (0_u64..60, 0_u64..3, any::<bool>())
            .prop_map(|(spent, position, whole)| Step::Seed(spent, position, whole)),
        2 => (1_u64..9).prop_map(Step::Pass),
    ]
}

/// What came of it: whole uses, because in Redis time goes on by itself.
type Seen = Option<(bool, Vec<(bool, i64)>)>;

fn held(number: u8, amount: u64) -> Held {
    Held {
        lease: lease(number),
        shares: vec![
            ("places".to_owned(), None),
            ("money".to_owned(), Some(amount)),
        ],
    }
}

fn seen(verdict: &Verdict) -> (bool, Vec<(bool, i64)>) {
    let stand = verdict.standings.iter().map(|standing| {
        let left = match standing.need {
            Need::Rate { rate, .. } => standing
                .left
                .div_euclid(i64::try_from(rate.window.as_millis()).unwrap()),
            Need::Place { .. } | Need::Budget { .. } => standing.left,
        };
        (standing.fits, left)
    });
    let room = verdict.room.iter();
    let room = room.map(|room| (room.allowed, i64::from(room.remaining)));
    (verdict.allowed, stand.chain(room).collect())
}

/// Ends a request so many hours after the counter of its money began; tells whether that was too late.
async fn settle(
    gateways: &Gateways,
    number: u8,
    (tokens, reserved, spent): (i64, u64, u64),
    hours: i64,
) -> bool {
    let tokens = Back::Rate {
        rate: RATE,
        amount: tokens,
    };
    let mut settlement = settlement(number, "places", Back::Place);
    settlement.shares.push(("tokens".to_owned(), tokens));
    let money = Back::Budget { reserved, spent };
    settlement.shares.push(("money".to_owned(), money));
    let begun = since(&*gateways.one, "money").await.as_millis();
    settlement.ended = UnixMillis::from_millis(begun + hours * 3_600_000);
    gateways.other.settle(&settlement).await == Settled::Late
}

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
            let mut demand = demand(of, wanted);
            demand.room = Some(room());
            let verdict = one.admit(&demand).await;
            if verdict.allowed {
                reserved.insert(of, amount);
            }
            Some(seen(&verdict))
        }
        Step::Settle(of, tokens, spent, hours) => {
            let reserved = reserved.remove(&of).unwrap_or(0);
            let late = settle(gateways, of, (tokens, reserved, spent), hours).await;
            Some((late, Vec::new()))
        }
        Step::Again(of, spent) => {
            let reserved = reserved.remove(&of).unwrap_or(0);
            let money = Back::Budget { reserved, spent };
            let mut settlement = settlement(of, "money", money);
            settlement.ended = since(&**one, "money").await;
            one.settle(&settlement).await;
            None
        }
        Step::Renew(of) => {
            if let Some(amount) = reserved.get(&of) {
                other.renew(&[held(of, *amount)]).await;
            }
            None
        }
        // On its way when the request ended.
        Step::Late(of) => {
            if !reserved.contains_key(&of) {
                other.renew(&[held(of, 0)]).await;
            }
            None
        }
        Step::Afresh => {
            afresh(&**one, "money").await;
            None
        }
        Step::Seed(before, position, is_whole) => {
            let begun = since(&**other, "money").await;
            let mut seed = seed("money", begun, before, position);
            seed.is_whole = is_whole;
            one.seed(&seed).await;
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
    let mut runner = runner(64, file!());
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
