//! A streamed answer from the log: what its client missed, and what is still to come.
//!
//! *What it is.* Each frame of a streamed answer carries the number of its
//! chunk as `id`. Whoever comes back with the last one gets the rest: the
//! chunks that the log holds, then those that come, from any gateway. What has
//! ended replays whole.
//!
//! *What it promises.* A chunk is given out once and in order. The stream ends
//! as the exchange did: `[DONE]`, or an error as an event; one whose gateway
//! died ends with `gateway_lost` after all that had arrived. What the log does
//! not hold is never passed over in silence.
//!
//! *How.* Chunks and ends lie in two streams, which are read side by side; the
//! terminal event says how many chunks there are. All of one request lies in
//! one shard, and its id tells where to begin.
//!
//! *What it costs.* Two consumers at the broker for each client, so there is a
//! bound. The exchange itself knows nothing of it.

mod play;
mod playback;
mod search;

use nexus_events::{exchange_event::Received, id::RequestId, log::history::HistoryError};
use tokio::sync::OwnedSemaphorePermit;

use self::{play::Play, playback::Playback};
use crate::{
    error::{ApiError, INVALID_REQUEST},
    exchange::{Reply, client::Client},
    state::AppState,
};

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The request whose answer it is.
    pub request: RequestId,
    /// The number of the first chunk that the client does not have.
    pub next: u32,
    /// Whether chunks come as fast as the provider sent them, and not as fast as they can.
    pub original_pace: bool,
}

/// Begins to give an answer out; `may_see` says whose requests the caller may see.
///
/// # Errors
/// 404: there is no such request that the caller may see; 409: its answer was not streamed; 503:
/// the broker is away, or too many answers are read from it.
pub async fn begin(
    state: &AppState,
    wanted: Wanted,
    may_see: impl Fn(&Received) -> bool,
) -> Result<Reply, ApiError> {
    if !state.log.is_connected() {
        return Err(broker_away());
    }
    let permit = state.limits.resumed()?;
    let found = search::received(&state.log, wanted.request, state.clock.now())
        .await
        .map_err(unreadable)?
        .filter(|found| may_see(&found.received))
        .ok_or_else(|| ApiError::not_found("request"))?;
    if !found.received.stream {
        return Err(ApiError::new(
            http::StatusCode::CONFLICT,
            INVALID_REQUEST,
            "not_streamed",
            "The answer to this request was not streamed; GET /requests/{id} shows it.",
        ));
    }
    let chunks = search::chunks(&state.log, wanted.request)
        .await
        .map_err(unreadable)?;
    let play = Play {
        wanted,
        playback: Playback::new(wanted.request, wanted.next, found.wants_usage),
        exchanges: found.reader,
        chunks,
        log: state.log.clone(),
        soft_stop: state.soft_stop.clone(),
    };
    let (client, waiting) = Client::waiting(state.hard_stop.clone());
    drop(state.tracker.spawn(run(play, client, permit)));
    let broken_off = |_| Err(ApiError::internal("the answer could not be read"));
    waiting.await.unwrap_or_else(broken_off)
}

async fn run(play: Play, client: Client, permit: OwnedSemaphorePermit) {
    Box::pin(play.run(client)).await;
    drop(permit);
}

fn broker_away() -> ApiError {
    ApiError::unavailable(
        "broker_unavailable",
        "The log cannot be read now: the broker does not answer.",
    )
}

fn unreadable(error: HistoryError) -> ApiError {
    broker_away().with_source(error)
}
