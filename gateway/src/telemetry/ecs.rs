//! One JSON object a line, with the names of the Elastic Common Schema 8.
//!
//! `@timestamp`, `log.level`, `log.logger`, `message`, `ecs.version`,
//! `service.name`, `process.pid`, and the fields of the event under `labels`,
//! so that whatever a crate logs cannot clash with the schema.

use std::{error::Error, fmt};

use chrono::{SecondsFormat, Utc};
use serde_json::{Map, Value, json};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use super::plain;

/// Formats an event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ecs;

impl<S, N> FormatEvent<S, N> for Ecs
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let mut line = json!({
            "@timestamp": Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true),
            "log.level": metadata.level().as_str().to_ascii_lowercase(),
            "message": fields.message,
            "ecs.version": "8.11.0",
            "service.name": "nexus",
            "process.pid": std::process::id(),
            "log.logger": metadata.target(),
        });
        if let (Some(line), Some(error)) = (line.as_object_mut(), fields.error) {
            line.insert("error.message".to_owned(), Value::String(error));
        }
        if let (Some(line), Some(span)) = (line.as_object_mut(), context.lookup_current()) {
            line.insert("nexus.span".to_owned(), Value::from(span.name()));
        }
        if let (Some(line), false) = (line.as_object_mut(), fields.labels.is_empty()) {
            line.insert("labels".to_owned(), Value::Object(fields.labels));
        }
        writeln!(writer, "{line}")
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    error: Option<String>,
    labels: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        self.labels.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "error" => self.error = Some(format!("{value:?}")),
            _ => self.put(field, Value::from(format!("{value:?}"))),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            "error" => self.error = Some(value.to_owned()),
            _ => self.put(field, Value::from(value)),
        }
    }

    fn record_error(&mut self, _: &Field, value: &(dyn Error + 'static)) {
        self.error = Some(plain::chain(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::from(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Value::from(value));
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, sync::Arc};

    use parking_lot::Mutex;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_an_object_with_the_schemas_names() {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = tracing_subscriber::fmt::layer()
            .event_format(Ecs)
            .with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer);
        let source = std::io::Error::other("disk on fire");
        tracing::subscriber::with_default(subscriber, || {
            let error: &dyn Error = &source;
            tracing::warn!(error, lane = "audit", count = 3_u64, "it says \"no\"");
        });
        let text = lines.0.lock().clone();
        let line: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(line["log.level"], "warn");
        assert_eq!(line["message"], "it says \"no\"");
        assert_eq!(line["error.message"], "disk on fire");
        assert_eq!(line["labels"], json!({"lane": "audit", "count": 3}));
        assert_eq!(text.last(), Some(&b'\n'));
    }
}
