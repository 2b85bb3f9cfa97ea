//! The last steps before a request is an exchange: room at a provider, its conversation, `received`.

use tokio::sync::OwnedSemaphorePermit;

use super::{
    Ask, Engine, Facts, asked, cached::Cached, facts, not_recorded, record::Recorder,
    request::Request,
};
use crate::{cache::Cacheable, error::ApiError, routing::Route, shared::Decision};

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
        (request, cacheable): (&Request<'_>, Option<Cacheable>),
        route: &mut Route,
        room: Option<Decision>,
    ) -> Result<Begun, ApiError> {
        let cached = self.cached(ask, cacheable).await;
        if !cached.is_hit() {
            self.parts.limits.find_room(route, room).await?;
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
