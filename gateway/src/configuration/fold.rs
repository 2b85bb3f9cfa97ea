//! Events of `NEXUS_CONFIG` in, a [`Snapshot`] out.
//!
//! The state here keeps secrets sealed, exactly as the events hold them, so it
//! can be written to disk as it is; opening happens when a snapshot is made.
//! A type that this version does not know changes nothing but the sequence.
//!
//! A model is there only as long as its provider: older versions did not expect
//! both at once, so one may be stored after its provider has gone.

mod alternatives;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use nexus_events::{
    config_event::{
        Action, Changed, ConfigEvent, Key, Model, Price, Provider, Resource, Route, Setting, User,
    },
    envelope::{DecodeError, Envelope},
    id::{KeyId, ModelId, PriceId, ProviderId, RouteId, UserId},
    seal::{MasterKey, SealError},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::snapshot::{Accounting, Entry, MessageKey, ProviderRecord, Snapshot};
use crate::settings::Secret;

/// Name of the setting that holds the key of message ids.
pub const MESSAGE_KEY: &str = "message_key";

/// A resource with the stream sequence of its last change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stored<T> {
    resource: T,
    sequence: u64,
}

/// The state that the events add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fold {
    sequence: u64,
    providers: BTreeMap<ProviderId, Stored<Provider>>,
    models: BTreeMap<ModelId, Stored<Model>>,
    routes: BTreeMap<RouteId, Stored<Route>>,
    keys: BTreeMap<KeyId, Stored<Key>>,
    settings: BTreeMap<String, Stored<Setting>>,
    users: BTreeMap<UserId, Stored<User>>,
    prices: BTreeMap<PriceId, Stored<Price>>,
    /// Stream sequence of the last change of each kind, deletions included.
    kinds: BTreeMap<String, u64>,
}

/// Why the state cannot be put in force.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// There is no message key yet.
    #[error("the installation has no message key yet")]
    NoMessageKey,
    /// A secret does not open.
    #[error("the secret of {what} does not open with the master key")]
    Sealed {
        /// Whose secret it is.
        what: String,
        /// Why.
        #[source]
        source: SealError,
    },
    /// The message key is not 32 bytes.
    #[error("the message key is not 32 bytes long")]
    MessageKeyLength,
}

impl Fold {
    /// Stream sequence of the last event that was applied; 0 for none.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Applies the event with that stream sequence; one that it has seen changes nothing.
    ///
    /// # Errors
    /// The payload is no event, or not what its type promises; the sequence moves on all the same.
    pub fn apply(&mut self, sequence: u64, payload: &[u8]) -> Result<(), DecodeError> {
        if sequence <= self.sequence {
            return Ok(());
        }
        self.sequence = sequence;
        let envelope = Envelope::decode(payload)?;
        match ConfigEvent::decode(&envelope)? {
            Some(ConfigEvent::Provider(change)) => {
                self.kinds.insert(Provider::KIND.to_owned(), sequence);
                let id = change.resource.id;
                put(&mut self.providers, id, sequence, change);
                if !self.providers.contains_key(&id) {
                    self.models
                        .retain(|_, stored| stored.resource.provider_id != id);
                }
            }
            Some(ConfigEvent::Model(change)) => {
                self.kinds.insert(Model::KIND.to_owned(), sequence);
                let model = change.resource.id;
                if self.providers.contains_key(&change.resource.provider_id) {
                    put(&mut self.models, model, sequence, change);
                } else {
                    self.models.remove(&model);
                }
            }
            Some(ConfigEvent::Route(change)) => {
                self.kinds.insert(Route::KIND.to_owned(), sequence);
                put(&mut self.routes, change.resource.id, sequence, change);
            }
            Some(ConfigEvent::Key(change)) => {
                self.kinds.insert(Key::KIND.to_owned(), sequence);
                put(&mut self.keys, change.resource.id, sequence, change);
            }
            Some(ConfigEvent::Setting(change)) => {
                self.kinds.insert(Setting::KIND.to_owned(), sequence);
                put(&mut self.settings, change.resource.key(), sequence, change);
            }
            Some(ConfigEvent::User(change)) => {
                self.kinds.insert(User::KIND.to_owned(), sequence);
                put(&mut self.users, change.resource.id, sequence, change);
            }
            Some(ConfigEvent::Price(change)) => {
                self.kinds.insert(Price::KIND.to_owned(), sequence);
                put(&mut self.prices, change.resource.id, sequence, change);
            }
            None => {}
        }
        Ok(())
    }

    /// Takes those keys away, whatever the events say; tells whether one was there.
    pub(super) fn revoke(&mut self, revoked: &BTreeSet<KeyId>) -> bool {
        let before = self.keys.len();
        self.keys.retain(|id, _| !revoked.contains(id));
        self.keys.len() < before
    }

    /// Stream sequence of the last change of any resource of a kind; 0 when there was none ever.
    pub fn kind_sequence(&self, kind: &str) -> u64 {
        self.kinds.get(kind).copied().unwrap_or(0)
    }

    /// Every provider, the oldest first.
    pub fn providers(&self) -> impl Iterator<Item = &Provider> {
        self.providers.values().map(|stored| &stored.resource)
    }

    /// Every key with the sequence of its last change, the oldest first.
    pub fn keys(&self) -> impl Iterator<Item = (&Key, u64)> {
        self.keys
            .values()
            .map(|stored| (&stored.resource, stored.sequence))
    }

    /// A setting by its name.
    pub fn setting(&self, name: &str) -> Option<&Setting> {
        self.settings.get(name).map(|stored| &stored.resource)
    }

    /// The state with its secrets opened.
    ///
    /// A provider whose key does not open (another master key, a damaged event)
    /// is left without one: its calls fail with the provider's own words, and
    /// the rest of the configuration stays in force.
    ///
    /// # Errors
    /// The message key is missing or does not open: then no message can be placed.
    pub fn snapshot(&self, master: &MasterKey) -> Result<Snapshot, FoldError> {
        let providers: BTreeMap<_, _> = self
            .providers
            .iter()
            .map(|(id, stored)| (*id, open_provider(stored, master)))
            .collect();
        let models: BTreeMap<_, _> = self
            .models
            .iter()
            // A copy on disk may be of a version that kept them.
            .filter(|(_, stored)| providers.contains_key(&stored.resource.provider_id))
            .map(|(id, stored)| (*id, entry(stored)))
            .collect();
        let routes: BTreeMap<_, _> = entries(&self.routes);
        let keys: BTreeMap<_, _> = entries(&self.keys);
        Ok(Snapshot {
            sequence: self.sequence,
            alternatives: alternatives::of(&providers, &models, &routes),
            keys_by_hash: keys
                .values()
                .filter_map(|entry| {
                    Some((hash(&entry.resource.hash)?, Arc::clone(&entry.resource)))
                })
                .collect(),
            message_key: self.message_key(master)?,
            kinds: self.kinds.clone(),
            accounting: self.accounting(),
            providers,
            models,
            routes,
            keys,
        })
    }

    fn accounting(&self) -> Accounting {
        Accounting::new(entries(&self.users), entries(&self.prices))
    }

    fn message_key(&self, master: &MasterKey) -> Result<MessageKey, FoldError> {
        let setting = self.setting(MESSAGE_KEY).ok_or(FoldError::NoMessageKey)?;
        let sealed = setting.sealed.as_ref().ok_or(FoldError::NoMessageKey)?;
        let mut bytes = master
            .open(sealed, &setting_seal(MESSAGE_KEY))
            .map_err(|source| FoldError::Sealed {
                what: format!("the setting {MESSAGE_KEY}"),
                source,
            })?;
        let key = <[u8; 32]>::try_from(bytes.as_slice()).or(Err(FoldError::MessageKeyLength));
        bytes.zeroize();
        key.map(MessageKey::from_bytes)
    }
}

/// What a provider's key is sealed for.
pub fn provider_seal(id: ProviderId) -> String {
    format!("provider:{id}")
}

/// What a setting's secret value is sealed for.
pub fn setting_seal(name: &str) -> String {
    format!("setting:{name}")
}

fn put<K: Ord, R: Resource>(
    table: &mut BTreeMap<K, Stored<R>>,
    key: K,
    sequence: u64,
    change: Changed<R>,
) {
    match change.action {
        Action::Created | Action::Updated => {
            let stored = Stored {
                resource: change.resource,
                sequence,
            };
            table.insert(key, stored);
        }
        Action::Deleted => {
            table.remove(&key);
        }
    }
}

fn entry<T: Clone>(stored: &Stored<T>) -> Entry<T> {
    Entry {
        resource: Arc::new(stored.resource.clone()),
        sequence: stored.sequence,
    }
}

fn entries<K: Copy + Ord, T: Clone>(table: &BTreeMap<K, Stored<T>>) -> BTreeMap<K, Entry<T>> {
    let entries = table.iter();
    entries.map(|(id, stored)| (*id, entry(stored))).collect()
}

fn open_provider(stored: &Stored<Provider>, master: &MasterKey) -> Entry<ProviderRecord> {
    let provider = &stored.resource;
    let server_key = provider.server_key.as_ref().and_then(|sealed| {
        let opened = master.open(sealed, &provider_seal(provider.id));
        match opened.map(String::from_utf8) {
            Ok(Ok(text)) => Some(Secret::new(text)),
            Ok(Err(_)) => {
                tracing::error!(provider = provider.name, "the provider's key is no text");
                None
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(
                    error,
                    provider = provider.name,
                    "the provider's key does not open"
                );
                None
            }
        }
    });
    Entry {
        resource: Arc::new(ProviderRecord {
            resource: provider.clone(),
            server_key,
        }),
        sequence: stored.sequence,
    }
}

/// The 32 bytes of a SHA-256 in hexadecimal.
fn hash(hexadecimal: &str) -> Option<[u8; 32]> {
    if hexadecimal.len() != 64 || !hexadecimal.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(hexadecimal.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
