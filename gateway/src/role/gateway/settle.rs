//! Settles requests of lost gateways: reads what the log holds of one, makes up what is missing,
//! counts its tokens, and appends to the own outbox.
//!
//! Shared by those who may do so: the adopter of an outbox ([`super::adopted`]) and the sweeper
//! ([`super::sweep`]).

use std::{error::Error, time::Duration};

use bytes::Bytes;
use nexus_events::{
    envelope::{DecodeError, EncodeError, Envelope, Record},
    id::RequestId,
    log::{
        LogError,
        history::{HistoryError, RequestEvents},
    },
    outbox::{AppendError, Appended, ReleaseError},
};
use tokio::time::{Instant, sleep};

use crate::{
    exchange::{
        count::{Counting, Uncounted},
        lost::{LostExchange, Settlement},
    },
    state::State,
};

/// Pause before the read model is asked again for a request that it does not have whole: 100 ms.
const READ_MODEL_PAUSE: Duration = Duration::from_millis(100);

/// Why a lost request is not settled yet.
#[derive(Debug, thiserror::Error)]
pub(super) enum SettleError {
    #[error("the log could not be searched")]
    History(#[from] HistoryError),
    #[error("the log could not be asked")]
    Log(#[from] LogError),
    #[error("its end could not be written")]
    Encode(#[from] EncodeError),
    #[error("its end could not be appended")]
    Append(#[from] AppendError),
    #[error("its end is not shipped")]
    Release(#[from] ReleaseError),
}

impl SettleError {
    /// Whether there was no room for a record: there may be for a smaller one.
    pub(super) const fn is_of_room(&self) -> bool {
        matches!(self, Self::Append(error) if is_of_room(error))
    }
}

/// Whether the outbox has no room for what was to be appended.
pub(super) const fn is_of_room(error: &AppendError) -> bool {
    matches!(error, AppendError::Full | AppendError::TooLarge { .. })
}

/// The hand that settles.
#[derive(Clone, Debug)]
pub(super) struct Settler {
    pub(super) state: State,
    counting: Counting,
}

impl Settler {
    pub(super) const fn new(state: State, counting: Counting) -> Self {
        Self { state, counting }
    }

    /// What is missing of a request, by its events in each stream's order; `None` when no
    /// `received` is among them.
    pub(super) async fn settlement(
        &self,
        request: RequestId,
        events: &RequestEvents,
    ) -> Result<Option<Settlement>, SettleError> {
        // Such an event must not hold up what was lost with it; it is a dead letter as well.
        let unreadable = |error: &DecodeError| {
            let error: &dyn Error = error;
            tracing::error!(request.id = %request, error, "an event of a lost request cannot be read; the request is settled without it");
        };
        let mut exchange = LostExchange::default();
        for payload in events.exchange.iter().chain(&events.chunks) {
            let Ok(envelope) = Envelope::decode(payload).inspect_err(unreadable) else {
                continue;
            };
            let moved = match envelope.dataref {
                Some(_) => self.state.log.body(envelope.id).await?,
                None => None,
            };
            let seen = exchange.see(&envelope, moved.as_deref());
            seen.inspect_err(unreadable).unwrap_or_default();
        }
        let answer_id = |last, answer: &_| self.state.sessions.answer_id(last, answer);
        Ok(exchange.settle(request, answer_id, &[]))
    }

    /// The end of the attempt and the terminal event, in order, as far as they are missing.
    pub(super) fn records(&self, settlement: &Settlement) -> Result<Vec<Record>, EncodeError> {
        settlement.records(&self.state.source(), &*self.state.clock)
    }

    /// Counts the tokens of a request, by the whole body where the read model has it by then
    /// (it is asked once in any case), else by what the log itself holds of the request.
    pub(super) async fn count(
        &self,
        settlement: &Settlement,
        mut uncounted: Uncounted,
        until: Instant,
    ) -> Result<Record, EncodeError> {
        if let Some(body) = self.whole_body(uncounted.request, until).await {
            uncounted.body = body;
        }
        let counted = self.counting.count(uncounted).await;
        settlement.counted(&counted, &self.state.source(), &*self.state.clock)
    }

    pub(super) fn append(&self, record: &Record) -> Result<Appended, AppendError> {
        self.state.outbox.append(record)
    }

    /// The request as it was sent, from the read model: the log's event holds
    /// only the messages that were new.
    async fn whole_body(&self, request: RequestId, until: Instant) -> Option<Bytes> {
        loop {
            match self.state.read_model.request(request).await {
                Ok(Some(found)) if found.request_complete => {
                    return found
                        .request
                        .map(|body| body.get().as_bytes().to_vec().into());
                }
                // Not there yet, or not whole yet.
                Ok(_) | Err(_) if Instant::now() < until => sleep(READ_MODEL_PAUSE).await,
                Ok(_) | Err(_) => return None,
            }
        }
    }
}
