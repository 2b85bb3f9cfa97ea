//! Whom a request would go to now, and why.
//!
//! It is this gateway's view: each learns of the providers by itself. A
//! provider's `rate_limit` is taken from when a request comes, and is not asked here.

use std::time::Duration;

use axum::{extract::State as Extract, response::Response};
use http::StatusCode;
use nexus_events::{
    audit_event::BreakerState,
    id::{ProviderId, RouteId},
};
use serde::Serialize;

use super::super::{answer, parameters::QueryParameters};
use crate::{error::ApiError, routing::explain::Row, state::State};

#[derive(Debug, Serialize)]
struct View<'a> {
    model: &'a str,
    /// `null`: the implicit route of a configured model.
    route_id: Option<RouteId>,
    candidates: Vec<CandidateView<'a>>,
    /// Place in `candidates`.
    chosen: Option<usize>,
    because: &'a str,
}

#[derive(Debug, Serialize)]
struct CandidateView<'a> {
    provider_id: ProviderId,
    provider_name: &'a str,
    model: &'a str,
    upstream_model: &'a str,
    priority: u8,
    weight: u16,
    breaker: BreakerState,
    latency_ms: Option<u64>,
    in_flight: u32,
    cost_ms: u64,
    usable: bool,
    why_not: Option<&'static str>,
}

impl<'a> CandidateView<'a> {
    fn of(row: &'a Row) -> Self {
        let (provider, model) = (&row.candidate.provider.resource, &row.candidate.model);
        Self {
            provider_id: provider.id,
            provider_name: &provider.name,
            model: &model.model_name,
            upstream_model: model.upstream_model.as_ref().unwrap_or(&model.model_name),
            priority: row.priority,
            weight: row.weight,
            breaker: row.breaker,
            latency_ms: row.latency.map(millis),
            in_flight: row.in_flight,
            cost_ms: millis(row.cost),
            usable: row.blocked.is_none(),
            why_not: row.blocked.map(crate::routing::choice::Why::as_str),
        }
    }
}

/// `GET /routes/explain?model=…`.
///
/// # Errors
/// 400: the model is not named; 404: nobody offers it.
pub async fn get(
    Extract(state): Extract<State>,
    query: QueryParameters,
) -> Result<Response, ApiError> {
    query.only(&["model"])?;
    let model = query.get("model");
    let model =
        model.ok_or_else(|| ApiError::invalid_request(Some("model"), "'model' is required."))?;
    let snapshot = state.configuration.current();
    let explained = state.routing.explain(&snapshot, model);
    let explained = explained.ok_or_else(|| ApiError::model_not_found(model))?;
    let view = View {
        model,
        route_id: explained.route,
        candidates: explained.rows.iter().map(CandidateView::of).collect(),
        chosen: explained.chosen,
        because: &explained.because,
    };
    answer::json(StatusCode::OK, &view)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
