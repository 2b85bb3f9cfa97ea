//! Settles the requests of gateways that were not heard of for a day, for good.
//!
//! What such a request did is read from the stretch of the log in which its
//! gateway wrote: all of it lies before the last cursor of each lane, because
//! events and the cursor that covers them are stored together. What others
//! wrote of it since (its end, by an earlier sweeper) the index names.

use nexus_events::{
    clock::UnixMillis,
    id::RequestId,
    log::{Message, history::Stretch},
    subject::{Lane, Stream},
};
use nexus_projector::read_model::{ReadUpTo, UnsettledRequest, Wanted};

use super::{Silent, SweepError, Sweeper, Swept, to_usize};
use crate::exchange::{
    lost::Settlement,
    sweep::{self, Verdict},
};

/// Requests that are looked at in one sweep: 1 000.
pub(super) const SETTLES_MAX: usize = 1_000;

/// Requests whose events are held in memory at once: 32, each with its chunks and its body.
const PAGE: u32 = 32;

/// A request whose time is over.
#[derive(Clone, Copy, Debug)]
struct Due {
    request: UnsettledRequest,
    /// When the broker stored its `received`.
    stored: UnixMillis,
}

impl Sweeper {
    /// Settles what is due of a gateway that is given up; `room`: how many may still be looked at.
    pub(super) async fn settle(
        &mut self,
        term: u64,
        silent: &Silent,
        room: &mut usize,
    ) -> Result<Swept, SweepError> {
        if silent.gravest() != Verdict::GivenUp {
            return Ok(Swept::All);
        }
        let read_model = self.state.read_model.clone();
        let (mut after, mut settled) = (None, 0);
        while *room > 0 {
            let page = read_model
                .unsettled(silent.outbox, Wanted::Unfinished, after, PAGE)
                .await?;
            let Some(last) = page.requests.last() else {
                return Ok(Swept::All);
            };
            after = Some(last.request);
            *room = room.saturating_sub(page.requests.len());
            let due = self.due(silent, &page.requests).await?;
            if !due.is_empty() {
                settled += self.settle_page(term, silent, page.upto, &due).await?;
            }
            if page.requests.len() < to_usize(PAGE) {
                return Ok(Swept::All);
            }
        }
        // Without progress the next sweep would find the same.
        Ok(if settled > 0 { Swept::Some } else { Swept::All })
    }

    /// Those whose time is over.
    async fn due(
        &self,
        silent: &Silent,
        requests: &[UnsettledRequest],
    ) -> Result<Vec<Due>, SweepError> {
        let mut due = Vec::new();
        for request in requests {
            let Some(received) = self.received(request, silent).await? else {
                continue;
            };
            if silent.verdict(received.time) == Verdict::GivenUp
                && self.is_due(silent, request).await?
            {
                due.push(Due {
                    request: *request,
                    stored: received.time,
                });
            }
        }
        Ok(due)
    }

    /// Whether people have known for long enough that it is presumed lost; who has ended needs
    /// only the count.
    async fn is_due(
        &self,
        silent: &Silent,
        request: &UnsettledRequest,
    ) -> Result<bool, SweepError> {
        let (Some(sequence), None) = (request.presumed_lost, request.terminal) else {
            return Ok(request.terminal.is_some());
        };
        let log = &self.state.log;
        let marked = log.message_at(Stream::Exchanges, sequence).await?;
        let is_due = |marked: Message| sweep::is_due(silent.now, marked.time, silent.settle_after);
        Ok(marked.is_some_and(is_due))
    }

    /// Writes what is missing of some requests; tells how many there were.
    async fn settle_page(
        &mut self,
        term: u64,
        silent: &Silent,
        upto: ReadUpTo,
        due: &[Due],
    ) -> Result<usize, SweepError> {
        let settlements = self.settlements(silent, due).await?;
        let requests: Vec<UnsettledRequest> = due.iter().map(|due| due.request).collect();
        let news = self.news(upto, &requests).await?;
        let mut uncounted = Vec::new();
        let (mut settled, mut left) = (0, 0);
        for (request, mut settlement) in settlements {
            if !news.leaves_unfinished(&request) {
                continue;
            }
            match self.end(term, request.request, &mut settlement) {
                Ok(()) => settled += 1,
                Err(error) if error.is_of_room() => {
                    left += 1;
                    continue;
                }
                Err(error) => return Err(error),
            }
            if let Some(count) = settlement.uncounted.take() {
                uncounted.push((settlement, count));
            }
        }
        let settler = self.settler.clone();
        for (settlement, count) in uncounted {
            // The read model has had a day.
            let until = tokio::time::Instant::now();
            let counted = settler.count(&settlement, count, until).await?;
            match self.append(term, &counted) {
                Err(error) if error.is_of_room() => left += 1,
                appended => appended?,
            }
        }
        if left > 0 {
            tracing::warn!(outbox = %silent.outbox, left, "the own outbox has no room for ends or counts of lost requests; they are left for later");
        }
        self.stored().await?;
        if settled > 0 {
            // Nobody else tells what they spent.
            self.state.limits.begin_afresh();
            tracing::warn!(outbox = %silent.outbox, requests = settled, "settled requests of a gateway that was not heard of any more");
        }
        Ok(settled)
    }

    /// Appends what is missing of a request's end.
    fn end(
        &mut self,
        term: u64,
        request: RequestId,
        settlement: &mut Settlement,
    ) -> Result<(), SweepError> {
        self.no_room.strip(request, settlement);
        for record in self.settler.records(settlement)? {
            let appended = self.append(term, &record);
            appended.inspect_err(|error| {
                if error.is_of_room() {
                    self.no_room.note(request);
                }
            })?;
        }
        self.no_room.forget(request);
        if settlement.is_an_end() {
            self.state.metrics.lost_settled.inc();
        }
        Ok(())
    }

    /// What is missing of each, by what the log holds; one that is not readable is left aside.
    async fn settlements(
        &self,
        silent: &Silent,
        due: &[Due],
    ) -> Result<Vec<(UnsettledRequest, Settlement)>, SweepError> {
        let log = &self.state.log;
        let requests: Vec<RequestId> = due.iter().map(|due| due.request.request).collect();
        let (exchanges, chunks) = self.stretches(silent, due).await?;
        let mut events = log.events_within(&requests, exchanges, chunks).await?;
        let mut settlements = Vec::with_capacity(due.len());
        for Due { request, .. } in due {
            let mut found = events.remove(&request.request).unwrap_or_default();
            if let Some(terminal) = request.terminal {
                let terminal = log.message_at(Stream::Exchanges, terminal).await?;
                found
                    .exchange
                    .extend(terminal.map(|message| message.payload));
            }
            let settlement = self.settler.settlement(request.request, &found).await;
            match settlement {
                Ok(Some(settlement)) => settlements.push((*request, settlement)),
                Ok(None) => unsettled(request.request, "its received event is not in the log"),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(settlements)
    }

    /// Where the lost gateway wrote of these requests.
    async fn stretches(
        &self,
        silent: &Silent,
        due: &[Due],
    ) -> Result<(Stretch, Stretch), SweepError> {
        let first = due.iter().map(|due| due.request.received).min();
        let exchanges = Stretch {
            after: first.unwrap_or(1).saturating_sub(1),
            upto: silent.cursor.map_or(u64::MAX, |(_, sequence)| sequence),
        };
        let chunks_cursor = self.cursor(Lane::Chunks, silent.outbox).await?;
        let upto = match (chunks_cursor, silent.cursor) {
            (Some(message), _) => message.sequence,
            // A lane without a cursor never stored anything.
            (None, Some(_)) => return Ok((exchanges, Stretch::EMPTY)),
            (None, None) => u64::MAX,
        };
        // Not by the lost gateway's clock alone: it may have been far ahead.
        let times = due
            .iter()
            .flat_map(|due| [due.stored, due.request.request.drawn_at()]);
        let Some(since) = times.min() else {
            return Ok((exchanges, Stretch::EMPTY));
        };
        let since = self.state.log.stretch_since(Stream::Chunks, since).await?;
        Ok((exchanges, Stretch { upto, ..since }))
    }
}

fn unsettled(request: RequestId, reason: &str) {
    tracing::error!(request.id = %request, reason, "a lost request cannot be settled");
}
