//! An event that can be read is written, shipped, and read as the same.
//!
//! *Why.* The log is what is left when everything else is rebuilt. A reader that panics on one event
//! stops every projection; an event that changes when it is written again cannot be replayed.
//!
//! *The input* is the payload of a message.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nexus_events::{
    audit_event::AuditEvent,
    chunk_event::{self, Chunk},
    config_event::ConfigEvent,
    envelope::{Attributes, Envelope, EventData, Record, Stamp, encode_direct},
    exchange_event::ExchangeEvent,
    id::OutboxId,
    rollup_event::DayClosed,
    subject::Lane,
    upcast::{STEPS, upcast},
};
use serde_json::value::RawValue;

fuzz_target!(|input: &[u8]| {
    let Ok(envelope) = Envelope::decode(input) else {
        return;
    };
    // May fail, but not panic.
    let _ = upcast(&envelope.kind, envelope.data, STEPS);
    // Without a time it is no event of ours.
    let Ok(time) = envelope.moment() else {
        return;
    };
    let stamp = Stamp {
        id: envelope.id,
        time,
    };
    for event in read(&envelope) {
        check(&envelope, stamp, &event);
    }
});

/// Whatever one of the streams may hold.
#[derive(Debug, PartialEq)]
enum Event {
    Exchange(Box<ExchangeEvent>),
    Chunk(Chunk),
    Config(Box<ConfigEvent>),
    Audit(AuditEvent),
    Rollup(DayClosed),
}

/// The event as the readers of the streams see it; two of them know the same note.
fn read(envelope: &Envelope<'_>) -> Vec<Event> {
    let exchange = ExchangeEvent::decode(envelope).ok().flatten();
    let chunk = chunk_event::decode(envelope).ok().flatten();
    let config = ConfigEvent::decode(envelope).ok().flatten();
    let audit = AuditEvent::decode(envelope).ok().flatten();
    let rollup = DayClosed::decode(envelope).ok().flatten();
    [
        exchange.map(|event| Event::Exchange(Box::new(event))),
        chunk.map(|(chunk, _)| Event::Chunk(chunk)),
        config.map(|event| Event::Config(Box::new(event))),
        audit.map(Event::Audit),
        rollup.map(Event::Rollup),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn check(envelope: &Envelope<'_>, stamp: Stamp, event: &Event) {
    let attributes = Attributes {
        stamp,
        source: &envelope.source,
        subject: &envelope.subject,
        traceparent: envelope.traceparent.as_deref(),
    };
    let content = envelope.content_as::<&RawValue>().ok().flatten();
    let record = write(event, attributes, content);

    let outbox = OutboxId::from_uuid(stamp.id.as_uuid());
    let shipment = record.shipped(outbox, u64::MAX);
    let shipped = Envelope::decode(&shipment.payload).expect("what is shipped is read");
    assert_eq!(
        (shipped.outbox, shipped.position),
        (Some(outbox), Some(u64::MAX))
    );
    assert_eq!(
        (shipped.id, shipped.moment().ok()),
        (stamp.id, Some(stamp.time))
    );
    assert_eq!(
        (&shipped.source, &shipped.subject),
        (&envelope.source, &envelope.subject)
    );
    assert!(shipped.traceparent.is_none() || shipped.traceparent == envelope.traceparent);
    let found: Option<&RawValue> = shipped.content_as().expect("its content is read");
    assert_eq!(found.map(RawValue::get), content.map(RawValue::get));
    let found = read(&shipped);
    assert!(found.contains(event), "{event:?} is not in {found:?}");

    let attributes = Attributes {
        traceparent: shipped.traceparent.as_deref(),
        ..attributes
    };
    for event in &found {
        assert_eq!(write(event, attributes, content), record, "byte for byte");
    }
}

fn write(event: &Event, attributes: Attributes<'_>, content: Option<&RawValue>) -> Record {
    let with = (attributes, content);
    match event {
        Event::Chunk(data) => encode(with, data),
        Event::Rollup(data) => encode(with, data),
        Event::Exchange(event) => match &**event {
            ExchangeEvent::Received(data) => encode(with, data),
            ExchangeEvent::AttemptStarted(data) => encode(with, data),
            ExchangeEvent::AttemptEnded(data) => encode(with, data),
            ExchangeEvent::Terminal(data) => encode(with, data),
            ExchangeEvent::Rejected(data) => encode(with, data),
            ExchangeEvent::PresumedLost(data) => encode(with, data),
            ExchangeEvent::TokensCounted(data) => encode(with, data),
            ExchangeEvent::Unshippable(data) => encode(with, data),
        },
        Event::Config(event) => match &**event {
            ConfigEvent::Provider(data) => encode(with, data),
            ConfigEvent::Model(data) => encode(with, data),
            ConfigEvent::Route(data) => encode(with, data),
            ConfigEvent::Key(data) => encode(with, data),
            ConfigEvent::Setting(data) => encode(with, data),
            ConfigEvent::User(data) => encode(with, data),
            ConfigEvent::Price(data) => encode(with, data),
        },
        Event::Audit(event) => match event {
            AuditEvent::ManagementCall(data) => encode(with, data),
            AuditEvent::AccessRefused(data) => encode(with, data),
            AuditEvent::UnauthenticatedCalls(data) => encode(with, data),
            AuditEvent::BackupTaken(data) => encode(with, data),
            AuditEvent::RetentionApplied(data) => encode(with, data),
            AuditEvent::BreakerChanged(data) => encode(with, data),
            AuditEvent::Unshippable(data) => encode(with, data),
        },
    }
}

fn encode<D: EventData>(
    (attributes, content): (Attributes<'_>, Option<&RawValue>),
    data: &D,
) -> Record {
    let record = Record::encode(Lane::Exchanges, String::new(), attributes, data, content);
    let record = record.expect("what was read can be written");
    if content.is_none() {
        let direct = encode_direct(attributes, data).expect("what was read can be written");
        assert_eq!(record.payload, direct, "there is one way to write");
    }
    record
}
