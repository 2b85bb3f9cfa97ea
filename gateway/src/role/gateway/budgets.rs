//! Reads what was spent of a month where the shared state does not know it.

use std::{error::Error, ops::Range, time::Duration};

use futures_util::future::{BoxFuture, FutureExt};
use nexus_events::{
    clock::UnixMillis,
    subject::{Lane, Stream},
};
use nexus_projector::read_model::{ReadError, UsedTokens};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    limits::{Past, Reached},
    state::{AppState, State},
};

/// Between two looks for budgets whose past is not known: 5 s.
const PAUSE: Duration = Duration::from_secs(5);

/// All budgets are counted afresh once a day, for what nobody could tell.
const AFRESH_INTERVAL: Duration = Duration::from_hours(24);

/// The broker and the read model get 10 s to have what this gateway has recorded; else a part is read.
const CATCH_UP_MAX: Duration = Duration::from_secs(10);

/// Between two looks whether they have: 50 ms, about what the read model needs.
const CATCH_UP_PAUSE: Duration = Duration::from_millis(50);

/// Seeds budgets, until `over`.
pub(super) async fn seed(state: State, over: CancellationToken) {
    let seeding = async {
        let mut afresh = Instant::now();
        loop {
            if afresh.elapsed() >= AFRESH_INTERVAL {
                afresh = Instant::now();
                state.limits.begin_afresh();
            }
            let (snapshot, now) = (state.configuration.current(), state.clock.now());
            let past = InReadModel(&state);
            state.limits.seed(&snapshot, now, &past).await;
            sleep(PAUSE).await;
        }
    };
    over.run_until_cancelled(seeding).await;
}

struct InReadModel<'a>(&'a AppState);

impl Past for InReadModel<'_> {
    fn reached(&self) -> BoxFuture<'_, Option<Reached>> {
        self.catch_up().boxed()
    }

    fn usage(
        &self,
        from: UnixMillis,
        ended: Range<UnixMillis>,
    ) -> BoxFuture<'_, Option<Vec<UsedTokens>>> {
        let read = self.0.read_model.used_tokens(from, ended);
        read.map(readable).boxed()
    }
}

impl InReadModel<'_> {
    async fn catch_up(&self) -> Option<Reached> {
        let is_whole = timeout(CATCH_UP_MAX, self.caught_up()).await;
        let is_whole = matches!(is_whole, Ok(true));
        let as_of = readable(self.0.read_model.as_of().await)?;
        Some(Reached {
            sequence: as_of.exchanges,
            is_whole,
        })
    }

    /// Waits until the read model has what this gateway has recorded; `false`: it cannot be known.
    async fn caught_up(&self) -> bool {
        let Self(state) = self;
        if state.outbox.stored_so_far(Lane::Exchanges).await.is_err() {
            return false;
        }
        // The last event: what stands behind it are cursors, which nobody reads.
        let (log, events) = (&state.log, Stream::Exchanges.events());
        let Ok(last) = log.last_of_subject(Stream::Exchanges, events).await else {
            return false;
        };
        let last = last.map_or(0, |message| message.sequence);
        loop {
            match readable(state.read_model.as_of().await) {
                None => return false,
                Some(as_of) if as_of.exchanges >= last => return true,
                Some(_) => sleep(CATCH_UP_PAUSE).await,
            }
        }
    }
}

fn readable<T>(read: Result<T, ReadError>) -> Option<T> {
    let told = read.inspect_err(|error| {
        let error: &dyn Error = error;
        tracing::debug!(error, "no read model to read a month's money from yet");
    });
    told.ok()
}
