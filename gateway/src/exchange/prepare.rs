//! The last steps before a request is an exchange: room at a provider, its conversation, `received`.

use tokio::sync::OwnedSemaphorePermit;

use super::{
    Ask, Engine, Facts, asked, cached::Cached, facts, not_recorded, record::Recorder,
    request::Request,
};
use crate::{error::ApiError, routing::Route};

/// A request whose `received` is written.
pub(super) struct Begun {
    pub(super) facts: Facts,
    pub(super) recorder: Recorder,
    pub(super) cached: Cached,
    pub(super) backlog: OwnedSemaphorePermit,
}

impl Engine {
    /// Finds room and the conversation, and writes `received`.
    pub(super) async fn prepare(
        &self,
        ask: &Ask,
        request: &Request<'_>,
        route: &mut Route,
    ) -> Result<Begun, ApiError> {
        let cached = self.cached(ask, request).await;
        if !cached.is_hit() {
            self.parts.limits.find_room(route).await?;
        }
        let backlog = self.parts.counting.admit(ask.body.len())?;
        let matched = match request {
            Request::Chat(chat) => {
                let matched = self.parts.sessions.match_request(asked(ask, chat));
                Some(matched.await)
            }
            Request::Embeddings(_) => None,
        };
        let matched = matched.as_ref();
        let recorder = self.received(ask, request, matched);
        Ok(Begun {
            facts: facts(ask, request, matched),
            recorder: recorder.map_err(not_recorded)?,
            cached,
            backlog,
        })
    }
}
