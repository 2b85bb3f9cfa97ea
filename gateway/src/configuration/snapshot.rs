//! One configuration, complete and unchanging.

mod accounting;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use nexus_events::{
    config_event::{Key, Model, Provider, Route},
    id::{KeyId, ModelId, ProviderId, RouteId},
};
use zeroize::Zeroizing;

pub use self::accounting::{Accounting, CURRENCY_DEFAULT};
use crate::settings::Secret;

/// The key of the installation's message ids: 32 bytes that only gateways hold.
#[derive(Clone, PartialEq, Eq)]
pub struct MessageKey(Zeroizing<[u8; 32]>);

impl MessageKey {
    /// The key with those bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Its bytes, for the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for MessageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MessageKey(..)")
    }
}

/// A resource with the stream sequence of its last change, which is its `ETag`.
#[derive(Clone, Debug)]
pub struct Entry<T> {
    /// The resource.
    pub resource: Arc<T>,
    /// Stream sequence of its last change.
    pub sequence: u64,
}

/// A provider with its API key opened.
#[derive(Clone, Debug)]
pub struct ProviderRecord {
    /// The provider as it is configured.
    pub resource: Provider,
    /// Its API key in clear; `None` when it has none.
    pub server_key: Option<Secret>,
}

/// A provider that offers a model, and how it is called there.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The provider.
    pub provider: Arc<ProviderRecord>,
    /// The model as the provider has it.
    pub model: Arc<Model>,
}

/// One of those who may answer a name that clients ask for.
#[derive(Clone, Debug)]
pub struct Alternative {
    /// Who it is.
    pub candidate: Candidate,
    /// Share among the alternatives of the same priority.
    pub weight: u16,
    /// Group: a higher one is asked only when the lower ones cannot answer.
    pub priority: u8,
}

/// All who may answer a name that clients ask for; at least one.
#[derive(Clone, Debug)]
pub struct Alternatives {
    /// The route of that name; `None` for a configured model without one.
    pub route: Option<Arc<Route>>,
    /// Who may answer, by priority; nobody is there twice.
    pub list: Vec<Alternative>,
}

/// The whole configuration as it was after one event of the stream.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Stream sequence of the last event in it; 0 for none.
    pub sequence: u64,
    pub(super) providers: BTreeMap<ProviderId, Entry<ProviderRecord>>,
    pub(super) models: BTreeMap<ModelId, Entry<Model>>,
    pub(super) routes: BTreeMap<RouteId, Entry<Route>>,
    pub(super) keys: BTreeMap<KeyId, Entry<Key>>,
    pub(super) keys_by_hash: HashMap<[u8; 32], Arc<Key>>,
    pub(super) alternatives: BTreeMap<String, Arc<Alternatives>>,
    pub(super) message_key: MessageKey,
    pub(super) kinds: BTreeMap<String, u64>,
    pub(super) accounting: Accounting,
}

impl Snapshot {
    /// Who may answer what a client asks for: by the route of that name, or whoever offers the model.
    pub fn alternatives(&self, model: &str) -> Option<&Arc<Alternatives>> {
        self.alternatives.get(model)
    }

    /// The same without priorities and weights; nobody when nobody offers it.
    pub fn candidates(&self, model: &str) -> Vec<Candidate> {
        let list = self.alternatives(model).map(|all| all.list.iter());
        let list = list.into_iter().flatten();
        list.map(|one| one.candidate.clone()).collect()
    }

    /// The key whose secret has that SHA-256.
    pub fn key_by_hash(&self, sha256: &[u8; 32]) -> Option<Arc<Key>> {
        self.keys_by_hash.get(sha256).cloned()
    }

    /// Every name that a client may ask for, in order, with who may answer.
    pub fn models(&self) -> impl Iterator<Item = (&str, &Alternatives)> {
        self.alternatives
            .iter()
            .map(|(name, alternatives)| (name.as_str(), &**alternatives))
    }

    /// A route by its id.
    pub fn route(&self, id: RouteId) -> Option<&Entry<Route>> {
        self.routes.get(&id)
    }

    /// A route by its name.
    pub fn route_named(&self, name: &str) -> Option<&Entry<Route>> {
        self.routes
            .values()
            .find(|entry| entry.resource.name == name)
    }

    /// Every route, the oldest first.
    pub fn routes(&self) -> impl Iterator<Item = &Entry<Route>> {
        self.routes.values()
    }

    /// The key of the installation's message ids.
    pub fn message_key(&self) -> &MessageKey {
        &self.message_key
    }

    /// Stream sequence of the last change of any resource of a kind; 0 when there was none ever.
    pub fn kind_sequence(&self, kind: &str) -> u64 {
        self.kinds.get(kind).copied().unwrap_or(0)
    }

    /// A provider by its id.
    pub fn provider(&self, id: ProviderId) -> Option<&Entry<ProviderRecord>> {
        self.providers.get(&id)
    }

    /// A provider by its name.
    pub fn provider_named(&self, name: &str) -> Option<&Entry<ProviderRecord>> {
        self.providers
            .values()
            .find(|entry| entry.resource.resource.name == name)
    }

    /// Every provider, the oldest first.
    pub fn providers(&self) -> impl Iterator<Item = &Entry<ProviderRecord>> {
        self.providers.values()
    }

    /// A configured model by its id.
    pub fn model(&self, id: ModelId) -> Option<&Entry<Model>> {
        self.models.get(&id)
    }

    /// Every configured model, the oldest first.
    pub fn provider_models(&self) -> impl Iterator<Item = &Entry<Model>> {
        self.models.values()
    }

    /// A key by its id.
    pub fn key(&self, id: KeyId) -> Option<&Entry<Key>> {
        self.keys.get(&id)
    }

    /// A configured model by the provider that offers it and its name.
    pub fn model_named(&self, provider: ProviderId, name: &str) -> Option<&Entry<Model>> {
        self.models.values().find(|entry| {
            entry.resource.provider_id == provider && entry.resource.model_name == name
        })
    }

    /// A key by its name.
    pub fn key_named(&self, name: &str) -> Option<&Entry<Key>> {
        self.keys.values().find(|entry| entry.resource.name == name)
    }

    /// Every key, the oldest first.
    pub fn keys(&self) -> impl Iterator<Item = &Entry<Key>> {
        self.keys.values()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use nexus_events::config_event::{Price, User};

    use super::*;

    /// A configuration without anything.
    pub(crate) fn empty() -> Snapshot {
        Snapshot {
            sequence: 0,
            providers: BTreeMap::new(),
            models: BTreeMap::new(),
            keys: BTreeMap::new(),
            keys_by_hash: HashMap::new(),
            alternatives: BTreeMap::new(),
            routes: BTreeMap::new(),
            message_key: MessageKey::from_bytes([0; 32]),
            kinds: BTreeMap::new(),
            accounting: Accounting::default(),
        }
    }

    impl Snapshot {
        /// The same with those users and prices.
        pub(crate) fn with(mut self, users: Vec<User>, prices: Vec<Price>) -> Self {
            let users = users.into_iter().map(|user| (user.id, entry(user)));
            let prices = prices.into_iter().map(|price| (price.id, entry(price)));
            self.accounting = Accounting::new(users.collect(), prices.collect());
            self
        }
    }

    fn entry<T>(resource: T) -> Entry<T> {
        Entry {
            resource: Arc::new(resource),
            sequence: 1,
        }
    }
}
