//! Configuration: `service_providers`, `provider_models`, `api_keys`, `settings`, `users`, `prices`.
//!
//! An event holds the whole resource, so the last one of a resource is its
//! row. Secrets and hashes of keys stay in the log: the tables only say
//! whether there is one. A model is there only as long as its provider, as it
//! is in the gateways: the log may have it after the provider's deletion.

use nexus_events::{
    config_event::{
        Action, Changed, ConfigEvent, Key, Model, OnDisconnect, Provider, Resource, Role, Setting,
    },
    envelope::Envelope,
    log::Message,
};
use sqlx::SqliteConnection;

use super::{
    accounting::{self, integer},
    entry::{Reason, explain},
};
use crate::checkpoint::signed;

/// Applies a change of the configuration; the inner result is the reason why it cannot be.
pub(super) async fn apply(
    connection: &mut SqliteConnection,
    envelope: &Envelope<'_>,
    message: &Message,
) -> Result<Result<(), Reason>, sqlx::Error> {
    let event = match ConfigEvent::decode(envelope) {
        Ok(Some(event)) => event,
        Ok(None) => return Ok(Err(format!("unknown type {}", envelope.kind))),
        Err(error) => return Ok(Err(explain(&error))),
    };
    let sequence = signed(message.sequence);
    match &event {
        ConfigEvent::Provider(change) if gone(change) => {
            let delete = "DELETE FROM service_providers WHERE provider_id = ?";
            remove(connection, delete, &change.resource).await?;
            let its_models = "DELETE FROM provider_models WHERE provider_id = ?";
            remove(connection, its_models, &change.resource).await?;
        }
        ConfigEvent::Provider(change) => provider(connection, &change.resource, sequence).await?,
        ConfigEvent::Model(change) if gone(change) => {
            let delete = "DELETE FROM provider_models WHERE model_id = ?";
            remove(connection, delete, &change.resource).await?;
        }
        ConfigEvent::Model(change) => model(connection, &change.resource, sequence).await?,
        // Nothing that people read of the past refers to a route: the gateways hold them.
        ConfigEvent::Route(_) => {}
        ConfigEvent::Key(change) if gone(change) => {
            let delete = "DELETE FROM api_keys WHERE key_id = ?";
            remove(connection, delete, &change.resource).await?;
        }
        ConfigEvent::Key(change) => key(connection, &change.resource, sequence).await?,
        ConfigEvent::Setting(change) if gone(change) => {
            let delete = "DELETE FROM settings WHERE name = ?";
            remove(connection, delete, &change.resource).await?;
        }
        ConfigEvent::Setting(change) => setting(connection, &change.resource, sequence).await?,
        ConfigEvent::User(change) if gone(change) => {
            let delete = "DELETE FROM users WHERE user_id = ?";
            remove(connection, delete, &change.resource).await?;
        }
        ConfigEvent::User(change) => {
            accounting::user(connection, &change.resource, sequence).await?;
        }
        ConfigEvent::Price(change) if gone(change) => {
            let delete = "DELETE FROM prices WHERE price_id = ?";
            remove(connection, delete, &change.resource).await?;
        }
        ConfigEvent::Price(change) => {
            accounting::price(connection, &change.resource, sequence).await?;
        }
    }
    Ok(Ok(()))
}

fn gone<R>(change: &Changed<R>) -> bool {
    change.action == Action::Deleted
}

async fn remove<R: Resource>(
    connection: &mut SqliteConnection,
    statement: &'static str,
    resource: &R,
) -> Result<(), sqlx::Error> {
    sqlx::query(statement)
        .bind(resource.key())
        .execute(connection)
        .await
        .map(drop)
}

async fn provider(
    connection: &mut SqliteConnection,
    provider: &Provider,
    sequence: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT OR REPLACE INTO service_providers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(provider.id.to_string())
        .bind(&provider.name)
        .bind(&provider.kind)
        .bind(&provider.server_url)
        .bind(provider.server_key.is_some())
        .bind(provider.rate_limit.map(i64::from))
        .bind(provider.created_ms.as_millis())
        .bind(provider.updated_ms.as_millis())
        .bind(sequence)
        .execute(connection)
        .await
        .map(drop)
}

async fn model(
    connection: &mut SqliteConnection,
    model: &Model,
    sequence: i64,
) -> Result<(), sqlx::Error> {
    remove(
        connection,
        "DELETE FROM provider_models WHERE model_id = ?",
        model,
    )
    .await?;
    let insert = "INSERT INTO provider_models SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7
                  WHERE EXISTS (SELECT 1 FROM service_providers WHERE provider_id = ?2)";
    sqlx::query(insert)
        .bind(model.id.to_string())
        .bind(model.provider_id.to_string())
        .bind(&model.model_name)
        .bind(&model.upstream_model)
        .bind(model.created_ms.as_millis())
        .bind(model.updated_ms.as_millis())
        .bind(sequence)
        .execute(connection)
        .await
        .map(drop)
}

async fn key(
    connection: &mut SqliteConnection,
    key: &Key,
    sequence: i64,
) -> Result<(), sqlx::Error> {
    let role = match key.role {
        Role::Admin => "admin",
        Role::Operator => "operator",
        Role::Auditor => "auditor",
        Role::Viewer => "viewer",
        Role::Member => "member",
    };
    let on_disconnect = match key.on_disconnect {
        OnDisconnect::Finish => "finish",
        OnDisconnect::Cancel => "cancel",
    };
    sqlx::query("INSERT OR REPLACE INTO api_keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(key.id.to_string())
        .bind(&key.name)
        .bind(role)
        .bind(on_disconnect)
        .bind(key.created_ms.as_millis())
        .bind(key.updated_ms.as_millis())
        .bind(sequence)
        .bind(key.user_id.map(|user| user.to_string()))
        .bind(integer(key.quota.requests_per_minute))
        .bind(integer(key.quota.tokens_per_minute))
        .bind(integer(key.quota.concurrent_requests))
        .bind(integer(key.quota.monthly_budget))
        .execute(connection)
        .await
        .map(drop)
}

async fn setting(
    connection: &mut SqliteConnection,
    setting: &Setting,
    sequence: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT OR REPLACE INTO settings VALUES (?, ?, ?, ?, ?)")
        .bind(&setting.name)
        .bind(setting.value.as_ref().map(ToString::to_string))
        .bind(setting.sealed.is_some())
        .bind(setting.updated_ms.as_millis())
        .bind(sequence)
        .execute(connection)
        .await
        .map(drop)
}
