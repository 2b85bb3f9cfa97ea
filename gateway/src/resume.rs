//! A streamed answer from the log: what its client missed, and what is still to come.
//!
//! *What it is.* Each frame of a streamed answer carries the number of its
//! chunk as `id`. Whoever comes back with the last one gets the rest: the
//! chunks that the log holds, then those that come, from any gateway. What has
//! ended replays whole. It comes in the form in which it was asked for: what was
//! asked for in a dialect is translated from the log's chunks once more, and of
//! the frames the client gets those that it lacks.
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

mod arrival;
mod late;
mod play;
mod playback;
mod search;

use std::time::Duration;

use nexus_events::{exchange_event::Received, id::RequestId, log::history::HistoryError};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use self::{play::Play, playback::Playback, search::Sought};
use crate::{
    dialect::{Asked, Dialect},
    error::{ApiError, INVALID_REQUEST},
    exchange::{Reply, client::Client},
    state::AppState,
};

/// When to come back for what is not in the log yet: 2 s. A broker that is back gets all within less.
const COME_BACK: Duration = Duration::from_secs(2);

/// A request is looked for in the log for so long: a minute; a broker that is gone in between is
/// waited for no longer.
const SOUGHT_WITHIN: Duration = Duration::from_mins(1);

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

/// An answer that is given out.
#[derive(Debug)]
pub(crate) struct Begun {
    /// In the form of chat.
    pub(crate) reply: Reply,
    /// The dialect that its request was made in, into which it is to be translated; then it comes
    /// from its first chunk on.
    pub(crate) spoken: Option<(&'static dyn Dialect, Asked)>,
}

/// Begins to give an answer out; `may_see` says whose requests the caller may see.
///
/// # Errors
/// 404: there is no such request that the caller may see; 409: its answer was not streamed; 503:
/// the broker is away, too many answers are read from it, or the request may be on its way to it.
pub(crate) async fn begin(
    state: &AppState,
    wanted: Wanted,
    may_see: impl Fn(&Received) -> bool,
) -> Result<Begun, ApiError> {
    if !state.log.is_connected() {
        return Err(broker_away());
    }
    let permit = state.limits.resumed()?;
    let sought = timeout(SOUGHT_WITHIN, search::received(state, wanted.request));
    let sought = sought.await.map_err(|_elapsed| broker_away())?;
    let found = match sought.map_err(unreadable)? {
        Sought::Found(found) if may_see(&found.received) => found,
        Sought::Found(_) | Sought::Nothing => return Err(ApiError::not_found("request")),
        Sought::MayCome => return Err(on_its_way()),
    };
    if !found.received.stream {
        return Err(ApiError::new(
            http::StatusCode::CONFLICT,
            INVALID_REQUEST,
            "not_streamed",
            "The answer to this request was not streamed; GET /requests/{id} shows it.",
        ));
    }
    let chunks = search::chunks(&state.log, wanted.request, found.stored)
        .await
        .map_err(unreadable)?;
    // A translation begins at the first chunk, whatever the client has.
    let from = if found.spoken.is_some() {
        0
    } else {
        wanted.next
    };
    let play = Play {
        wanted,
        playback: Playback::new(wanted.request, from, found.wants_usage),
        exchanges: found.reader,
        chunks,
        log: state.log.clone(),
        soft_stop: state.soft_stop.clone(),
    };
    let (client, waiting) = Client::waiting(state.hard_stop.clone());
    drop(state.tracker.spawn(run(play, client, permit)));
    let broken_off = |_| Err(ApiError::internal("the answer could not be read"));
    let reply = waiting.await.unwrap_or_else(broken_off)?;
    let spoken = found.spoken;
    Ok(Begun { reply, spoken })
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
    .with_retry_after(COME_BACK)
}

fn on_its_way() -> ApiError {
    ApiError::unavailable(
        "not_in_the_log_yet",
        "The log does not hold this request yet; if there is one, it is still in the outbox of a gateway.",
    )
    .with_retry_after(COME_BACK)
}

fn unreadable(error: HistoryError) -> ApiError {
    broker_away().with_source(error)
}
