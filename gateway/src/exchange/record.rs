//! Writes the events of one exchange, each before the world sees what it records.

use std::{error::Error, sync::Arc, time::Duration};

use http::StatusCode;
use nexus_events::{
    chunk_event::{self, Chunk},
    clock::{SharedClock, UnixMillis},
    envelope::{EncodeError, EventData, NO_CONTENT, Record, Stamp},
    exchange_event::{
        self, About, AnswerContent, AttemptEnded, AttemptStarted, Failure, Received,
        RequestContent, Terminal,
    },
    id::{ProviderId, RequestId},
    outbox::{AppendError, Appended, OpenCount, OpenRequest, Outbox, ReleaseError},
    subject,
};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{Ask, Parts, bounds};
use crate::{configuration::Candidate, metrics::Metrics, routing::target, shared::Answerer};

/// Stands for a name that is not known yet.
const NOBODY: &str = "_";

/// An event was not written; nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl RecordError {
    /// Whether the disk did not take it, so that it may later.
    pub(super) const fn is_of_disk(&self) -> bool {
        matches!(self, Self::Append(AppendError::Io(_)))
    }

    /// Whether waiting may mend it: the disk, or the outbox, may have room later.
    pub(super) const fn may_pass(&self) -> bool {
        matches!(self, Self::Append(AppendError::Io(_) | AppendError::Full))
    }
}

/// The hand that writes one exchange's events.
pub(super) struct Recorder {
    outbox: Outbox,
    open: OpenRequest,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    source: Arc<str>,
    request: RequestId,
    traceparent: Option<Box<str>>,
    began: Instant,
    by: By,
    attempt: Option<OpenAttempt>,
    /// The end of an attempt that the outbox did not take.
    unwritten_end: Option<Record>,
    attempts: u32,
    chunk_subject: String,
    chunks: u32,
    last: Option<Appended>,
    /// The time in the terminal event, once that is written.
    ended: Option<UnixMillis>,
}

/// Whose answer the events are about.
enum By {
    /// Nobody's yet.
    Nobody,
    /// That of whoever is asked, or was asked last.
    Asked(Candidate),
    /// An earlier one, of whoever gave it then.
    Earlier(Arc<Answerer>),
}

/// An attempt that has not ended.
struct OpenAttempt {
    started: Instant,
    status: Option<StatusCode>,
    /// How much of it the hub has waited for the client.
    waited: Duration,
}

impl Recorder {
    /// Writes `received`.
    ///
    /// # Errors
    /// [`RecordError`]: the outbox is full, or broken; the request has left no trace.
    pub(super) fn begin(
        (parts, source): (&Parts, &Arc<str>),
        (ask, open): (&Ask, OpenRequest),
        received: &Received,
        content: &RequestContent<'_>,
    ) -> Result<Self, RecordError> {
        let mut recorder = Self {
            open,
            outbox: parts.outbox.clone(),
            clock: Arc::clone(&parts.clock),
            metrics: Arc::clone(&parts.metrics),
            source: Arc::clone(source),
            request: ask.request,
            traceparent: ask.traceparent.clone(),
            began: ask.arrival.at,
            by: By::Nobody,
            attempt: None,
            unwritten_end: None,
            attempts: 0,
            chunk_subject: String::new(),
            chunks: 0,
            last: None,
            ended: None,
        };
        recorder.append(received, Some(content))?;
        Ok(recorder)
    }

    /// Names who gave the answer that the next events are about, which is an earlier one.
    pub(super) fn repeats(&mut self, answerer: Arc<Answerer>) {
        self.concerns(By::Earlier(answerer));
    }

    fn concerns(&mut self, by: By) {
        self.by = by;
        let (provider, model) = self.names();
        self.chunk_subject = subject::chunk(self.request, provider, model);
    }

    /// Writes `attempt_started`.
    pub(super) fn attempt_started(&mut self, candidate: &Candidate) -> Result<(), RecordError> {
        let (provider, model) = (&candidate.provider.resource, &candidate.model.model_name);
        self.concerns(By::Asked(candidate.clone()));
        self.attempts += 1;
        let started = AttemptStarted {
            attempt: self.attempts,
            provider: provider.id,
            provider_name: provider.name.clone(),
            model: model.clone(),
            upstream_model: candidate
                .model
                .upstream_model
                .clone()
                .filter(|upstream| upstream != model),
        };
        self.append(&started, NO_CONTENT)?;
        self.attempt = Some(OpenAttempt {
            started: Instant::now(),
            status: None,
            waited: Duration::ZERO,
        });
        Ok(())
    }

    /// Notes the status of the provider's answer.
    pub(super) const fn answered(&mut self, status: StatusCode) {
        if let Some(attempt) = &mut self.attempt {
            attempt.status = Some(status);
        }
    }

    /// Notes how long the hub has waited for the client.
    pub(super) fn waited(&mut self, time: Duration) {
        if let Some(attempt) = &mut self.attempt {
            attempt.waited += time;
        }
    }

    /// Writes `attempt_ended`, if an attempt is under way.
    ///
    /// What the outbox does not take is written before the terminal event.
    pub(super) fn attempt_ended(&mut self, failure: Option<Failure>) -> Result<(), RecordError> {
        let (Some(attempt), By::Asked(candidate)) = (self.attempt.take(), &self.by) else {
            return Ok(());
        };
        let took = attempt.started.elapsed().saturating_sub(attempt.waited);
        self.metrics.upstream_seconds.observe(took.as_secs_f64());
        let ended = AttemptEnded {
            attempt: self.attempts,
            provider: candidate.provider.resource.id,
            provider_name: candidate.provider.resource.name.clone(),
            model: candidate.model.model_name.clone(),
            status: attempt.status.map(|status| status.as_u16()),
            duration_ms: millis(attempt.started),
            failure,
        };
        self.unwritten_end = Some(self.record(&ended, NO_CONTENT)?);
        self.write_end()
    }

    fn write_end(&mut self) -> Result<(), RecordError> {
        if let Some(ended) = &self.unwritten_end {
            self.last = Some(self.open.append_end(ended)?);
            self.unwritten_end = None;
        }
        Ok(())
    }

    /// Writes a chunk, which came at that moment; gives its number.
    pub(super) fn chunk(&mut self, json: &RawValue, at: Instant) -> Result<u32, RecordError> {
        let elapsed = at.saturating_duration_since(self.began);
        let chunk = Chunk {
            index: self.chunks,
            elapsed_us: u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
        };
        let stamp = Stamp::draw(&*self.clock);
        let record = chunk_event::record(self.about(), stamp, &self.chunk_subject, chunk, json)?;
        self.last = Some(self.open.append(&record)?);
        self.chunks += 1;
        self.metrics.chunks.inc();
        Ok(chunk.index)
    }

    /// Writes the terminal event.
    ///
    /// `uncounted`: `tokens_counted` is still to follow, by the [`OpenCount`].
    pub(super) fn terminal(
        &mut self,
        terminal: &Terminal,
        content: Option<&AnswerContent<'_>>,
        uncounted: bool,
    ) -> Result<Option<OpenCount>, RecordError> {
        let stamp = Stamp::draw(&*self.clock);
        let record = self.stamped(stamp, terminal, content)?;
        debug_assert!(
            bounds::can_be_shipped(&record),
            "no broker takes a terminal event with so much beside its content"
        );
        match self.write_end() {
            // Without the room for it, the terminal event is worth more.
            Err(error) if !error.is_of_disk() => tracing::error!(
                request.id = %self.request,
                error = &error as &dyn Error,
                "an attempt's end was not recorded"
            ),
            written => written?,
        }
        let (appended, count) = if uncounted {
            let (appended, count) = self.open.close_uncounted(&record)?;
            (appended, Some(count))
        } else {
            (self.open.close(&record)?, None)
        };
        self.last = Some(appended);
        self.ended = Some(stamp.time);
        Ok(count)
    }

    /// An event of this exchange that is appended elsewhere.
    pub(super) fn record<D: EventData, C: Serialize + ?Sized>(
        &self,
        data: &D,
        content: Option<&C>,
    ) -> Result<Record, EncodeError> {
        self.stamped(Stamp::draw(&*self.clock), data, content)
    }

    fn stamped<D: EventData, C: Serialize + ?Sized>(
        &self,
        stamp: Stamp,
        data: &D,
        content: Option<&C>,
    ) -> Result<Record, EncodeError> {
        exchange_event::record(self.about(), stamp, self.names(), data, content)
    }

    /// The time in the terminal event; `None` while that is not written.
    pub(super) const fn ended(&self) -> Option<UnixMillis> {
        self.ended
    }

    /// Waits until what was written may be shown.
    pub(super) async fn released(&self) -> Result<(), ReleaseError> {
        match self.last {
            Some(last) => self.outbox.released(last).await,
            None => Ok(()),
        }
    }

    /// Who is asked, or was asked last.
    pub(super) const fn candidate(&self) -> Option<&Candidate> {
        match &self.by {
            By::Asked(candidate) => Some(candidate),
            By::Nobody | By::Earlier(_) => None,
        }
    }

    /// The provider that the answer is of.
    pub(super) fn provider(&self) -> Option<ProviderId> {
        match &self.by {
            By::Nobody => None,
            By::Asked(candidate) => Some(candidate.provider.resource.id),
            By::Earlier(answerer) => Some(answerer.provider),
        }
    }

    /// Names of provider and model, as subjects and events have them.
    pub(super) fn names(&self) -> (&str, &str) {
        match &self.by {
            By::Nobody => (NOBODY, NOBODY),
            By::Asked(candidate) => (
                &candidate.provider.resource.name,
                &candidate.model.model_name,
            ),
            By::Earlier(answerer) => (&answerer.provider_name, &answerer.model),
        }
    }

    /// Who answers, as it is kept with an answer; `None` where nobody was asked.
    pub(super) fn answerer(&self) -> Option<Answerer> {
        let (provider_name, model) = self.names();
        self.provider().map(|provider| Answerer {
            provider,
            provider_name: provider_name.to_owned(),
            model: model.to_owned(),
        })
    }

    /// The name that the provider knows the model by.
    pub(super) fn upstream_model(&self) -> &str {
        match &self.by {
            By::Nobody => NOBODY,
            By::Asked(candidate) => target(candidate).model,
            By::Earlier(answerer) => &answerer.model,
        }
    }

    /// Number of attempts made.
    pub(super) const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Number of chunks written.
    pub(super) const fn chunks(&self) -> u32 {
        self.chunks
    }

    fn append<D: EventData, C: Serialize + ?Sized>(
        &mut self,
        data: &D,
        content: Option<&C>,
    ) -> Result<(), RecordError> {
        let record = self.record(data, content)?;
        self.last = Some(self.open.append(&record)?);
        Ok(())
    }

    fn about(&self) -> About<'_> {
        About {
            source: &self.source,
            request: self.request,
            traceparent: self.traceparent.as_deref(),
        }
    }
}

/// Milliseconds since a moment.
pub(super) fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
