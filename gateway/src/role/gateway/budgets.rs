//! Reads what was spent of a month where the shared state does not know it.

use std::{error::Error, time::Duration};

use futures_util::future::{BoxFuture, FutureExt};
use nexus_events::{clock::UnixMillis, subject::Stream};
use tokio_util::sync::CancellationToken;

use crate::{
    limits::{Past, PastUsage},
    state::{AppState, State},
};

/// Between two looks for budgets whose past is not known: 5 s.
const PAUSE: Duration = Duration::from_secs(5);

/// Seeds budgets, until `over`.
pub(super) async fn seed(state: State, over: CancellationToken) {
    let seeding = async {
        loop {
            let (snapshot, now) = (state.configuration.current(), state.clock.now());
            let past = InReadModel(&state);
            state.limits.seed(&snapshot, now, &past).await;
            tokio::time::sleep(PAUSE).await;
        }
    };
    over.run_until_cancelled(seeding).await;
}

struct InReadModel<'a>(&'a AppState);

impl Past for InReadModel<'_> {
    fn usage(&self, from: UnixMillis, before: UnixMillis) -> BoxFuture<'_, Option<PastUsage>> {
        self.read(from, before).boxed()
    }
}

impl InReadModel<'_> {
    async fn read(&self, from: UnixMillis, before: UnixMillis) -> Option<PastUsage> {
        let Self(state) = self;
        // Whatever has ended before is in the log by now, or in an outbox that is about to be shipped.
        let stored = state.log.stream_state(Stream::Exchanges).await;
        let shipped = state.outbox.is_shipped();
        let read = async {
            let as_of = state.read_model.as_of().await?;
            let rows = state.read_model.used_tokens(from, before).await?;
            Ok::<_, nexus_projector::read_model::ReadError>((as_of, rows))
        };
        let (as_of, rows) = read
            .await
            .inspect_err(|error| {
                let error: &dyn Error = error;
                tracing::debug!(error, "no read model to read a month's money from yet");
            })
            .ok()?;
        let is_whole =
            shipped && stored.is_ok_and(|stored| as_of.exchanges >= stored.last_sequence);
        Some(PastUsage { rows, is_whole })
    }
}
