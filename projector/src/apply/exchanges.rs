//! Applies a batch of exchange events.
//!
//! The rows that the batch touches are loaded at once, changed in memory, and
//! written once, however many events of a request the batch holds. Statistics
//! and conversations are changed by the difference between what a row
//! contributed before the batch and what it contributes after it: so a token
//! count that comes later, or a terminal event that comes again, can not count
//! twice, and it does not matter how the events are cut into batches.

use std::collections::BTreeMap;

use nexus_events::id::RequestId;
use sqlx::SqliteConnection;

use super::{
    Known, content, conversation,
    entry::{Content, ExchangeEntry},
    exchange::{self, AttemptRow, Effect},
    exchange_table,
    message::{self, Messages},
    usage::{self, UsageDelta},
};
use crate::exchange_row::ExchangeRow;

/// A row before and after the batch.
pub(super) struct Slot {
    pub(super) before: Option<ExchangeRow>,
    pub(super) after: ExchangeRow,
}

/// Attempts that a batch touches, by request and number.
pub(super) type Attempts = BTreeMap<(RequestId, u32), AttemptRow>;

/// Applies the events, in the stream's order.
///
/// # Errors
/// The database failed.
pub(super) async fn apply(
    connection: &mut SqliteConnection,
    known: &Known,
    entries: &[ExchangeEntry<'_>],
) -> Result<(), sqlx::Error> {
    let entries: Vec<&ExchangeEntry<'_>> = entries
        .iter()
        .filter(|entry| entry.request.drawn_at().as_millis() >= known.cutoff_ms)
        .collect();
    let mut slots = load(connection, &entries).await?;
    let mut attempts = Attempts::new();
    let mut messages = Messages::default();
    let mut contents = Vec::new();
    for entry in entries {
        let Some(slot) = slots.get_mut(&entry.request) else {
            continue;
        };
        let effect = exchange::apply(&mut slot.after, entry);
        match (&effect, &entry.content) {
            (Effect::Request, Content::Request(request)) => {
                contents.push(content::row(&slot.after.request_id, request));
                messages.carry_request(&slot.after, entry, request);
            }
            (Effect::Answer, Content::Answer(answer)) => {
                messages.carry_answer(&slot.after, entry, answer);
            }
            _ => {}
        }
        if let Effect::Attempt(number, row) = effect {
            exchange_table::merge_attempt(&mut attempts, (entry.request, number), row);
        }
    }
    content::EXCHANGE_CONTENT
        .write(connection, contents)
        .await?;
    message::store(connection, messages).await?;
    exchange_table::store_attempts(connection, attempts).await?;
    let mut usage = UsageDelta::default();
    conversation::apply(connection, known, &slots, &mut usage).await?;
    slots.retain(|_, slot| slot.before.as_ref() != Some(&slot.after));
    usage::of_exchanges(connection, slots.values(), &mut usage).await?;
    let rows = slots.into_values().map(|slot| slot.after).collect();
    exchange_table::store(connection, rows).await?;
    usage.store(connection, known).await
}

/// The rows of the requests that the batch is about, new ones where there are none.
async fn load(
    connection: &mut SqliteConnection,
    entries: &[&ExchangeEntry<'_>],
) -> Result<BTreeMap<RequestId, Slot>, sqlx::Error> {
    let mut slots: BTreeMap<RequestId, Slot> = entries
        .iter()
        .map(|entry| {
            let slot = Slot {
                before: None,
                after: exchange::new_row(entry.request),
            };
            (entry.request, slot)
        })
        .collect();
    for row in exchange_table::load(connection, slots.keys()).await? {
        if let Some(slot) = row
            .request_id
            .parse()
            .ok()
            .and_then(|id| slots.get_mut(&id))
        {
            slot.before = Some(row.clone());
            slot.after = row;
        }
    }
    Ok(slots)
}
