//! The metrics address: `/metrics`, `/healthz`, `/readyz`.
//!
//! `/healthz` says that the process lives and answers; `/readyz` who is ready,
//! with 503 while the role is not ([`crate::readiness`]). No key is asked for:
//! bind the address where only the operators' tools can reach it.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderValue, StatusCode, header::CONTENT_TYPE};
use prometheus::IntGauge;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Metrics;
use crate::{readiness::Readiness, server::Server};

/// Scrapers and probes at once: 64, more than anyone runs.
const CONNECTIONS_MAX: u32 = 64;

/// What the address answers from.
#[derive(Clone, Debug)]
pub struct Probes {
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who is ready.
    pub readiness: Readiness,
}

impl Probes {
    /// Answers until the stop.
    ///
    /// # Errors
    /// The gauge of its connections cannot be made.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> anyhow::Result<()> {
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "alive\n" }))
            .route("/readyz", get(readyz))
            .with_state(self);
        let server = Server {
            connections_max: CONNECTIONS_MAX,
            connections: IntGauge::new("probes", "not registered")?,
            tracker: TaskTracker::new(),
            soft_stop: stop.clone(),
            hard_stop: stop,
        };
        server.serve(listener, router).await;
        Ok(())
    }
}

async fn metrics(State(probes): State<Probes>) -> Response {
    for report in probes.readiness.summary().parts {
        let gauge = probes.metrics.ready.with_label_values(&[report.part]);
        gauge.set(i64::from(report.ready));
    }
    match probes.metrics.encode() {
        Ok(text) => {
            let mut response = Body::from(text).into_response();
            response.headers_mut().insert(
                CONTENT_TYPE,
                HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
            );
            response
        }
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn readyz(State(probes): State<Probes>) -> Response {
    let summary = probes.readiness.summary();
    let status = if summary.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, axum::Json(summary)).into_response()
}
