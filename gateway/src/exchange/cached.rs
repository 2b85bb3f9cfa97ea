//! An answer that comes out of the cache, or may go into it.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::value::RawValue;

use super::{Ask, Engine, Exchange, attempt::Answering, fault::Fault, request::Request};
use crate::{
    cache::{ANSWER_BYTES_MAX, Cacheable, Outcome},
    provider::{LocalAnswer, UpstreamRequest, openai::OpenAi},
    shared::KeptAnswer,
    stream::sse_encode::{self, DONE},
};

/// Why a choice ended whose answer is worth keeping.
const ENDS: [&str; 4] = ["stop", "length", "tool_calls", "function_call"];

/// What the cache has to do with an exchange.
pub(super) enum Cached {
    /// Nothing.
    Off,
    /// This is the answer.
    Hit(KeptAnswer),
    /// There was none, and the client wants none kept.
    Miss,
    /// There was none; it is kept when it is whole.
    Keeping(Keeping),
}

/// An answer in the making, in OpenAI's form, as long as it is small enough.
pub(super) struct Keeping {
    cacheable: Cacheable,
    answer: Option<BytesMut>,
}

impl Cached {
    /// What the client is told of it.
    pub(super) const fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Off => None,
            Self::Hit(_) => Some(Outcome::Hit),
            Self::Miss | Self::Keeping(_) => Some(Outcome::Miss),
        }
    }

    pub(super) const fn is_hit(&self) -> bool {
        matches!(self, Self::Hit(_))
    }

    /// A chunk of the answer, as it was recorded.
    pub(super) fn chunk(&mut self, json: &RawValue) {
        self.add(json.get().len(), |answer| {
            sse_encode::frame(answer, json.get().as_bytes());
        });
    }

    /// The whole answer.
    pub(super) fn whole(&mut self, body: &Bytes) {
        self.add(body.len(), |answer| answer.put_slice(body));
    }

    fn add(&mut self, bytes: usize, write: impl FnOnce(&mut BytesMut)) {
        let Self::Keeping(keeping) = self else { return };
        let so_far = keeping.answer.as_ref().map_or(0, BytesMut::len);
        if so_far + bytes > ANSWER_BYTES_MAX {
            keeping.answer = None;
        }
        if let Some(answer) = &mut keeping.answer {
            write(answer);
        }
    }
}

/// What may be cached of the request, where it, its key and its route allow that.
pub(super) fn cacheable(ask: &Ask, request: &Request<'_>) -> Option<Cacheable> {
    let Request::Chat(chat) = request else {
        return None;
    };
    let who = ask.snapshot.alternatives(&chat.model);
    // Who insists on a provider wants that one asked.
    let who = who.filter(|_| ask.provider.is_none());
    who.and_then(|who| Cacheable::of(chat, &ask.key, who))
}

impl Engine {
    /// Looks for an earlier answer.
    pub(super) async fn cached(&self, ask: &Ask, cacheable: Option<Cacheable>) -> Cached {
        let Some(cacheable) = cacheable else {
            return Cached::Off;
        };
        if ask.cache.look
            && let Some(answer) = self.parts.shared.answer(cacheable.key).await
        {
            return Cached::Hit(answer);
        }
        if !ask.cache.keep {
            return Cached::Miss;
        }
        Cached::Keeping(Keeping {
            cacheable,
            answer: Some(BytesMut::new()),
        })
    }
}

impl Exchange {
    /// The cached answer in the place of a provider's.
    pub(super) async fn recall(&mut self, answer: KeptAnswer) -> Result<Answering, Fault> {
        // Nobody is asked, so nothing is learnt of whoever would have been.
        self.route.not_asked();
        self.recorder.repeats(answer.by);
        let local = UpstreamRequest::Local(LocalAnswer {
            content_type: if self.facts.stream {
                "text/event-stream"
            } else {
                "application/json"
            },
            body: Box::new(std::iter::once(answer.body)),
        });
        let upstream = self
            .parts
            .transport
            .send(local, self.route.bounds())
            .await?;
        Ok(Answering {
            adapter: &OpenAi,
            upstream,
        })
    }

    /// Keeps the answer, which is whole.
    pub(super) async fn keep(&mut self) {
        let ends = self.answer.finish_reasons();
        let is_sound = !ends.is_empty() && ends.iter().all(|end| ENDS.contains(&end.as_str()));
        let cached = std::mem::replace(&mut self.cached, Cached::Miss);
        let Cached::Keeping(keeping) = cached else {
            self.cached = cached;
            return;
        };
        let answer = keeping.answer.filter(|_| is_sound);
        let (Some(mut answer), Some(by)) = (answer, self.recorder.answerer()) else {
            return;
        };
        if self.facts.stream {
            sse_encode::frame(&mut answer, DONE);
        }
        let kept = KeptAnswer {
            by: Arc::new(by),
            body: answer.freeze(),
        };
        let Cacheable { key, ttl } = keeping.cacheable;
        self.parts.shared.keep_answer(key, kept, ttl).await;
    }
}
