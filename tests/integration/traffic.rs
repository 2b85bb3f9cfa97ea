//! Exchanges as a gateway would record them, published without one.

use std::time::Duration;

use nexus_events::{
    clock::{ManualClock, UnixMillis},
    envelope::{NO_CONTENT, Record, Stamp},
    exchange_event::{self, About, AnswerContent, Received, RequestContent, Terminal},
    id::{ConversationId, EventId, KeyId, OutboxId, ProviderId, RequestId},
    log::{Expected, Log, LogSettings},
    message_id::MessageId,
    usage::UsageSource,
};
use nexus_tests::{Broker, Result};
use serde_json::{json, value::to_raw_value};

/// 2026-11-24T12:00:00Z.
pub(crate) const NOON: i64 = 1_795_521_600_000;

/// A day in milliseconds.
pub(crate) const DAY: i64 = 24 * 60 * 60 * 1000;

/// A loaded two-core machine starts a broker and declares its streams in some seconds.
const READY_BOUND: Duration = Duration::from_secs(30);

/// A connection to a broker whose streams are declared.
pub(crate) async fn log(broker: &Broker) -> Result<Log> {
    let log = Log::connect(LogSettings {
        url: broker.url(),
        name: "test".to_owned(),
        replicas: 1,
        retention: Duration::from_hours(183 * 24),
    })
    .await?;
    log.ready(READY_BOUND).await?;
    Ok(log)
}

/// Publishes events, each with its position in its lane of one outbox.
#[derive(Debug)]
pub(crate) struct Traffic {
    log: Log,
    outbox: OutboxId,
    /// The last position of each lane.
    positions: [u64; 3],
}

/// An exchange that was published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange {
    pub(crate) request: RequestId,
    pub(crate) conversation: ConversationId,
    /// The stream's sequence of its last event.
    pub(crate) sequence: u64,
}

impl Traffic {
    pub(crate) fn new(log: &Log) -> Self {
        Self {
            log: log.clone(),
            outbox: OutboxId::draw(&at(NOON - 400 * DAY)),
            positions: [0; 3],
        }
    }

    /// An exchange that was asked for at `drawn_ms` and completed: one message, one answer,
    /// 10 prompt tokens and 20 of the answer.
    pub(crate) async fn exchange(&mut self, drawn_ms: i64, said: &str) -> Result<Exchange> {
        let conversation = ConversationId::draw(&at(drawn_ms));
        self.exchange_of(drawn_ms, said, conversation, None).await
    }

    /// The same in a given conversation, on behalf of a `user`.
    pub(crate) async fn exchange_of(
        &mut self,
        drawn_ms: i64,
        said: &str,
        conversation: ConversationId,
        user: Option<String>,
    ) -> Result<Exchange> {
        let request = RequestId::draw(&at(drawn_ms));
        let message = to_raw_value(&json!({"role": "user", "content": said}))?;
        let parameters = to_raw_value(&json!({"temperature": 0.5}))?;
        let content = to_raw_value(&json!({
            "messages": [message],
            "system": {"full": [[0, {"role": "system", "content": "be brief"}]]},
            "parameters": parameters,
        }))?;
        let content: RequestContent<'_> = serde_json::from_str(content.get())?;
        let received = Received {
            user: user.clone(),
            ..received(conversation)
        };
        self.publish(record(request, drawn_ms, &received, Some(&content))?)
            .await?;
        let answer = to_raw_value(&json!({"choices": [{
            "index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": format!("{said}, indeed")},
        }]}))?;
        let answer: AnswerContent<'_> = serde_json::from_str(answer.get())?;
        let terminal = Terminal {
            user,
            ..completed(conversation, drawn_ms)
        };
        let sequence = self
            .publish(record(request, drawn_ms + 100, &terminal, Some(&answer))?)
            .await?;
        Ok(Exchange {
            request,
            conversation,
            sequence,
        })
    }

    /// Ships a record as a shipper would, large content first.
    pub(crate) async fn publish(&mut self, record: Record) -> Result<u64> {
        let position = &mut self.positions[record.lane.index()];
        *position += 1;
        let shipment = record.shipped(self.outbox, *position);
        if let Some(content) = &shipment.content {
            self.log.put_body(record.id, content).await?;
        }
        let sequence = self
            .log
            .publish(record.subject, shipment.payload, Expected::Any)
            .await?;
        Ok(sequence)
    }
}

/// A clock that stands at a moment.
pub(crate) fn at(ms: i64) -> ManualClock {
    ManualClock::at(UnixMillis::from_millis(ms))
}

fn record<D: nexus_events::envelope::EventData, C: serde::Serialize>(
    request: RequestId,
    at_ms: i64,
    data: &D,
    content: Option<&C>,
) -> Result<Record> {
    let about = About {
        source: "/nexus/test",
        request,
        traceparent: None,
    };
    let stamp = Stamp {
        id: EventId::draw(&at(at_ms)),
        time: UnixMillis::from_millis(at_ms),
    };
    let names = ("openai", "gpt");
    Ok(match content {
        Some(content) => exchange_event::record(about, stamp, names, data, Some(content))?,
        None => exchange_event::record(about, stamp, names, data, NO_CONTENT)?,
    })
}

pub(crate) fn key() -> KeyId {
    KeyId::draw(&at(NOON - 400 * DAY))
}

fn received(conversation: ConversationId) -> Received {
    Received {
        operation: "chat".to_owned(),
        conversation: Some(conversation),
        model: "gpt".to_owned(),
        key: key(),
        user: None,
        stream: false,
        route: "/v1/chat/completions".to_owned(),
        body_bytes: 100,
        config_sequence: 1,
        parent: None,
        messages: vec![MessageId::from_bytes([1; 16])],
    }
}

fn completed(conversation: ConversationId, received_ms: i64) -> Terminal {
    Terminal {
        operation: "chat".to_owned(),
        conversation: Some(conversation),
        model: "gpt".to_owned(),
        key: key(),
        user: None,
        provider: Some(ProviderId::draw(&at(NOON))),
        provider_name: "openai".to_owned(),
        configured_model: "gpt".to_owned(),
        response_model: None,
        response_id: None,
        finish_reasons: vec!["stop".to_owned()],
        input_tokens: Some(10),
        output_tokens: Some(20),
        usage_source: Some(UsageSource::Provider),
        usage_raw: None,
        attempts: 1,
        status: 200,
        received_ms,
        time_to_first_token_ms: Some(10),
        duration_ms: 100,
        chunks: 0,
        client_gone: false,
        parent: Some(MessageId::from_bytes([1; 16])),
        messages: vec![MessageId::from_bytes([2; 16])],
        failure: None,
    }
}
