//! Who refuses everybody, or wants to be left alone, is passed over while there is another.

use super::*;

#[tokio::test(start_paused = true)]
async fn who_refuses_everybody_is_passed_over_for_a_while() {
    let bench = Bench::new();
    let all = [bench.contender("a", 0), bench.contender("b", 1)];
    for status in [401, 402, 403, 404, 302] {
        all[0].load.refusals.answered();
        for _ in 0..3 {
            let mut route = bench.route(&all);
            assert_eq!(name(&route), "a", "{status}");
            route.sent();
            let refused = answered(status, Retry::Never);
            route.failed(refused);
            assert_eq!(route.next(refused, true), Next::Another, "{status}");
            assert_eq!(name(&route), "b");
        }
        assert_eq!(name(&bench.route(&all)), "b", "{status}");
    }
    tokio::time::advance(Duration::from_secs(30)).await;
    let mut route = bench.route(&all);
    assert_eq!(name(&route), "a");
    route.sent();
    route.succeeded();
    assert_eq!(name(&bench.route(&all)), "a");
    // Who is alone is asked all the same, and once.
    let mut route = bench.route(&all[..1]);
    assert_eq!(route.next(answered(401, Retry::Never), true), Next::GiveUp);
}

#[tokio::test(start_paused = true)]
async fn who_was_asked_before_does_not_end_the_time_to_be_left_alone() {
    let bench = Bench::new();
    let all = [bench.contender("a", 0), bench.contender("b", 9)];
    let (mut early, mut late) = (bench.route(&all), bench.route(&all));
    early.sent();
    late.sent();
    tokio::time::advance(Duration::from_secs(1)).await;
    late.failed(answered(429, Retry::After(Duration::from_hours(1))));
    early.succeeded();
    assert_eq!(name(&bench.route(&all)), "b");
    // Who was asked since, for want of another, does.
    tokio::time::advance(Duration::from_secs(1)).await;
    let mut route = bench.route(&all[..1]);
    route.sent();
    route.succeeded();
    assert_eq!(name(&bench.route(&all)), "a");
}
