//! Taking the log to account: everything once, nothing missing.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Result, ensure};

use super::{Event, Stream};

/// The events that end a request for good.
///
/// `rejected` is not among them: such a request was never received.
/// `presumed_lost` is not either: it is shown to people and does not count.
const TERMINALS: [&str; 2] = ["completed", "failed"];

/// Whether an event ends its request for good.
pub fn is_terminal(event: &Event) -> bool {
    TERMINALS.contains(&event.name())
}

/// The chunk events of each request, in the order of the stream.
pub fn chunks_by_request(events: &[Event]) -> BTreeMap<&str, Vec<&Event>> {
    by_request(events.iter().filter(|event| event.stream == Stream::Chunks))
}

/// The terminal events of each request, in the order of the stream.
pub fn terminals_by_request(events: &[Event]) -> BTreeMap<&str, Vec<&Event>> {
    by_request(
        events
            .iter()
            .filter(|event| event.stream == Stream::Exchanges && TERMINALS.contains(&event.name())),
    )
}

/// Fails if an event is there twice: by its id, or by its place in a lane of an outbox.
///
/// # Errors
///
/// When one is; both sequences are named.
pub fn assert_no_duplicates(events: &[Event]) -> Result<()> {
    let mut ids: HashMap<&str, &Event> = HashMap::new();
    let mut places: HashMap<(Stream, &str, u64), &Event> = HashMap::new();
    for event in events {
        ensure!(
            !event.id().is_empty(),
            "an event without an id: {}",
            event.json
        );
        let earlier = ids.insert(event.id(), event);
        ensure!(
            earlier.is_none(),
            "the same id twice: {}",
            both(earlier, event)
        );
        if let Some(position) = event.position() {
            let place = (event.stream, event.outbox(), position);
            let earlier = places.insert(place, event);
            ensure!(
                earlier.is_none(),
                "the same position twice: {}",
                both(earlier, event)
            );
        }
    }
    Ok(())
}

/// Fails unless the positions of each lane of each outbox count from 1 without a gap, in order.
///
/// Give it all events of the streams that outboxes ship into ([`Stream::SHIPPED`]); configuration
/// and rollups do not come through an outbox, and neither does what the archiver tells auditors.
///
/// # Errors
///
/// When one is missing or out of order; the place is named.
pub fn assert_no_gaps(events: &[Event]) -> Result<()> {
    let mut reached: HashMap<(Stream, &str), u64> = HashMap::new();
    for event in events
        .iter()
        .filter(|event| Stream::SHIPPED.contains(&event.stream) && !is_of_archiver(event))
    {
        let lane = (event.stream, event.outbox());
        let at = reached.entry(lane).or_default();
        let position = event.position();
        ensure!(
            position == Some(*at + 1) && !event.outbox().is_empty(),
            "after position {at} of outbox {:?} in {} comes {position:?}, sequence {}: {}",
            event.outbox(),
            event.stream.name(),
            event.sequence,
            event.json
        );
        *at += 1;
    }
    Ok(())
}

/// The archiver has no outbox: its jobs are repeated until their event is stored.
fn is_of_archiver(event: &Event) -> bool {
    event.stream == Stream::Audit && event.text("/source") == "/nexus/archiver"
}

fn by_request<'a>(events: impl Iterator<Item = &'a Event>) -> BTreeMap<&'a str, Vec<&'a Event>> {
    let mut requests: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
    for event in events {
        requests.entry(event.request_id()).or_default().push(event);
    }
    requests
}

fn both(earlier: Option<&Event>, later: &Event) -> String {
    let earlier = earlier.map_or(0, |event| event.sequence);
    format!(
        "{} {} and {}: {}",
        later.stream.name(),
        earlier,
        later.sequence,
        later.json
    )
}
