//! Whether a request that the log does not hold may still be on its way to it.
//!
//! A gateway that is cut off from the broker serves its clients, and what it
//! records waits in its outbox: the log alone cannot tell such a request from
//! one that never was. So each outbox says, in its cursor, up to when the log
//! has all of it, and whether it has ended. What the log does not hold then
//! never was, unless an outbox is further behind than that, or was not heard
//! of for so long that it is given up.

use std::time::Duration;

use nexus_events::{clock::UnixMillis, id::RequestId, log::history::HistoryError, subject::Lane};
use tokio::time::timeout;

use crate::state::AppState;

/// A request's `received` is appended at most this long after its id was drawn, unless bodies may
/// take longer to arrive: two minutes.
const APPENDED_WITHIN: Duration = Duration::from_mins(2);

/// How far another gateway's clock may be ahead of this one's: ten minutes. An id that is further
/// ahead was made up.
const AHEAD_MAX: Duration = Duration::from_mins(10);

/// The outboxes are asked for so long; then something may be on its way: 5 s.
const ASKED_WITHIN: Duration = Duration::from_secs(5);

/// Whether the log holds all that there will be of requests that were drawn when this one was.
pub(super) async fn is_complete(
    state: &AppState,
    request: RequestId,
    now: UnixMillis,
) -> Result<bool, HistoryError> {
    let drawn = request.drawn_at();
    let given_up = now.minus(state.settings.lost_settle);
    if drawn < given_up || drawn > now.plus(AHEAD_MAX) {
        return Ok(true);
    }
    let appended = drawn.plus(APPENDED_WITHIN.max(state.settings.body_time));
    if appended > now {
        return Ok(false);
    }
    let asked = timeout(ASKED_WITHIN, async {
        // What this gateway carries itself is in the log before the others are asked.
        if state.outbox.stored_so_far(Lane::Exchanges).await.is_err() {
            return Ok(false);
        }
        let own = state.outbox.id();
        let cursors = state.log.cursors(Lane::Exchanges, given_up).await?;
        let mut others = cursors.iter().filter(|cursor| cursor.outbox != own);
        Ok(others.all(|cursor| cursor.holds_all_before(appended)))
    });
    asked.await.unwrap_or(Ok(false))
}
