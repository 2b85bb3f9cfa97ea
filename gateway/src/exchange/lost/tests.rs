use std::time::Duration;

use nexus_events::{
    chunk_event::Chunk,
    clock::{Clock, ManualClock, SystemClock},
    envelope::{Record, Stamp},
    exchange_event::{self, About, TokensCounted},
    id::{ConversationId, KeyId, OutboxId, ProviderId},
    subject::Lane,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::*;
use crate::exchange::{count::Counted, sweep};

/// The log of one request, as its gateway wrote it.
struct Log {
    request: RequestId,
    payloads: Vec<Vec<u8>>,
}

impl Log {
    fn of_a_stream() -> Self {
        let mut log = Self {
            request: RequestId::draw(&SystemClock),
            payloads: Vec::new(),
        };
        let received = Received {
            operation: "chat".to_owned(),
            conversation: Some(ConversationId::draw(&SystemClock)),
            model: "m".to_owned(),
            key: KeyId::draw(&SystemClock),
            user: None,
            stream: true,
            route: "/v1/chat/completions".to_owned(),
            body_bytes: 1,
            config_sequence: 1,
            parent: Some(MessageId::from_bytes([1; 16])),
            messages: vec![MessageId::from_bytes([2; 16])],
        };
        let content = json!({"messages": [{"role": "user", "content": "hi"}],
            "system": {"full": [[0, {"role": "system", "content": "be"}]]}, "parameters": {"model": "m"}});
        log.write(&received, Some(&content));
        log.write(
            &AttemptStarted {
                attempt: 1,
                provider: ProviderId::draw(&SystemClock),
                provider_name: "p".to_owned(),
                model: "m".to_owned(),
                upstream_model: Some("m-at-p".to_owned()),
            },
            None,
        );
        log
    }

    fn write<D: nexus_events::envelope::EventData>(&mut self, data: &D, content: Option<&Value>) {
        let record = exchange_event::record(
            self.about(),
            Stamp::draw(&SystemClock),
            ("p", "m"),
            data,
            content,
        );
        self.ship(&record.unwrap());
    }

    fn chunk(&mut self, index: u32, content: &impl Serialize) {
        let chunk = Chunk {
            index,
            elapsed_us: u64::from(index + 1) * 10_000,
        };
        let content = serde_json::value::to_raw_value(content).unwrap();
        let stamp = Stamp::draw(&SystemClock);
        let record = chunk_event::record(self.about(), stamp, "x", chunk, &content).unwrap();
        self.ship(&record);
    }

    fn ship(&mut self, record: &Record) {
        let outbox = OutboxId::draw(&SystemClock);
        self.payloads.push(record.shipped(outbox, 1).payload);
    }

    fn about(&self) -> About<'static> {
        About {
            source: "/nexus/gateway/dead",
            request: self.request,
            traceparent: None,
        }
    }

    fn settle(&self) -> Option<Settlement> {
        let mut lost = LostExchange::default();
        for payload in &self.payloads {
            lost.see(&Envelope::decode(payload).unwrap(), None).unwrap();
        }
        let history =
            vec![RawValue::from_string(r#"{"role":"user","content":"old"}"#.to_owned()).unwrap()];
        lost.settle(
            self.request,
            |_, _| MessageId::from_bytes([3; 16]),
            &history,
        )
    }
}

fn said(index: u32, text: &str) -> (u32, Value) {
    (
        index,
        json!({"id": "r", "choices": [{"index": 0, "delta": {"content": text}}]}),
    )
}

fn data(record: &Record) -> (String, Value) {
    let shipped = record.shipped(OutboxId::draw(&SystemClock), 1).payload;
    let envelope = Envelope::decode(&shipped).unwrap();
    assert_eq!(record.lane, Lane::Exchanges);
    (
        envelope.kind.clone().into_owned(),
        envelope.data_as().unwrap(),
    )
}

#[test]
fn an_end_without_its_answer_is_small_and_its_tokens_are_counted_all_the_same() {
    let mut log = Log::of_a_stream();
    let (index, chunk) = said(0, &"long ".repeat(40_000));
    log.chunk(index, &chunk);
    let bytes = |settlement: &Settlement| -> usize {
        let records = settlement.records("/nexus/gateway/next", &SystemClock);
        records.unwrap().iter().map(|it| it.payload.len()).sum()
    };
    let mut settlement = log.settle().unwrap();
    assert!(bytes(&settlement) > 200_000);
    settlement.strip();
    assert!(bytes(&settlement) < 4_096, "{}", bytes(&settlement));
    let terminal = &settlement
        .records("/nexus/gateway/next", &SystemClock)
        .unwrap()[1];
    let (kind, terminal) = data(terminal);
    assert_eq!(kind, "ai.nexus.exchange.failed.v1");
    assert_eq!(terminal["nexus.chunks"], 1);
    assert_eq!(terminal["nexus.message.ids"], json!([]));
    let counted = settlement.uncounted.unwrap().choices;
    assert!(counted[0].message.get().len() > 200_000);
}

#[test]
fn a_stream_that_was_lost_is_closed_with_what_its_client_saw() {
    let mut log = Log::of_a_stream();
    for (index, chunk) in [said(0, "ha"), said(1, "lf")] {
        log.chunk(index, &chunk);
    }
    let settlement = log.settle().unwrap();
    let records = settlement
        .records("/nexus/gateway/next", &SystemClock)
        .unwrap();
    let (kinds, events): (Vec<_>, Vec<_>) = records.iter().map(data).unzip();
    assert_eq!(
        kinds,
        [
            "ai.nexus.exchange.attempt_ended.v1",
            "ai.nexus.exchange.failed.v1"
        ]
    );
    let terminal = &events[1];
    assert_eq!(terminal["nexus.failure"]["reason"], "gateway_lost");
    assert_eq!(
        terminal["content"]["choices"][0]["message"]["content"],
        "half"
    );
    assert_eq!(terminal["nexus.message.parent"], "02".repeat(16));
    assert_eq!(terminal["nexus.message.ids"], json!(["03".repeat(16)]));
    assert_eq!(
        (
            &terminal["nexus.chunks"],
            &terminal["nexus.time_to_first_token_ms"]
        ),
        (&json!(2), &json!(10))
    );
    assert_eq!(terminal["gen_ai.provider.name"], "p");
    let uncounted = settlement.uncounted.as_ref().unwrap();
    assert_eq!(uncounted.model, "m-at-p", "as a living gateway counts");
    let body: Value = serde_json::from_slice(&uncounted.body).unwrap();
    let contents: Vec<_> = body["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| &m["content"])
        .collect();
    assert_eq!(contents, ["old", "hi", "be"]);
    assert_eq!(uncounted.choices.len(), 1);
    let counted = Counted {
        input_tokens: 5,
        output_tokens: 6,
        vocabulary: "v".to_owned(),
    };
    let (kind, counted) = data(&settlement.counted(&counted, "/x", &SystemClock).unwrap());
    assert_eq!(
        (kind.as_str(), &counted["gen_ai.usage.output_tokens"]),
        ("ai.nexus.exchange.tokens_counted.v1", &json!(6))
    );
}

#[test]
fn usage_that_came_through_is_the_truth() {
    let mut log = Log::of_a_stream();
    log.chunk(0, &said(0, "all").1);
    log.chunk(
        1,
        &json!({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}),
    );
    let settlement = log.settle().unwrap();
    assert!(settlement.uncounted.is_none());
    let terminal = data(&settlement.records("/x", &SystemClock).unwrap()[1]).1;
    assert_eq!(terminal["nexus.usage.source"], "provider");
}

#[test]
fn a_request_without_an_answer_used_nothing() {
    let settlement = Log::of_a_stream().settle().unwrap();
    assert!(settlement.uncounted.is_none());
    let terminal = data(&settlement.records("/x", &SystemClock).unwrap()[1]).1;
    assert_eq!(terminal["gen_ai.usage.output_tokens"], 0);
    assert_eq!(terminal["http.response.status_code"], 500);
}

#[test]
fn what_has_its_end_gets_no_second_one() {
    let mut log = Log::of_a_stream();
    log.chunk(0, &said(0, "all").1);
    let mut terminal = log.settle().unwrap().terminal.unwrap();
    terminal.failure = None;
    log.write(
        &terminal,
        Some(&json!({"choices": [{"index": 0, "message": {"content": "all"}}]})),
    );
    let mut second = terminal.clone();
    second.usage_source = Some(UsageSource::Provider);
    log.write(&second, None);
    let settlement = log.settle().unwrap();
    assert!(settlement.records("/x", &SystemClock).unwrap().is_empty());
    assert_eq!(
        settlement.uncounted.as_ref().unwrap().choices[0]
            .message
            .get(),
        r#"{"content":"all"}"#
    );
    let counted = Counted {
        input_tokens: 5,
        output_tokens: 6,
        vocabulary: "v".to_owned(),
    };
    let counted = settlement.counted(&counted, "/x", &SystemClock).unwrap();
    // An audit is no count.
    let envelope = Envelope::decode(&counted.payload).unwrap();
    let mut audit: TokensCounted = envelope.data_as().unwrap();
    audit.audit = true;
    log.write(&audit, None);
    assert!(log.settle().unwrap().uncounted.is_some());
    log.ship(&counted);
    assert!(log.settle().unwrap().uncounted.is_none());
}

#[test]
fn that_it_was_presumed_lost_is_no_part_of_what_it_took() {
    let mut log = Log::of_a_stream();
    let much_later = ManualClock::at(SystemClock.now().plus(Duration::from_hours(1)));
    let (request, outbox) = (log.request, OutboxId::draw(&SystemClock));
    let lost = sweep::presumed_lost(request, outbox, "/x", Stamp::draw(&much_later));
    log.ship(&lost.unwrap());
    let terminal = log.settle().unwrap().terminal.unwrap();
    assert!(terminal.duration_ms < 60_000, "{}", terminal.duration_ms);
}

#[test]
fn a_request_that_the_log_does_not_hold_cannot_be_settled() {
    let mut log = Log::of_a_stream();
    log.payloads.remove(0);
    assert!(log.settle().is_none());
}
