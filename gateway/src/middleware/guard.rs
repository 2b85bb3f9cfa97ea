//! The guard of a route: who may pass, and what is recorded about it.
//!
//! A client may hang up at any moment, and its connection's task is dropped then with whatever it
//! was waiting for. A change that has taken effect must not lose its audit event by that, so an
//! audited call is a task of its own, which ends when its event is appended.

use std::panic::AssertUnwindSafe;

use axum::{
    extract::{Request, State as Extract},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use http::Method;
use nexus_events::{
    audit_event::{self, AccessRefused, ManagementCall},
    envelope::{EventData, Stamp},
    id::RequestId,
    outbox::Appended,
};
use tracing::Instrument;

use crate::{
    auth::{Access, Permission, Principal},
    endpoint::rejected,
    error::ApiError,
    exchange::Refused,
    provider::hops::Hops,
    state::State,
};

/// What a route's guard knows.
#[derive(Clone, Debug)]
pub struct Guard {
    /// The gateway.
    pub state: State,
    /// What the route needs.
    pub permission: Permission,
    /// Whether its calls are audit events, refused ones included.
    pub audited: bool,
}

/// Lets a request through when its key has the permission; see [`Guard`].
///
/// # Errors
/// 401: there is no key, or it is none of ours. 508: the request has passed this hub before, or too
/// many others; 400: nobody can say which.
pub async fn guard(
    Extract(guard): Extract<Guard>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    let principal = Principal::of(&mut parts, &guard.state)?;
    let call = Call {
        state: State::clone(&guard.state),
        principal,
        method: parts.method.clone(),
        path: parts.uri.path().to_owned(),
        request: parts.extensions.get::<RequestId>().copied(),
    };
    let (headers, snapshot) = (&parts.headers, guard.state.configuration.current());
    match Hops::of(headers, snapshot.message_key()) {
        Ok(hops) => parts.extensions.insert(hops),
        Err(error) => {
            call.looped(&error).await;
            return Err(error);
        }
    };
    let access = guard.permission.of(call.principal.key.role);
    parts.extensions.insert(access);
    let request = Request::from_parts(parts, body);
    if guard.audited {
        let audited = call.audited(access, request, next);
        let task = guard.state.tracker.spawn(audited.in_current_span());
        let (response, told) = task.await.map_err(ApiError::internal)?;
        released(&guard.state, told).await;
        Ok(response)
    } else if access == Access::No {
        let told = call.refused();
        released(&guard.state, told).await;
        Ok(call.forbidden().into_response())
    } else {
        Ok(next.run(request).await)
    }
}

/// Waits until the answer to a call may be given.
///
/// What the call changed is in the log already; so the answer waits no longer for its audit event
/// while the log stands still.
///
/// Whoever hangs up here takes nothing along: the event is appended.
async fn released(state: &State, told: Option<Appended>) {
    let Some(appended) = told else { return };
    let released = state.standstill.released_or_stands(&state.outbox, appended);
    if let Err(error) = released.await {
        let error: &dyn std::error::Error = &error;
        tracing::error!(error, "an audit event was not released");
    }
}

/// A call that may have to be recorded.
struct Call {
    state: State,
    principal: Principal,
    method: Method,
    path: String,
    request: Option<RequestId>,
}

impl Call {
    /// Carries the call out, or refuses it, and appends what is to be told of it.
    async fn audited(
        self,
        access: Access,
        request: Request,
        next: Next,
    ) -> (Response, Option<Appended>) {
        let response = if access == Access::No {
            self.refused();
            self.forbidden().into_response()
        } else {
            // A handler that panics may have changed something before.
            let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
            answer.unwrap_or_else(|_| ApiError::internal("a handler panicked").into_response())
        };
        let told = self.append(&ManagementCall {
            actor: self.principal.actor(),
            method: self.method.to_string(),
            path: self.path.clone(),
            status: response.status().as_u16(),
            request: self.request.map(|id| id.to_string()).unwrap_or_default(),
        });
        (response, told)
    }

    fn forbidden(&self) -> ApiError {
        let message = format!(
            "The key '{}' may not do that: its role does not allow it.",
            self.principal.key.name
        );
        ApiError::forbidden(message)
    }

    fn refused(&self) -> Option<Appended> {
        self.append(&AccessRefused {
            actor: self.principal.actor(),
            method: self.method.to_string(),
            path: self.path.clone(),
            status: 403,
        })
    }

    /// The request goes to no provider, whatever it asks for.
    async fn looped(&self, error: &ApiError) {
        let Some(request) = self.request else { return };
        let refused = Refused {
            error: error.clone(),
            model: None,
        };
        let key = self.principal.key.id;
        rejected::record(&self.state, (request, key), &self.path, &refused).await;
    }

    /// Appends an audit event; `None` if it was not taken.
    ///
    /// What was changed is in the configuration's own event with its actor, so a full outbox
    /// does not hide a change; that the audit event is missing is told as loud as can be.
    fn append<D: EventData>(&self, data: &D) -> Option<Appended> {
        let state = &self.state;
        let stamp = Stamp::draw(&*state.clock);
        let appended = audit_event::record(&state.source(), stamp, &self.path, data)
            .map_err(|error| error.to_string())
            .and_then(|record| {
                let appended = state.outbox.append(&record);
                appended.map_err(|error| error.to_string())
            });
        appended
            .inspect_err(|error| {
                state.metrics.not_recorded(data.kind());
                tracing::error!(error, kind = data.kind(), "could not record an audit event");
            })
            .ok()
    }
}
