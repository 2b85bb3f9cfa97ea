//! What the log says of a record that was set aside.

use crate::{
    envelope::Envelope,
    exchange_event::Unshippable,
    id::EventId,
    log::{Log, history::HistoryError},
    subject::{self, Lane},
};

/// Messages taken from a stream at a time.
const BATCH: usize = 200;

/// What became of a record in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InLog {
    /// Nothing says that it was given up: its gateway has shipped it after all, or will.
    NotGivenUp,
    /// A note stands in its place.
    Replaced(Unshippable),
    /// A note stands in its place, and behind the note the record itself.
    Shipped,
}

impl Log {
    /// What the log says of an event that was set aside.
    ///
    /// # Errors
    /// See [`HistoryError`].
    pub async fn set_aside(&self, lane: Lane, event: EventId) -> Result<InLog, HistoryError> {
        let note = |envelope: &Envelope<'_>| {
            let note = envelope.data_as::<Unshippable>().ok()?;
            (note.event == event).then_some(note)
        };
        let Some((sequence, note)) = self
            .find(lane, (subject::unshippable(lane), 0), note)
            .await?
        else {
            return Ok(InLog::NotGivenUp);
        };
        let itself = |envelope: &Envelope<'_>| (envelope.id == event).then_some(());
        let found = self.find(lane, (&note.subject, sequence), itself).await?;
        Ok(found.map_or(InLog::Replaced(note), |_| InLog::Shipped))
    }

    /// The first event of a subject behind a sequence in which something is found.
    async fn find<T>(
        &self,
        lane: Lane,
        (subject, after): (&str, u64),
        look: impl Fn(&Envelope<'_>) -> Option<T>,
    ) -> Result<Option<(u64, T)>, HistoryError> {
        let last = self.last_of_subject(lane.stream(), subject).await?;
        let end = last.map_or(0, |message| message.sequence);
        let mut reader = self.reader(lane.stream(), Some(subject.to_owned()), after);
        while reader.position() < end {
            for message in reader.next_batch(BATCH).await? {
                let found = Envelope::decode(&message.payload).ok();
                let found = found.and_then(|envelope| look(&envelope));
                if let Some(found) = found {
                    return Ok(Some((message.sequence, found)));
                }
            }
        }
        Ok(None)
    }
}
