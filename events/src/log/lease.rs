//! Leases: of many processes that could do a job, at most one does it at a time.
//!
//! # How
//! A lease is a subject of the stream `NEXUS_LEASES` that keeps its last
//! message: who holds it, and how often he has renewed it. The holder renews
//! every 5 s, each time at the sequence that he wrote last, so that two can
//! never both write. A write whose outcome is not known is read back.
//!
//! The holder may act for 20 s after he *sent* the last renewal that the broker
//! acknowledged. Another takes over when it has *seen* the same renewal for
//! 30 s, in looks without a hole ([`Stillness`]). Each counts by its own
//! monotonic clock, and a renewal is seen after it was sent; so the holder has
//! stopped 10 s before another begins, whatever the wall clocks of the machines
//! and of the broker say. Only clocks that run at rates that differ by half
//! would break this.
//!
//! # Promises
//! * [`Holding::holds`] is true in one process at a time.
//! * Every time the lease is taken it has another *term*; what its holder knew
//!   in an earlier term is void.
//! * While the broker is away nobody can take it, and after that its holder has
//!   the same 30 s to come back first.
//!
//! # What remains
//! A process can be stopped (`SIGSTOP`, a paused machine) between asking
//! [`Holding::holds`] and acting, for as long as one likes. No lease can help
//! that; only a check where the effect is stored could. So whoever acts under a
//! lease acts at once after asking, and what it does must be harmless when it
//! is done twice.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    id::OutboxId,
    log::{Log, LogError, PublishError},
    stillness::{Look, Stillness},
    subject,
};

/// The stream of the leases.
pub const STREAM: &str = "NEXUS_LEASES";

/// How long a lease is held, and when it is taken over.
#[derive(Clone, Copy, Debug)]
pub struct LeaseTimes {
    /// The holder renews, and the others look, this often.
    pub renew_every: Duration,
    /// The holder may act for so long after it sent a renewal.
    pub hold_for: Duration,
    /// A renewal that was seen for so long is not followed by another: the lease is taken over.
    pub take_over_after: Duration,
}

impl Default for LeaseTimes {
    /// Three renewals may be lost before the holder stops, and it stops 10 s before another begins.
    fn default() -> Self {
        Self {
            renew_every: Duration::from_secs(5),
            hold_for: Duration::from_secs(20),
            take_over_after: Duration::from_secs(30),
        }
    }
}

/// Why a lease could not be tended. Trying again helps.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// It could not be read.
    #[error("the lease could not be read")]
    Read(#[from] LogError),
    /// Its message is none of ours.
    #[error("the lease is not readable")]
    Foreign(#[source] serde_json::Error),
    /// It could not be written.
    #[error("the lease could not be written")]
    Write(#[from] PublishError),
}

/// What the subject of a lease holds.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// Who holds it: the outbox of its process, which no other process ever has.
    holder: OutboxId,
    /// How often he has written it.
    renewal: u64,
}

/// A process's claim to a lease: renews it while it holds it, takes it when nobody does.
#[derive(Debug)]
pub struct Lease {
    log: Log,
    subject: String,
    holder: OutboxId,
    times: LeaseTimes,
    renewal: u64,
    term: u64,
    /// Sequence that our next write expects; `None`: it has to be looked up.
    place: Option<u64>,
    /// What was seen of another holder.
    rival: Option<Stillness>,
    shared: Arc<Mutex<Shared>>,
}

/// Whether the process holds the lease. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Holding(Arc<Mutex<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    held: Option<Held>,
    aside_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    term: u64,
    until: Instant,
}

impl Holding {
    /// The term in which the process holds the lease now; `None`: it does not.
    pub fn term(&self) -> Option<u64> {
        let held = self.0.lock().held?;
        (Instant::now() < held.until).then_some(held.term)
    }

    /// Whether the process holds the lease now, still in that term.
    pub fn holds(&self, term: u64) -> bool {
        self.term() == Some(term)
    }

    /// Gives the lease up, and leaves it to others for a while.
    ///
    /// For a holder that cannot do the job, where another may.
    pub fn stand_back(&self, pause: Duration) {
        let mut shared = self.0.lock();
        shared.held = None;
        shared.aside_until = Some(Instant::now() + pause);
    }
}

impl Lease {
    /// A claim to the lease of that name, by the process with that outbox.
    pub fn new(log: &Log, name: &str, holder: OutboxId, times: LeaseTimes) -> (Self, Holding) {
        let shared = Arc::<Mutex<Shared>>::default();
        let lease = Self {
            log: log.clone(),
            subject: subject::lease(name),
            holder,
            times,
            renewal: 0,
            term: 0,
            place: None,
            rival: None,
            shared: Arc::clone(&shared),
        };
        (lease, Holding(shared))
    }

    /// Tends it for ever; tells `told` each time whether it is held.
    pub async fn keep(mut self, mut told: impl FnMut(bool)) {
        let mut tick = interval(self.times.renew_every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if let Err(error) = self.tend().await {
                tracing::debug!(
                    lease = self.subject,
                    error = &error as &dyn std::error::Error,
                    "the lease is not tended"
                );
            }
            told(Holding(Arc::clone(&self.shared)).term().is_some());
        }
    }

    /// Renews it, takes it, or looks at it: one step.
    ///
    /// # Errors
    /// See [`LeaseError`]. What was held stays held until its time is over.
    pub async fn tend(&mut self) -> Result<(), LeaseError> {
        if self.stands_back() {
            (self.place, self.rival) = (None, None);
            return Ok(());
        }
        // Taken out, because until the answer is there the place is not known.
        let place = match self.place.take() {
            Some(place) => place,
            None => match self.look().await? {
                Some(place) => place,
                None => return Ok(()),
            },
        };
        self.renewal += 1;
        let record = Record {
            holder: self.holder,
            renewal: self.renewal,
        };
        let payload = serde_json::to_vec(&record).map_err(LeaseError::Foreign)?;
        let sent = Instant::now();
        let subject = self.subject.clone();
        match self.log.publish_at(subject, payload, place).await {
            Ok(sequence) => {
                self.place = Some(sequence);
                self.rival = None;
                self.hold_from(sent);
                Ok(())
            }
            // Another was faster, or an earlier write of ours was stored after all.
            Err(PublishError::Conflict) => {
                self.place = self.look().await?;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads who holds it; gives the sequence at which we may write, if we may.
    async fn look(&mut self) -> Result<Option<u64>, LeaseError> {
        let asked = Instant::now();
        let last = self.log.last_in(STREAM, &self.subject).await;
        let answered = Instant::now();
        let last = last.inspect_err(|_| self.rival = None)?;
        let Some(message) = last else {
            return Ok(Some(0));
        };
        let record: Record =
            serde_json::from_slice(&message.payload).map_err(LeaseError::Foreign)?;
        if record.holder == self.holder {
            return Ok(Some(message.sequence));
        }
        self.step_down();
        let look = Look {
            sequence: message.sequence,
            asked,
            answered,
        };
        let gap_max = self.times.renew_every * 3;
        let rival = self.rival.get_or_insert(Stillness::begin(look));
        let still = rival.look(look, gap_max);
        Ok((still >= self.times.take_over_after).then_some(message.sequence))
    }

    fn hold_from(&mut self, sent: Instant) {
        let mut shared = self.shared.lock();
        if shared.aside_until.is_some() {
            return;
        }
        let goes_on = shared.held.is_some_and(|held| Instant::now() < held.until);
        if !goes_on {
            self.term += 1;
            tracing::info!(lease = self.subject, "took the lease");
        }
        shared.held = Some(Held {
            term: self.term,
            until: sent + self.times.hold_for,
        });
    }

    fn step_down(&self) {
        if self.shared.lock().held.take().is_some() {
            tracing::info!(lease = self.subject, "lost the lease");
        }
    }

    fn stands_back(&self) -> bool {
        let mut shared = self.shared.lock();
        if shared
            .aside_until
            .is_some_and(|until| until <= Instant::now())
        {
            shared.aside_until = None;
        }
        shared.aside_until.is_some()
    }
}

impl Drop for Lease {
    /// Who tends no lease holds none.
    fn drop(&mut self) {
        self.step_down();
    }
}

/// How the stream is declared.
pub(super) fn declaration(replicas: usize) -> Config {
    Config {
        name: STREAM.to_owned(),
        subjects: vec![subject::LEASES.to_owned()],
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        // A lease is its last message; with one for each subject, that discards only what it replaces.
        discard: DiscardPolicy::Old,
        max_messages_per_subject: 1,
        num_replicas: replicas,
        allow_direct: true,
        max_bytes: -1,
        max_messages: -1,
        max_consumers: -1,
        max_message_size: -1,
        ..Config::default()
    }
}
