//! Where the log holds a request.

use std::time::Duration;

use nexus_events::{
    clock::UnixMillis,
    envelope::Envelope,
    exchange_event::{ExchangeEvent, Received, RequestContent},
    id::RequestId,
    log::{Log, Message, Reader, history::HistoryError},
    raw_object::RawObject,
    subject::{self, Stream},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::arrival;
use crate::{
    dialect::{Asked, Dialect, asked_again},
    state::AppState,
};

/// What is in the outbox reaches the log within milliseconds; a young request is waited for so
/// long: 5 s.
const ARRIVES_WITHIN: Duration = Duration::from_secs(5);

/// A request that began less than a minute ago may still be on its way to the log.
const YOUNG: Duration = Duration::from_mins(1);

/// `received` is stored soon after its id was drawn: an hour, in the broker's time, is searched
/// whatever it holds.
const STORED_WITHIN: Duration = Duration::from_hours(1);

/// Past that hour the search goes on, for outboxes that were cut off for longer, up to so many
/// messages altogether: 50 000, two hours of a shard at 100 requests/s.
const SEARCHED_MAX: usize = 50_000;

/// Messages looked at at a time.
const BATCH: usize = 200;

/// A request that was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) received: Received,
    /// Whether its client asked for the chunk that carries the usage.
    pub(super) wants_usage: bool,
    /// The dialect that it was made in, and what is known of it there; `None` for chat.
    pub(super) spoken: Option<(&'static dyn Dialect, Asked)>,
    /// When the broker stored it.
    pub(super) stored: UnixMillis,
    /// Stands where the events after `received` begin.
    pub(super) reader: Reader,
}

/// What the log says of a request.
#[derive(Debug)]
pub(super) enum Sought {
    /// It holds it.
    Found(Box<Found>),
    /// An outbox may hold it still.
    MayCome,
    /// There is none.
    Nothing,
}

/// Looks for the beginning of a request.
///
/// The read model knows where it is, however late it was stored; where there is none, or it has
/// not read so far, the log is searched.
pub(super) async fn received(state: &AppState, request: RequestId) -> Result<Sought, HistoryError> {
    let model = state.read_model.received_at(request).await;
    if let Ok(Some(sequence)) = model
        && let Some(found) = at(&state.log, request, sequence).await?
    {
        return Ok(Sought::Found(found));
    }
    let mut search = Search::begin(&state.log, request).await?;
    if let Some(found) = search.all_there_is().await? {
        return Ok(Sought::Found(found));
    }
    let now = state.clock.now();
    if request.drawn_at().plus(YOUNG) > now
        && let Ok(found) = timeout(ARRIVES_WITHIN, search.beyond()).await
    {
        return found.map(Sought::Found);
    }
    if !arrival::is_complete(state, request, now).await? {
        return Ok(Sought::MayCome);
    }
    // Between the search and the question it may have come.
    let found = search.all_there_is().await?;
    Ok(match found {
        Some(found) => Sought::Found(found),
        // It was not looked for to the end, and there is no read model that knows.
        None if search.is_over && model.is_err() => Sought::MayCome,
        None => Sought::Nothing,
    })
}

/// Where the read model has it, if the log agrees.
async fn at(
    log: &Log,
    request: RequestId,
    sequence: u64,
) -> Result<Option<Box<Found>>, HistoryError> {
    match log.message_at(Stream::Exchanges, sequence).await? {
        Some(message) => is_it(log, &message, request).await,
        None => Ok(None),
    }
}

/// A search through the shard of a request.
#[derive(Debug)]
struct Search<'a> {
    log: &'a Log,
    request: RequestId,
    /// The sequence of the last message that was looked at.
    after: u64,
    looked_at: usize,
    /// Nothing further on is searched.
    is_over: bool,
}

impl<'a> Search<'a> {
    async fn begin(log: &'a Log, request: RequestId) -> Result<Self, HistoryError> {
        let stretch = log
            .stretch_since(Stream::Exchanges, request.drawn_at())
            .await?;
        Ok(Self {
            log,
            request,
            after: stretch.after,
            looked_at: 0,
            is_over: false,
        })
    }

    /// Looks at what the log holds now.
    async fn all_there_is(&mut self) -> Result<Option<Box<Found>>, HistoryError> {
        let shard = shard(self.request);
        let last = self.log.last_of_subject(Stream::Exchanges, &shard).await?;
        self.upto(last.map_or(0, |message| message.sequence)).await
    }

    /// Looks at what comes, as long as it takes; cancelled, the next look goes on from there.
    async fn beyond(&mut self) -> Result<Box<Found>, HistoryError> {
        match self.upto(u64::MAX).await? {
            Some(found) => Ok(found),
            // Nothing that comes now is of this request.
            None => std::future::pending().await,
        }
    }

    async fn upto(&mut self, end: u64) -> Result<Option<Box<Found>>, HistoryError> {
        let (log, request) = (self.log, self.request);
        let mut reader = log.reader(Stream::Exchanges, Some(shard(request)), self.after);
        while !self.is_over && self.after < end {
            for message in reader.next_batch(BATCH).await? {
                if let Some(found) = is_it(log, &message, request).await? {
                    return Ok(Some(found));
                }
                self.after = message.sequence;
                self.looked_at = self.looked_at.saturating_add(1);
                let is_late = message.time > request.drawn_at().plus(STORED_WITHIN);
                self.is_over = is_late && self.looked_at >= SEARCHED_MAX;
            }
        }
        Ok(None)
    }
}

fn shard(request: RequestId) -> String {
    subject::exchange_shard(subject::shard(request))
}

async fn is_it(
    log: &Log,
    message: &Message,
    request: RequestId,
) -> Result<Option<Box<Found>>, HistoryError> {
    let Ok(envelope) = Envelope::decode(&message.payload) else {
        return Ok(None);
    };
    if envelope.subject.parse() != Ok(request) {
        return Ok(None);
    }
    let Ok(Some(ExchangeEvent::Received(received))) = ExchangeEvent::decode(&envelope) else {
        return Ok(None);
    };
    let route = received.route.clone();
    let again = |parameters: &RawObject<'_>| asked_again((request, &route), parameters);
    let read = |content: &RequestContent<'_>| (wants_usage(content), again(&content.parameters));
    let read = match envelope.dataref {
        Some(_) => {
            let content = log.body(envelope.id).await?;
            let content = content.as_deref().map(serde_json::from_slice);
            content.and_then(Result::ok).as_ref().map(read)
        }
        None => envelope.content_as().ok().flatten().as_ref().map(read),
    };
    let (wants_usage, spoken) = read.unwrap_or_else(|| (false, again(&RawObject::default())));
    Ok(Some(Box::new(Found {
        received,
        wants_usage,
        spoken,
        stored: message.time,
        reader: log.reader(Stream::Exchanges, Some(shard(request)), message.sequence),
    })))
}

fn wants_usage(content: &RequestContent<'_>) -> bool {
    #[derive(Deserialize)]
    struct Options {
        #[serde(default)]
        include_usage: bool,
    }
    let options: Option<&RawValue> = content.parameters.get("stream_options");
    options
        .and_then(|raw| serde_json::from_str::<Options>(raw.get()).ok())
        .is_some_and(|options| options.include_usage)
}

/// A reader that stands before the first chunk that the request can have.
///
/// Chunks and exchanges are shipped side by side: chunks may be stored before their `received`,
/// and never before they were made; a clock that was ahead made them before the id says so.
pub(super) async fn chunks(
    log: &Log,
    request: RequestId,
    stored: UnixMillis,
) -> Result<Reader, HistoryError> {
    let shard = subject::chunk_shard(subject::shard(request));
    let made = request.drawn_at().min(stored);
    let stretch = log.stretch_since(Stream::Chunks, made).await?;
    Ok(log.reader(Stream::Chunks, Some(shard), stretch.after))
}
