//! A record that can never be shipped: kept on disk, told in the log.
//!
//! If it was the end of an exchange, a bare end is shipped beside the note, or
//! the exchange would stay open for ever. The note has the record's position;
//! the end has none, because a reader applies a position once.

use std::io;

use crate::{
    clock::Clock,
    envelope::{Attributes, Envelope, NO_CONTENT, Record, Stamp},
    exchange_event::{self, About, ExchangeEvent, Failure, FailureReason, Unshippable},
    id::EventId,
    outbox::{Store, batch::Outgoing, set_aside::SetAside},
    subject::{self, Lane},
};

/// Writes the event to `unshippable/` beside the incarnations, and gives what takes its place: a
/// note, and the bare end of an exchange that it ended.
///
/// # Errors
/// The file cannot be written; the event stays where it is.
pub(super) fn set_aside(
    store: &Store,
    clock: &dyn Clock,
    (lane, position): (Lane, u64),
    (event, content): (Outgoing, Option<&[u8]>),
    reason: String,
) -> io::Result<Vec<Outgoing>> {
    let outbox = store.dir().parent().unwrap_or_else(|| store.dir());
    let name = format!("{}-{lane}-{position}", store.id());
    if SetAside::below(outbox).keep(&name, (&event.payload, content))? {
        store.progress.set_aside(lane);
    }

    let end = bare_end(&event, clock);
    let stamp = Stamp::draw(clock);
    let refused = Envelope::decode(&event.payload).map(|envelope| envelope.id);
    let data = Unshippable {
        event: refused.unwrap_or(EventId::from_uuid(uuid::Uuid::nil())),
        bytes: u64::try_from(event.payload.len()).unwrap_or(u64::MAX),
        subject: event.subject,
        error: reason,
    };
    let subject = subject::unshippable(lane);
    let source = format!("/nexus/gateway/{}", store.id());
    let attributes = Attributes {
        stamp,
        source: &source,
        subject: "outbox",
        traceparent: None,
    };
    let record = Record::encode(lane, subject.to_owned(), attributes, &data, NO_CONTENT)
        .map_err(io::Error::other)?;
    let note = Outgoing {
        subject: record.subject.clone(),
        payload: record.shipped(store.id(), position).payload.into(),
    };
    Ok(std::iter::once(note).chain(end).collect())
}

/// The end of an exchange without all that can be large; `None` of any other event.
///
/// It says `failed`, for the answer is not in the log; an end that had failed keeps its reason.
fn bare_end(event: &Outgoing, clock: &dyn Clock) -> Option<Outgoing> {
    let envelope = Envelope::decode(&event.payload).ok()?;
    let Ok(Some(ExchangeEvent::Terminal(mut terminal))) = ExchangeEvent::decode(&envelope) else {
        return None;
    };
    terminal.failure.get_or_insert_with(|| Failure {
        reason: FailureReason::Unshippable,
        message: format!("The broker did not take event {}.", envelope.id),
    });
    terminal.strip();
    let stamp = Stamp {
        time: envelope.moment().ok()?,
        ..Stamp::draw(clock)
    };
    let about = About {
        source: &envelope.source,
        request: envelope.subject.parse().ok()?,
        traceparent: envelope.traceparent.as_deref(),
    };
    let names = (&*terminal.provider_name, &*terminal.configured_model);
    let end = exchange_event::record(about, stamp, names, &terminal, NO_CONTENT).ok()?;
    Some(Outgoing {
        subject: end.subject,
        payload: end.payload.into(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        clock::SystemClock,
        outbox::{Outbox, OutboxSettings, Release, SyncMode},
    };

    /// What takes the place of a stored sample.
    fn replaced(sample: &str) -> Vec<Outgoing> {
        let dir = tempfile::TempDir::new().unwrap();
        let settings = OutboxSettings {
            dir: dir.path().to_owned(),
            bytes_max: 1 << 20,
            sync: SyncMode::Os,
            release: Release::Local,
        };
        let (outbox, _) = Outbox::open(&settings, &(Arc::new(SystemClock) as _)).unwrap();
        let event = Outgoing {
            subject: "nexus.exchange.0.x.p.m".to_owned(),
            payload: sample.as_bytes().to_vec().into(),
        };
        let (place, reason) = ((Lane::Exchanges, 7), "too large".to_owned());
        set_aside(outbox.store(), &SystemClock, place, (event, None), reason).unwrap()
    }

    #[test]
    fn an_exchange_whose_end_cannot_be_shipped_is_ended_all_the_same() {
        let sample = include_str!("../../../testdata/ai.nexus.exchange.completed.v1.json");
        let whole = Envelope::decode(sample.as_bytes()).unwrap();
        let huge = sample.replace("\"chatcmpl-1\"", &format!("\"{}\"", "c".repeat(2 << 20)));
        assert!(huge.len() > 2 << 20, "the sample has an id of the answer");
        let [note, end] = &replaced(&huge)[..] else {
            panic!("a note and an end")
        };
        let note = Envelope::decode(&note.payload).unwrap();
        assert_eq!(note.position, Some(7));
        assert!(end.payload.len() < 4096, "{}", end.payload.len());
        let envelope = Envelope::decode(&end.payload).unwrap();
        assert_eq!((envelope.outbox, envelope.position), (None, None));
        assert_eq!(
            (&envelope.subject, &envelope.source),
            (&whole.subject, &whole.source)
        );
        assert_eq!(
            (envelope.time.as_ref(), envelope.kind.as_ref()),
            (&*whole.time, "ai.nexus.exchange.failed.v1")
        );
        let ExchangeEvent::Terminal(of_whole) = ExchangeEvent::decode(&whole).unwrap().unwrap()
        else {
            panic!("the sample is an end")
        };
        let ExchangeEvent::Terminal(end) = ExchangeEvent::decode(&envelope).unwrap().unwrap()
        else {
            panic!("no end")
        };
        let failure = end.failure.unwrap();
        assert_eq!(failure.reason, FailureReason::Unshippable);
        assert!(
            failure.message.contains(&whole.id.to_string()),
            "{}",
            failure.message
        );
        assert_eq!(end.output_tokens, of_whole.output_tokens);
        assert_eq!(
            (end.conversation, end.key),
            (of_whole.conversation, of_whole.key)
        );
    }

    #[test]
    fn an_end_that_failed_keeps_its_reason_and_other_events_have_no_end() {
        let failed = include_str!("../../../testdata/ai.nexus.exchange.failed.v1.json");
        let end = replaced(&failed.replace("the provider's stream", &"no ".repeat(1 << 20)));
        let end = Envelope::decode(&end[1].payload).unwrap();
        let data: serde_json::Value = end.data_as().unwrap();
        assert_eq!(data["nexus.failure"]["reason"], "upstream_cut");
        let received = include_str!("../../../testdata/ai.nexus.exchange.received.v1.json");
        assert_eq!(replaced(received).len(), 1);
    }
}
