//! The end of an exchange whose gateway died, made up from what the log holds of it.
//!
//! Whoever adopts the outbox of a dead gateway drains it and then asks the log about each request
//! that it left open. Pure: events in, events out; the caller reads and appends. The chunks are put
//! together by the code that would have done it in the gateway, so it is what the client saw.
//!
//! A request that has its terminal event already (an earlier adopter wrote it,
//! or only the count is missing) gets no second one.

mod settlement;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use nexus_events::{
    chunk_event,
    clock::UnixMillis,
    envelope::{DecodeError, Envelope},
    exchange_event::{
        AnswerContent, AttemptEnded, AttemptStarted, ExchangeEvent, Failure, FailureReason,
        Received, RequestContent, SystemMessages, Terminal,
    },
    id::RequestId,
    message_id::MessageId,
    usage::{TokenUsage, UsageSource},
};
use serde_json::value::RawValue;

use self::settlement::CountOf;
pub use self::settlement::Settlement;
use super::{
    answer::{Answer, AnsweredChoice},
    count::Uncounted,
};
use crate::protocol::openai::response::ChatChunk;

/// Status of an answer that never came: 500.
const NO_ANSWER: u16 = 500;

/// Stands for a name that is not known.
const NOBODY: &str = "_";

/// What the log holds of a request that its gateway left open.
#[derive(Debug, Default)]
pub struct LostExchange {
    received: Option<Arrived>,
    attempt: Option<AttemptStarted>,
    attempts: u32,
    attempts_ended: u32,
    answer: Answer,
    chunks: u32,
    first_chunk_us: Option<u64>,
    last_chunk_us: u64,
    last_event: Option<UnixMillis>,
    ended: Option<Ended>,
    is_counted: bool,
}

#[derive(Debug)]
struct Arrived {
    received: Received,
    time: UnixMillis,
    content: Box<RawValue>,
}

#[derive(Debug)]
struct Ended {
    terminal: Terminal,
    choices: Vec<AnsweredChoice>,
}

impl LostExchange {
    /// Takes an event of the request, from either stream, each in its stream's order.
    ///
    /// `moved`: the content, where it lies in the object store.
    ///
    /// # Errors
    /// [`DecodeError`]: the event is not what its type promises.
    pub fn see(
        &mut self,
        envelope: &Envelope<'_>,
        moved: Option<&[u8]>,
    ) -> Result<(), DecodeError> {
        let time = envelope.moment()?;
        let moved: Option<&RawValue> = moved.and_then(|json| serde_json::from_slice(json).ok());
        if let Some((chunk, content)) = chunk_event::decode(envelope)? {
            self.last_event = self.last_event.max(Some(time));
            self.chunk(chunk, content.or(moved));
            return Ok(());
        }
        let event = ExchangeEvent::decode(envelope)?;
        // That nobody heard of its gateway is nothing that happened to the request.
        if !matches!(event, Some(ExchangeEvent::PresumedLost(_))) {
            self.last_event = self.last_event.max(Some(time));
        }
        match event {
            Some(ExchangeEvent::Received(received)) => {
                let content: Option<&RawValue> = envelope.content_as()?.or(moved);
                self.received = Some(Arrived {
                    received,
                    time,
                    content: content.unwrap_or(RawValue::NULL).to_owned(),
                });
            }
            Some(ExchangeEvent::AttemptStarted(started)) => {
                self.attempts += 1;
                self.attempt = Some(started);
            }
            Some(ExchangeEvent::AttemptEnded(_)) => self.attempts_ended += 1,
            // The first one counts.
            Some(ExchangeEvent::Terminal(terminal)) if self.ended.is_none() => {
                let content: Option<&RawValue> = envelope.content_as()?.or(moved);
                let choices = content.map(choices_of).unwrap_or_default();
                self.ended = Some(Ended { terminal, choices });
            }
            Some(ExchangeEvent::TokensCounted(counted)) => self.is_counted |= !counted.audit,
            Some(
                ExchangeEvent::Terminal(_)
                | ExchangeEvent::Rejected(_)
                | ExchangeEvent::PresumedLost(_)
                | ExchangeEvent::Unshippable(_),
            )
            | None => {}
        }
        Ok(())
    }

    fn chunk(&mut self, chunk: chunk_event::Chunk, content: Option<&RawValue>) {
        self.chunks = self.chunks.max(chunk.index.saturating_add(1));
        self.first_chunk_us.get_or_insert(chunk.elapsed_us);
        self.last_chunk_us = chunk.elapsed_us;
        let parsed = content.and_then(|raw| serde_json::from_str::<ChatChunk<'_>>(raw.get()).ok());
        if let Some(parsed) = parsed
            && self.answer.add(&parsed).is_err()
        {
            tracing::warn!("a lost answer is larger than an event holds; its end is left out");
        }
    }

    /// The events that are missing; `None` when the log holds no `received` of it.
    ///
    /// `answer_id` gives the id of an answer below the request's last message;
    /// `history` holds the messages up to the request's known prefix, as far
    /// as the caller has them: they are counted, nothing else.
    pub fn settle(
        self,
        request: RequestId,
        answer_id: impl Fn(Option<MessageId>, &RawValue) -> MessageId,
        history: &[Box<RawValue>],
    ) -> Option<Settlement> {
        let arrived = self.received.as_ref()?;
        let (provider_name, configured_model) = self.names();
        let count_of = CountOf {
            received: arrived.received.clone(),
            provider_name,
            configured_model,
        };
        let (terminal, choices) = if self.ended.is_some() {
            (None, Vec::new())
        } else {
            let choices = self.answer.choices();
            let terminal = self.terminal(arrived, &choices, answer_id);
            (Some(terminal), choices)
        };
        let body = body(arrived, history);
        let source = terminal
            .as_ref()
            .or(self.ended.as_ref().map(|ended| &ended.terminal));
        let is_open = !self.is_counted && source.is_some_and(|end| end.usage_source.is_none());
        let uncounted = is_open.then(|| Uncounted {
            request,
            model: self
                .attempt
                .as_ref()
                .map_or(NOBODY, AttemptStarted::asked_model)
                .to_owned(),
            body,
            choices: match &self.ended {
                Some(ended) if !ended.choices.is_empty() => ended.choices.clone(),
                // An end that had to be written without its content: the chunks have it.
                Some(_) => self.answer.choices(),
                None => choices.clone(),
            },
        });
        let attempt_ended = terminal.is_some().then(|| self.attempt_ended()).flatten();
        Some(Settlement {
            request,
            attempt_ended,
            terminal,
            choices,
            uncounted,
            count_of,
        })
    }

    fn names(&self) -> (String, String) {
        match &self.attempt {
            Some(attempt) => (attempt.provider_name.clone(), attempt.model.clone()),
            None => (NOBODY.to_owned(), NOBODY.to_owned()),
        }
    }

    /// The end of the attempt that was under way.
    fn attempt_ended(&self) -> Option<AttemptEnded> {
        let attempt = self
            .attempt
            .as_ref()
            .filter(|_| self.attempts > self.attempts_ended)?;
        Some(AttemptEnded {
            attempt: attempt.attempt,
            provider: attempt.provider,
            provider_name: attempt.provider_name.clone(),
            model: attempt.model.clone(),
            status: (self.chunks > 0).then_some(200),
            duration_ms: self.last_chunk_us / 1000,
            failure: Some(gateway_lost()),
        })
    }

    fn terminal(
        &self,
        arrived: &Arrived,
        choices: &[AnsweredChoice],
        answer_id: impl Fn(Option<MessageId>, &RawValue) -> MessageId,
    ) -> Terminal {
        let (received, answer) = (&arrived.received, &self.answer);
        let (provider_name, configured_model) = self.names();
        let parent = received.messages.last().copied().or(received.parent);
        // Chunks that no attempt brought come out of the cache.
        let usage = if self.attempts == 0 && self.chunks > 0 {
            Some((TokenUsage::default(), UsageSource::Cache))
        } else {
            answer.usage().map(|usage| (usage, UsageSource::Provider))
        };
        let usage = usage.or_else(|| {
            let nothing = (TokenUsage::default(), UsageSource::Gateway);
            choices.is_empty().then_some(nothing)
        });
        let seen = self.last_event.unwrap_or(arrived.time).as_millis();
        let seen_ms = seen.saturating_sub(arrived.time.as_millis());
        Terminal {
            operation: received.operation.clone(),
            conversation: received.conversation,
            model: received.model.clone(),
            key: received.key,
            user: received.user.clone(),
            provider: self.attempt.as_ref().map(|attempt| attempt.provider),
            provider_name,
            configured_model,
            response_model: answer.model().map(str::to_owned),
            response_id: answer.id().map(str::to_owned),
            finish_reasons: answer.finish_reasons(),
            input_tokens: usage.map(|(usage, _)| usage.input_tokens),
            output_tokens: usage.map(|(usage, _)| usage.output_tokens),
            usage_source: usage.map(|(_, source)| source),
            usage_raw: answer
                .usage_raw()
                .and_then(|raw| serde_json::from_str(raw.get()).ok()),
            attempts: self.attempts,
            status: if self.chunks > 0 { 200 } else { NO_ANSWER },
            received_ms: arrived.time.as_millis(),
            time_to_first_token_ms: self.first_chunk_us.map(|us| us / 1000),
            duration_ms: u64::try_from(seen_ms).unwrap_or(0),
            chunks: self.chunks,
            client_gone: false,
            parent,
            messages: choices
                .iter()
                .map(|choice| answer_id(parent, &choice.message))
                .collect(),
            failure: Some(gateway_lost()),
        }
    }
}

fn gateway_lost() -> Failure {
    Failure {
        reason: FailureReason::GatewayLost,
        message: "The gateway that served the request died.".to_owned(),
    }
}

fn choices_of(content: &RawValue) -> Vec<AnsweredChoice> {
    let content: Option<AnswerContent<'_>> = serde_json::from_str(content.get()).ok();
    let choices = content.into_iter().flat_map(|content| content.choices);
    choices
        .map(|choice| AnsweredChoice {
            index: choice.index,
            finish_reason: choice.finish_reason.map(std::borrow::Cow::into_owned),
            message: choice.message.to_owned(),
            rest: None,
        })
        .collect()
}

/// A request's body with what is known of its messages: enough to count tokens by.
fn body(arrived: &Arrived, history: &[Box<RawValue>]) -> Bytes {
    let content: Option<RequestContent<'_>> = serde_json::from_str(arrived.content.get()).ok();
    let Some(content) = content else {
        return Bytes::from_static(br#"{"messages":[]}"#);
    };
    let mut messages: Vec<&RawValue> = history.iter().map(AsRef::as_ref).collect();
    messages.extend(&content.messages);
    if let SystemMessages::Full(system) = &content.system {
        messages.extend(system.iter().map(|(_, message)| *message));
    }
    let messages = serde_json::value::to_raw_value(&messages);
    let messages = messages.unwrap_or_else(|_| RawValue::NULL.to_owned());
    let mut members = content.parameters.clone();
    members.push("messages", &messages);
    serde_json::to_vec(&members).unwrap_or_default().into()
}
