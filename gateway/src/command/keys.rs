//! `nexus keys create|list|revoke`: API keys, straight in the log.
//!
//! No admin key is asked for: whoever reaches the broker could publish the same
//! events by hand. So a lost admin key is no reason to start anew.

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use nexus_events::{
    clock::{Clock, SystemClock},
    config_event::{Action, Actor, Changed, Key, OnDisconnect, Quota, Resource, Role},
    envelope::Stamp,
    id::KeyId,
    log::{Expected, Log},
    subject::{self, Stream},
};

use super::{banner, reach::Reach};
use crate::{
    admin::{
        fields::looks_like_id,
        quota::{CONCURRENT_MAX, MONEY_MAX},
    },
    configuration::{
        Fold,
        bootstrap::{draw_key, hash},
    },
};

/// What to do with keys.
#[derive(Subcommand, Debug)]
pub enum KeysCommand {
    /// Create a key and print its secret, once
    Create(Create),
    /// List the keys
    List(Reach),
    /// Revoke a key
    Revoke(Revoke),
}

/// Creates a key.
#[derive(Args, Debug)]
pub struct Create {
    /// Where the log is.
    #[command(flatten)]
    pub reach: Reach,
    /// Its name
    pub name: String,
    /// What its holder may do
    #[arg(long, value_enum, default_value_t = RoleName::Member)]
    pub role: RoleName,
    /// What may be used with it.
    #[command(flatten)]
    pub limits: KeyLimits,
}

/// Limits of a key; none where a flag is not given.
#[derive(Args, Clone, Copy, Debug)]
pub struct KeyLimits {
    /// Requests a minute
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub requests_per_minute: Option<u32>,
    /// Tokens a minute, of prompts and answers
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub tokens_per_minute: Option<u32>,
    /// Requests under way at once
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(CONCURRENT_MAX)))]
    pub concurrent_requests: Option<u32>,
    /// Money a calendar month, in millionths of the currency that prices have
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=MONEY_MAX))]
    pub monthly_budget: Option<u64>,
}

impl From<KeyLimits> for Quota {
    fn from(limits: KeyLimits) -> Self {
        Self {
            requests_per_minute: limits.requests_per_minute,
            tokens_per_minute: limits.tokens_per_minute,
            concurrent_requests: limits.concurrent_requests,
            monthly_budget: limits.monthly_budget,
        }
    }
}

/// Revokes a key.
#[derive(Args, Debug)]
pub struct Revoke {
    /// Where the log is.
    #[command(flatten)]
    pub reach: Reach,
    /// Its id or name
    pub key: String,
    /// Revoke it even if it is the last admin key
    #[arg(long)]
    pub force: bool,
}

/// The roles, as the command line spells them.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum RoleName {
    /// Everything
    Admin,
    /// Providers, models, keys of others; statistics
    Operator,
    /// Requests and conversations of everyone
    Auditor,
    /// Statistics and configuration without secrets
    Viewer,
    /// Call models; own usage and conversations
    Member,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Admin => Self::Admin,
            RoleName::Operator => Self::Operator,
            RoleName::Auditor => Self::Auditor,
            RoleName::Viewer => Self::Viewer,
            RoleName::Member => Self::Member,
        }
    }
}

impl KeysCommand {
    /// Does it.
    ///
    /// # Errors
    /// A sentence for the person at the keyboard.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Create(create) => create.run().await,
            Self::List(reach) => list(&reach).await,
            Self::Revoke(revoke) => revoke.run().await,
        }?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Create {
    async fn run(self) -> anyhow::Result<()> {
        let name = self.name.trim().to_owned();
        if name.is_empty() || name.chars().count() > 128 || name.chars().any(char::is_control) {
            bail!("the name must have 1 to 128 characters and no control characters");
        }
        if looks_like_id(&name) {
            bail!("the name must not look like an id");
        }
        let log = self.reach.log().await?;
        let fold = read(&log).await?;
        if fold.keys().any(|(key, _)| key.name == name) {
            bail!("there is a key named '{name}' already");
        }
        let secret = draw_key()?;
        let clock = SystemClock;
        let key = Key {
            id: KeyId::draw(&clock),
            name,
            hash: hash(&secret),
            role: self.role.into(),
            on_disconnect: OnDisconnect::default(),
            user_id: None,
            quota: self.limits.into(),
            cache_ttl_seconds: None,
            created_ms: clock.now(),
            updated_ms: clock.now(),
        };
        let name = key.name.clone();
        publish(&log, &fold, Action::Created, key).await?;
        banner::out(secret.expose()).with_context(|| {
            format!(
                "the key '{name}' was created, but nobody has its secret: `nexus keys revoke {name}`, and create another"
            )
        })
    }
}

impl Revoke {
    async fn run(self) -> anyhow::Result<()> {
        let log = self.reach.log().await?;
        let fold = read(&log).await?;
        let key = find(&fold, &self.key)
            .with_context(|| format!("there is no key '{}'", self.key))?
            .clone();
        let admins = fold.keys().filter(|(key, _)| key.role == Role::Admin);
        if key.role == Role::Admin && admins.count() == 1 && !self.force {
            bail!(
                "'{}' is the last admin key: create another one first with `nexus keys create NAME --role admin`, or revoke it with --force",
                key.name
            );
        }
        let name = key.name.clone();
        publish(&log, &fold, Action::Deleted, key).await?;
        banner::out(&format!("revoked {name}"))
    }
}

/// A key by its id, else by its name: a name that looks like another key's id must not hide that key.
fn find<'a>(fold: &'a Fold, id_or_name: &str) -> Option<&'a Key> {
    let keys = || fold.keys().map(|(key, _)| key);
    let id: Option<KeyId> = id_or_name.parse().ok();
    keys()
        .find(|key| Some(key.id) == id)
        .or_else(|| keys().find(|key| key.name == id_or_name))
}

async fn list(reach: &Reach) -> anyhow::Result<()> {
    let fold = read(&reach.log().await?).await?;
    for (key, _) in fold.keys() {
        let role = serde_json::to_value(key.role)?;
        let line = format!(
            "{}  {:8}  {}  {}",
            key.id,
            role.as_str().unwrap_or_default(),
            key.created_ms.to_rfc3339(),
            key.name
        );
        banner::out(&line)?;
    }
    Ok(())
}

/// The configuration as the log has it now.
async fn read(log: &Log) -> anyhow::Result<Fold> {
    let state = log.stream_state(Stream::Config).await?;
    let mut reader = log.reader(Stream::Config, None, 0);
    let mut fold = Fold::default();
    while fold.sequence() < state.last_sequence {
        for message in reader.next_batch(1000).await? {
            // What this version cannot read is none of its keys.
            fold.apply(message.sequence, &message.payload)
                .unwrap_or_default();
        }
    }
    Ok(fold)
}

async fn publish(log: &Log, fold: &Fold, action: Action, key: Key) -> anyhow::Result<()> {
    let change = Changed {
        action,
        changed: vec!["name".to_owned(), "role".to_owned()],
        actor: Actor {
            key: None,
            name: "shell".to_owned(),
        },
        resource: key,
    };
    let payload = change.encode(Stamp::draw(&SystemClock), "/nexus/shell")?;
    let expected = Expected::FilterAt {
        filter: subject::config_kind(Key::KIND),
        sequence: fold.kind_sequence(Key::KIND),
    };
    log.publish(change.subject(), payload, expected)
        .await
        .context("the log did not take the change; nothing may have changed")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_goes_before_a_name_that_looks_like_it() {
        let mut fold = Fold::default();
        let victim = KeyId::draw(&SystemClock);
        let named = [(KeyId::draw(&SystemClock), victim.to_string())];
        let keys = named.into_iter().chain([(victim, "victim".to_owned())]);
        for (sequence, (id, name)) in (1..).zip(keys) {
            let change = Changed {
                action: Action::Created,
                changed: Vec::new(),
                actor: Actor {
                    key: None,
                    name: "shell".to_owned(),
                },
                resource: Key {
                    id,
                    name,
                    hash: "ab".repeat(32),
                    role: Role::Member,
                    on_disconnect: OnDisconnect::Finish,
                    user_id: None,
                    quota: Quota::default(),
                    cache_ttl_seconds: None,
                    created_ms: SystemClock.now(),
                    updated_ms: SystemClock.now(),
                },
            };
            let payload = change.encode(Stamp::draw(&SystemClock), "/nexus/test");
            fold.apply(sequence, &payload.unwrap()).unwrap();
        }
        let found = |text: &str| find(&fold, text).map(|key| key.id);
        assert_eq!(found(&victim.to_string()), Some(victim));
        assert_eq!(found("victim"), Some(victim));
        assert_eq!(found("nobody"), None);
    }
}
