//! Lets a request in, before anything is done for it that costs more than to read it.
//!
//! A body may have 32 MiB, and may have to be translated: a client that is refused for its many
//! requests must not cost the hub that. So whom to ask, the limits, and whether there is room are
//! found out from an [`Outline`].

use std::borrow::Cow;

use nexus_events::outbox::OpenRequest;
use tokio::sync::OwnedSemaphorePermit;

use super::{Ask, Engine, Refused, not_recorded};
use crate::{
    configuration::Candidate,
    error::ApiError,
    limits::{Admission, Asking, estimate::Estimate},
    routing::Route,
};

/// As much of a request as lets it in.
#[derive(Debug)]
pub struct Outline<'a> {
    /// The model that it asks for.
    pub model: Cow<'a, str>,
    /// What it may use.
    pub estimate: Estimate,
    /// Whether it is sure to ask whoever is first on its route.
    pub wants_room: bool,
}

/// A request that was let in; dropped, it gives back what it holds.
#[derive(Debug)]
pub struct Entry {
    model: String,
    pub(super) route: Route,
    pub(super) admission: Admission,
    /// `None` once `received` is written.
    pub(super) open: Option<OpenRequest>,
    pub(super) backlog: OwnedSemaphorePermit,
}

impl Engine {
    /// Lets a request in.
    ///
    /// # Errors
    /// [`Refused`]: nobody offers the model, a limit is reached, there is no room, or the log
    /// stands still.
    pub async fn enter(&self, ask: &Ask, outline: &Outline<'_>) -> Result<Entry, Refused> {
        let model = outline.model.as_ref();
        let refused = |error| Refused {
            error,
            model: Some(model.to_owned()),
        };
        self.parts.standstill.check().map_err(refused)?;
        let (routing, provider) = (&self.parts.routing, ask.provider.as_deref());
        let route = routing.find(&ask.snapshot, model, provider);
        let route = route.ok_or_else(|| refused(ApiError::model_not_found(model)))?;
        let asking = Asking {
            request: ask.request,
            key: &ask.key,
            snapshot: &ask.snapshot,
            candidate: route.current(),
            at: ask.arrival.time,
            estimate: outline.estimate,
            wants_room: outline.wants_room,
        };
        let admitted = self.parts.limits.admit(asking).await;
        let mut admission = admitted.map_err(refused)?;
        match self.room(ask) {
            Ok((open, backlog)) => Ok(Entry {
                model: model.to_owned(),
                route,
                admission,
                open: Some(open),
                backlog,
            }),
            Err(error) => {
                let error = admission.told_by(error);
                admission.cancel().await;
                Err(refused(error))
            }
        }
    }

    /// Room for its body in memory and for its events in the outbox.
    fn room(&self, ask: &Ask) -> Result<(OpenRequest, OwnedSemaphorePermit), ApiError> {
        let backlog = self.parts.counting.admit(ask.body.len())?;
        let open = self.parts.outbox.admit(ask.request);
        let open = open.map_err(|error| not_recorded(error.into()))?;
        Ok((open, backlog))
    }
}

impl Entry {
    /// All who may answer it.
    pub fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.route.candidates()
    }

    /// Leaves out those who cannot carry it; `false` when nobody is left.
    pub fn narrow(&mut self, is_carried_by: impl Fn(&Candidate) -> bool) -> bool {
        self.route.narrow(is_carried_by)
    }

    /// Gives back what it holds: the request goes to no provider.
    pub async fn refuse(mut self, error: ApiError) -> Refused {
        let error = self.admission.told_by(error);
        self.admission.cancel().await;
        Refused {
            error,
            model: Some(self.model),
        }
    }
}
