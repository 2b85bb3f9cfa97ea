//! Changes of the configuration that chance draws up.

use nexus_events::{
    clock::UnixMillis,
    config_event::{Action, Key, Model, OnDisconnect, Price, Provider, Quota, Role, Setting, User},
    id::{ModelId, PriceId, ProviderId, UserId},
};
use proptest::prelude::*;

use crate::testing::{MemoryLog, TODAY, key};

/// A change of one of six resources: which, what is done to it, and what distinguishes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConfigChange {
    resource: usize,
    action: Action,
    variant: u32,
}

pub(super) fn config_change() -> impl Strategy<Value = ConfigChange> {
    let action = prop_oneof![
        Just(Action::Created),
        Just(Action::Updated),
        Just(Action::Deleted),
    ];
    (0..6_usize, action, 0..3_u32).prop_map(|(resource, action, variant)| ConfigChange {
        resource,
        action,
        variant,
    })
}

/// Writes the change to the log.
pub(super) fn configure(log: &mut MemoryLog, change: ConfigChange) {
    let ConfigChange {
        resource,
        action,
        variant,
    } = change;
    let (created_ms, updated_ms) = (
        UnixMillis::from_millis(TODAY),
        UnixMillis::from_millis(TODAY + i64::from(variant)),
    );
    let provider = ProviderId::from_uuid(key().as_uuid());
    match resource {
        0 => log.config(
            action,
            Provider {
                id: provider,
                name: "openai".into(),
                kind: "openai".into(),
                server_url: format!("http://{variant}"),
                server_key: None,
                rate_limit: (variant > 0).then_some(variant),
                created_ms,
                updated_ms,
            },
        ),
        1 => log.config(
            action,
            Model {
                id: ModelId::from_uuid(key().as_uuid()),
                provider_id: provider,
                model_name: "gpt".into(),
                upstream_model: (variant > 0).then(|| format!("gpt-{variant}")),
                created_ms,
                updated_ms,
            },
        ),
        2 => log.config(
            action,
            Key {
                id: key(),
                name: format!("key {variant}"),
                hash: "00".repeat(32),
                role: Role::Member,
                on_disconnect: OnDisconnect::Finish,
                user_id: (variant > 0).then(|| UserId::from_uuid(key().as_uuid())),
                quota: quota(variant),
                cache_ttl_seconds: None,
                created_ms,
                updated_ms,
            },
        ),
        3 => log.config(action, user(variant)),
        4 => log.config(action, price(variant)),
        _ => log.config(
            action,
            Setting {
                name: "currency".into(),
                sealed: None,
                value: Some(variant.into()),
                updated_ms,
            },
        ),
    };
}

fn quota(variant: u32) -> Quota {
    Quota {
        requests_per_minute: (variant > 0).then_some(variant),
        monthly_budget: (variant > 1).then(|| u64::from(variant) << 40),
        ..Quota::default()
    }
}

fn user(variant: u32) -> User {
    User {
        id: UserId::from_uuid(key().as_uuid()),
        name: format!("user {variant}"),
        quota: quota(variant),
        created_ms: UnixMillis::from_millis(TODAY),
        updated_ms: UnixMillis::from_millis(TODAY + i64::from(variant)),
    }
}

fn price(variant: u32) -> Price {
    let provider = ProviderId::from_uuid(key().as_uuid());
    Price {
        id: PriceId::from_uuid(key().as_uuid()),
        model_name: "gpt".into(),
        provider_id: (variant > 0).then_some(provider),
        input_micros_per_million: variant.into(),
        output_micros_per_million: u64::MAX,
        cached_input_micros_per_million: (variant > 1).then_some(1),
        currency: "USD".into(),
        valid_from_ms: UnixMillis::from_millis(TODAY + i64::from(variant)),
        created_ms: UnixMillis::from_millis(TODAY),
    }
}
