//! What the hub of the tests is configured with.

use nexus_events::{
    clock::{Clock, SystemClock},
    config_event::{
        Action, Actor, Changed, Key, Model, OnDisconnect, Provider, Quota, Resource, Role, Route,
        RouteTarget, Setting,
    },
    envelope::Stamp,
    id::{KeyId, ModelId, ProviderId, RouteId},
    seal::MasterKey,
};

use crate::configuration::{Fold, Snapshot};

pub(super) fn key(on_disconnect: OnDisconnect) -> Key {
    Key {
        id: KeyId::draw(&SystemClock),
        name: "k".to_owned(),
        hash: "0".repeat(64),
        role: Role::Member,
        on_disconnect,
        user_id: None,
        quota: Quota::default(),
        cache_ttl_seconds: None,
        created_ms: SystemClock.now(),
        updated_ms: SystemClock.now(),
    }
}

/// A configuration, folded from its events as a gateway does: providers are asked in their order.
pub(super) fn snapshot(providers: &[(&str, &str, String)]) -> Snapshot {
    let (master, now) = (MasterKey::draw().unwrap(), SystemClock.now());
    let (mut fold, mut sequence) = (Fold::default(), 0);
    let mut apply = |payload: Vec<u8>| {
        sequence += 1;
        fold.apply(sequence, &payload).unwrap();
    };
    apply(created(Setting {
        name: "message_key".to_owned(),
        sealed: Some(master.seal(&[7; 32], "setting:message_key").unwrap()),
        value: None,
        updated_ms: now,
    }));
    let mut targets = Vec::new();
    for (name, kind, url) in providers {
        let id = ProviderId::draw(&SystemClock);
        apply(created(Provider {
            id,
            name: (*name).to_owned(),
            kind: (*kind).to_owned(),
            server_url: url.clone(),
            server_key: Some(master.seal(b"sk-1", &format!("provider:{id}")).unwrap()),
            rate_limit: None,
            created_ms: now,
            updated_ms: now,
        }));
        apply(created(Model {
            id: ModelId::draw(&SystemClock),
            provider_id: id,
            model_name: "m".to_owned(),
            upstream_model: Some(format!("m-at-{name}")),
            created_ms: now,
            updated_ms: now,
        }));
        targets.push(RouteTarget {
            model: "m".to_owned(),
            provider: Some(id),
            weight: 1,
            priority: u8::try_from(targets.len()).unwrap(),
        });
    }
    apply(created(Route {
        id: RouteId::draw(&SystemClock),
        name: "m".to_owned(),
        targets,
        attempts: None,
        first_byte_timeout_ms: None,
        idle_timeout_ms: None,
        cache_ttl_seconds: None,
        created_ms: now,
        updated_ms: now,
    }));
    fold.snapshot(&master).unwrap()
}

fn created<R: Resource>(resource: R) -> Vec<u8> {
    let change = Changed {
        action: Action::Created,
        changed: Vec::new(),
        actor: Actor {
            key: None,
            name: "hub".to_owned(),
        },
        resource,
    };
    change
        .encode(Stamp::draw(&SystemClock), "/nexus/test")
        .unwrap()
}
