//! The limits of a key, its user and the hub, on a shared state in process.

use axum::response::IntoResponse;
use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use nexus_events::{
    clock::{ManualClock, SharedClock},
    config_event::{Model, OnDisconnect, Price, Quota, Role, User},
    id::{KeyId, ModelId, PriceId, ProviderId, UserId},
};

use super::*;
use crate::{
    configuration::{ProviderRecord, snapshot},
    shared::{MemoryState, WINDOW},
};

mod dropped;

/// A hub with one key, one user, one model that costs 1 000 millionths a token.
struct Hub {
    limits: Limits,
    clock: Arc<ManualClock>,
    key: Key,
    snapshot: Arc<Snapshot>,
    candidate: Candidate,
}

fn quota(requests: u32, tokens: u32, places: u32, money: u64) -> Quota {
    Quota {
        requests_per_minute: (requests > 0).then_some(requests),
        tokens_per_minute: (tokens > 0).then_some(tokens),
        concurrent_requests: (places > 0).then_some(places),
        monthly_budget: (money > 0).then_some(money),
    }
}

impl Hub {
    fn new(requests_per_second: u32, of_key: Quota, of_user: Quota) -> Self {
        // 2026-11-30, ten seconds before midnight.
        let clock = Arc::new(ManualClock::at(UnixMillis::from_millis(1_796_083_190_000)));
        let shared = MemoryState::new(Arc::clone(&clock) as SharedClock, WINDOW);
        let zero = UnixMillis::from_millis(0);
        let user = User {
            id: UserId::draw(&*clock),
            name: "ann".to_owned(),
            quota: of_user,
            created_ms: zero,
            updated_ms: zero,
        };
        let key = Key {
            id: KeyId::draw(&*clock),
            name: "laptop".to_owned(),
            hash: String::new(),
            role: Role::Member,
            on_disconnect: OnDisconnect::Finish,
            cache_ttl_seconds: None,
            user_id: Some(user.id),
            quota: of_key,
            created_ms: zero,
            updated_ms: zero,
        };
        let provider = ProviderId::draw(&*clock);
        let price = Price {
            id: PriceId::draw(&*clock),
            model_name: "m".to_owned(),
            provider_id: None,
            input_micros_per_million: 1_000_000_000,
            output_micros_per_million: 1_000_000_000,
            cached_input_micros_per_million: None,
            currency: "USD".to_owned(),
            valid_from_ms: zero,
            created_ms: zero,
        };
        let snapshot = snapshot::tests::empty().with(vec![user], vec![price]);
        Self {
            limits: Limits::new(Arc::new(shared), requests_per_second),
            candidate: candidate(provider),
            snapshot: Arc::new(snapshot),
            clock,
            key,
        }
    }

    async fn ask(&self, tokens: u64) -> Result<Admission, ApiError> {
        let asking = Asking {
            request: RequestId::draw(&*self.clock),
            key: &self.key,
            snapshot: &self.snapshot,
            candidate: &self.candidate,
            at: nexus_events::clock::Clock::now(&*self.clock),
            estimate: Estimate {
                input: 0,
                output: tokens,
            },
            wants_room: true,
        };
        self.limits.admit(asking).await
    }
}

impl Hub {
    /// Ends a request, now.
    async fn settle(&self, admission: &mut Admission, tokens: u64, cost: u64) {
        let ended = nexus_events::clock::Clock::now(&*self.clock);
        admission
            .settle(Spent {
                tokens,
                cost,
                ended,
            })
            .await;
    }
}

fn candidate(provider: ProviderId) -> Candidate {
    let zero = UnixMillis::from_millis(0);
    Candidate {
        provider: Arc::new(ProviderRecord {
            resource: Provider {
                id: provider,
                name: "p".to_owned(),
                kind: "openai".to_owned(),
                server_url: "http://p.test".to_owned(),
                server_key: None,
                rate_limit: None,
                created_ms: zero,
                updated_ms: zero,
            },
            server_key: None,
        }),
        model: Arc::new(Model {
            id: ModelId::from_uuid(provider.as_uuid()),
            provider_id: provider,
            model_name: "m".to_owned(),
            upstream_model: None,
            created_ms: zero,
            updated_ms: zero,
        }),
    }
}

fn told(headers: &HeaderMap, what: &str) -> [String; 3] {
    ["limit", "remaining", "reset"].map(|part| {
        let name = format!("x-ratelimit-{part}-{what}");
        headers[&name].to_str().unwrap().to_owned()
    })
}

#[tokio::test]
async fn a_second_holds_so_many_requests_and_the_next_one_is_told_when_to_come_back() {
    let hub = Hub::new(4, Quota::default(), Quota::default());
    for expected in [
        ["4", "3", "250ms"],
        ["4", "2", "500ms"],
        ["4", "1", "750ms"],
        ["4", "0", "1s"],
    ] {
        let admission = hub.ask(1).await.unwrap();
        assert_eq!(told(admission.headers(), "requests"), expected);
    }
    let error = hub.ask(1).await.unwrap_err();
    assert_eq!(
        error.message,
        "The hub takes 4 requests a second. Try again in 250ms."
    );
    let response = error.into_response();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()[RETRY_AFTER], "1");
    assert_eq!(told(response.headers(), "requests"), ["4", "0", "1s"]);

    hub.clock.advance(Duration::from_millis(249));
    hub.ask(1).await.unwrap_err();
    hub.clock.advance(Duration::from_millis(1));
    hub.ask(1).await.unwrap();
    hub.ask(1).await.unwrap_err();
    // However long it stood still, it holds one second's worth.
    hub.clock.advance(Duration::from_hours(1));
    for _ in 0..4 {
        hub.ask(1).await.unwrap();
    }
    hub.ask(1).await.unwrap_err();
}

#[tokio::test]
async fn no_limit_is_no_limit() {
    let hub = Hub::new(0, Quota::default(), Quota::default());
    for _ in 0..1_000 {
        let admission = hub.ask(1_000_000).await.unwrap();
        assert!(admission.headers().is_empty());
    }
}

#[tokio::test]
async fn the_tightest_limit_is_told_and_the_refusal_names_whose_it_is() {
    let hub = Hub::new(1_000, quota(5, 900, 0, 0), quota(3, 1_000, 0, 0));
    for _ in 0..3 {
        let mut admission = hub.ask(200).await.unwrap();
        hub.settle(&mut admission, 200, 0).await;
    }
    let error = hub.ask(200).await.unwrap_err();
    assert_eq!(
        (&*error.kind, error.code.as_deref()),
        ("requests", Some("rate_limit_exceeded"))
    );
    assert_eq!(
        error.message,
        "The user 'ann' may send 3 requests a minute. Try again in 20s."
    );
    let headers = error.into_response().headers().clone();
    assert_eq!(told(&headers, "requests"), ["3", "0", "1m0s"]);
    assert_eq!(told(&headers, "tokens"), ["900", "300", "40s"]);

    hub.clock.advance(Duration::from_secs(20));
    // 600 of the key's 900 tokens are there again, and not 700.
    let error = hub.ask(700).await.unwrap_err();
    assert_eq!(&*error.kind, "tokens");
    assert_eq!(
        error.message,
        "The key 'laptop' may use 900 tokens a minute, and this request may use 700. Try again in 6.667s."
    );
    hub.ask(600).await.unwrap();
}

#[tokio::test]
async fn what_was_reserved_and_not_used_comes_back() {
    let hub = Hub::new(0, quota(0, 1_000, 0, 0), Quota::default());
    let mut first = hub.ask(1_000).await.unwrap();
    assert_eq!(told(first.headers(), "tokens")[1], "0");
    hub.ask(1).await.unwrap_err();
    hub.settle(&mut first, 100, 0).await;
    let mut second = hub.ask(500).await.unwrap();
    assert_eq!(told(second.headers(), "tokens")[1], "400");
    // It used more than anybody thought: the next one waits for it.
    hub.settle(&mut second, 1_400, 0).await;
    hub.ask(1).await.unwrap_err();
    // A whole minute's worth is 500 short of what the limit holds.
    hub.clock.advance(Duration::from_secs(30));
    hub.ask(1).await.unwrap_err();
    hub.clock.advance(Duration::from_secs(1));
    let mut third = hub.ask(1).await.unwrap();
    third.cancel().await;
    hub.ask(16).await.unwrap();
}

#[tokio::test]
async fn a_place_is_free_when_its_request_has_ended_however_it_ends() {
    let hub = Hub::new(0, quota(0, 0, 2, 0), Quota::default());
    let mut one = hub.ask(1).await.unwrap();
    let mut two = hub.ask(1).await.unwrap();
    let error = hub.ask(1).await.unwrap_err();
    assert_eq!(
        error.message,
        "The key 'laptop' may have 2 requests under way at once. Try again in 1s."
    );
    one.free_places().await;
    let three = hub.ask(1).await.unwrap();
    hub.ask(1).await.unwrap_err();
    hub.settle(&mut one, 1, 1).await;
    hub.ask(1).await.unwrap_err();
    hub.settle(&mut two, 1, 1).await;
    let mut four = hub.ask(1).await.unwrap();
    four.cancel().await;
    // Dropped, as when its task panics: the background frees it.
    drop(three);
    let over = CancellationToken::new();
    let keeping = hub.limits.keep_up(OutboxId::draw(&*hub.clock), &over);
    let asking = async {
        let mut held = Vec::new();
        while held.len() < 2 {
            held.extend(hub.ask(1).await);
            tokio::task::yield_now().await;
        }
        over.cancel();
    };
    tokio::join!(keeping, asking);
}

#[tokio::test]
async fn a_month_s_money_is_reserved_charged_and_new_on_the_first() {
    let hub = Hub::new(0, Quota::default(), quota(0, 0, 0, 1_000_000));
    // 600 tokens may cost 600 000 millionths.
    let mut first = hub.ask(600).await.unwrap();
    let error = hub.ask(600).await.unwrap_err();
    assert_eq!(
        (&*error.kind, error.code.as_deref()),
        ("insufficient_quota", Some("insufficient_quota"))
    );
    assert_eq!(
        error.message,
        "The user 'ann' may spend 1 USD a month; 0.4 USD are left, and this request may cost 0.6 USD. The next month begins in 10s."
    );
    hub.settle(&mut first, 300, 300_000).await;
    let mut second = hub.ask(600).await.unwrap();
    hub.settle(&mut second, 900, 900_000).await;
    let error = hub.ask(1).await.unwrap_err();
    assert!(
        error.message.contains("; 0 USD are left"),
        "{}",
        error.message
    );
    hub.clock.advance(Duration::from_secs(10));
    hub.ask(1_000).await.unwrap();
}

#[test]
fn durations_are_spelled_as_clients_know_them() {
    for (millis, expected) in [
        (0, "0s"),
        (20, "20ms"),
        (1_000, "1s"),
        (1_500, "1.5s"),
        (59_001, "59.001s"),
        (360_000, "6m0s"),
        (61_250, "1m1.25s"),
    ] {
        assert_eq!(spelled(Duration::from_millis(millis)), expected);
    }
}
