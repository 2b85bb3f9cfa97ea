//! One inference, from `received` to its terminal event.
//!
//! *What it is.* [`Engine::begin`] reads a request, finds its conversation and
//! its provider, and writes `received`. From there on the exchange is a task of
//! its own: it asks the provider (`attempt`), relays the answer (`relay`),
//! writes the terminal event and gives the client the last bytes.
//!
//! *What it promises.*
//! - Each event is in the outbox before the world sees what it records:
//!   `received` before the provider is asked, a chunk before the client gets
//!   it, the terminal event before the last byte.
//! - What was begun is ended: exactly one terminal event, whatever the provider
//!   does, whether the client stays, if the hub is told to stop or its own code
//!   panics. There is one place that writes it, and every path leads there.
//! - A client never takes half an answer for a whole one: before the first byte
//!   it gets an error with a status, after it an error inside the stream, and a
//!   stream without `[DONE]`.
//! - Memory is bounded: by the channel to the client, the bound of an answer and
//!   the backlog of answers whose tokens are to be counted.
//!
//! *What it never does.* It waits for no broker, no database and no tokeniser.

pub mod answer;
mod attempt;
mod bounds;
mod budget;
mod cached;
pub mod client;
pub mod count;
mod entry;
mod fault;
mod finish;
pub mod lost;
mod opening;
mod prepare;
mod record;
mod redact;
mod relay;
mod request;
mod settle;
pub mod sweep;

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::HeaderMap;
use nexus_events::{
    clock::SharedClock,
    config_event::{Key, OnDisconnect},
    exchange_event::{Received, RequestContent, SystemMessages},
    id::{ConversationId, RequestId},
    message_id::MessageId,
    outbox::{OpenRequest, Outbox},
    raw_object::RawObject,
};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    answer::Answer,
    cached::Cached,
    client::Client,
    count::Counting,
    fault::{Fault, outbox_full},
    record::{RecordError, Recorder},
    redact::Redacted,
    request::Request,
};
pub use self::{
    client::{Reply, ReplyBody},
    entry::{Entry, Outline},
    request::Operation,
};
use crate::{
    cache::{Cacheable, Outcome, Wish},
    configuration::Snapshot,
    error::ApiError,
    limits::{Admission, Limits},
    metrics::Metrics,
    middleware::Arrival,
    protocol::openai::request::BadRequest,
    provider::{ProviderError, UpstreamRequest, hops::Hops, transport::Transport},
    routing::{Route, Routing},
    session::{Matched, Sessions, Thread},
    settings::BODY_BYTES_MAX,
    shared::SharedState,
    standstill::Standstill,
};

/// What the engine works with.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Finds providers.
    pub routing: Routing,
    /// The way to providers.
    pub transport: Transport,
    /// Where events are safe.
    pub outbox: Outbox,
    /// Whether the log stands still under it.
    pub standstill: Standstill,
    /// How much may be asked for.
    pub limits: Limits,
    /// Finds conversations.
    pub sessions: Sessions,
    /// Keeps answers that may be given again.
    pub shared: Arc<dyn SharedState>,
    /// Counts tokens where the provider does not.
    pub counting: Counting,
    /// Dates events.
    pub clock: SharedClock,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Every exchange is on it, so that the process waits for them.
    pub tracker: TaskTracker,
    /// Cancelled when exchanges must end.
    pub hard_stop: CancellationToken,
}

/// Carries exchanges out; a cheap handle.
#[derive(Clone, Debug)]
pub struct Engine {
    parts: Arc<Parts>,
    source: Arc<str>,
}

/// A request, as an endpoint hands it over.
pub struct Ask {
    /// Its id.
    pub request: RequestId,
    /// When it came.
    pub arrival: Arrival,
    /// Whose key it came with.
    pub key: Arc<Key>,
    /// What is asked for.
    pub operation: Operation,
    /// The endpoint's path.
    pub route: &'static str,
    /// Trace context that the client sent.
    pub traceparent: Option<Box<str>>,
    /// The hubs that it came through.
    pub hops: Hops,
    /// The conversation that the client names.
    pub conversation: Option<ConversationId>,
    /// The provider that the client insists on, by id or name.
    pub provider: Option<String>,
    /// Cancelled when the client does not want the rest, whatever its key says.
    pub cancel: CancellationToken,
    /// What the client wants of the cache.
    pub cache: Wish,
    /// The configuration in force.
    pub snapshot: Arc<Snapshot>,
    /// The body, as the engine reads it.
    pub body: Bytes,
    /// Bytes of the body as it came, before it was translated.
    pub body_bytes: usize,
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask")
            .field("request", &self.request)
            .field("route", &self.route)
            .finish_non_exhaustive()
    }
}

/// What became of a request that was let in.
#[derive(Debug)]
pub struct Served {
    /// Its conversation, if it belongs to one.
    pub conversation: Option<ConversationId>,
    /// What the cache did; `None` where it is off.
    pub cache: Option<Outcome>,
    /// The answer, or the error in its place.
    pub reply: Result<Reply, ApiError>,
    /// How the limits stand, in headers.
    pub limits: HeaderMap,
}

/// A request that went to no provider.
#[derive(Debug)]
pub struct Refused {
    /// What the client is told.
    pub error: ApiError,
    /// The model that it asked for, where that could be read.
    pub model: Option<String>,
}

/// What stays fixed from the request to the terminal event.
struct Facts {
    request: RequestId,
    arrival: Arrival,
    key: Arc<Key>,
    operation: Operation,
    conversation: Option<ConversationId>,
    model: String,
    user: Option<String>,
    stream: bool,
    include_usage: bool,
    /// The last message of the request, which the answer follows.
    last: Option<MessageId>,
    thread: Option<Thread>,
    body: Bytes,
    hops: Hops,
    cancel: CancellationToken,
}

/// An exchange under way.
struct Exchange {
    parts: Arc<Parts>,
    facts: Facts,
    recorder: Recorder,
    route: Route,
    answer: Answer,
    cached: Cached,
    first_byte_ms: Option<u64>,
    backlog: OwnedSemaphorePermit,
    admission: Admission,
}

impl Engine {
    /// An engine with those parts.
    pub fn new(parts: Parts) -> Self {
        let source = format!("/nexus/gateway/{}", parts.outbox.id()).into();
        let parts = Arc::new(parts);
        Self { parts, source }
    }

    /// Who writes the gateway's events, as their `source` says it.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Carries out a request; returns when the answer begins.
    ///
    /// # Errors
    /// [`Refused`]: the request went to no provider and has no `received` event.
    ///
    /// # Cancel safety
    /// Dropped, the client has hung up: what was let in goes on as its key says.
    pub async fn begin(&self, ask: Ask) -> Result<Served, Refused> {
        let request = Request::parse(ask.operation, &ask.body).map_err(|error| Refused {
            error: bad_request(error),
            model: None,
        })?;
        let cacheable = cached::cacheable(&ask, &request);
        let outline = Outline {
            // An earlier answer would ask nobody.
            wants_room: cacheable.is_none() || !ask.cache.look,
            ..request.outline()
        };
        let entry = self.enter(&ask, &outline).await?;
        self.carry_out(&ask, (&request, cacheable), entry).await
    }

    /// The same for a request that was let in before its body was translated.
    ///
    /// # Errors
    /// As of [`Self::begin`].
    ///
    /// # Cancel safety
    /// As of [`Self::begin`].
    pub async fn begin_entered(&self, ask: Ask, mut entry: Entry) -> Result<Served, Refused> {
        let request = match Request::parse(ask.operation, &ask.body) {
            Ok(request) => request,
            Err(error) => return Err(entry.refuse(bad_request(error)).await),
        };
        match self.parts.counting.admit(ask.body.len()) {
            Ok(more) => entry.backlog.merge(more),
            Err(error) => return Err(entry.refuse(error).await),
        }
        let cacheable = cached::cacheable(&ask, &request);
        self.carry_out(&ask, (&request, cacheable), entry).await
    }

    async fn carry_out(
        &self,
        ask: &Ask,
        (request, cacheable): (&Request<'_>, Option<Cacheable>),
        mut entry: Entry,
    ) -> Result<Served, Refused> {
        let limits = entry.admission.headers().clone();
        let begun = match self.prepare(ask, (request, cacheable), &mut entry).await {
            Ok(begun) => begun,
            Err(error) => return Err(entry.refuse(error).await),
        };
        let first = request.encode((ask.request, ask.arrival, &ask.body), entry.route.current());
        let (conversation, cache) = (begun.facts.conversation, begun.cached.outcome());
        let exchange = Exchange {
            parts: Arc::clone(&self.parts),
            facts: begun.facts,
            recorder: begun.recorder,
            route: entry.route,
            answer: Answer::default(),
            cached: begun.cached,
            first_byte_ms: None,
            backlog: entry.backlog,
            admission: entry.admission,
        };
        let reply = self.spawn(exchange, first).await;
        Ok(Served {
            conversation,
            cache,
            reply,
            limits,
        })
    }

    fn received(
        &self,
        (ask, open): (&Ask, OpenRequest),
        request: &Request<'_>,
        matched: Option<&Matched<'_>>,
    ) -> Result<Recorder, RecordError> {
        let parameters = request.parameters();
        let redacted = Redacted::of(&parameters);
        let parameters = redacted.parameters(&parameters);
        let received = Received {
            operation: ask.operation.name().to_owned(),
            conversation: matched.map(|matched| matched.conversation),
            model: request.model().to_owned(),
            key: ask.key.id,
            user: request.user().cloned().map(Into::into),
            stream: request.stream(),
            route: ask.route.to_owned(),
            body_bytes: u64::try_from(ask.body_bytes).unwrap_or(u64::MAX),
            config_sequence: ask.snapshot.sequence,
            parent: matched.and_then(|matched| matched.parent),
            messages: matched.map_or_else(Vec::new, |matched| matched.message_ids.clone()),
        };
        let parts = (&*self.parts, &self.source);
        let content = match matched {
            Some(matched) => matched.content(parameters),
            None => RequestContent {
                messages: Vec::new(),
                system: SystemMessages::Full(Vec::new()),
                extras: RawObject::default(),
                parameters,
            },
        };
        Recorder::begin(parts, (ask, open), &received, &content)
    }

    /// Starts the exchange's own task and waits for what the client gets.
    async fn spawn(
        &self,
        exchange: Exchange,
        first: Result<UpstreamRequest, ProviderError>,
    ) -> Result<Reply, ApiError> {
        let (client, waiting) = Client::waiting(self.parts.hard_stop.clone());
        // A box, because a task is moved before it runs and this one is large.
        let run = Box::pin(exchange.run(first, client));
        drop(self.parts.tracker.spawn(run));
        let broken_off = |_| Err(ApiError::internal("the exchange ended without a reply"));
        waiting.await.unwrap_or_else(broken_off)
    }
}

impl Facts {
    fn cancels(&self) -> bool {
        self.key.on_disconnect == OnDisconnect::Cancel
    }
}

fn bad_request(error: BadRequest) -> ApiError {
    ApiError::invalid_request(error.param.as_deref(), error.message)
}

fn not_recorded(error: RecordError) -> ApiError {
    use nexus_events::outbox::AppendError;
    match error {
        RecordError::Append(AppendError::TooLarge { .. }) => ApiError::too_large(BODY_BYTES_MAX),
        RecordError::Append(AppendError::Full) => outbox_full(),
        error @ (RecordError::Append(_) | RecordError::Encode(_)) => *Fault::from(error).error,
    }
}

impl From<RecordError> for Fault {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Append(error) => error.into(),
            RecordError::Encode(error) => Self::internal(error),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
