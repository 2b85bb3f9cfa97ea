//! A record that can never be shipped: kept on disk, told in the log.

use std::{fs, io, io::Write};

use crate::{
    clock::Clock,
    envelope::{Attributes, Envelope, NO_CONTENT, Record, Stamp},
    exchange_event::Unshippable,
    id::EventId,
    outbox::{Store, batch::Outgoing, segments::sync_dir},
    subject::Lane,
};

/// Writes the event to `unshippable/` beside the incarnations, and gives the note that takes its place.
///
/// Content that was to go to the object store is written beside it, as `….content.json`.
///
/// # Errors
/// The file cannot be written; the event stays where it is.
pub(super) fn set_aside(
    store: &Store,
    clock: &dyn Clock,
    (lane, position): (Lane, u64),
    (event, content): (Outgoing, Option<&[u8]>),
    reason: String,
) -> io::Result<Outgoing> {
    let dir = store.dir().with_file_name("unshippable");
    fs::create_dir_all(&dir)?;
    let name = format!("{}-{lane}-{position}", store.id());
    let keep = |ending: &str, bytes: &[u8]| {
        let mut file = fs::File::create(dir.join(format!("{name}{ending}")))?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    keep(".json", &event.payload)?;
    content.map_or(Ok(()), |content| keep(".content.json", content))?;
    sync_dir(&dir)?;

    let stamp = Stamp::draw(clock);
    let refused = Envelope::decode(&event.payload).map(|envelope| envelope.id);
    let data = Unshippable {
        event: refused.unwrap_or(EventId::from_uuid(uuid::Uuid::nil())),
        bytes: u64::try_from(event.payload.len()).unwrap_or(u64::MAX),
        subject: event.subject,
        error: reason,
    };
    let subject = match lane {
        Lane::Exchanges => "nexus.exchange.0.unshippable._._",
        Lane::Chunks => "nexus.chunk.0._._",
        Lane::Audit => "nexus.audit.unshippable",
    };
    let source = format!("/nexus/gateway/{}", store.id());
    let attributes = Attributes {
        stamp,
        source: &source,
        subject: "outbox",
        traceparent: None,
    };
    let record = Record::encode(lane, subject.to_owned(), attributes, &data, NO_CONTENT)
        .map_err(io::Error::other)?;
    Ok(Outgoing {
        subject: record.subject.clone(),
        payload: record.shipped(store.id(), position).payload.into(),
    })
}
