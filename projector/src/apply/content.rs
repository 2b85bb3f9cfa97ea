//! `exchange_content`: what is needed, besides the messages, to put a request together again.

use std::sync::LazyLock;

use nexus_events::exchange_event::{RequestContent, SystemMessages};

use super::upsert::{Upsert, Value};

/// The statements that write `exchange_content`.
pub(super) static EXCHANGE_CONTENT: LazyLock<Upsert<5>> = LazyLock::new(|| {
    Upsert::replacing(
        "exchange_content",
        [
            "request_id",
            "system_same_as",
            "system",
            "extras",
            "parameters",
        ],
    )
});

/// The row of a request's content.
pub(super) fn row(request: &str, content: &RequestContent<'_>) -> [Value; 5] {
    let (same_as, system) = match &content.system {
        SystemMessages::SameAs(request) => (Some(request.to_string()), None),
        SystemMessages::Full(messages) => (None, Some(written(messages))),
    };
    let extras = (!content.extras.is_empty()).then(|| written(&content.extras));
    [
        request.into(),
        same_as.into(),
        system.into(),
        extras.into(),
        written(&content.parameters).into(),
    ]
}

/// Raw JSON values cannot fail to be written.
fn written<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
