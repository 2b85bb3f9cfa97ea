//! The shipper: brings the outbox to the broker, in order, each event once.
//!
//! Each lane has a task of its own, so a stream that cannot take more holds up
//! no other. A lane has one atomic batch in flight: the events that are there,
//! and the *cursor* that says how far the lane has come, published with the
//! expected sequence of the cursor before. So:
//!
//! * events and cursor are stored together or not at all;
//! * a batch that is sent again after it had been stored is refused, after
//!   however long an outage; the cursor, read from the stream, then tells that
//!   it had succeeded;
//! * whoever comes after a crash reads the cursor and goes on from there.
//!
//! Whatever goes wrong, the lane forgets where it is, reads the cursor again
//! and goes on from what the stream says. A cursor expires when its outbox is
//! away for longer than the stream keeps anything. The lane then goes on from
//! its own note of what was acknowledged, or from its last event in the stream,
//! whichever is further: nothing that was stored once is sent again. While one batch is in flight the next
//! one gathers: load makes its own batches, and a lone event goes at once.
//!
//! A record that the broker refuses for its own sake three times, alone, while
//! it takes a bare cursor, is set aside on disk and replaced by an
//! `unshippable` event, so that it blocks nobody; where it was the end of an
//! exchange, a bare end goes with it.

mod complete;
mod ended;
pub(super) mod lane_reader;
mod note;
mod place;
mod set_aside;

use std::{error::Error, sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock::SharedClock,
    log::Log,
    outbox::{
        Adopted, Outbox, Store,
        batch::{self, BatchError, EVENTS_MAX, Outgoing, Refusal},
        cursor::Cursor,
    },
    subject::Lane,
};

use complete::Complete;
use lane_reader::{Batch, LaneReader};
use note::{Note, Noted};
use place::Place;

/// A living lane renews its cursor at least this often: it is also its heartbeat.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// First pause after something went wrong; it doubles up to the longest.
const RETRY_DELAY: Duration = Duration::from_millis(20);

/// Longest pause: 500 ms, so that an outbox drains soon after the broker is back.
const RETRY_DELAY_MAX: Duration = Duration::from_millis(500);

/// So many times the broker must refuse a batch before it is taken apart, or a record set aside.
const REFUSALS_MAX: u32 = 3;

/// The same for one record and a refusal that does not say that the message is at fault: 40, some
/// 20 s.
///
/// A broker under pressure has many words for it, and a sound record must outlast them.
const UNKNOWN_REFUSALS_MAX: u32 = 40;

/// Starts the lanes of outboxes.
#[derive(Clone, Debug)]
pub struct Shipper {
    /// The log.
    pub log: Log,
    /// Dates the cursors.
    pub clock: SharedClock,
    /// Waits for the lanes at the end.
    pub tracker: TaskTracker,
    /// Stops the lanes. What is not shipped by then is shipped after the next start.
    pub stop: CancellationToken,
}

impl Shipper {
    /// Ships the process's own outbox until the stop.
    pub fn ship(&self, outbox: &Outbox) {
        self.start(outbox.store(), true);
    }

    /// Ships what an adopted incarnation holds, to its end.
    pub fn drain(&self, adopted: &Adopted) {
        self.start(adopted.store(), false);
    }

    fn start(&self, store: &Arc<Store>, alive: bool) {
        for lane in Lane::ALL {
            let lane_shipper = LaneShipper {
                lane,
                alive,
                log: self.log.clone(),
                clock: Arc::clone(&self.clock),
                reader: Some(LaneReader::new(Arc::clone(store), lane)),
                store: Arc::clone(store),
                place: None,
                note: Note::of(store, lane),
                complete: Complete::default(),
                events_max: EVENTS_MAX,
                refusals: 0,
                delay: RETRY_DELAY,
            };
            let stop = self.stop.clone();
            self.tracker.spawn(async move {
                stop.run_until_cancelled(Box::pin(lane_shipper.run())).await;
            });
        }
    }
}

struct LaneShipper {
    lane: Lane,
    /// Whether the outbox is still appended to.
    alive: bool,
    log: Log,
    clock: SharedClock,
    store: Arc<Store>,
    /// `None` while it reads on the blocking pool.
    reader: Option<LaneReader>,
    place: Option<Place>,
    note: Note,
    complete: Complete,
    /// Most events of the next batch: fewer after refusals.
    events_max: usize,
    refusals: u32,
    delay: Duration,
}

impl LaneShipper {
    async fn run(mut self) {
        loop {
            let place = match self.place().await {
                Ok(Ok(place)) => place,
                Ok(Err(end)) => {
                    tracing::error!(lane = %self.lane, outbox = %self.store.id(), error = &end as &dyn Error, "an outbox lane stopped for good");
                    self.store.progress.stop_lane(self.lane, end.to_string());
                    return;
                }
                Err(error) => {
                    self.pause(&error).await;
                    continue;
                }
            };
            self.store.set_shipped(self.lane, place.position);
            let batch = match self.read(place.position).await {
                Ok(batch) => batch,
                Err(error) => {
                    self.pause(&error).await;
                    continue;
                }
            };
            if batch.events.is_empty() {
                let end = batch.end.unwrap_or(place.position);
                if end > place.position {
                    self.damaged(place.position, end);
                }
                if !self.alive {
                    return;
                }
                // The first cursor goes at once: from then on everybody knows of the outbox.
                if place.cursor_sequence > 0 {
                    let appended = self.store.progress.appended(self.lane);
                    if timeout(HEARTBEAT, appended).await.is_ok() {
                        continue;
                    }
                }
            }
            self.publish(place, batch).await;
        }
    }

    /// The lane's last events cannot be read any more.
    ///
    /// Of an adopted outbox that is the end of the lane: nothing comes after
    /// them, and what waits for it must not wait for ever.
    fn damaged(&self, position: u64, end: u64) {
        self.store.progress.gap(self.lane, position, end);
        if !self.alive {
            self.store.set_shipped(self.lane, end);
        }
    }

    /// The events after a position, read on the blocking pool: after a long
    /// outage they come from the disk.
    async fn read(&mut self, after: u64) -> std::io::Result<Batch> {
        let mut reader = self
            .reader
            .take()
            .unwrap_or_else(|| LaneReader::new(Arc::clone(&self.store), self.lane));
        let limits = (self.events_max, self.payload_max());
        // The clock first: what is appended between the two is read as well.
        let now = self.clock.now();
        (self.complete).asks(now, self.store.last_position(self.lane));
        let read = tokio::task::spawn_blocking(move || {
            let batch = reader.next_batch(after, limits);
            (reader, batch)
        });
        let (reader, batch) = read.await.map_err(std::io::Error::other)?;
        self.reader = Some(reader);
        batch
    }

    async fn publish(&mut self, place: Place, batch: Batch) {
        // What a broker takes that is away is not known: its limit may be another when it is back.
        if let Some(reason) = self.unfit(&batch).filter(|_| self.log.is_connected()) {
            return self.replace(place, batch, reason).await;
        }
        for (event, content) in &batch.bodies {
            if let Err(error) = self.log.put_body(*event, content).await {
                return self.pause(&error).await;
            }
        }
        let position = batch.last_position.unwrap_or(place.position);
        match self.send(place, &batch.events, position).await {
            Ok(()) => {
                self.refusals = 0;
                self.delay = RETRY_DELAY;
                self.events_max = (self.events_max * 2).min(EVENTS_MAX);
            }
            Err(BatchError::Refused(refusal)) if !batch.events.is_empty() => {
                self.refused(place, batch, refusal).await;
            }
            Err(error) => self.pause(&error).await,
        }
    }

    async fn refused(&mut self, place: Place, batch: Batch, refusal: Refusal) {
        self.refusals += 1;
        let is_alone = batch.events.len() == 1;
        let patience = if is_alone && !refusal.is_about_the_message {
            UNKNOWN_REFUSALS_MAX
        } else {
            REFUSALS_MAX
        };
        if self.refusals < patience {
            return self.pause(&BatchError::Refused(refusal)).await;
        }
        self.refusals = 0;
        if !is_alone {
            // One of them is at fault: halve until it is alone.
            self.events_max = batch.events.len() / 2;
            return self.pause(&BatchError::Refused(refusal)).await;
        }
        // Only a broker that takes a bare cursor shows that the record is at fault.
        match self.send(place, &[], place.position).await {
            Ok(()) => match self.place {
                Some(place) => self.replace(place, batch, refusal.reason).await,
                None => self.pause(&BatchError::Refused(refusal)).await,
            },
            Err(error) => self.pause(&error).await,
        }
    }

    /// Sends a batch; on success the lane is at `position`.
    async fn send(
        &mut self,
        place: Place,
        events: &[Outgoing],
        position: u64,
    ) -> Result<(), BatchError> {
        // Until the answer is there the lane does not know where it is.
        self.place = None;
        let cursor = Cursor {
            outbox: self.store.id(),
            position,
            time_ms: self.clock.now(),
            complete_ms: self.complete.once_stored(position),
            ended: false,
        };
        if !self.log.is_connected() {
            return Err(BatchError::Unknown(
                "no connection to the broker".to_owned(),
            ));
        }
        self.note.begin(place.stream_created_ns);
        let client = self.log.client();
        let sequence =
            batch::publish(client, self.lane, events, cursor, place.cursor_sequence).await?;
        if !events.is_empty() {
            self.note.write(Noted {
                stream_created_ns: place.stream_created_ns,
                position,
                sequence,
            });
        }
        self.complete.stored(cursor.complete_ms);
        self.place = Some(Place {
            position,
            cursor_sequence: sequence,
            ..place
        });
        Ok(())
    }

    /// The largest payload that the broker takes in a batch.
    fn payload_max(&self) -> usize {
        // Room for the headers and the subject of a message of a batch.
        const HEADER_BYTES: usize = 1024;
        match self.log.client().max_payload() {
            0 => usize::MAX,
            limit => limit.saturating_sub(HEADER_BYTES),
        }
    }

    /// Why the first event can never be published, if it cannot.
    fn unfit(&self, batch: &Batch) -> Option<String> {
        let (bytes, limit) = (batch.events.first()?.payload.len(), self.payload_max());
        (bytes > limit).then(|| format!("{bytes} bytes, but the broker takes {limit}"))
    }

    /// Sets the first event aside and ships in its place a note, and the bare end of an exchange
    /// that it ended.
    async fn replace(&mut self, place: Place, batch: Batch, reason: String) {
        let position = batch.first_position.unwrap_or(place.position + 1);
        let content = batch.bodies.into_iter().next();
        let Some(event) = batch.events.into_iter().next() else {
            return;
        };
        tracing::error!(lane = %self.lane, position, reason, "a record cannot be shipped; it is set aside");
        let instead = set_aside::set_aside(
            &self.store,
            &*self.clock,
            (self.lane, position),
            (
                event,
                content.as_ref().map(|(_, content)| content.as_slice()),
            ),
            reason,
        );
        let instead = match instead {
            Ok(instead) => instead,
            Err(error) => return self.pause(&error).await,
        };
        if let Err(error) = self.send(place, &instead, position).await {
            self.pause(&error).await;
        }
    }

    /// Waits a little longer each time; the lane then starts from what the stream says.
    async fn pause(&mut self, error: &(dyn Error + Sync + 'static)) {
        self.place = None;
        let longest = (self.delay * 2).min(RETRY_DELAY_MAX);
        if longest == RETRY_DELAY_MAX && self.delay < longest {
            // Once for each time of trouble; a blink is nobody's concern.
            tracing::warn!(lane = %self.lane, error = error as &dyn Error, "an outbox lane cannot ship for now");
        } else {
            tracing::debug!(lane = %self.lane, error = error as &dyn Error, "an outbox lane waits");
        }
        sleep(self.delay).await;
        self.delay = longest;
    }
}
