//! A request to a model as it came, whichever form it has.

use axum::extract::{FromRequest, Request};
use http::HeaderMap;
use nexus_events::id::RequestId;

use crate::{
    auth::Principal,
    error::ApiError,
    middleware::{Arrival, RequestBody},
    provider::hops::Hops,
    state::State,
};

/// Who asks, when, and for what.
#[derive(Debug)]
pub struct Call {
    pub(super) principal: Principal,
    pub(super) request: RequestId,
    pub(super) arrival: Arrival,
    pub(super) headers: HeaderMap,
    pub(super) hops: Hops,
    /// The body, or why it cannot be read: that is recorded as well.
    pub(super) body: Result<RequestBody, ApiError>,
}

impl FromRequest<State> for Call {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &State) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let principal = Principal::of(&mut parts, state)?;
        // The outermost layer gives every request both.
        let given = parts.extensions.get().copied();
        let given = given.zip(parts.extensions.get().copied());
        let (request, arrival) = given.ok_or_else(|| ApiError::internal("a request without id"))?;
        let headers = parts.headers.clone();
        // The guard has read them.
        let hops = parts.extensions.remove().unwrap_or_default();
        let body = Request::from_parts(parts, body);
        Ok(Self {
            principal,
            request,
            arrival,
            headers,
            hops,
            body: RequestBody::from_request(body, state).await,
        })
    }
}
