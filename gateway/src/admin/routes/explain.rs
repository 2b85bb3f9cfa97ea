//! Whom a request would go to now, and why.
//!
//! It is this gateway's view: each learns of the providers by itself. What is
//! left of a provider's `rate_limit` is shared by all, and is only looked at here.

use std::{collections::BTreeMap, time::Duration};

use axum::{extract::State as Extract, response::Response};
use futures_util::future::join_all;
use http::StatusCode;
use nexus_events::{
    audit_event::BreakerState,
    id::{ProviderId, RouteId},
};
use serde::Serialize;

use super::super::{answer, parameters::QueryParameters};
use crate::{
    configuration::Snapshot,
    error::ApiError,
    routing::explain::{ProviderLimits, Row},
    state::{AppState, State},
};

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
    /// `null`: the provider has none.
    rate_limit: Option<LimitView>,
    usable: bool,
    why_not: Option<&'static str>,
}

/// How a provider's limit stands.
#[derive(Debug, Serialize)]
struct LimitView {
    /// Requests a second.
    limit: Option<u32>,
    /// Requests that it takes at once.
    remaining: u32,
    used_up: bool,
    /// Until it takes one; 0: now.
    retry_after_ms: u64,
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
            rate_limit: row.limit.map(|decision| LimitView {
                limit: provider.rate_limit,
                remaining: decision.remaining,
                used_up: !decision.allowed,
                retry_after_ms: millis(decision.retry_after),
            }),
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
    let limits = limits(&state, &snapshot, model).await;
    let explained = state.routing.explain(&snapshot, model, &limits);
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

/// How the limits of those stand who may answer; all are asked at once.
async fn limits(state: &AppState, snapshot: &Snapshot, model: &str) -> ProviderLimits {
    let candidates = snapshot.candidates(model);
    let providers: BTreeMap<_, _> = candidates
        .iter()
        .map(|one| (one.provider.resource.id, &one.provider.resource))
        .collect();
    let asked = providers.into_iter().map(async |(id, provider)| {
        let limit = state.limits.of_provider(provider).await?;
        Some((id, limit))
    });
    join_all(asked).await.into_iter().flatten().collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
