//! Rollups: publishes the statistics of the days that expire, each day once.
//!
//! A day whose rows do not fit into one message is published in parts. Each
//! part expects the one before to be the last of the day's subject, so an
//! archiver that was overtaken finds out with its next part, and parts of two
//! never interleave. What a killed archiver began is begun anew: the projector
//! takes a part 1 as a new beginning. The statistics may have changed since,
//! and another version may cut them otherwise.

use nexus_events::{
    clock::{SharedClock, UnixMillis},
    envelope::{EncodeError, Envelope, Stamp},
    log::{Expected, Log, Message, PublishError},
    rollup_event::{DayClosed, day_name},
    subject::{self, Stream},
};
use nexus_projector::{AsOf, ReadModel};
use serde::Serialize;

use crate::retention::{RetentionError, SOURCE, caught_up};

/// Most bytes of rows in a part: 512 KiB, half of what a broker takes by default.
const PART_BYTES_MAX: usize = 512 * 1024;

/// Publishes the rollups of the days that expire; tells how many.
///
/// When it returns, the read model has every day before `cutoff` closed.
///
/// # Errors
/// [`RetentionError`]; trying again goes on.
pub(crate) async fn close_days(
    log: &Log,
    read_model: &ReadModel,
    clock: &SharedClock,
    cutoff: UnixMillis,
) -> Result<u64, RetentionError> {
    let mut closed = 0;
    let mut last = AsOf::default();
    for day in read_model.days_to_close(cutoff).await? {
        let name = day_name(day);
        let there = log
            .last_of_subject(Stream::Rollups, &subject::rollup(&name))
            .await?;
        let sequence = match there {
            // By another archiver, or by this one in a run that died.
            Some(message) if is_last(&name, &message)? => message.sequence,
            begun => {
                let publisher = Publisher {
                    log,
                    clock,
                    bytes_max: PART_BYTES_MAX.min(log.message_bytes_max() / 2),
                    expected: begun.map_or(0, |message| message.sequence),
                };
                closed += 1;
                publisher.publish(day, name, read_model).await?
            }
        };
        last.rollups = last.rollups.max(sequence);
    }
    // So that the statistics never seem to shrink between the retention and the rollups.
    caught_up(read_model, last).await?;
    Ok(closed)
}

/// Whether the day is closed by this message.
fn is_last(day: &str, message: &Message) -> Result<bool, RetentionError> {
    let foreign = |reason: String| RetentionError::Foreign {
        day: day.to_owned(),
        reason,
    };
    let envelope =
        Envelope::decode(&message.payload).map_err(|error| foreign(error.to_string()))?;
    match DayClosed::decode(&envelope) {
        Ok(Some(rollup)) => Ok(!rollup.more),
        Ok(None) => Err(foreign(format!("its type is {}", envelope.kind))),
        Err(error) => Err(foreign(error.to_string())),
    }
}

/// Publishes one day.
struct Publisher<'a> {
    log: &'a Log,
    clock: &'a SharedClock,
    /// Most bytes of rows in a part.
    bytes_max: usize,
    /// Sequence of the last message of the day's subject.
    expected: u64,
}

impl Publisher<'_> {
    /// All parts of the day; gives the sequence of the last.
    async fn publish(
        mut self,
        day: UnixMillis,
        name: String,
        read_model: &ReadModel,
    ) -> Result<u64, RetentionError> {
        let mut statistics = read_model.day(day).await?;
        let mut part = Part::first(name);
        while let Some(hour) = statistics.next_hour().await? {
            self.make_room(&mut part, &hour).await?;
            part.event.usage.push(hour);
        }
        let mut after = String::new();
        while let Some((begun, last)) = statistics.begun(&after).await? {
            for begun in begun {
                self.make_room(&mut part, &begun).await?;
                part.event.begun.push(begun);
            }
            after = last;
        }
        part.event.more = false;
        part.event.conversations = statistics.conversations();
        self.send(&part.event).await?;
        Ok(self.expected)
    }

    /// Sends the part if a row would make it too large; the row then begins the next.
    async fn make_room<T: Serialize>(
        &mut self,
        part: &mut Part,
        row: &T,
    ) -> Result<(), RetentionError> {
        // With the comma behind it.
        let bytes = serde_json::to_vec(row).map_err(EncodeError::from)?.len() + 1;
        if part.bytes + bytes > self.bytes_max && part.bytes > 0 {
            self.send(&part.event).await?;
            part.event.part += 1;
            part.event.usage.clear();
            part.event.begun.clear();
            part.bytes = 0;
        }
        part.bytes += bytes;
        Ok(())
    }

    async fn send(&mut self, part: &DayClosed) -> Result<(), RetentionError> {
        let (subject, payload) = part.encode(Stamp::draw(self.clock.as_ref()), SOURCE)?;
        let expected = Expected::SubjectAt(self.expected);
        self.expected = match self.log.publish(subject, payload, expected).await {
            Ok(sequence) => sequence,
            Err(PublishError::Conflict) => {
                return Err(RetentionError::Overtaken {
                    day: part.day.clone(),
                });
            }
            Err(error) => return Err(error.into()),
        };
        Ok(())
    }
}

/// A part that is being filled.
struct Part {
    event: DayClosed,
    /// Size of its rows.
    bytes: usize,
}

impl Part {
    const fn first(day: String) -> Self {
        Self {
            event: DayClosed {
                day,
                part: 1,
                more: true,
                usage: Vec::new(),
                conversations: 0,
                begun: Vec::new(),
            },
            bytes: 0,
        }
    }
}
