//! Log lines on standard error, as text or as JSON after the Elastic Common Schema.
//!
//! Log lines never hold message content, keys, or headers that carry them:
//! nothing here could take them out again.

mod ecs;

use anyhow::Context;
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

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
        .with(lines.with_filter(filter))
        .try_init()
        .context("start logging")
}
