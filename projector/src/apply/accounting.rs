//! Users and prices: `users`, `prices`.

use nexus_events::config_event::{Price, User};
use sqlx::SqliteConnection;

use crate::checkpoint::signed;

/// Money and limits as SQLite holds them; what is larger than it can hold becomes the largest.
pub(super) fn integer(value: Option<impl Into<u64>>) -> Option<i64> {
    value.map(|value| signed(value.into()))
}

pub(super) async fn user(
    connection: &mut SqliteConnection,
    user: &User,
    sequence: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT OR REPLACE INTO users VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(user.id.to_string())
        .bind(&user.name)
        .bind(integer(user.quota.requests_per_minute))
        .bind(integer(user.quota.tokens_per_minute))
        .bind(integer(user.quota.concurrent_requests))
        .bind(integer(user.quota.monthly_budget))
        .bind(user.created_ms.as_millis())
        .bind(user.updated_ms.as_millis())
        .bind(sequence)
        .execute(connection)
        .await
        .map(drop)
}

pub(super) async fn price(
    connection: &mut SqliteConnection,
    price: &Price,
    sequence: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT OR REPLACE INTO prices VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(price.id.to_string())
        .bind(&price.model_name)
        .bind(price.provider_id.map(|provider| provider.to_string()))
        .bind(signed(price.input_micros_per_million))
        .bind(signed(price.output_micros_per_million))
        .bind(integer(price.cached_input_micros_per_million))
        .bind(&price.currency)
        .bind(price.valid_from_ms.as_millis())
        .bind(price.created_ms.as_millis())
        .bind(sequence)
        .execute(connection)
        .await
        .map(drop)
}
