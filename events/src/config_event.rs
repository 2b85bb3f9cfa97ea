//! Configuration changes: the whole resource after the change, what changed, who did it.
//!
//! The stream keeps them for ever, so folding it from the start gives the
//! configuration; the last event of a subject is the resource's present state.

mod accounting;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use self::accounting::{Price, PricedTokens, Quota, User};

use crate::{
    clock::UnixMillis,
    envelope::{Attributes, DecodeError, EncodeError, Envelope, EventData, Stamp, encode_direct},
    id::{KeyId, ModelId, ProviderId, RouteId, UserId},
    seal::Sealed,
    subject,
};

/// A provider: somewhere to send requests to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provider {
    /// Its id.
    pub id: ProviderId,
    /// Its unique name.
    pub name: String,
    /// The adapter that speaks to it: `openai`, `echo`.
    pub kind: String,
    /// Base URL; empty for `echo`.
    pub server_url: String,
    /// The provider's API key, sealed for `provider:<id>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_key: Option<Sealed>,
    /// Requests a second that it takes; `None` for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<u32>,
    /// When it was created.
    pub created_ms: UnixMillis,
    /// When it was changed last.
    pub updated_ms: UnixMillis,
}

/// A model that a provider offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Its id.
    pub id: ModelId,
    /// The provider that offers it.
    pub provider_id: ProviderId,
    /// The name that clients ask for; unique within the provider.
    pub model_name: String,
    /// The name that the provider knows it by; `None`: the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_model: Option<String>,
    /// When it was created.
    pub created_ms: UnixMillis,
    /// When it was changed last.
    pub updated_ms: UnixMillis,
}

/// A name that clients ask for as a model, and who may answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Its id.
    pub id: RouteId,
    /// Its unique name; it goes before a configured model of the same name.
    pub name: String,
    /// Who may answer.
    pub targets: Vec<RouteTarget>,
    /// Tries for one request; `None`: as many as the gateway makes by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u8>,
    /// Milliseconds until a provider's first byte; `None`: the gateway's setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte_timeout_ms: Option<u32>,
    /// Milliseconds that an answer may stand still; `None`: the gateway's setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_ms: Option<u32>,
    /// Seconds that answers to deterministic requests may be kept; `None`: they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_ttl_seconds: Option<u32>,
    /// When it was created.
    pub created_ms: UnixMillis,
    /// When it was changed last.
    pub updated_ms: UnixMillis,
}

/// One of those who may answer a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTarget {
    /// The configured model.
    pub model: String,
    /// The provider of it; `None`: everyone that offers the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderId>,
    /// Share among the targets of the same priority.
    pub weight: u16,
    /// Group: a higher one is asked only when the lower ones cannot answer.
    pub priority: u8,
}

/// What the holder of a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything; alone may erase and change users.
    Admin,
    /// Providers, models, routes, prices, limits, keys of others; statistics.
    Operator,
    /// Read audit, requests, conversations of everyone, exports.
    Auditor,
    /// Read statistics and configuration without secrets.
    Viewer,
    /// Call models; read own usage, own conversations.
    Member,
}

/// What happens to an exchange whose client hangs up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDisconnect {
    /// It is finished and recorded whole.
    #[default]
    Finish,
    /// It is cancelled upstream and recorded with what was seen.
    Cancel,
}

/// An API key: never its secret, only the hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Its id.
    pub id: KeyId,
    /// A name for people; unique.
    pub name: String,
    /// SHA-256 of the secret, lower-case hexadecimal.
    pub hash: String,
    /// What its holder may do.
    pub role: Role,
    /// What happens when its client hangs up.
    #[serde(default)]
    pub on_disconnect: OnDisconnect,
    /// The user whose it is; `None`: nobody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// What may be used with it.
    #[serde(flatten)]
    pub quota: Quota,
    /// Seconds that answers to its deterministic requests may be kept, 0 for never; `None`: as
    /// the route says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_ttl_seconds: Option<u32>,
    /// When it was created.
    pub created_ms: UnixMillis,
    /// When it was changed last.
    pub updated_ms: UnixMillis,
}

/// A setting of the whole installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Its name, such as `message_key`.
    pub name: String,
    /// A secret value, sealed for `setting:<name>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Sealed>,
    /// A value in clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<serde_json::Value>,
    /// When it was changed last.
    pub updated_ms: UnixMillis,
}

/// What was done to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is new.
    Created,
    /// It was changed.
    Updated,
    /// It is gone; the event holds it as it last was.
    Deleted,
}

/// Who made a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The key that was used; `None` for the hub itself (first start).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyId>,
    /// The key's name, or `hub`.
    pub name: String,
}

/// A kind of resource that the configuration holds.
pub trait Resource: Serialize + DeserializeOwned {
    /// The name in subjects.
    const KIND: &'static str;
    /// The CloudEvents type of its changes.
    const EVENT: &'static str;
    /// The last token of its subject.
    fn key(&self) -> String;
}

impl Resource for Provider {
    const KIND: &'static str = "provider";
    const EVENT: &'static str = "ai.nexus.config.provider_changed.v1";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Resource for Model {
    const KIND: &'static str = "model";
    const EVENT: &'static str = "ai.nexus.config.model_changed.v1";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Resource for Route {
    const KIND: &'static str = "route";
    const EVENT: &'static str = "ai.nexus.config.route_changed.v1";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Resource for Key {
    const KIND: &'static str = "key";
    const EVENT: &'static str = "ai.nexus.config.key_changed.v1";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Resource for Setting {
    const KIND: &'static str = "setting";
    const EVENT: &'static str = "ai.nexus.config.setting_changed.v1";
    fn key(&self) -> String {
        self.name.clone()
    }
}

/// A change of one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "R: Resource")]
pub struct Changed<R> {
    /// What was done.
    pub action: Action,
    /// Names of the members that changed; for a creation all that were given.
    pub changed: Vec<String>,
    /// Who did it.
    pub actor: Actor,
    /// The whole resource after the change.
    pub resource: R,
}

impl<R: Resource> EventData for Changed<R> {
    fn kind(&self) -> &'static str {
        R::EVENT
    }
}

impl<R: Resource> Changed<R> {
    /// The NATS subject of the change.
    pub fn subject(&self) -> String {
        subject::config(R::KIND, &self.resource.key())
    }

    /// The event as it is published.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn encode(&self, stamp: Stamp, source: &str) -> Result<Vec<u8>, EncodeError> {
        let attributes = Attributes {
            stamp,
            source,
            subject: &self.resource.key(),
            traceparent: None,
        };
        encode_direct(attributes, self)
    }
}

/// Every event of `NEXUS_CONFIG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigEvent {
    /// A provider changed.
    Provider(Changed<Provider>),
    /// A model changed.
    Model(Changed<Model>),
    /// A route changed.
    Route(Changed<Route>),
    /// A key changed.
    Key(Changed<Key>),
    /// A setting changed.
    Setting(Changed<Setting>),
    /// A user changed.
    User(Changed<User>),
    /// A price was entered or taken back.
    Price(Changed<Price>),
}

impl ConfigEvent {
    /// Reads an event; `None` for a type that this version does not know.
    ///
    /// # Errors
    /// [`DecodeError::Data`].
    pub fn decode(envelope: &Envelope<'_>) -> Result<Option<Self>, DecodeError> {
        let event = match envelope.kind.as_ref() {
            Provider::EVENT => Self::Provider(envelope.data_as()?),
            Model::EVENT => Self::Model(envelope.data_as()?),
            Route::EVENT => Self::Route(envelope.data_as()?),
            Key::EVENT => Self::Key(envelope.data_as()?),
            Setting::EVENT => Self::Setting(envelope.data_as()?),
            User::EVENT => Self::User(envelope.data_as()?),
            Price::EVENT => Self::Price(envelope.data_as()?),
            _ => return Ok(None),
        };
        Ok(Some(event))
    }
}
