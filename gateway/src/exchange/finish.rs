//! The end of an exchange: the one place that writes a terminal event.

mod tokens;

use std::{any::Any, error::Error, panic::AssertUnwindSafe, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::StatusCode;
use nexus_events::{
    exchange_event::Terminal,
    message_id::MessageId,
    outbox::OpenCount,
    usage::{TokenUsage, UsageSource},
};

use super::{
    Exchange, Facts,
    answer::{self, AnsweredChoice},
    attempt::Interrupts,
    cached::Cached,
    client::{Client, Reply},
    fault::Fault,
    record::{RecordError, millis},
    relay::Ending,
    settle::settle,
};
use crate::{
    provider::{ProviderError, UpstreamRequest, transport::UpstreamBody},
    stream::sse_encode::{self, DONE},
};

/// What a provider may take to close its answer after the end mark: 1 s.
///
/// In that time nearly all do, and the connection can be used again.
const CLOSING_MAX: Duration = Duration::from_secs(1);

/// First pause before a terminal event or a count is tried again that the outbox did not take.
const UNWRITTEN_PAUSE: Duration = Duration::from_millis(100);

/// Longest pause: 2 s, so that room on the disk is noticed soon.
const UNWRITTEN_PAUSE_MAX: Duration = Duration::from_secs(2);

/// What became of an exchange's last event.
struct End {
    /// What the client is to get.
    ended: Result<Ending, Fault>,
    /// What is to be counted.
    count: Option<OpenCount>,
    /// The terminal event, when neither the disk nor the outbox took it.
    unwritten: Option<Terminal>,
}

impl Exchange {
    /// The exchange's task.
    pub(super) async fn run(
        mut self,
        first: Result<UpstreamRequest, ProviderError>,
        mut client: Client,
    ) {
        self.parts.metrics.open_exchanges.inc();
        let mut interrupts = Interrupts::new(self.parts.hard_stop.clone(), &self.facts);
        let served = self.serve(first, &mut interrupts, &mut client);
        let served = AssertUnwindSafe(served).catch_unwind();
        let served = served.await.unwrap_or_else(|panic| {
            let fault = Fault::internal(format!("the exchange panicked: {}", said(&*panic)));
            Err(fault)
        });
        // Whatever ended it, nothing is under way at the provider any more.
        self.route.not_asked();
        let choices = self.answer.choices();
        let ids = self.answer_ids(&choices);
        let candidate = self.recorder.candidate();
        let served = served.map_err(|fault| fault.without_key(candidate));
        let End {
            ended,
            count,
            unwritten,
        } = self.end(served, &choices, &ids, &client);
        let used = if count.is_some() { None } else { self.used() };
        let is_counted = |terminal: &Terminal| terminal.usage_source.is_some();
        let settles_later = unwritten.as_ref().is_some_and(is_counted);
        // An answer that nobody waits for any more is whole in the log, and shown to nobody.
        let released = interrupts.released(&mut client, &self.recorder).await;
        let ended = match (released, ended) {
            (Err(fault), Ok(_)) => Err(fault),
            (_, ended) => ended,
        };
        let whole = ended.as_ref().ok().and(self.answer.usage());
        let whole = whole.filter(|_| !self.cached.is_hit());
        // Before the last byte, as the conversation: the same may be asked at once.
        if ended.is_ok() {
            self.keep().await;
        }
        // Before the last byte, because the client may go on as soon as it has that.
        let answered = async {
            if let Some(thread) = &self.facts.thread {
                self.parts.sessions.answered(thread, &ids).await;
            }
        };
        tokio::join!(answered, settle(&mut self.admission, used));
        let leftover = conclude(&self.facts, ended, &mut client).await;
        drop(client);
        self.parts.metrics.open_exchanges.dec();
        if let Some(body) = leftover {
            body.finish(CLOSING_MAX).await;
        }
        let count = match unwritten {
            Some(terminal) => self.end_later(terminal, &choices).await,
            None => count,
        };
        if settles_later && let Some(used) = self.used() {
            settle(&mut self.admission, Some(used)).await;
        }
        match count {
            Some(count) => self.count(count, choices).await,
            None => self.audit(whole, choices).await,
        }
    }

    async fn serve(
        &mut self,
        first: Result<UpstreamRequest, ProviderError>,
        interrupts: &mut Interrupts,
        client: &mut Client,
    ) -> Result<Ending, Fault> {
        interrupts.released(client, &self.recorder).await?;
        match &self.cached {
            Cached::Hit(answer) => {
                let answering = self.recall(answer.clone()).await?;
                self.relay(answering, interrupts, client).await
            }
            Cached::Off | Cached::Miss | Cached::Keeping(_) => {
                self.ask(first, interrupts, client).await
            }
        }
    }

    fn answer_ids(&self, choices: &[AnsweredChoice]) -> Vec<MessageId> {
        let id = |choice: &AnsweredChoice| {
            let sessions = &self.parts.sessions;
            sessions.answer_id(self.facts.last, &choice.message)
        };
        choices.iter().map(id).collect()
    }

    /// Writes the end of the attempt and the terminal event.
    ///
    /// What cannot be written has not happened: the client gets an error in
    /// place of its last bytes.
    fn end(
        &mut self,
        served: Result<Ending, Fault>,
        choices: &[AnsweredChoice],
        ids: &[MessageId],
        client: &Client,
    ) -> End {
        let failure = served.as_ref().err().map(Fault::failure);
        if let Err(error) = self.recorder.attempt_ended(failure) {
            tracing::debug!(
                request.id = %self.facts.request,
                error = &error as &dyn Error,
                "an attempt's end waits for the terminal event"
            );
        }
        let mut terminal = self.terminal(&served, ids, client);
        let uncounted = terminal.usage_source.is_none();
        let content = answer::content(choices, self.answer.rest());
        let content = (!choices.is_empty()).then_some(&content);
        let error = match self.recorder.terminal(&terminal, content, uncounted) {
            Ok(count) => {
                self.observe(&terminal);
                return End {
                    ended: served,
                    count,
                    unwritten: None,
                };
            }
            Err(error) => error,
        };
        let is_of_disk = error.is_of_disk();
        let fault = Fault::from(error);
        terminal.failure = Some(fault.failure());
        if !client.has_begun() {
            terminal.status = fault.error.status.as_u16();
        }
        self.observe(&terminal);
        let mut count = None;
        let mut unwritten = None;
        if is_of_disk {
            unwritten = Some(terminal);
        } else {
            // Bare, the event fits into the reserve that every request holds.
            terminal.strip();
            match self.recorder.terminal(&terminal, None, uncounted) {
                Ok(open) => count = open,
                Err(error) if error.may_pass() => unwritten = Some(terminal),
                Err(error) => self.unrecorded(&error),
            }
        }
        End {
            ended: Err(fault),
            count,
            unwritten,
        }
    }

    /// Writes a terminal event that was not taken, when there is room for it: the client has been
    /// told that the request failed. Ends with the hub; the next start makes up for it.
    async fn end_later(
        &mut self,
        mut terminal: Terminal,
        choices: &[AnsweredChoice],
    ) -> Option<OpenCount> {
        let uncounted = terminal.usage_source.is_none();
        let mut pause = UNWRITTEN_PAUSE;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.parts.hard_stop.cancelled() => return None,
            }
            pause = (pause * 2).min(UNWRITTEN_PAUSE_MAX);
            let content = answer::content(choices, self.answer.rest());
            let content = (!terminal.messages.is_empty()).then_some(&content);
            match self.recorder.terminal(&terminal, content, uncounted) {
                Ok(count) => return count,
                Err(error) if error.is_of_disk() => {}
                Err(_) if content.is_some() => terminal.strip(),
                Err(error) if error.may_pass() => {}
                Err(error) => {
                    self.unrecorded(&error);
                    return None;
                }
            }
        }
    }

    fn terminal(
        &self,
        served: &Result<Ending, Fault>,
        ids: &[MessageId],
        client: &Client,
    ) -> Terminal {
        let (facts, answer) = (&self.facts, &self.answer);
        let (provider_name, model) = self.recorder.names();
        let failed = served.as_ref().err();
        // Nothing was answered and the provider names no price: nothing was used.
        let nothing = failed.is_some() && answer.is_empty();
        let usage = if self.cached.is_hit() {
            Some((TokenUsage::default(), UsageSource::Cache))
        } else {
            answer.usage().map(|usage| (usage, UsageSource::Provider))
        };
        let usage =
            usage.or_else(|| nothing.then(|| (TokenUsage::default(), UsageSource::Gateway)));
        let status = match failed {
            Some(fault) if !client.has_begun() => fault.error.status,
            _ => StatusCode::OK,
        };
        Terminal {
            operation: facts.operation.name().to_owned(),
            conversation: facts.conversation,
            model: facts.model.clone(),
            key: facts.key.id,
            user: facts.user.clone(),
            provider: self.recorder.provider(),
            provider_name: provider_name.to_owned(),
            configured_model: model.to_owned(),
            response_model: answer.model().map(str::to_owned),
            response_id: answer.id().map(str::to_owned),
            finish_reasons: answer.finish_reasons(),
            input_tokens: usage.map(|(usage, _)| usage.input_tokens),
            output_tokens: usage.map(|(usage, _)| usage.output_tokens),
            usage_source: usage.map(|(_, source)| source),
            usage_raw: answer
                .usage_raw()
                .and_then(|raw| serde_json::from_str(raw.get()).ok()),
            attempts: self.recorder.attempts(),
            status: status.as_u16(),
            received_ms: facts.arrival.time.as_millis(),
            time_to_first_token_ms: self.first_byte_ms,
            duration_ms: millis(facts.arrival.at),
            chunks: self.recorder.chunks(),
            client_gone: client.is_gone(),
            parent: facts.last,
            messages: ids.to_vec(),
            failure: failed.map(Fault::failure),
        }
    }

    fn observe(&self, terminal: &Terminal) {
        let metrics = &self.parts.metrics;
        let ended_well = if self.cached.is_hit() {
            "cached"
        } else {
            "completed"
        };
        let failure = terminal.failure.as_ref();
        let outcome = failure.map_or(ended_well, |failure| failure.reason.as_str());
        metrics.exchanges.with_label_values(&[outcome]).inc();
    }

    fn unrecorded(&self, error: &RecordError) {
        tracing::error!(
            request.id = %self.facts.request,
            error = error as &dyn Error,
            "an exchange's last event was not recorded; it is made up for after a restart"
        );
    }
}

/// Gives the client what is left of its answer; gives back what is left of the provider's.
async fn conclude(
    facts: &Facts,
    ended: Result<Ending, Fault>,
    client: &mut Client,
) -> Option<UpstreamBody> {
    match ended {
        Ok(Ending::Whole(body)) => {
            let _taken = client.answer(Ok(Reply::Whole(body))).is_ok();
            None
        }
        Ok(Ending::Stream(rest)) => {
            client.give_last(frame(DONE)).await;
            Some(rest)
        }
        Err(fault) => {
            // Before the first byte the error is the answer; after it, an event of the stream.
            if let Err(returned) = client.answer(Err((*fault.error).clone())) {
                drop(returned);
                tracing::warn!(
                    request.id = %facts.request,
                    reason = fault.reason.as_str(),
                    error = &*fault.error as &dyn Error,
                    "a streamed answer failed"
                );
                client
                    .give_last(frame(&fault.error.body(facts.request)))
                    .await;
            }
            None
        }
    }
}

fn frame(data: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    sse_encode::frame(&mut out, data);
    out.freeze()
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("nothing")
}
