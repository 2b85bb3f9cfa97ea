use http::StatusCode;
use nexus_events::{
    clock::{ManualClock, UnixMillis},
    config_event::{self, Model},
    exchange_event::FailureReason,
    id::RouteId,
    outbox::{OutboxSettings, Release, SyncMode},
};
use tempfile::TempDir;

use super::*;
use crate::{provider::Retry, settings::Secret};

mod refusals;
mod slow_clients;
mod turned_away;

/// A routing with its clock and its outbox.
struct Bench {
    routing: Routing,
    clock: Arc<ManualClock>,
    _dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let clock = Arc::new(ManualClock::at(UnixMillis::from_millis(7)));
        let shared: SharedClock = Arc::<ManualClock>::clone(&clock);
        let settings = OutboxSettings {
            dir: dir.path().to_owned(),
            bytes_max: 1 << 30,
            sync: SyncMode::Os,
            release: Release::Local,
        };
        let (outbox, _) = Outbox::open(&settings, &shared).unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        Self {
            routing: Routing::new(outbox, shared, metrics, Chance::seeded(1)),
            clock,
            _dir: dir,
        }
    }

    fn contender(&self, provider: &str, priority: u8) -> Contender {
        let (id, zero) = (ProviderId::draw(&*self.clock), UnixMillis::from_millis(0));
        let record = Arc::new(ProviderRecord {
            resource: Provider {
                id,
                name: provider.to_owned(),
                kind: "openai".to_owned(),
                server_url: format!("http://{provider}.test"),
                server_key: None,
                rate_limit: None,
                created_ms: zero,
                updated_ms: zero,
            },
            server_key: Some(Secret::new("sk-1".to_owned())),
        });
        let model = Arc::new(Model {
            id: ModelId::draw(&*self.clock),
            provider_id: id,
            model_name: "m".to_owned(),
            upstream_model: (provider == "b").then(|| "upstream".to_owned()),
            created_ms: zero,
            updated_ms: zero,
        });
        Contender {
            known: Arc::new(Known::nothing(&record, Instant::now())),
            candidate: Candidate {
                provider: record,
                model,
            },
            priority,
            weight: 1,
            load: Arc::default(),
            spent: false,
        }
    }

    fn route(&self, contenders: &[Contender]) -> Route {
        self.route_of(None, contenders)
    }

    fn route_of(&self, route: Option<config_event::Route>, contenders: &[Contender]) -> Route {
        let contenders = contenders.iter().map(|one| Contender {
            candidate: one.candidate.clone(),
            known: Arc::clone(&one.known),
            load: Arc::clone(&one.load),
            ..*one
        });
        Route::open(
            &self.routing.inner,
            route.map(Arc::new),
            contenders.collect(),
        )
        .unwrap()
    }

    /// Lets one fail so often that its breaker opens.
    fn break_down(&self, one: &Contender) {
        for _ in 0..5 {
            let mut route = self.route(std::slice::from_ref(one));
            route.sent();
            route.failed(refused());
        }
        assert_eq!(one.known.breaker(), BreakerState::Open);
    }
}

fn configured(attempts: Option<u8>, first_byte_timeout_ms: Option<u32>) -> config_event::Route {
    let zero = UnixMillis::from_millis(0);
    config_event::Route {
        id: RouteId::from_uuid(uuid::Uuid::from_u128(1)),
        name: "r".to_owned(),
        targets: Vec::new(),
        attempts,
        first_byte_timeout_ms,
        idle_timeout_ms: None,
        cache_ttl_seconds: None,
        created_ms: zero,
        updated_ms: zero,
    }
}

fn failing(reason: FailureReason, status: Option<u16>, retry: Retry) -> Failing {
    Failing {
        reason,
        status: status.map(|status| StatusCode::from_u16(status).unwrap()),
        retry,
    }
}

fn refused() -> Failing {
    failing(FailureReason::UpstreamRefused, None, Retry::Now)
}

fn answered(status: u16, retry: Retry) -> Failing {
    failing(FailureReason::UpstreamStatus, Some(status), retry)
}

fn name(route: &Route) -> &str {
    &route.current().provider.resource.name
}

#[tokio::test]
async fn another_one_is_asked_where_the_failure_allows_it_and_nobody_twice() {
    let bench = Bench::new();
    let all = ["a", "b", "c", "d"].map(|name| bench.contender(name, name.as_bytes()[0]));
    let mut route = bench.route(&all);
    assert_eq!(target(route.current()).server_url, "http://a.test");
    assert_eq!(route.next(answered(400, Retry::Never), true), Next::GiveUp);
    let much_later = Retry::After(Duration::from_hours(1));
    assert_eq!(route.next(answered(429, much_later), true), Next::Another);
    let to = target(route.current());
    assert_eq!((to.model, to.server_key), ("upstream", Some("sk-1")));
    assert_eq!(route.next(refused(), true), Next::Another);
    assert_eq!((name(&route), route.attempt()), ("c", 3));
    assert_eq!(route.next(refused(), true), Next::GiveUp, "three are all");

    let mut route = bench.route_of(Some(configured(Some(5), None)), &all[..2]);
    assert_eq!(route.next(refused(), true), Next::Another);
    assert_eq!(route.next(refused(), true), Next::GiveUp, "nobody is left");
    let mut route = bench.route_of(Some(configured(Some(1), None)), &all);
    assert_eq!(route.next(refused(), true), Next::GiveUp);
}

#[tokio::test]
async fn one_that_is_alone_is_asked_again_where_that_may_help() {
    let bench = Bench::new();
    let alone = [bench.contender("a", 0)];
    let second = Duration::from_secs(1);
    for (failing, asked, again) in [
        (refused(), true, true),
        (answered(500, Retry::Now), true, true),
        (answered(408, Retry::Now), true, true),
        (answered(429, Retry::After(second)), true, true),
        (answered(429, Retry::After(3 * second)), true, false),
        (answered(400, Retry::Never), true, false),
        // What the hub itself refuses, it would refuse again.
        (answered(400, Retry::Now), false, false),
        (
            failing(FailureReason::UpstreamMalformed, None, Retry::Now),
            true,
            false,
        ),
        (
            failing(FailureReason::UpstreamTimeout, None, Retry::Never),
            true,
            false,
        ),
    ] {
        let mut route = bench.route(&alone);
        let next = route.next(failing, asked);
        assert_eq!(next != Next::GiveUp, again, "{failing:?}");
        if let (Next::Same(pause), Retry::After(wait)) = (next, failing.retry) {
            assert_eq!(pause, wait);
        }
    }
    let mut route = bench.route(&alone);
    for least in [50, 100] {
        let Next::Same(pause) = route.next(refused(), true) else {
            panic!("not asked again");
        };
        let pauses = Duration::from_millis(least)..Duration::from_millis(2 * least);
        assert!(pauses.contains(&pause), "{pause:?}");
    }
    assert_eq!(route.next(refused(), true), Next::GiveUp);
    assert_eq!(name(&route), "a");
}

#[tokio::test]
async fn who_has_only_broken_ones_beside_it_is_alone() {
    let bench = Bench::new();
    let both = [bench.contender("a", 0), bench.contender("b", 1)];
    bench.break_down(&both[1]);
    let mut route = bench.route(&both);
    assert!(matches!(route.next(refused(), true), Next::Same(_)));
    assert_eq!(name(&route), "a");
    // The broken one is better than nobody, where this one would say the same again.
    let malformed = failing(FailureReason::UpstreamMalformed, None, Retry::Now);
    assert_eq!(route.next(malformed, true), Next::Another);
    assert_eq!(name(&route), "b");
    assert_eq!(route.next(refused(), true), Next::GiveUp);
}

#[tokio::test]
async fn who_bounds_the_wait_for_the_first_byte_has_another_asked_then() {
    let bench = Bench::new();
    let both = [bench.contender("a", 0), bench.contender("b", 1)];
    let late = failing(FailureReason::UpstreamTimeout, None, Retry::Never);
    assert_eq!(bench.route(&both).next(late, true), Next::GiveUp);
    let mut route = bench.route_of(Some(configured(None, Some(250))), &both);
    assert_eq!(route.bounds().first_byte, Some(Duration::from_millis(250)));
    assert_eq!(route.next(late, true), Next::Another);
}

#[tokio::test]
async fn retries_end_with_the_budget_but_those_that_cost_nobody_anything() {
    let bench = Bench::new();
    let both = [bench.contender("a", 0), bench.contender("b", 1)];
    let next = |asked| bench.route(&both).next(refused(), asked);
    let granted = (0..500).take_while(|_| next(true) == Next::Another).count();
    // As many as it holds, and what comes while this runs.
    assert!((100..200).contains(&granted), "{granted}");
    assert_eq!(next(false), Next::Another);
    assert_eq!(bench.routing.inner.metrics.retries_refused.get(), 1);
}

#[tokio::test]
async fn a_provider_whose_breaker_is_open_is_asked_only_when_there_is_no_other() {
    let bench = Bench::new();
    let all = [bench.contender("a", 0), bench.contender("b", 9)];
    bench.break_down(&all[0]);
    assert_eq!(name(&bench.route(&all)), "b");
    bench.break_down(&all[1]);
    // Both are down: the one that has been for longest.
    let mut route = bench.route(&all);
    assert_eq!(name(&route), "a");
    assert!(route.skip());
    assert_eq!(name(&route), "b");
    assert!(!route.skip());
    // And it answers.
    let mut route = bench.route(&all[..1]);
    route.sent();
    route.first_byte(Instant::now(), false);
    route.succeeded();
    assert_eq!(all[0].known.breaker(), BreakerState::Closed);
    let metrics = &bench.routing.inner.metrics;
    assert_eq!(
        metrics.breaker_changes.with_label_values(&["open"]).get(),
        2
    );
    assert_eq!(
        metrics.breaker_changes.with_label_values(&["closed"]).get(),
        1
    );
    assert_eq!(bench.routing.inner.outbox.usage().open_requests, 0);
}

#[tokio::test]
async fn who_asks_not_to_be_asked_is_not_for_that_time() {
    let bench = Bench::new();
    let all = [bench.contender("a", 0), bench.contender("b", 9)];
    let mut route = bench.route(&all);
    route.sent();
    route.failed(answered(429, Retry::After(Duration::from_hours(1))));
    assert_eq!(all[0].known.breaker(), BreakerState::Closed);
    assert_eq!(name(&bench.route(&all)), "b");
    // A 429 without a time says nothing of later.
    let mut route = bench.route(&all[1..]);
    route.sent();
    route.failed(answered(429, Retry::Now));
    assert_eq!(name(&bench.route(&all)), "b");
}

#[tokio::test]
async fn what_is_under_way_is_counted_until_it_ends_in_whatever_way() {
    let bench = Bench::new();
    let one = [bench.contender("a", 0)];
    let in_flight = || (one[0].load.in_flight(), one[0].known.load.in_flight());
    let routes = [(); 4].map(|()| bench.route(&one));
    assert_eq!(in_flight(), (4, 4));
    let [mut well, mut ill, mut refused_here, dropped] = routes;
    well.succeeded();
    ill.failed(refused());
    refused_here.not_asked();
    assert_eq!(in_flight(), (1, 1));
    drop(dropped);
    assert_eq!(in_flight(), (0, 0));
    drop((well, ill, refused_here));
    assert_eq!(in_flight(), (0, 0));
}

#[tokio::test]
async fn what_a_client_sent_wrong_says_nothing_of_the_provider() {
    let bench = Bench::new();
    let one = [bench.contender("a", 0)];
    for _ in 0..30 {
        let mut route = bench.route(&one);
        route.sent();
        route.failed(answered(400, Retry::Never));
        let mut route = bench.route(&one);
        route.sent();
        route.failed(answered(401, Retry::Never));
        let mut route = bench.route(&one);
        route.sent();
        route.failed(answered(302, Retry::Never));
    }
    let seen = one[0].known.seen();
    assert_eq!(seen.breaker, BreakerState::Closed);
    // Who refuses our key is no good choice, though.
    assert_eq!(seen.last_failure.unwrap().status, Some(StatusCode::FOUND));
    assert!(one[0].load.cost(Instant::now()) > Duration::from_secs(1));
}

#[tokio::test]
async fn a_look_lets_a_probe_through_early_only_where_nobody_was_there() {
    let bench = Bench::new();
    let away = bench.contender("a", 0);
    bench.break_down(&away);
    let at = UnixMillis::from_millis(9);
    let look = |one: &Contender, reachable| one.known.looked(Reached { reachable, at });
    assert_eq!(look(&away, false), None);
    assert_eq!(look(&away, true).unwrap().to, BreakerState::HalfOpen);
    assert!(away.known.seen().reached.unwrap().reachable);
    // It costs nothing to find out, whatever has failed before.
    assert_eq!(away.standing(Instant::now()).cost, Duration::ZERO);
    assert!(away.load.cost(Instant::now()) > Duration::ZERO);
    let ill = bench.contender("b", 0);
    for _ in 0..5 {
        let mut route = bench.route(std::slice::from_ref(&ill));
        route.failed(answered(500, Retry::Now));
    }
    assert_eq!(ill.known.breaker(), BreakerState::Open);
    assert_eq!(look(&ill, true), None);
}

#[tokio::test]
async fn who_is_no_candidate_is_asked_neither_first_nor_after_a_failure() {
    let bench = Bench::new();
    let all =
        [("a", 0), ("b", 1), ("c", 2)].map(|(name, priority)| bench.contender(name, priority));
    let name = |route: &Route| route.current().provider.resource.name.clone();
    let mut route = bench.route(&all);
    assert!(route.narrow(|one| one.provider.resource.name != "b"));
    assert_eq!(name(&route), "a");
    route.sent();
    route.failed(refused());
    assert_eq!(route.next(refused(), true), Next::Another);
    assert_eq!(name(&route), "c");
    let mut route = bench.route(&all);
    assert!(route.narrow(|one| one.provider.resource.name == "b"));
    assert_eq!(name(&route), "b");
    assert_eq!(all[0].load.in_flight(), 0, "it is not being asked any more");
    assert!(!route.skip());
    assert!(!route.narrow(|_| false));
}
