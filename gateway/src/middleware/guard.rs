//! The guard of a route: who may pass, and what is recorded about it.

use axum::{
    extract::{Request, State as Extract},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::Method;
use nexus_events::{
    audit_event::{self, AccessRefused, ManagementCall},
    envelope::{EventData, Stamp},
    id::RequestId,
};

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
        state: &guard.state,
        principal: &principal,
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
    let access = guard.permission.of(principal.key.role);
    let response = if access == Access::No {
        call.refused().await;
        let message = format!(
            "The key '{}' may not do that: its role does not allow it.",
            principal.key.name
        );
        ApiError::forbidden(message).into_response()
    } else {
        parts.extensions.insert(access);
        next.run(Request::from_parts(parts, body)).await
    };
    if guard.audited {
        call.management(response.status().as_u16()).await;
    }
    Ok(response)
}

/// A call that may have to be recorded.
struct Call<'a> {
    state: &'a State,
    principal: &'a Principal,
    method: Method,
    path: String,
    request: Option<RequestId>,
}

impl Call<'_> {
    async fn refused(&self) {
        self.append(&AccessRefused {
            actor: self.principal.actor(),
            method: self.method.to_string(),
            path: self.path.clone(),
            status: 403,
        })
        .await;
    }

    /// The request goes to no provider, whatever it asks for.
    async fn looped(&self, error: &ApiError) {
        let Some(request) = self.request else { return };
        let refused = Refused {
            error: error.clone(),
            model: None,
        };
        let key = self.principal.key.id;
        rejected::record(self.state, (request, key), &self.path, &refused).await;
    }

    async fn management(&self, status: u16) {
        self.append(&ManagementCall {
            actor: self.principal.actor(),
            method: self.method.to_string(),
            path: self.path.clone(),
            status,
            request: self.request.map(|id| id.to_string()).unwrap_or_default(),
        })
        .await;
    }

    /// Waits until the answer may be given.
    ///
    /// What was changed is in the configuration's own event with its actor, so a full outbox
    /// does not hide a change; that the audit event is missing is told as loud as can be.
    async fn append<D: EventData>(&self, data: &D) {
        let state = self.state;
        let stamp = Stamp::draw(&*state.clock);
        let appended = audit_event::record(&state.source(), stamp, &self.path, data)
            .map_err(|error| error.to_string())
            .and_then(|record| {
                let appended = state.outbox.append(&record);
                appended.map_err(|error| error.to_string())
            });
        let released = match appended {
            Ok(appended) => {
                let released = state.outbox.released(appended).await;
                released.map_err(|error| error.to_string())
            }
            Err(error) => Err(error),
        };
        if let Err(error) = released {
            tracing::error!(error, kind = data.kind(), "could not record an audit event");
        }
    }
}
