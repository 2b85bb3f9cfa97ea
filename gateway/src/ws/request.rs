//! One request of a connection, from its frame to its last frame.

use std::sync::Arc;

use axum::extract::ws::Utf8Bytes;
use bytes::Bytes;
use http_body_util::BodyExt;
use nexus_events::{config_event::Key, id::RequestId};
use serde_json::value::RawValue;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Peer,
    frame::{self, Chat, Event, Outgoing},
    queue::{Gone, Queue},
    told::Limits,
};
use crate::{
    cache::{Outcome, Wish},
    endpoint::rejected,
    error::ApiError,
    exchange::{Ask, Operation, Reply, ReplyBody},
    middleware::Arrival,
    state::State,
};

/// The endpoint's path, as events name it.
pub(super) const ROUTE: &str = "/ws/chat";

/// A request under way.
pub(super) struct Request {
    pub(super) state: State,
    /// The key as it is now.
    pub(super) key: Arc<Key>,
    pub(super) peer: Peer,
    /// What the client calls it.
    pub(super) id: String,
    /// The hub's id of it.
    pub(super) number: RequestId,
    /// Where its frames go.
    pub(super) out: Queue,
    /// The client's `cancel`.
    pub(super) cancel: CancellationToken,
}

impl Request {
    /// Carries it out; gives its last frame.
    pub(super) async fn run(&self, chat: Chat) -> Result<Utf8Bytes, Gone> {
        let ask = Ask {
            operation: Operation::Chat,
            request: self.number,
            arrival: Arrival {
                at: Instant::now(),
                time: self.state.clock.now(),
            },
            key: Arc::clone(&self.key),
            route: ROUTE,
            traceparent: self.peer.traceparent.clone(),
            hops: self.peer.hops.clone(),
            conversation: chat.conversation,
            provider: chat.provider,
            cancel: self.cancel.clone(),
            cache: Wish::ANY,
            snapshot: self.state.configuration.current(),
            body_bytes: chat.body.len(),
            body: chat.body,
        };
        let served = match self.state.engine.begin(ask).await {
            Ok(served) => served,
            Err(refused) => {
                let key = self.peer.key;
                rejected::record(&self.state, (self.number, key), ROUTE, &refused).await;
                return Ok(self.failed(&refused.error));
            }
        };
        let started = Outgoing::Started {
            id: &self.id,
            request_id: self.number,
            conversation_id: served.conversation,
            limits: Limits(Some(&served.limits)),
            cache: served.cache.map(Outcome::as_str),
        };
        self.send(started.text()).await?;
        match served.reply {
            Ok(Reply::Whole(body)) => self.whole(&body).await,
            Ok(Reply::Stream(body)) => self.stream(body).await,
            Err(error) => Ok(self.failed(&error)),
        }
    }

    async fn whole(&self, body: &Bytes) -> Result<Utf8Bytes, Gone> {
        let id = &self.id;
        let answer = || {
            // The adapter has read it as JSON.
            let body: &RawValue = serde_json::from_slice(body).unwrap_or(RawValue::NULL);
            Outgoing::Answer { id, body }.text()
        };
        self.out.send_made(body.len(), answer).await?;
        Ok(Outgoing::Done { id }.text())
    }

    async fn stream(&self, mut body: ReplyBody) -> Result<Utf8Bytes, Gone> {
        while let Some(Ok(piece)) = body.frame().await {
            let Ok(piece) = piece.into_data() else {
                continue;
            };
            // JSON that was checked, in frames of our own.
            let text = std::str::from_utf8(&piece).unwrap_or_default();
            for event in frame::events(text) {
                match event {
                    Event::Chunk(index, json) => self.chunk(index, &json).await?,
                    Event::Error(json) => return Ok(self.error_of(&json)),
                    Event::Done => return Ok(Outgoing::Done { id: &self.id }.text()),
                }
            }
        }
        Ok(self.failed(&ApiError::internal("the answer was broken off")))
    }

    async fn chunk(&self, index: u32, json: &str) -> Result<(), Gone> {
        let id = &self.id;
        let frame = || {
            let chunk: &RawValue = serde_json::from_str(json).unwrap_or(RawValue::NULL);
            Outgoing::Chunk { id, index, chunk }.text()
        };
        self.out.send_made(json.len(), frame).await
    }

    /// The error frame of an error event of the stream.
    fn error_of(&self, json: &str) -> Utf8Bytes {
        frame::error_of(Some(&self.id), json.as_bytes())
    }

    fn failed(&self, error: &ApiError) -> Utf8Bytes {
        frame::error(Some(&self.id), error, self.number)
    }

    pub(super) async fn send(&self, frame: Utf8Bytes) -> Result<(), Gone> {
        self.out.send(frame).await
    }
}
