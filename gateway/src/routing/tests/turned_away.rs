//! Requests that a provider's server did nothing with, as happens when it ends a connection.

use super::*;

fn turned_away() -> Failing {
    failing(FailureReason::UpstreamCut, None, Retry::Again)
}

#[tokio::test]
async fn the_same_provider_is_asked_again_at_once_and_nobody_is_to_blame() {
    let bench = Bench::new();
    let all = [bench.contender("a", 0), bench.contender("b", 1)];
    // As many as would open a breaker, all at once.
    let mut routes: Vec<Route> = (0..8).map(|_| bench.route(&all)).collect();
    for route in &mut routes {
        route.sent();
        route.failed(turned_away());
    }
    assert_eq!(all[0].known.breaker(), BreakerState::Closed);
    let mut route = routes.remove(0);
    let next = route.next(turned_away(), true);
    assert_eq!((next, route.attempt()), (Next::Same(Duration::ZERO), 2));
    assert_eq!(name(&route), "a");
}

#[tokio::test]
async fn who_does_so_twice_is_in_trouble() {
    let bench = Bench::new();
    let all = [bench.contender("a", 0), bench.contender("b", 1)];
    for _ in 0..5 {
        let mut route = bench.route(&all);
        for next in [Next::Same(Duration::ZERO), Next::Another] {
            route.sent();
            route.failed(turned_away());
            assert_eq!(route.next(turned_away(), true), next);
        }
        assert_eq!(name(&route), "b");
    }
    assert_eq!(all[0].known.breaker(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn it_is_within_the_budget_and_the_routes_attempts() {
    let bench = Bench::new();
    let all = [bench.contender("a", 0)];
    let mut once = bench.route_of(Some(configured(Some(1), None)), &all);
    once.sent();
    once.failed(turned_away());
    assert_eq!(once.next(turned_away(), true), Next::GiveUp);

    let now = Instant::now();
    while bench.routing.inner.budget.retry(now) {}
    let mut poor = bench.route(&all);
    poor.sent();
    poor.failed(turned_away());
    assert_eq!(poor.next(turned_away(), true), Next::GiveUp);
}
