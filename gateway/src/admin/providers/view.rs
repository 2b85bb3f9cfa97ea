//! A provider as the API shows it: without its key.

use nexus_events::{clock::UnixMillis, config_event::Provider, id::ProviderId};
use serde::Serialize;

use super::health::HealthView;
use crate::routing::Seen;

/// A provider as the API shows it.
#[derive(Debug, Serialize)]
pub(super) struct View<'a> {
    id: ProviderId,
    name: &'a str,
    kind: &'a str,
    server_url: &'a str,
    has_key: bool,
    rate_limit: Option<u32>,
    created_ms: UnixMillis,
    updated_ms: UnixMillis,
    health: HealthView,
}

impl<'a> View<'a> {
    /// How it is configured, and how it fares here.
    pub(super) fn of(provider: &'a Provider, seen: Option<Seen>) -> Self {
        Self {
            id: provider.id,
            name: &provider.name,
            kind: &provider.kind,
            server_url: &provider.server_url,
            has_key: provider.server_key.is_some(),
            rate_limit: provider.rate_limit,
            created_ms: provider.created_ms,
            updated_ms: provider.updated_ms,
            health: HealthView::of(seen),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_in_no_view() {
        let key = nexus_events::seal::MasterKey::draw().unwrap();
        let provider = Provider {
            id: ProviderId::from_uuid(uuid::Uuid::from_u128(1)),
            name: "a".to_owned(),
            kind: "openai".to_owned(),
            server_url: "http://x".to_owned(),
            server_key: Some(key.seal(b"sk-1", "x").unwrap()),
            rate_limit: None,
            created_ms: UnixMillis::from_millis(0),
            updated_ms: UnixMillis::from_millis(0),
        };
        let view = serde_json::to_value(View::of(&provider, None)).unwrap();
        assert_eq!(view["has_key"], true);
        assert!(view.get("server_key").is_none());
    }
}
