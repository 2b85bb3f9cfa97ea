use BreakerState::{Closed, HalfOpen, Open};

use super::*;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A breaker and its clock.
struct Bench {
    breaker: Breaker,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let now = Instant::now();
        let breaker = Breaker::closed(now);
        Self { breaker, now }
    }

    /// A call that ends at once.
    fn call(&mut self, well: bool) -> Option<Transition> {
        let (admission, transition) = self.breaker.admit(self.now);
        let ended = if well {
            self.breaker.succeeded(admission, self.now)
        } else {
            self.breaker.failed(admission, self.now)
        };
        ended.or(transition)
    }

    fn open(&mut self) {
        while self.breaker.state() == Closed {
            self.call(false);
        }
    }

    fn is_blocked(&self) -> bool {
        self.breaker.blocked_since(self.now).is_some()
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as the breaker gives it")]
fn transition(from: BreakerState, to: BreakerState, reason: &'static str) -> Option<Transition> {
    Some(Transition { from, to, reason })
}

#[tokio::test]
async fn five_failures_in_a_row_open_it_and_a_success_between_begins_again() {
    let mut bench = Bench::new();
    for _ in 0..4 {
        assert_eq!(bench.call(false), None);
    }
    assert_eq!(bench.call(true), None);
    for _ in 0..4 {
        assert_eq!(bench.call(false), None);
    }
    assert!(!bench.is_blocked());
    assert_eq!(
        bench.call(false),
        transition(Closed, Open, "failures_in_a_row")
    );
    assert_eq!(bench.breaker.blocked_since(bench.now), Some(bench.now));
}

#[tokio::test]
async fn half_of_twenty_calls_in_ten_seconds_open_it() {
    // Every third one: never half of them.
    let mut bench = Bench::new();
    for number in 0..3_000 {
        assert_eq!(bench.call(number % 3 > 0), None);
        bench.now += Duration::from_millis(100);
    }
    // Every second one, from the twentieth call on.
    let mut bench = Bench::new();
    let mut opened = None;
    for number in 1..=20 {
        assert_eq!(opened, None, "{number}");
        opened = bench.call(number % 2 > 0);
        bench.now += Duration::from_millis(400);
    }
    assert_eq!(opened, transition(Closed, Open, "failure_rate"));
    // So slowly that there are never twenty in ten seconds.
    let mut bench = Bench::new();
    for number in 0..200 {
        assert_eq!(bench.call(number % 2 > 0), None);
        bench.now += Duration::from_millis(600);
    }
}

#[tokio::test]
async fn one_probe_is_let_through_and_closes_or_opens_it_for_twice_as_long() {
    let mut bench = Bench::new();
    bench.open();
    for seconds in [10, 20, 40, 80, 160, 300, 300] {
        bench.now += Duration::from_millis(seconds * 1000 - 1);
        assert!(bench.is_blocked(), "{seconds}");
        bench.now += Duration::from_millis(1);
        assert!(!bench.is_blocked(), "{seconds}");
        let (probe, due) = bench.breaker.admit(bench.now);
        assert_eq!(due, transition(Open, HalfOpen, "probe_due"));
        assert!(bench.is_blocked(), "one at a time");
        assert_eq!(
            bench.breaker.failed(probe, bench.now),
            transition(HalfOpen, Open, "probe_failed")
        );
    }
    bench.now += s(300);
    let (probe, _) = bench.breaker.admit(bench.now);
    assert_eq!(
        bench.breaker.succeeded(probe, bench.now),
        transition(HalfOpen, Closed, "answered")
    );
    // All is forgiven.
    for _ in 0..4 {
        assert_eq!(bench.call(false), None);
    }
    assert!(bench.call(false).is_some());
    bench.now += s(10);
    assert!(!bench.is_blocked());
}

#[tokio::test]
async fn a_probe_that_says_nothing_leaves_its_place_to_the_next() {
    let mut bench = Bench::new();
    bench.open();
    bench.now += s(10);
    let (probe, _) = bench.breaker.admit(bench.now);
    let (forced, none) = bench.breaker.admit(bench.now);
    assert_eq!(none, None);
    bench.breaker.released(forced);
    assert!(bench.is_blocked(), "the probe is still under way");
    bench.breaker.released(probe);
    assert!(!bench.is_blocked());
    assert_eq!(bench.breaker.state(), HalfOpen);
    assert_eq!(bench.call(true), transition(HalfOpen, Closed, "answered"));
}

#[tokio::test]
async fn a_stream_that_begins_closes_it_on_trial() {
    let mut bench = Bench::new();
    bench.open();
    bench.now += s(10);
    let (mut probe, _) = bench.breaker.admit(bench.now);
    let begun = bench.breaker.answering(&mut probe);
    assert_eq!(begun, transition(HalfOpen, Closed, "answered"));
    assert_eq!(bench.breaker.answering(&mut probe), None);
    // And breaks off: one failure is enough, and it stays open for twice as long.
    assert_eq!(
        bench.breaker.failed(probe, bench.now),
        transition(Closed, Open, "failed_again")
    );
    bench.now += s(19);
    assert!(bench.is_blocked());
    bench.now += s(1);
    assert_eq!(bench.call(true), transition(HalfOpen, Closed, "answered"));
    assert_eq!(bench.call(false), None, "not on trial any more");
}

#[tokio::test]
async fn what_began_before_says_nothing_of_what_is() {
    let mut bench = Bench::new();
    let (old, _) = bench.breaker.admit(bench.now);
    bench.open();
    assert_eq!(bench.breaker.succeeded(old, bench.now), None);
    assert_eq!(bench.breaker.state(), Open);
    bench.now += s(10);
    assert!(bench.call(true).is_some());
    for _ in 0..9 {
        assert_eq!(bench.breaker.failed(old, bench.now), None);
    }
    assert_eq!(bench.breaker.state(), Closed);
}

#[tokio::test]
async fn whoever_is_asked_though_it_is_open_can_close_it() {
    let mut bench = Bench::new();
    bench.open();
    assert_eq!(bench.call(false), None, "and does not make it worse");
    bench.now += s(9);
    assert!(bench.is_blocked());
    assert_eq!(bench.call(true), transition(Open, Closed, "answered"));
}

#[tokio::test]
async fn a_provider_that_can_be_reached_again_gets_its_probe_early() {
    let mut bench = Bench::new();
    assert_eq!(bench.breaker.reached(), None);
    bench.open();
    assert_eq!(
        bench.breaker.reached(),
        transition(Open, HalfOpen, "reachable_again")
    );
    assert_eq!(bench.breaker.reached(), None);
    assert_eq!(bench.call(true), transition(HalfOpen, Closed, "answered"));
}
