use std::sync::Arc;

use http::HeaderValue;
use nexus_events::{
    clock::{SystemClock, UnixMillis},
    config_event::{Model, OnDisconnect, Provider, Role, Route},
    id::{KeyId, ModelId, ProviderId, RouteId},
};

use super::*;
use crate::configuration::{Alternative, Candidate, ProviderRecord};

fn key(ttl: Option<u32>) -> Key {
    let zero = UnixMillis::from_millis(0);
    Key {
        id: KeyId::draw(&SystemClock),
        name: "k".to_owned(),
        hash: String::new(),
        role: Role::Member,
        on_disconnect: OnDisconnect::Finish,
        user_id: None,
        quota: nexus_events::config_event::Quota::default(),
        cache_ttl_seconds: ttl,
        created_ms: zero,
        updated_ms: zero,
    }
}

/// One provider, which was changed at that time, behind a route with that setting.
fn who(updated_ms: i64, ttl: Option<u32>) -> Alternatives {
    let (zero, id) = (UnixMillis::from_millis(0), ProviderId::from_uuid(uuid(1)));
    let resource = Provider {
        id,
        name: "p".to_owned(),
        kind: "openai".to_owned(),
        server_url: String::new(),
        server_key: None,
        rate_limit: None,
        created_ms: zero,
        updated_ms: UnixMillis::from_millis(updated_ms),
    };
    let model = Model {
        id: ModelId::from_uuid(uuid(2)),
        provider_id: id,
        model_name: "m".to_owned(),
        upstream_model: None,
        created_ms: zero,
        updated_ms: zero,
    };
    Alternatives {
        route: Some(Arc::new(Route {
            id: RouteId::from_uuid(uuid(3)),
            name: "m".to_owned(),
            targets: Vec::new(),
            attempts: None,
            first_byte_timeout_ms: None,
            idle_timeout_ms: None,
            cache_ttl_seconds: ttl,
            created_ms: zero,
            updated_ms: zero,
        })),
        list: vec![Alternative {
            candidate: Candidate {
                provider: Arc::new(ProviderRecord {
                    resource,
                    server_key: None,
                }),
                model: Arc::new(model),
            },
            weight: 1,
            priority: 0,
        }],
    }
}

fn uuid(number: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(number)
}

fn of(body: &str, key: &Key, who: &Alternatives) -> Option<Cacheable> {
    Cacheable::of(&ChatRequest::parse(body.as_bytes()).unwrap(), key, who)
}

const BODY: &str =
    r#"{"model":"m","temperature":0,"messages":[{"role":"user","content":"a"}],"user":"u"}"#;

#[test]
fn it_is_off_until_a_key_or_a_route_says_how_long() {
    let ttl = |of_key, of_route| {
        let kept = of(BODY, &key(of_key), &who(0, of_route));
        kept.map(|kept| kept.ttl.as_secs())
    };
    assert_eq!(ttl(None, None), None);
    assert_eq!(ttl(Some(5), None), Some(5));
    assert_eq!(ttl(None, Some(7)), Some(7));
    assert_eq!(ttl(Some(5), Some(7)), Some(5));
    assert_eq!(ttl(Some(0), Some(7)), None, "the key's word goes first");
    assert_eq!(ttl(None, Some(0)), None);
}

#[test]
fn only_deterministic_requests_are_answered_again() {
    let key = key(Some(5));
    for (extra, expected) in [
        (r#","temperature":0.0"#, true),
        (r#","temperature":0,"n":1"#, true),
        (r#","temperature":0,"n":null"#, true),
        (r#","temperature":0,"n":2"#, false),
        (r#","temperature":0.1"#, false),
        (r#","temperature":"0""#, false),
        ("", false),
    ] {
        let body =
            format!(r#"{{"model":"m","messages":[{{"role":"user","content":"a"}}]{extra}}}"#);
        assert_eq!(of(&body, &key, &who(0, None)).is_some(), expected, "{body}");
    }
}

#[test]
fn what_changes_the_answer_is_another_request_and_nothing_else_is() {
    let key = key(Some(5));
    let known = of(BODY, &key, &who(0, None)).unwrap();
    let same = |body: &str| of(body, &key, &who(0, None)) == Some(known);
    for body in [
        r#"{"temperature":0,"messages":[{"role":"user","content":"a"}],"user":"other","model":"m"}"#,
        r#"{"temperature":0,"messages":[{"role":"user","content":"a"}],"metadata":{"a":"b"},"model":"m"}"#,
    ] {
        assert!(same(body), "{body}");
    }
    for body in [
        r#"{"temperature":0,"messages":[{"role":"user","content":"b"}],"model":"m"}"#,
        r#"{"temperature":0,"messages":[{"role":"user","content":"a"}],"model":"m","stream":true}"#,
        r#"{"temperature":0,"messages":[{"role":"user","content":"a"}],"model":"m","seed":1}"#,
    ] {
        assert!(!same(body), "{body}");
    }
    let of_another = self::key(Some(5));
    assert_ne!(of(BODY, &of_another, &who(0, None)), Some(known));
    assert_ne!(of(BODY, &key, &who(1, None)), Some(known), "it was changed");
    let mut other_model = who(0, None);
    let model = Arc::make_mut(&mut other_model.list[0].candidate.model);
    model.updated_ms = UnixMillis::from_millis(1);
    assert_ne!(
        of(BODY, &key, &other_model),
        Some(known),
        "so was its model"
    );
    let shorter = Key {
        cache_ttl_seconds: Some(4),
        ..key.clone()
    };
    let of_shorter = of(BODY, &shorter, &who(0, None)).unwrap();
    assert_ne!(
        of_shorter.key, known.key,
        "what was kept for longer is too old"
    );
}

#[test]
fn the_client_may_want_a_new_answer_or_no_trace() {
    let wish = |values: &[&'static str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CACHE_CONTROL, HeaderValue::from_static(value));
        }
        let Wish { look, keep } = Wish::of(&headers);
        (look, keep)
    };
    assert_eq!(wish(&[]), (true, true));
    assert_eq!(wish(&["max-age=0, No-Cache"]), (false, true));
    assert_eq!(wish(&["no-cache", "no-store"]), (false, false));
    assert_eq!(wish(&["no-store", "no-cache"]), (false, false));
}
