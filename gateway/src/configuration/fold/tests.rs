use nexus_events::{
    clock::{ManualClock, SharedClock, UnixMillis},
    config_event::{Actor, OnDisconnect, Quota, Role, RouteTarget},
    envelope::Stamp,
};

use super::*;

struct Log {
    clock: SharedClock,
    master: MasterKey,
    fold: Fold,
}

impl Log {
    fn new() -> Self {
        let mut log = Self {
            clock: Arc::new(ManualClock::at(UnixMillis::from_millis(1_795_000_000_000))),
            master: MasterKey::draw().unwrap(),
            fold: Fold::default(),
        };
        let sealed = log
            .master
            .seal(&[7; 32], &setting_seal(MESSAGE_KEY))
            .unwrap();
        log.publish(
            Action::Created,
            Setting {
                name: MESSAGE_KEY.to_owned(),
                sealed: Some(sealed),
                value: None,
                updated_ms: log.clock.now(),
            },
        );
        log
    }

    fn publish<R: Resource>(&mut self, action: Action, resource: R) {
        let change = Changed {
            action,
            changed: Vec::new(),
            actor: Actor {
                key: None,
                name: "hub".to_owned(),
            },
            resource,
        };
        let payload = change
            .encode(Stamp::draw(&*self.clock), "/nexus/test")
            .unwrap();
        let sequence = self.fold.sequence() + 1;
        self.fold.apply(sequence, &payload).unwrap();
    }

    fn provider(&self, name: &str, server_key: Option<&str>) -> Provider {
        let id = ProviderId::draw(&*self.clock);
        let seal = |key: &str| {
            self.master
                .seal(key.as_bytes(), &provider_seal(id))
                .unwrap()
        };
        Provider {
            id,
            name: name.to_owned(),
            kind: "openai".to_owned(),
            server_url: "http://127.0.0.1:1".to_owned(),
            server_key: server_key.map(seal),
            rate_limit: None,
            created_ms: self.clock.now(),
            updated_ms: self.clock.now(),
        }
    }

    fn model(&self, provider: &Provider, name: &str) -> Model {
        Model {
            id: ModelId::draw(&*self.clock),
            provider_id: provider.id,
            model_name: name.to_owned(),
            upstream_model: None,
            created_ms: self.clock.now(),
            updated_ms: self.clock.now(),
        }
    }

    fn route(&self, name: &str, targets: &[(&str, Option<&Provider>, u8)]) -> Route {
        let targets = targets
            .iter()
            .map(|(model, provider, priority)| RouteTarget {
                model: (*model).to_owned(),
                provider: provider.map(|provider| provider.id),
                weight: 3,
                priority: *priority,
            });
        Route {
            id: RouteId::draw(&*self.clock),
            name: name.to_owned(),
            targets: targets.collect(),
            attempts: None,
            first_byte_timeout_ms: None,
            idle_timeout_ms: None,
            cache_ttl_seconds: None,
            created_ms: self.clock.now(),
            updated_ms: self.clock.now(),
        }
    }

    fn offers(&self, model: &str) -> Vec<String> {
        let snapshot = self.fold.snapshot(&self.master).unwrap();
        let offers = snapshot.alternatives(model).map(|all| all.list.iter());
        let offers = offers.into_iter().flatten();
        offers
            .map(|offer| offer.candidate.provider.resource.name.clone())
            .collect()
    }
}

#[test]
fn a_model_is_offered_by_every_provider_that_has_it_in_the_order_of_names() {
    let mut log = Log::new();
    for name in ["zeta", "alpha"] {
        let provider = log.provider(name, None);
        let model = log.model(&provider, "gpt");
        log.publish(Action::Created, provider);
        log.publish(Action::Created, model);
    }
    assert_eq!(log.offers("gpt"), ["alpha", "zeta"]);
    assert_eq!(log.offers("other"), [""; 0]);
}

#[test]
fn what_is_deleted_is_gone_and_a_models_offer_goes_with_its_provider() {
    let mut log = Log::new();
    let provider = log.provider("alpha", None);
    let model = log.model(&provider, "gpt");
    log.publish(Action::Created, provider.clone());
    log.publish(Action::Created, model);
    log.publish(Action::Deleted, provider.clone());
    assert_eq!(log.offers("gpt"), [""; 0]);
    let snapshot = log.fold.snapshot(&log.master).unwrap();
    assert!(snapshot.provider(provider.id).is_none());
}

#[test]
fn a_model_is_gone_with_its_provider_whichever_of_both_the_log_has_first() {
    let mut log = Log::new();
    let provider = log.provider("alpha", None);
    let (before, after) = (log.model(&provider, "gpt"), log.model(&provider, "late"));
    log.publish(Action::Created, provider.clone());
    log.publish(Action::Created, before.clone());
    let was = log.fold.clone();
    log.publish(Action::Deleted, provider.clone());
    log.publish(Action::Created, after);
    // Another provider of that name offers nothing of what its forerunner did.
    let again = log.provider("alpha", None);
    log.publish(Action::Created, again.clone());
    let snapshot = log.fold.snapshot(&log.master).unwrap();
    assert_eq!(snapshot.provider_models().count(), 0);
    assert_eq!(snapshot.models().count(), 0);
    let model = log.model(&again, "gpt");
    log.publish(Action::Created, model.clone());
    assert_eq!(log.offers("gpt"), ["alpha"]);
    // A model that moves to a provider that is gone goes with it.
    let moved = Model {
        provider_id: provider.id,
        ..model
    };
    log.publish(Action::Updated, moved);
    assert_eq!(log.offers("gpt"), [""; 0]);

    // A copy that an earlier version left on the disk.
    let mut stored = was;
    stored.providers.remove(&provider.id);
    let snapshot = stored.snapshot(&log.master).unwrap();
    assert!(snapshot.model(before.id).is_none());
}

#[test]
fn a_providers_key_is_opened_with_the_master_key_and_with_no_other() {
    let mut log = Log::new();
    let provider = log.provider("alpha", Some("sk-secret"));
    log.publish(Action::Created, provider);
    let snapshot = log.fold.snapshot(&log.master).unwrap();
    let opened = snapshot.provider_named("alpha").unwrap();
    let key = opened.resource.server_key.as_ref().unwrap();
    assert_eq!(key.expose(), "sk-secret");
    let other = MasterKey::draw().unwrap();
    assert!(matches!(
        log.fold.snapshot(&other),
        Err(FoldError::Sealed { .. })
    ));
}

#[test]
fn a_key_is_found_by_the_hash_of_its_secret() {
    let mut log = Log::new();
    let key = Key {
        id: KeyId::draw(&*log.clock),
        name: "ci".to_owned(),
        hash: "ab".repeat(32),
        role: Role::Member,
        on_disconnect: OnDisconnect::Finish,
        user_id: None,
        quota: Quota::default(),
        cache_ttl_seconds: None,
        created_ms: log.clock.now(),
        updated_ms: log.clock.now(),
    };
    log.publish(Action::Created, key.clone());
    let snapshot = log.fold.snapshot(&log.master).unwrap();
    assert_eq!(snapshot.key_by_hash(&[0xab; 32]).unwrap().id, key.id);
    assert!(snapshot.key_by_hash(&[0xac; 32]).is_none());
    log.publish(Action::Deleted, key);
    let snapshot = log.fold.snapshot(&log.master).unwrap();
    assert!(snapshot.key_by_hash(&[0xab; 32]).is_none());
}

#[test]
fn an_event_that_was_seen_changes_nothing_and_an_unknown_one_only_the_sequence() {
    let mut log = Log::new();
    let before = log.fold.clone();
    log.fold.apply(before.sequence(), b"not even read").unwrap();
    assert_eq!(log.fold, before);
    let unknown = br#"{"id":"0199c0de-0000-7000-8000-000000000001","source":"/x",
        "type":"ai.nexus.config.moon_changed.v1","time":"2026-11-24T00:00:00Z","data":{}}"#;
    log.fold.apply(before.sequence() + 1, unknown).unwrap();
    assert_eq!(log.fold.sequence(), before.sequence() + 1);
    assert!(log.fold.apply(before.sequence() + 2, b"garbage").is_err());
    assert_eq!(log.fold.sequence(), before.sequence() + 2);
}

#[test]
fn a_route_offers_its_targets_by_priority_and_goes_before_a_model_of_its_name() {
    let mut log = Log::new();
    let (alpha, beta) = (log.provider("alpha", None), log.provider("beta", None));
    let models = [(&alpha, "gpt"), (&alpha, "mini"), (&beta, "gpt")];
    let models = models.map(|(provider, name)| log.model(provider, name));
    for provider in [&alpha, &beta] {
        log.publish(Action::Created, provider.clone());
    }
    for model in &models {
        log.publish(Action::Created, model.clone());
    }
    // Around a model, with another one to fall back on; who is named twice is there once.
    let around = [("mini", None, 9), ("gpt", Some(&beta), 0), ("gpt", None, 1)];
    let around = log.route("gpt", &around);
    log.publish(Action::Created, around.clone());
    assert_eq!(log.offers("gpt"), ["beta", "alpha", "alpha"]);
    let snapshot = log.fold.snapshot(&log.master).unwrap();
    let list = &snapshot.alternatives("gpt").unwrap().list;
    let places: Vec<_> = list.iter().map(|one| (one.priority, one.weight)).collect();
    assert_eq!(places, [(0, 3), (1, 3), (9, 3)]);
    assert_eq!(snapshot.kind_sequence("route"), snapshot.sequence);
    assert_eq!(snapshot.route_named("gpt").unwrap().resource.id, around.id);

    // Who is gone is left out; who has lost everybody offers nothing, whatever it hides.
    log.publish(Action::Deleted, alpha.clone());
    assert_eq!(log.offers("gpt"), ["beta"]);
    let gone = log.route("gpt", &[("mini", None, 0)]);
    let gone = Route {
        id: around.id,
        ..gone
    };
    log.publish(Action::Updated, gone.clone());
    assert_eq!(log.offers("gpt"), [""; 0]);
    let snapshot = log.fold.snapshot(&log.master).unwrap();
    assert_eq!(snapshot.models().count(), 0);
    log.publish(Action::Deleted, gone);
    assert_eq!(log.offers("gpt"), ["beta"]);
}
