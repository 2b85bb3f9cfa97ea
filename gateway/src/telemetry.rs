//! Log lines on standard error, as text or as JSON after the Elastic Common Schema.
//!
//! Log lines never hold message content, keys, or headers that carry them. Nothing here could take
//! them out again, but for what readers of JSON quote (`plain`).

mod ecs;
mod plain;

use anyhow::Context;
use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, filter_fn},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::settings::LogFormat;

/// Starts logging.
///
/// # Errors
/// The filter is not understood, or logging was started before.
pub fn start(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("read NEXUS_LOG: {filter}"))?;
    // A line that cannot be written is lost. To tell of it on standard error as well would panic in
    // whatever task wants to log.
    let lines = match format {
        LogFormat::Text => tracing_subscriber::fmt::layer()
            .fmt_fields(plain::PlainFields)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .log_internal_errors(false)
            .boxed(),
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .event_format(ecs::Ecs)
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .log_internal_errors(false)
            .boxed(),
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(filter.and(filter_fn(is_ours_or_coarse))))
        .try_init()
        .context("start logging")
}

/// At their finest level libraries write whole messages, with what they carry.
fn is_ours_or_coarse(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::DEBUG || metadata.target().starts_with("nexus")
}
