//! What an installation needs before it can serve, put there once by whoever comes first.
//!
//! The key of message ids; the provider `echo` with its model, so that the main
//! job can be tried with no account anywhere; an admin key. Each is published
//! with the sequence that says "nobody has done this yet", so several gateways
//! that start at once end up with one of each.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use nexus_events::{
    clock::Clock,
    config_event::{
        Action, Actor, Changed, Key, Model, OnDisconnect, Provider, Quota, Resource, Role, Setting,
    },
    envelope::{EncodeError, Stamp},
    id::{KeyId, ModelId, ProviderId},
    log::{Expected, Log, PublishError},
    seal::{MasterKey, SealError},
    subject,
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{
    Fold,
    first_key::{FirstKey, FirstKeyError, FirstKeyFile},
    fold::{MESSAGE_KEY, setting_seal},
};
use crate::settings::Secret;

/// Name of the built-in provider and of its model.
pub(crate) const ECHO: &str = "echo";

/// Name of the first admin key.
pub(crate) const ADMIN: &str = "admin";

/// Begin of every key that the hub draws, so that a leaked one is recognised.
const KEY_PREFIX: &str = "nx-";

/// Who the hub's own changes are by.
const SOURCE: &str = "/nexus/bootstrap";

/// Why it was not put there.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The broker did not take it.
    #[error("the broker did not take the first configuration")]
    Publish(#[source] PublishError),
    /// No randomness, or a secret that cannot be sealed.
    #[error("a secret could not be drawn")]
    Secret(#[from] SealError),
    /// The first admin key would be lost.
    #[error(transparent)]
    FirstKey(#[from] FirstKeyError),
    /// It cannot be written as JSON.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl BootstrapError {
    /// Whether waiting may mend it: the broker did not take it, and may later.
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Publish(_) => true,
            Self::Secret(_) | Self::FirstKey(_) | Self::Encode(_) => false,
        }
    }
}

/// What is to be put there.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// The admin key of the settings; without one a first key is drawn.
    pub admin_key: Option<Secret>,
    /// Where a key that was drawn waits to be told.
    pub first_key: FirstKeyFile,
}

impl Bootstrap {
    /// Puts the first missing thing there; `false` when nothing is missing.
    ///
    /// The caller reads the stream again after each step, so a thing that
    /// someone else has put there meanwhile is seen and left alone.
    ///
    /// # Errors
    /// [`BootstrapError`].
    pub async fn step(
        &self,
        log: &Log,
        fold: &Fold,
        master: &MasterKey,
        clock: &dyn Clock,
    ) -> Result<bool, BootstrapError> {
        let hub = Hub { log, clock };
        if fold.setting(MESSAGE_KEY).is_none() {
            let setting = message_key(master, clock)?;
            let expected = fold.kind_sequence(Setting::KIND);
            hub.publish(Action::Created, setting, expected).await?;
            return Ok(true);
        }
        if fold.kind_sequence(Provider::KIND) == 0 {
            hub.publish(Action::Created, echo(clock), 0).await?;
            return Ok(true);
        }
        if fold.kind_sequence(Model::KIND) == 0
            && let Some(provider) = fold.providers().find(|provider| provider.kind == ECHO)
        {
            let model = echo_model(provider, clock);
            hub.publish(Action::Created, model, 0).await?;
            return Ok(true);
        }
        self.admin_step(&hub, fold).await
    }

    /// The first admin key, if it is in force and nobody was told.
    ///
    /// # Errors
    /// [`BootstrapError::FirstKey`].
    pub fn untold(&self, fold: &Fold) -> Result<Option<FirstKey>, BootstrapError> {
        Ok(self.first_key.untold(fold)?)
    }

    async fn admin_step(&self, hub: &Hub<'_>, fold: &Fold) -> Result<bool, BootstrapError> {
        let expected = fold.kind_sequence(Key::KIND);
        let Some(given) = self.admin_key.as_ref().filter(|key| !key.is_empty()) else {
            if expected > 0 {
                return Ok(false);
            }
            let key = admin(&self.first_key.draw()?, hub.clock);
            hub.publish(Action::Created, key, 0).await?;
            return Ok(true);
        };
        let hash = hash(given);
        if fold.keys().any(|(key, _)| key.hash == hash) {
            return Ok(false);
        }
        // Whoever sets another admin key wants the one of before to be void.
        let (action, key) = match fold.keys().find(|(key, _)| key.name == ADMIN) {
            Some((key, _)) => {
                let key = Key {
                    hash,
                    role: Role::Admin,
                    updated_ms: hub.clock.now(),
                    ..key.clone()
                };
                (Action::Updated, key)
            }
            None => (Action::Created, admin(given, hub.clock)),
        };
        hub.publish(action, key, expected).await?;
        Ok(true)
    }
}

/// A fresh API key: `nx-` and 256 random bits.
///
/// # Errors
/// The operating system gives no randomness.
pub fn draw_key() -> Result<Secret, SealError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).or(Err(SealError::NoRandomness))?;
    let text = URL_SAFE_NO_PAD.encode(*bytes);
    Ok(Secret::new(format!("{KEY_PREFIX}{text}")))
}

/// SHA-256 of a key's secret in hexadecimal, as the configuration holds it.
pub fn hash(secret: &Secret) -> String {
    let digest = Sha256::digest(secret.expose().as_bytes());
    digest.iter().fold(String::new(), |mut text, byte| {
        use std::fmt::Write;
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}

/// Publishes as the hub itself.
struct Hub<'a> {
    log: &'a Log,
    clock: &'a dyn Clock,
}

impl Hub<'_> {
    /// Stores it, unless someone else changed the kind since `expected`.
    async fn publish<R: Resource>(
        &self,
        action: Action,
        resource: R,
        expected: u64,
    ) -> Result<(), BootstrapError> {
        let change = Changed {
            action,
            changed: Vec::new(),
            actor: Actor {
                key: None,
                name: "hub".to_owned(),
            },
            resource,
        };
        let payload = change.encode(Stamp::draw(self.clock), SOURCE)?;
        let expected = Expected::FilterAt {
            filter: subject::config_kind(R::KIND),
            sequence: expected,
        };
        match self.log.publish(change.subject(), payload, expected).await {
            Ok(_) | Err(PublishError::Conflict) => Ok(()),
            Err(error) => Err(BootstrapError::Publish(error)),
        }
    }
}

fn message_key(master: &MasterKey, clock: &dyn Clock) -> Result<Setting, BootstrapError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).or(Err(SealError::NoRandomness))?;
    Ok(Setting {
        name: MESSAGE_KEY.to_owned(),
        sealed: Some(master.seal(&*bytes, &setting_seal(MESSAGE_KEY))?),
        value: None,
        updated_ms: clock.now(),
    })
}

fn echo(clock: &dyn Clock) -> Provider {
    Provider {
        id: ProviderId::draw(clock),
        name: ECHO.to_owned(),
        kind: ECHO.to_owned(),
        server_url: String::new(),
        server_key: None,
        rate_limit: None,
        created_ms: clock.now(),
        updated_ms: clock.now(),
    }
}

fn echo_model(provider: &Provider, clock: &dyn Clock) -> Model {
    Model {
        id: ModelId::draw(clock),
        provider_id: provider.id,
        model_name: ECHO.to_owned(),
        upstream_model: None,
        created_ms: clock.now(),
        updated_ms: clock.now(),
    }
}

fn admin(secret: &Secret, clock: &dyn Clock) -> Key {
    Key {
        id: KeyId::draw(clock),
        name: ADMIN.to_owned(),
        hash: hash(secret),
        role: Role::Admin,
        on_disconnect: OnDisconnect::default(),
        user_id: None,
        quota: Quota::default(),
        cache_ttl_seconds: None,
        created_ms: clock.now(),
        updated_ms: clock.now(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawn_key_has_256_random_bits() {
        let (one, two) = (draw_key().unwrap(), draw_key().unwrap());
        assert_eq!(one.expose().len(), KEY_PREFIX.len() + 43);
        assert_ne!(one, two);
    }

    #[test]
    fn a_key_is_kept_as_the_sha_256_of_its_secret() {
        let hash = hash(&Secret::new("abc".to_owned()));
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash, known);
    }
}
