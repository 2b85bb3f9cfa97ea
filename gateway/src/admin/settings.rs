//! The effective settings, without secrets.
//!
//! `GET /settings`

use axum::{extract::State as Extract, response::Response};
use http::StatusCode;
use nexus_events::outbox::{Release, SyncMode};
use serde::Serialize;

use super::{answer, parameters::NoParameters};
use crate::{
    error::ApiError,
    settings::{BODY_BYTES_MAX, NatsSync},
    state::State,
};

#[derive(Debug, Serialize)]
struct View {
    version: &'static str,
    /// The address that subscribers use.
    nats_url: String,
    listen: String,
    data_dir: String,
    release: &'static str,
    outbox_sync: &'static str,
    outbox_max_bytes: u64,
    stream_replicas: u8,
    nats_sync: &'static str,
    retention_days: u32,
    lost_settle_seconds: f64,
    rate_limit_rps: u32,
    token_audit_percent: u8,
    body_bytes_max: usize,
    connections_max: u32,
    drain_seconds: f64,
    body_seconds: f64,
    upstream_connect_seconds: f64,
    upstream_first_byte_seconds: f64,
    upstream_idle_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_ca_file: Option<String>,
    health_interval_seconds: f64,
    shared_state: &'static str,
    master_key_id: String,
    config_sequence: u64,
}

/// `GET /settings`.
///
/// # Errors
/// 400: there is a parameter.
pub async fn get(Extract(state): Extract<State>, _: NoParameters) -> Result<Response, ApiError> {
    let (gateway, role) = (&state.settings, &state.role_settings);
    let view = View {
        version: env!("CARGO_PKG_VERSION"),
        nats_url: without_user(state.log.url()),
        listen: gateway.listen.to_string(),
        data_dir: role.data_dir.display().to_string(),
        release: match gateway.release {
            Release::Local => "local",
            Release::Stream => "stream",
        },
        outbox_sync: match gateway.outbox_sync {
            SyncMode::Os => "os",
            SyncMode::Interval => "interval",
            SyncMode::Always => "always",
        },
        outbox_max_bytes: gateway.outbox_max_bytes,
        stream_replicas: role.stream_replicas,
        nats_sync: match role.nats_sync {
            NatsSync::Unknown => "unknown",
            NatsSync::Always => "always",
        },
        retention_days: role.retention_days,
        lost_settle_seconds: gateway.lost_settle.as_secs_f64(),
        rate_limit_rps: gateway.rate_limit_rps,
        token_audit_percent: gateway.token_audit_percent,
        body_bytes_max: BODY_BYTES_MAX,
        connections_max: gateway.connections_max,
        drain_seconds: role.drain.as_secs_f64(),
        body_seconds: gateway.body_time.as_secs_f64(),
        upstream_connect_seconds: gateway.upstream_connect.as_secs_f64(),
        upstream_first_byte_seconds: gateway.upstream_first_byte.as_secs_f64(),
        upstream_idle_seconds: gateway.upstream_idle.as_secs_f64(),
        upstream_ca_file: gateway
            .upstream_ca_file
            .as_ref()
            .map(|path| path.display().to_string()),
        health_interval_seconds: gateway.health_interval.as_secs_f64(),
        shared_state: if role.redis_url().is_some() {
            "redis"
        } else {
            "in_process"
        },
        master_key_id: state.master_key.id().to_owned(),
        config_sequence: state.configuration.current().sequence,
    };
    answer::json(StatusCode::OK, &view)
}

/// The addresses without user names, passwords and tokens.
pub(crate) fn without_user(addresses: &str) -> String {
    let clean = addresses.split(',').map(|address| {
        let (scheme, rest) = address
            .trim()
            .split_once("://")
            .unwrap_or(("nats", address.trim()));
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        format!("{scheme}://{host}")
    });
    clean.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_address_is_shown_without_secrets() {
        assert_eq!(
            without_user("nats://a:b@h:4222, h2:1"),
            "nats://h:4222,nats://h2:1"
        );
        assert_eq!(
            without_user("nats://127.0.0.1:4222"),
            "nats://127.0.0.1:4222"
        );
    }
}
