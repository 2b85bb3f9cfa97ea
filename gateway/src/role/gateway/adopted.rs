//! What lost gateways left: shipped, closed, and then removed.
//!
//! The order is what makes it exact, whenever this process is killed as well:
//!
//! 1. every adopted outbox is drained;
//! 2. each request that one left open is settled by what the log then says of
//!    it, so what an earlier adopter wrote is not written again;
//! 3. when the broker has those events, the outbox is removed. Until then it is
//!    the durable note of what is still to be done.

use std::{error::Error, time::Duration};

use nexus_events::{
    id::RequestId,
    outbox::{Adopted, Appended, Shipper},
    subject,
};
use tokio::time::{Instant, sleep};

use super::{
    no_room::NoRoom,
    settle::{SettleError, Settler},
};
use crate::{
    exchange::lost::Settlement,
    readiness::{Need, Part, Readiness},
    state::State,
};

/// First pause before a step is tried again; it doubles up to the longest.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// Longest pause: 5 s, so that a broker or a disk that is back is noticed soon.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);

/// The counts wait this long, together, for the read model to hold their requests whole: 30 s.
///
/// Then they take what the log itself holds of the requests.
const READ_MODEL_TIME: Duration = Duration::from_secs(30);

/// Requests whose events are held in memory at once: 32, each with its chunks and its body.
const PAGE: usize = 32;

/// Begins to drain what was adopted; what it left open is settled once there is a state.
pub(super) fn drain(shipper: &Shipper, adopted: &[Adopted]) {
    for incarnation in adopted {
        tracing::info!(outbox = %incarnation.id(), bytes = incarnation.bytes(), open = incarnation.open_requests().len(), "adopted the outbox of a lost gateway");
        shipper.drain(incarnation);
    }
}

/// What earlier tries to close have come to.
#[derive(Debug, Default)]
struct Tries {
    /// What was appended last.
    last: Option<Appended>,
    no_room: NoRoom,
    /// Why an end of the present try was left for the next one.
    left: Option<SettleError>,
}

/// What was adopted, and what settles it.
#[derive(Debug)]
pub(super) struct Lost {
    state: State,
    settler: Settler,
    part: Part,
    adopted: Vec<Adopted>,
    shipper: Shipper,
}

impl Lost {
    /// What is to be settled once the gateway serves.
    pub(super) fn new(
        settler: &Settler,
        readiness: &Readiness,
        (adopted, shipper): (Vec<Adopted>, Shipper),
    ) -> Self {
        let part = readiness.part("lost_gateways", Need::Told);
        part.ready();
        Self {
            state: State::clone(&settler.state),
            settler: settler.clone(),
            part,
            adopted,
            shipper,
        }
    }

    /// Settles and removes it, until the soft stop; the next start does what is left.
    ///
    /// Then what was spent is in the log, also what an earlier process could not tell any more.
    pub(super) async fn settle(mut self) {
        let adopted = std::mem::take(&mut self.adopted);
        if !adopted.is_empty() {
            let stop = self.state.soft_stop.clone();
            let settling = Box::pin(self.run(adopted));
            stop.run_until_cancelled(settling).await;
        }
        self.state.limits.begin_afresh();
    }

    async fn run(&self, adopted: Vec<Adopted>) {
        let left = &self.state.metrics.adopted_outboxes;
        left.set(i64::try_from(adopted.len()).unwrap_or(i64::MAX));
        self.part.not_ready(format!(
            "{} outboxes of lost gateways are not settled yet",
            adopted.len()
        ));
        let drained = drained(adopted).await;
        let (mut delay, mut tries) = (RETRY_DELAY, Tries::default());
        while let Err(error) = self.close(&drained, &mut tries).await {
            tracing::warn!(
                error = &error as &dyn Error,
                "lost requests are not settled yet"
            );
            sleep(delay).await;
            delay = (delay * 2).min(RETRY_DELAY_MAX);
        }
        let mut alarms = Vec::new();
        for incarnation in drained {
            let outbox = incarnation.id();
            let told = incarnation.alarms().into_iter();
            alarms.extend(told.map(|alarm| format!("outbox {outbox}: {alarm}")));
            // While it is there, whoever adopts it next can say so again.
            self.shipper.tell_ended(outbox).await;
            match incarnation.remove() {
                Ok(()) => {
                    left.dec();
                    tracing::info!(%outbox, "a lost gateway's outbox is settled and removed");
                }
                // Adopted again by the next start, which finds nothing left to do.
                Err(error) => {
                    let error: &dyn Error = &error;
                    tracing::warn!(%outbox, error, "a settled outbox could not be removed");
                }
            }
        }
        if left.get() > 0 {
            self.part
                .not_ready("an outbox of a lost gateway could not be settled");
        } else if alarms.is_empty() {
            self.part.ready();
        } else {
            self.part.ready_but(alarms.join("; "));
        }
    }

    /// Writes what is missing of every open request, and waits until the broker has it.
    ///
    /// The log must hold what an earlier try appended before it is asked again, or the same end
    /// would be written twice. An end for which there is no room holds up no other.
    async fn close(&self, drained: &[Adopted], tries: &mut Tries) -> Result<(), SettleError> {
        if let Some(last) = tries.last {
            self.state.outbox.stored(last).await?;
        }
        tries.left = None;
        let open = drained.iter().flat_map(Adopted::open_requests);
        let mut patience = Patience::default();
        for page in pages(open.map(|(request, _)| request).collect()) {
            self.close_page(&page, &mut patience, tries).await?;
        }
        if let Some(last) = tries.last {
            self.state.outbox.stored(last).await?;
        }
        tries.left.take().map_or(Ok(()), Err)
    }

    async fn close_page(
        &self,
        page: &[RequestId],
        patience: &mut Patience,
        tries: &mut Tries,
    ) -> Result<(), SettleError> {
        let mut events = self.state.log.events_of(page).await?;
        let mut uncounted = Vec::new();
        for request in page.iter().copied() {
            let events = events.remove(&request).unwrap_or_default();
            let Some(mut settlement) = self.settler.settlement(request, &events).await? else {
                tracing::error!(request.id = %request, "a lost request has no received event in the log");
                continue;
            };
            match self.end(request, &mut settlement, tries) {
                Ok(()) => {}
                Err(error) if error.is_of_room() => {
                    tries.no_room.note(request);
                    tries.left = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            }
            if let Some(count) = settlement.uncounted.take() {
                uncounted.push((settlement, count));
            }
        }
        for (settlement, count) in uncounted {
            let counted = self.settler.count(&settlement, count, patience.until());
            match self
                .settler
                .append(&counted.await?)
                .map_err(SettleError::from)
            {
                Err(error) if error.is_of_room() => tries.left = Some(error),
                appended => tries.last = Some(appended?),
            }
        }
        Ok(())
    }

    /// Appends what is missing of a request's end.
    fn end(
        &self,
        request: RequestId,
        settlement: &mut Settlement,
        tries: &mut Tries,
    ) -> Result<(), SettleError> {
        tries.no_room.strip(request, settlement);
        for record in self.settler.records(settlement)? {
            tries.last = Some(self.settler.append(&record)?);
        }
        Ok(())
    }
}

/// Until when the counts of one try wait for the read model: it begins with the first of them.
#[derive(Debug, Default)]
struct Patience {
    until: Option<Instant>,
}

impl Patience {
    fn until(&mut self) -> Instant {
        *self
            .until
            .get_or_insert_with(|| Instant::now() + READ_MODEL_TIME)
    }
}

/// The requests in pages of [`PAGE`] at most.
///
/// Where they are many, each page is of one shard: all pages together then read the log about
/// once, for a page reads only its shard.
fn pages(mut open: Vec<RequestId>) -> Vec<Vec<RequestId>> {
    let shard = |request: &RequestId| subject::shard(*request);
    open.sort_unstable_by_key(|request| (shard(request), *request));
    open.dedup();
    if open.len() <= PAGE {
        return vec![open];
    }
    open.chunk_by(|one, next| shard(one) == shard(next))
        .flat_map(|of_shard| of_shard.chunks(PAGE))
        .map(<[RequestId]>::to_vec)
        .collect()
}

/// Those that are drained; one that cannot be shipped stays where it is.
async fn drained(adopted: Vec<Adopted>) -> Vec<Adopted> {
    let mut drained = Vec::new();
    for incarnation in adopted {
        match incarnation.drained().await {
            Ok(()) => drained.push(incarnation),
            Err(error) => {
                let (outbox, error): (_, &dyn Error) = (incarnation.id(), &error);
                tracing::error!(%outbox, error, "the outbox of a lost gateway cannot be shipped");
            }
        }
    }
    drained
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use nexus_events::clock::SystemClock;
    use tokio::time::advance;

    use super::*;

    #[test]
    fn many_open_requests_are_looked_up_page_by_page_and_each_page_in_one_shard() {
        let open: Vec<RequestId> = (0..5_000).map(|_| RequestId::draw(&SystemClock)).collect();
        let pages = pages(open.iter().chain(&open).copied().collect());
        for page in &pages {
            assert!((1..=PAGE).contains(&page.len()), "{}", page.len());
            let shards: HashSet<u8> = page.iter().copied().map(subject::shard).collect();
            assert_eq!(shards.len(), 1);
            assert!(page.is_sorted());
        }
        let taken: Vec<RequestId> = pages.into_iter().flatten().collect();
        assert_eq!(taken.len(), open.len());
        assert_eq!(
            taken.into_iter().collect::<HashSet<_>>(),
            open.into_iter().collect()
        );
    }

    #[test]
    fn few_open_requests_are_looked_up_at_once() {
        let open: Vec<RequestId> = (0..PAGE).map(|_| RequestId::draw(&SystemClock)).collect();
        assert_eq!(pages(open).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn all_counts_of_a_try_wait_for_the_read_model_together() {
        let mut patience = Patience::default();
        advance(Duration::from_hours(1)).await;
        let until = patience.until();
        assert_eq!(until, Instant::now() + READ_MODEL_TIME);
        advance(READ_MODEL_TIME).await;
        assert_eq!(patience.until(), until);
    }
}
