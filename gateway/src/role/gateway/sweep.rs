//! The sweeper of lost gateways: the rules are in [`crate::exchange::sweep`], the work is here.
//!
//! Every gateway runs it; a lease says which one sweeps. Every 15 s the holder
//!
//! 1. asks the read model which outboxes have unsettled requests: open, or
//!    ended and not counted. Its own are not among them;
//! 2. looks at the cursor of each, and judges;
//! 3. appends `presumed_lost` for the open requests of the lost ones;
//! 4. settles the requests of those that are given up, page by page.
//!
//! # Exactly once
//! The read model is only an index, and it may be late. Before anything is
//! appended, the log itself says that the request's `received` is where the
//! index has it, and everything is read that the log holds after what the read
//! model has read: whose end, mark or count is there needs none.
//!
//! What is appended goes through the own outbox, like all traffic. The sweeper
//! then waits until the broker has stored it, and asks the log again only after
//! that. Before each append it asks whether it holds the lease, and nothing is
//! awaited in between. The next holder begins 10 s after this one has stopped,
//! and judges nobody before it has watched the cursors for 30 s; so it finds in
//! the log what this one has written.
//!
//! # What remains
//! This process can be stopped between asking and appending, or die, or be cut
//! off, after it has appended and before that is shipped. The next holder
//! cannot know, and writes the same again. That is harmless: readers take the
//! first `presumed_lost`, the first terminal event and the first count. The
//! same goes for a lost gateway that comes back in the moment in which it is
//! settled for.
//!
//! A crash between a terminal event and its count is repaired by the next
//! sweep: the request is ended and not counted, and its gateway still given up.
//!
//! # No room
//! An end for which the own outbox has no room is left for the next sweep, and holds up no other
//! ([`super::no_room`]). The lease is kept: there is room again when the broker has taken some of
//! what is there. The end of an attempt that had room is then said once more, and readers take the
//! first.
//!
//! # Bounds
//! A sweep marks at most 1 000 requests of an outbox and settles at most 1 000
//! altogether, 32 at a time, which is what it holds in memory; when there are
//! more, the next sweep follows at once. So 100 000 open requests are marked in
//! a hundred sweeps of about a second. At most 10 000 outboxes are looked at,
//! those with the oldest requests first. While the read model is more than a
//! million events late, nothing is done: nobody could see it there either.

use std::{error::Error, time::Duration};

use nexus_events::{
    clock::UnixMillis,
    envelope::Stamp,
    id::OutboxId,
    log::{Holding, Lease, LeaseTimes, LogError, Message, history::HistoryError},
    outbox::{Appended, ReleaseError},
    stillness::Look,
    subject::{self, Lane, Stream},
};
use nexus_projector::read_model::{ReadUpTo, UnsettledRequest, Wanted};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use self::error::SweepError;
use super::{no_room::NoRoom, settle::Settler};
use crate::{
    exchange::sweep::{self, News, Verdict, Watch},
    state::State,
};

mod error;
mod given_up;

/// Name of the lease.
const LEASE: &str = "sweeper";

/// Requests of one outbox that are marked in one sweep: 1 000, about a second of single reads.
const MARKS_MAX: u32 = 1_000;

/// Outboxes that are looked at: 10 000, those of a gateway that crashes every ten seconds for a day.
const OUTBOXES_MAX: u32 = 10_000;

/// The read model may be this many messages behind the log: 1 000 000, some seconds of reading.
const BEHIND_MAX: u64 = 1_000_000;

/// What was appended is shipped within this time, else another may try: 20 s.
const STORED_TIME: Duration = Duration::from_secs(20);

/// A holder that cannot do the job leaves it to the others for a minute: twice the time after which they take it.
const STAND_BACK: Duration = Duration::from_mins(1);

/// Whether a sweep did all that there was to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Swept {
    All,
    Some,
}

/// The sweeping task of one gateway.
#[derive(Debug)]
pub(super) struct Sweeper {
    state: State,
    settler: Settler,
    holding: Holding,
    lease: Option<Lease>,
    watch: Watch,
    /// What was appended last and may not be stored yet.
    last: Option<Appended>,
    no_room: NoRoom,
}

/// An outbox that was not heard of.
#[derive(Clone, Copy, Debug)]
struct Silent {
    outbox: OutboxId,
    /// When its cursor was stored, and with which sequence; `None`: it is gone.
    cursor: Option<(UnixMillis, u64)>,
    still: Duration,
    now: UnixMillis,
    settle_after: Duration,
}

impl Silent {
    /// What is to be thought of it, for a request that the broker stored then.
    ///
    /// Without a cursor the request itself is its last sign of life.
    fn verdict(&self, received: UnixMillis) -> Verdict {
        let heard = self.cursor.map_or(received, |(time, _)| time);
        sweep::judge(self.now, heard, self.still, self.settle_after)
    }

    /// The gravest that can be thought of it, whichever its requests are.
    fn gravest(&self) -> Verdict {
        self.verdict(UnixMillis::from_millis(i64::MIN))
    }
}

impl Sweeper {
    pub(super) fn new(settler: Settler) -> Self {
        let state = State::clone(&settler.state);
        let (log, outbox) = (&state.log, state.outbox.id());
        let (lease, holding) = Lease::new(log, LEASE, outbox, LeaseTimes::default());
        Self {
            state,
            settler,
            holding,
            lease: Some(lease),
            watch: Watch::default(),
            last: None,
            no_room: NoRoom::default(),
        }
    }

    /// Sweeps, whenever it holds the lease, until the soft stop.
    pub(super) async fn run(mut self) {
        let Some(lease) = self.lease.take() else {
            return;
        };
        let (stop, held) = (
            self.state.soft_stop.clone(),
            self.state.metrics.sweeper.clone(),
        );
        let keeping = lease.keep(|holds| held.set(i64::from(holds)));
        let sweeping = async {
            tokio::select! {
                () = keeping => {}
                error = self.sweep_again_and_again() => tracing::error!(
                    error = &error as &dyn Error,
                    "this gateway sweeps after lost ones no more"
                ),
            }
        };
        stop.run_until_cancelled(Box::pin(sweeping)).await;
        held.set(0);
    }

    /// Ends only when this gateway can ship nothing any more.
    async fn sweep_again_and_again(&mut self) -> ReleaseError {
        let mut tick = interval(sweep::SWEEP_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut term = None;
        loop {
            tick.tick().await;
            let held = self.holding.term();
            if held != term {
                self.watch.forget();
                term = held;
            }
            let Some(term) = held else {
                continue;
            };
            match self.sweep(term).await {
                Ok(Swept::All) => {}
                Ok(Swept::Some) => tick.reset_immediately(),
                Err(SweepError::Stopped(error)) => return error,
                Err(error) => self.failed(&error),
            }
        }
    }

    /// A broker that is away is away for all; what else is wrong may be wrong here only.
    fn failed(&mut self, error: &SweepError) {
        self.watch.forget();
        let is_elsewhere_too = matches!(
            error,
            SweepError::Log(_) | SweepError::History(HistoryError::Log(_)) | SweepError::NotHeld
        );
        tracing::warn!(error = error as &dyn Error, "a sweep was not finished");
        if !is_elsewhere_too {
            self.holding.stand_back(STAND_BACK);
        }
    }

    async fn sweep(&mut self, term: u64) -> Result<Swept, SweepError> {
        self.stored().await?;
        let state = State::clone(&self.state);
        let own = state.outbox.id();
        // A lane that is new, or is not shipped, has not heard the broker's time yet.
        let Some(now) = self.cursor(Lane::Exchanges, own).await? else {
            return Ok(Swept::All);
        };
        let outboxes = state.read_model.unsettled_outboxes(OUTBOXES_MAX).await?;
        self.watch.keep_only(&outboxes);
        let mut silent = Vec::new();
        for outbox in outboxes.into_iter().filter(|outbox| *outbox != own) {
            let seen = self.look(outbox, now.time).await?;
            if seen.gravest() != Verdict::Alive {
                silent.push(seen);
            }
        }
        let mut swept = Swept::All;
        let mut settles = given_up::SETTLES_MAX;
        for silent in &silent {
            if self.mark(term, silent).await? == Swept::Some {
                swept = Swept::Some;
            }
            if self.settle(term, silent, &mut settles).await? == Swept::Some {
                swept = Swept::Some;
            }
        }
        Ok(swept)
    }

    async fn cursor(&self, lane: Lane, outbox: OutboxId) -> Result<Option<Message>, LogError> {
        let subject = subject::cursor(lane, outbox);
        self.state
            .log
            .last_of_subject(lane.stream(), &subject)
            .await
    }

    async fn look(&mut self, outbox: OutboxId, now: UnixMillis) -> Result<Silent, LogError> {
        let asked = Instant::now();
        let cursor = self.cursor(Lane::Exchanges, outbox).await?;
        let cursor = cursor.map(|message| (message.time, message.sequence));
        let look = Look {
            sequence: cursor.map_or(0, |(_, sequence)| sequence),
            asked,
            answered: Instant::now(),
        };
        Ok(Silent {
            outbox,
            cursor,
            still: self.watch.look(outbox, look),
            now,
            settle_after: self.state.settings.lost_settle,
        })
    }

    /// Appends `presumed_lost` for open requests of a lost gateway that have none.
    async fn mark(&mut self, term: u64, silent: &Silent) -> Result<Swept, SweepError> {
        let state = State::clone(&self.state);
        let page = state
            .read_model
            .unsettled(silent.outbox, Wanted::Unmarked, None, MARKS_MAX)
            .await?;
        if page.requests.is_empty() {
            return Ok(Swept::All);
        }
        let mut lost = Vec::new();
        for request in &page.requests {
            let received = self.received(request, silent).await?;
            let is_lost = |message: Message| silent.verdict(message.time) != Verdict::Alive;
            if received.is_some_and(is_lost) {
                lost.push(request);
            }
        }
        let news = self.news(page.upto, &page.requests).await?;
        lost.retain(|request| news.leaves_unmarked(request));
        let mut records = Vec::with_capacity(lost.len());
        for request in &lost {
            let stamp = Stamp::draw(&*state.clock);
            let (outbox, source) = (silent.outbox, state.source());
            records.push(sweep::presumed_lost(
                request.request,
                outbox,
                &source,
                stamp,
            )?);
        }
        for record in &records {
            self.append(term, record)?;
            state.metrics.presumed_lost.inc();
        }
        self.stored().await?;
        if !records.is_empty() {
            tracing::warn!(outbox = %silent.outbox, requests = records.len(), "a gateway was not heard of; its open requests are presumed lost");
        }
        let more = !records.is_empty() && page.requests.len() >= to_usize(MARKS_MAX);
        Ok(if more { Swept::Some } else { Swept::All })
    }

    /// The message that the index names as a request's `received`, if the log has it there.
    async fn received(
        &self,
        request: &UnsettledRequest,
        silent: &Silent,
    ) -> Result<Option<Message>, LogError> {
        let log = &self.state.log;
        let message = log.message_at(Stream::Exchanges, request.received).await?;
        let found =
            message.filter(|message| sweep::is_received(message, request.request, silent.outbox));
        if found.is_none() {
            tracing::error!(request.id = %request.request, sequence = request.received, "the log does not hold a lost request where the read model has it");
        }
        Ok(found)
    }

    /// What the log holds of some requests after what the read model has read.
    async fn news(
        &self,
        upto: ReadUpTo,
        requests: &[UnsettledRequest],
    ) -> Result<News, SweepError> {
        let log = &self.state.log;
        let end = log.stream_state(Stream::Exchanges).await?.last_sequence;
        let behind = end.saturating_sub(upto.sequence);
        if behind > BEHIND_MAX {
            return Err(SweepError::Behind(behind));
        }
        let reader = log
            .reader(Stream::Exchanges, None, upto.sequence)
            .of_stream_created(i128::from(upto.created_ns));
        let mut news = News::of(requests);
        log.walk(reader, u64::MAX, |message| news.see(&message))
            .await?;
        Ok(news)
    }

    /// Appends if the lease is held, still in that term; the only place that does.
    fn append(
        &mut self,
        term: u64,
        record: &nexus_events::envelope::Record,
    ) -> Result<(), SweepError> {
        if !self.holding.holds(term) {
            return Err(SweepError::NotHeld);
        }
        self.last = Some(self.settler.append(record)?);
        Ok(())
    }

    /// Waits until the broker has what was appended: only then may the log be asked again.
    async fn stored(&mut self) -> Result<(), SweepError> {
        if let Some(last) = self.last {
            let stored = timeout(STORED_TIME, self.state.outbox.stored(last)).await;
            stored.map_err(|_elapsed| SweepError::NotStored)??;
            self.last = None;
        }
        Ok(())
    }
}

fn to_usize(bound: u32) -> usize {
    usize::try_from(bound).unwrap_or(usize::MAX)
}
