//! The last steps before a request is an exchange: room at a provider, its conversation, `received`.

use std::sync::Arc;

use super::{
    Ask, Engine, Entry, Facts, cached::Cached, not_recorded, record::Recorder, request::Request,
};
use crate::{
    cache::Cacheable,
    error::ApiError,
    protocol::openai::request::ChatRequest,
    session::{Asked, Matched, Scope},
};

/// A request whose `received` is written.
pub(super) struct Begun {
    pub(super) facts: Facts,
    pub(super) recorder: Recorder,
    pub(super) cached: Cached,
}

impl Engine {
    /// Finds room and the conversation, and writes `received`.
    pub(super) async fn prepare(
        &self,
        ask: &Ask,
        (request, cacheable): (&Request<'_>, Option<Cacheable>),
        entry: &mut Entry,
    ) -> Result<Begun, ApiError> {
        let cached = self.cached(ask, cacheable).await;
        if !cached.is_hit() {
            let room = entry.admission.room();
            self.parts.limits.find_room(&mut entry.route, room).await?;
        }
        let matched = match request {
            Request::Chat(chat) => {
                let matched = self.parts.sessions.match_request(asked(ask, chat));
                Some(matched.await)
            }
            Request::Embeddings(_) => None,
        };
        let matched = matched.as_ref();
        let open = entry.open.take();
        let open = open.ok_or_else(|| ApiError::internal("a request was begun twice"))?;
        let recorder = self.received((ask, open), request, matched);
        Ok(Begun {
            facts: facts(ask, request, matched),
            recorder: recorder.map_err(not_recorded)?,
            cached,
        })
    }
}

fn asked<'m, 'a>(ask: &Ask, request: &'m ChatRequest<'a>) -> Asked<'m, 'a> {
    Asked {
        request: ask.request,
        scope: Scope {
            key: ask.key.id,
            user: request.user.as_deref(),
        },
        messages: &request.messages,
        conversation: ask.conversation,
    }
}

fn facts(ask: &Ask, request: &Request<'_>, matched: Option<&Matched<'_>>) -> Facts {
    Facts {
        request: ask.request,
        arrival: ask.arrival,
        key: Arc::clone(&ask.key),
        operation: ask.operation,
        conversation: matched.map(|matched| matched.conversation),
        model: request.model().to_owned(),
        user: request.user().cloned().map(Into::into),
        stream: request.stream(),
        include_usage: request.include_usage(),
        last: matched.and_then(|matched| matched.last_id),
        thread: matched.map(Matched::thread),
        body: ask.body.clone(),
        hops: ask.hops.clone(),
        cancel: ask.cancel.clone(),
    }
}
