//! Requests with a known key that went to no provider are recorded as well.

use std::error::Error;

use nexus_events::{
    envelope::{EventData, NO_CONTENT, Stamp},
    exchange_event::{self, About, Rejected},
    id::{KeyId, RequestId},
};

use crate::{exchange::Refused, protocol::openai::request::NAME_CHARS_MAX, state::AppState};

/// Stands for a provider and a model: none was asked.
const NOBODY: (&str, &str) = ("_", "_");

/// Writes `rejected`, and waits until the client may be told.
///
/// A full outbox takes none: then the log of the process and the metrics are
/// what is left of the refusal.
pub(crate) async fn record(
    state: &AppState,
    (request, key): (RequestId, KeyId),
    route: &str,
    refused: &Refused,
) {
    let code = refused.error.code.as_deref().unwrap_or("unknown");
    state.metrics.rejected.with_label_values(&[code]).inc();
    let rejected = Rejected {
        key,
        route: route.to_owned(),
        status: refused.error.status.as_u16(),
        code: code.to_owned(),
        message: refused.error.message.clone(),
        model: refused.model.as_deref().map(cut),
    };
    let about = About {
        source: state.engine.source(),
        request,
        traceparent: None,
    };
    let stamp = Stamp::draw(&*state.clock);
    let appended = exchange_event::record(about, stamp, NOBODY, &rejected, NO_CONTENT)
        .map_err(|error| Box::new(error) as Box<dyn Error + Send + Sync>)
        .and_then(|record| Ok(state.outbox.append(&record)?));
    let released = match appended {
        Ok(appended) => {
            let released = state.standstill.released_or_stands(&state.outbox, appended);
            released.await.map_err(Into::into)
        }
        Err(error) => {
            state.metrics.not_recorded(rejected.kind());
            Err(error)
        }
    };
    if let Err(error) = released {
        tracing::warn!(request.id = %request, code, error = &*error, "a refusal was not recorded");
    }
}

/// A name that a client typed, no longer than an event carries.
fn cut(name: &str) -> String {
    name.chars().take(NAME_CHARS_MAX).collect()
}
