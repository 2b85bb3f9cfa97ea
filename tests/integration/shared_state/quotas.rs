//! Limits: all of a demand or nothing, the same in process and in Redis.

use nexus_events::id::RequestId;
use nexus_gateway::shared::quota::{
    Back, Counted, Demand, Held, Need, Quotas, Room, Seed, Settled, Settlement, Share, Verdict,
    Whose,
};

use super::*;

mod alike;
mod away;

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
        room: None,
    }
}

fn settlement(number: u8, bucket: &str, back: Back) -> Settlement {
    Settlement {
        lease: lease(number),
        shares: vec![(bucket.to_owned(), back)],
        ended: LATE,
        counted_here: false,
    }
}

/// Later than any counter was opened.
const LATE: UnixMillis = UnixMillis::from_millis(4_000_000_000_000);

/// The moment from which a budget is counted.
async fn since(state: &dyn SharedState, bucket: &str) -> UnixMillis {
    let opened = state.open(&[bucket.to_owned()], false).await.unwrap();
    opened[0]
}

/// Counts it afresh.
async fn afresh(state: &dyn SharedState, bucket: &str) -> UnixMillis {
    let opened = state.open(&[bucket.to_owned()], true).await.unwrap();
    opened[0]
}

fn seed(bucket: &str, since: UnixMillis, spent: u64, position: u64) -> Seed {
    Seed {
        bucket: bucket.to_owned(),
        since,
        spent,
        position,
        is_whole: true,
    }
}

/// Room for three requests at a provider.
fn room() -> Room {
    Room {
        bucket: "provider".to_owned(),
        rate: RATE,
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
async fn room_at_a_provider_is_taken_with_the_rest_and_refuses_nothing() {
    for gateways in both().await {
        let Gateways { one, other, .. } = &gateways;
        let wants = |number| Demand {
            room: Some(room()),
            ..demand(number, vec![share("places", Need::Place { limit: 4 })])
        };
        let found = async |number| {
            let verdict = one.admit(&wants(number)).await;
            verdict.room.map(|room| (room.allowed, room.remaining))
        };
        assert_eq!(found(1).await, Some((true, 2)));
        // It is the same room that is taken and looked at by itself.
        assert_eq!(other.take("provider", RATE).await.remaining, 1);
        assert_eq!(other.peek("provider", RATE).await.remaining, 1);
        assert_eq!(found(2).await, Some((true, 0)));
        for number in [3, 4] {
            assert_eq!(found(number).await, Some((false, 0)));
        }
        // Who is refused takes none. The leases of the others have ended meanwhile.
        gateways.pass(RATE.window / 3).await;
        for number in 1..=4 {
            one.admit(&demand(
                number,
                vec![share("places", Need::Place { limit: 4 })],
            ))
            .await;
        }
        let refused = one.admit(&wants(5)).await;
        assert!(!refused.allowed && refused.room.is_none(), "{refused:?}");
        assert_eq!(other.peek("provider", RATE).await.remaining, 1);
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

/// One of so many places, and half of a budget.
fn a_place_and_money(number: u8, places: u32) -> Demand {
    let money = Need::Budget {
        limit: 10,
        amount: 5,
    };
    let place = share("places", Need::Place { limit: places });
    demand(number, vec![place, share("money", money)])
}

/// What the first of those holds.
fn held_of_first() -> Held {
    Held {
        lease: lease(1),
        shares: vec![("places".to_owned(), None), ("money".to_owned(), Some(5))],
    }
}

#[tokio::test]
async fn a_lease_that_nobody_renews_ends_and_one_that_is_renewed_holds() {
    for gateways in both().await {
        let Gateways { one, other, .. } = &gateways;
        let wants = |number| a_place_and_money(number, 2);
        let held = held_of_first();
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
async fn what_was_settled_is_not_renewed() {
    for gateways in both().await {
        let Gateways { one, other, .. } = &gateways;
        let wants = |number| a_place_and_money(number, 1);
        let held = held_of_first();
        assert!(one.admit(&wants(1)).await.allowed);
        one.settle(&settlement(1, "places", Back::Place)).await;
        one.renew(std::slice::from_ref(&held)).await;
        // Its place is free, its money still held.
        let second = other.admit(&wants(2)).await;
        assert!(second.allowed, "{second:?}");
        assert_eq!(left(&second), [0, 0]);
        other.settle(&settlement(2, "places", Back::Place)).await;
        let money = |reserved, spent| Back::Budget { reserved, spent };
        other.settle(&settlement(2, "money", money(5, 0))).await;
        one.settle(&settlement(1, "money", money(5, 2))).await;
        one.renew(std::slice::from_ref(&held)).await;
        let third = other.admit(&wants(3)).await;
        assert_eq!(left(&third), [0, 3]);
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
        let charge =
            |number, reserved, spent| settlement(number, "money", Back::Budget { reserved, spent });
        assert!(one.admit(&wants(90)).await.allowed);
        assert_eq!(one.settle(&charge(1, 90, 30)).await, Settled::Done);
        // Told a second time, it is charged only if it was not.
        one.settle(&charge(1, 90, 30)).await;
        other.settle(&charge(1, 90, 30)).await;
        assert_eq!(left(&other.admit(&wants(0)).await), [70]);
        // Without a reservation, because it was made elsewhere or the model had no price: charged once.
        for _ in 0..2 {
            assert_eq!(other.settle(&charge(2, 7, 5)).await, Settled::Done);
        }
        assert_eq!(left(&other.admit(&wants(0)).await), [65]);
        // What ended before the counter began is read, and not charged.
        let begun = since(&**one, "money").await;
        let mut before = charge(3, 0, 10);
        before.ended = begun.minus(Duration::from_millis(1));
        assert_eq!(other.settle(&before).await, Settled::Late);
        assert_eq!(left(&one.admit(&wants(0)).await), [65]);
        assert!(other.seed(&seed("money", begun, 10, 7)).await);
        assert_eq!(since(&**one, "money").await, begun);
        assert_eq!(left(&one.admit(&wants(0)).await), [55]);
        // Who has seen less of the log, or reads for another moment, says nothing; a part is a lower bound.
        one.seed(&seed("money", begun, 99, 6)).await;
        one.seed(&seed("money", LATE, 99, 8)).await;
        for (part, expected) in [(9, 55), (12, 53)] {
            let mut part = seed("money", begun, part, 9);
            part.is_whole = false;
            one.seed(&part).await;
            assert_eq!(left(&one.admit(&wants(0)).await), [expected]);
        }
        one.seed(&seed("money", begun, 10, 7)).await;
        assert_eq!(left(&one.admit(&wants(0)).await), [55]);
    }
}

#[tokio::test]
async fn a_budget_that_is_counted_afresh_loses_and_doubles_nothing() {
    for gateways in both().await {
        let Gateways { one, other, .. } = &gateways;
        let wants = |number| {
            let need = Need::Budget {
                limit: 100,
                amount: 10,
            };
            demand(number, vec![share("money", need)])
        };
        let end = |number, ended| Settlement {
            ended,
            ..settlement(
                number,
                "money",
                Back::Budget {
                    reserved: 10,
                    spent: 7,
                },
            )
        };
        let first = since(&**one, "money").await;
        // By a clock that is an hour ahead of the counter's.
        let ahead = first.plus(Duration::from_hours(1));
        for number in [1, 2] {
            assert!(one.admit(&wants(number)).await.allowed);
        }
        one.settle(&end(1, ahead)).await;
        let again = afresh(&**other, "money").await;
        assert_eq!(again, ahead.plus(Duration::from_millis(1)));
        // What was counted stands in for what is to be read; the reservation holds.
        assert_eq!(left(&other.admit(&wants(3)).await), [73]);
        other.seed(&seed("money", first, 99, 1)).await;
        other.seed(&seed("money", again, 6, 1)).await;
        assert_eq!(left(&other.admit(&wants(4)).await), [64]);
        assert_eq!(one.settle(&end(2, again)).await, Settled::Done);
        assert_eq!(one.settle(&end(3, ahead)).await, Settled::Late);
        assert_eq!(left(&other.admit(&wants(5)).await), [67]);
    }
}

#[tokio::test]
async fn a_debt_is_at_most_ten_windows_deep() {
    for gateways in both().await {
        let Gateways { one, other, .. } = &gateways;
        let wants = |rate| demand(1, vec![share("tokens", Need::Rate { rate, amount: 1 })]);
        let huge = Back::Rate {
            rate: RATE,
            amount: -1_000_000_000,
        };
        one.settle(&settlement(1, "tokens", huge)).await;
        let deep = other.admit(&wants(RATE)).await;
        // Some parts flow in while the test runs.
        let debt = left(&deep)[0] / RATE.capacity();
        assert!((-10..=-9).contains(&debt), "{deep:?}");
        // A limit that is lowered meanwhile takes the debt with it.
        let lowered = Rate { limit: 1, ..RATE };
        let deep = other.admit(&wants(lowered)).await;
        let debt = left(&deep)[0] / lowered.capacity();
        assert!((-10..=-9).contains(&debt), "{deep:?}");
        gateways.pass(RATE.window * 11).await;
        assert!(one.admit(&wants(RATE)).await.allowed);
    }
}
