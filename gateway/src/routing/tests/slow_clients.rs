//! What a client takes to read is nothing that a provider is judged by.

use super::*;

const WAIT: Duration = Duration::from_secs(90);

/// A stream that has begun after a tenth of a second.
async fn streaming(bench: &Bench, one: &Contender) -> Route {
    let mut route = bench.route(std::slice::from_ref(one));
    route.sent();
    tokio::time::advance(Duration::from_millis(100)).await;
    route.first_byte(Instant::now(), true);
    route
}

#[tokio::test(start_paused = true)]
async fn the_time_in_which_nobody_reads_is_no_load() {
    let bench = Bench::new();
    let one = bench.contender("a", 0);
    let in_flight = || (one.load.in_flight(), one.known.load.in_flight());
    let mut route = streaming(&bench, &one).await;
    assert_eq!(in_flight(), (1, 1));
    route.waits();
    assert_eq!(in_flight(), (0, 0));
    tokio::time::advance(WAIT).await;
    route.goes_on();
    assert_eq!(in_flight(), (1, 1));
    route.succeeded();
    assert_eq!(in_flight(), (0, 0));
    assert_eq!(one.known.seen().latency, Some(Duration::from_millis(100)));
    // A client that never reads again.
    let mut route = streaming(&bench, &one).await;
    route.waits();
    drop(route);
    assert_eq!(in_flight(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_failure_costs_no_more_after_a_wait() {
    let bench = Bench::new();
    let (quick, slow) = (bench.contender("a", 0), bench.contender("b", 0));
    for (one, waits) in [(&quick, false), (&slow, true)] {
        let mut route = streaming(&bench, one).await;
        if waits {
            route.waits();
        }
        tokio::time::advance(if waits { WAIT } else { Duration::ZERO }).await;
        route.goes_on();
        route.failed(answered(500, Retry::Now));
    }
    let now = Instant::now();
    assert!(slow.load.cost(now) <= Duration::from_millis(2_200));
    assert_eq!(slow.known.load.cost(now), slow.load.cost(now));
}

#[tokio::test(start_paused = true)]
async fn who_hangs_up_on_a_client_that_does_not_read_is_not_broken() {
    let bench = Bench::new();
    let one = bench.contender("a", 0);
    let cut = failing(FailureReason::UpstreamCut, None, Retry::Never);
    for _ in 0..9 {
        let mut route = streaming(&bench, &one).await;
        route.waits();
        tokio::time::advance(WAIT).await;
        route.goes_on();
        route.failed(cut);
    }
    let seen = one.known.seen();
    assert_eq!(seen.breaker, BreakerState::Closed);
    assert!(seen.last_failure.is_none());
    // Who hangs up though everything was read is.
    for _ in 0..5 {
        let mut route = streaming(&bench, &one).await;
        route.waits();
        route.goes_on();
        route.failed(cut);
    }
    assert_eq!(one.known.breaker(), BreakerState::Open);
}
