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
};
use tokio::time::sleep;

use super::settle::{SettleError, Settler};
use crate::{
    readiness::{Need, Part, Readiness},
    state::State,
};

/// First pause before a step is tried again; it doubles up to the longest.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// Longest pause: 5 s, so that a broker or a disk that is back is noticed soon.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);

/// A count waits this long for the read model to hold the whole request: 30 s.
///
/// Then it takes what the log itself holds of the request.
const READ_MODEL_TIME: Duration = Duration::from_secs(30);

/// Begins to drain what was adopted; what it left open is settled once there is a state.
pub(super) fn drain(shipper: &Shipper, adopted: &[Adopted]) {
    for incarnation in adopted {
        tracing::info!(outbox = %incarnation.id(), bytes = incarnation.bytes(), open = incarnation.open_requests().len(), "adopted the outbox of a lost gateway");
        shipper.drain(incarnation);
    }
}

/// What was adopted, and what settles it.
#[derive(Debug)]
pub(super) struct Lost {
    state: State,
    settler: Settler,
    part: Part,
    adopted: Vec<Adopted>,
}

impl Lost {
    /// What is to be settled once the gateway serves.
    pub(super) fn new(settler: &Settler, readiness: &Readiness, adopted: Vec<Adopted>) -> Self {
        let part = readiness.part("lost_gateways", Need::Told);
        part.ready();
        Self {
            state: State::clone(&settler.state),
            settler: settler.clone(),
            part,
            adopted,
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
        let (mut delay, mut last) = (RETRY_DELAY, None);
        while let Err(error) = self.close(&drained, &mut last).await {
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
    /// `last`: what an earlier try appended last. The log must hold it before
    /// it is asked again, or the same end would be written twice.
    async fn close(
        &self,
        drained: &[Adopted],
        last: &mut Option<Appended>,
    ) -> Result<(), SettleError> {
        if let Some(last) = *last {
            self.state.outbox.stored(last).await?;
        }
        let mut open: Vec<RequestId> = drained
            .iter()
            .flat_map(Adopted::open_requests)
            .map(|(request, _)| request)
            .collect();
        open.sort_unstable();
        open.dedup();
        let events = self.state.log.events_of(&open).await?;
        let mut uncounted = Vec::new();
        for (request, events) in events {
            let Some(mut settlement) = self.settler.settlement(request, &events).await? else {
                tracing::error!(request.id = %request, "a lost request has no received event in the log");
                continue;
            };
            for record in self.settler.records(&settlement)? {
                *last = Some(self.settler.append(&record)?);
            }
            if let Some(count) = settlement.uncounted.take() {
                uncounted.push((settlement, count));
            }
        }
        for (settlement, count) in uncounted {
            let counted = self.settler.count(&settlement, count, READ_MODEL_TIME);
            *last = Some(self.settler.append(&counted.await?)?);
        }
        if let Some(last) = *last {
            self.state.outbox.stored(last).await?;
        }
        Ok(())
    }
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
