//! One configuration, complete and unchanging.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use nexus_events::{
    config_event::{Key, Model, Provider},
    id::{KeyId, ModelId, ProviderId},
};
use zeroize::Zeroizing;

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

/// The whole configuration as it was after one event of the stream.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Stream sequence of the last event in it; 0 for none.
    pub sequence: u64,
    pub(super) providers: BTreeMap<ProviderId, Entry<ProviderRecord>>,
    pub(super) models: BTreeMap<ModelId, Entry<Model>>,
    pub(super) keys: BTreeMap<KeyId, Entry<Key>>,
    pub(super) keys_by_hash: HashMap<[u8; 32], Arc<Key>>,
    pub(super) candidates: BTreeMap<String, Vec<Candidate>>,
    pub(super) message_key: MessageKey,
    pub(super) kinds: BTreeMap<String, u64>,
}

impl Snapshot {
    /// The providers that offer a model, in the order of their names.
    pub fn candidates(&self, model: &str) -> Vec<Candidate> {
        self.candidates.get(model).cloned().unwrap_or_default()
    }

    /// The key whose secret has that SHA-256.
    pub fn key_by_hash(&self, sha256: &[u8; 32]) -> Option<Arc<Key>> {
        self.keys_by_hash.get(sha256).cloned()
    }

    /// Every model name that a client may ask for, in order, with who offers it.
    pub fn models(&self) -> impl Iterator<Item = (&str, &[Candidate])> {
        self.candidates
            .iter()
            .map(|(name, candidates)| (name.as_str(), candidates.as_slice()))
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
