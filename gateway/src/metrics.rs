//! What is counted, for Prometheus: names with units, labels from closed sets only.

pub mod listener;
mod outbox;
pub mod projector;
pub mod token_audit;

use nexus_events::outbox::Outbox;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

pub use projector::ProjectorFigures;
pub use token_audit::TokenAudits;

/// Upper bounds of the latency buckets, in seconds: from an echo to a long reasoning answer.
const LATENCY_BUCKETS_SECONDS: &[f64] = &[
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
];

/// The hub's metrics and the registry that they are read from.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// HTTP answers, by status class (`2xx` … `5xx`).
    pub answers: IntCounterVec,
    /// Exchanges that ended, by outcome: `completed` or a failure's reason.
    pub exchanges: IntCounterVec,
    /// Requests with a known key that went to no provider, by error code.
    pub rejected: IntCounterVec,
    /// Events that the outbox did not take and nobody will make up for, by kind.
    unrecorded: IntCounterVec,
    /// Streamed chunks recorded.
    pub chunks: IntCounter,
    /// What became of the audits of providers' token counts.
    pub token_audits: TokenAudits,
    /// From the request's arrival to the first byte of the answer.
    pub first_token_seconds: Histogram,
    /// From an attempt's start to its end, without the time in which its client did not read.
    pub upstream_seconds: Histogram,
    /// Tries after a failed one.
    pub retries: IntCounter,
    /// Tries that the gateway's budget of retries did not allow.
    pub retries_refused: IntCounter,
    /// Changes of providers' breakers, by what they became.
    pub breaker_changes: IntCounterVec,
    /// Providers whose breaker is not closed.
    pub breakers_open: IntGauge,
    /// Exchanges under way.
    pub open_exchanges: IntGauge,
    /// Open WebSocket connections.
    pub websockets: IntGauge,
    /// Client connections open.
    pub connections: IntGauge,
    /// Stream sequence of the configuration in force.
    pub config_sequence: IntGauge,
    /// What the projector says of itself.
    pub projector: ProjectorFigures,
    /// Outboxes of lost gateways that this one has adopted and not settled yet.
    pub adopted_outboxes: IntGauge,
    /// 1 while this gateway is the one that sweeps after lost ones, else 0.
    pub sweeper: IntGauge,
    /// Requests of lost gateways that this one has presumed lost.
    pub presumed_lost: IntCounter,
    /// Requests of lost gateways that this one has settled after their time.
    pub lost_settled: IntCounter,
    /// When the latest good backup was taken, seconds since 1970; 0: there is none.
    pub last_backup_seconds: IntGauge,
    /// 1 while a part is ready, else 0.
    pub ready: IntGaugeVec,
    /// 1 while Redis answers, else 0; stays 0 without Redis.
    pub redis_up: IntGauge,
    /// Gateways that were last seen living; 0 without Redis.
    pub gateways: IntGauge,
    /// Calls that this gateway's own memory answered because Redis did not.
    pub redis_fallbacks: IntCounter,
}

impl Metrics {
    /// Registers all of them.
    ///
    /// # Errors
    /// Two have one name: a fault of this file, which every test would show.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let new = Register(&registry);
        Ok(Self {
            answers: new.counters("nexus_http_answers_total", "HTTP answers.", "class")?,
            exchanges: new.counters("nexus_exchanges_total", "Exchanges that ended.", "outcome")?,
            rejected: new.counters("nexus_rejected_total", "Requests refused.", "code")?,
            unrecorded: new.counters("nexus_unrecorded_events_total", "Not recorded.", "kind")?,
            chunks: new.counter("nexus_chunks_total", "Streamed chunks recorded.")?,
            token_audits: TokenAudits::new(&registry)?,
            first_token_seconds: new.latency(
                "nexus_first_token_seconds",
                "Time to the first byte of the answer.",
            )?,
            upstream_seconds: new.latency(
                "nexus_upstream_seconds",
                "Time of one attempt, without waits for its client.",
            )?,
            retries: new.counter("nexus_retries_total", "Tries after a failed one.")?,
            retries_refused: new.counter(
                "nexus_retries_refused_total",
                "Tries that the budget of retries did not allow.",
            )?,
            breaker_changes: new.counters(
                "nexus_breaker_changes_total",
                "Changes of providers' breakers.",
                "to",
            )?,
            breakers_open: new.gauge(
                "nexus_breakers_open",
                "Providers whose breaker is not closed.",
            )?,
            open_exchanges: new.gauge("nexus_open_exchanges", "Exchanges under way.")?,
            websockets: new.gauge("nexus_websockets", "Open WebSocket connections.")?,
            connections: new.gauge("nexus_connections", "Client connections open.")?,
            config_sequence: new.gauge("nexus_config_sequence", "Configuration in force.")?,
            projector: ProjectorFigures::new(&new)?,
            adopted_outboxes: new.gauge(
                "nexus_adopted_outboxes",
                "Outboxes of lost gateways, not settled yet.",
            )?,
            sweeper: new.gauge(
                "nexus_sweeper",
                "1 while this gateway sweeps after lost ones.",
            )?,
            presumed_lost: new.counter(
                "nexus_presumed_lost_total",
                "Requests that were presumed lost.",
            )?,
            lost_settled: new.counter(
                "nexus_lost_settled_total",
                "Requests of lost gateways that were settled.",
            )?,
            last_backup_seconds: new.gauge(
                "nexus_last_backup_timestamp_seconds",
                "When the latest good backup was taken; 0 for none.",
            )?,
            ready: new.gauges("nexus_ready", "1 while the part is ready.", "part")?,
            redis_up: new.gauge("nexus_redis_up", "1 while Redis answers.")?,
            gateways: new.gauge("nexus_gateways", "Gateways that share the limits.")?,
            redis_fallbacks: new.counter(
                "nexus_redis_fallbacks_total",
                "Calls that Redis did not answer.",
            )?,
            registry,
        })
    }

    /// Counts an event that the outbox did not take, by the name in its type.
    pub fn not_recorded(&self, kind: &'static str) {
        let name = kind.rsplit('.').nth(1).unwrap_or(kind);
        self.unrecorded.with_label_values(&[name]).inc();
    }

    /// Shows the figures of the gateway's outbox, too.
    ///
    /// # Errors
    /// The process has shown one already: a fault of this program.
    pub fn show_outbox(&self, outbox: Outbox) -> Result<(), prometheus::Error> {
        let figures = outbox::OutboxFigures::of(outbox)?;
        self.registry.register(Box::new(figures))
    }

    /// All of them in Prometheus' text format.
    ///
    /// # Errors
    /// A metric cannot be written as text.
    pub fn encode(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// Makes and registers in one step.
struct Register<'a>(&'a Registry);

impl Register<'_> {
    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        let metric = IntCounter::new(name, help)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        label: &str,
    ) -> Result<IntCounterVec, prometheus::Error> {
        let metric = IntCounterVec::new(Opts::new(name, help), &[label])?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        let metric = IntGauge::new(name, help)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn gauges(
        &self,
        name: &str,
        help: &str,
        label: &str,
    ) -> Result<IntGaugeVec, prometheus::Error> {
        let metric = IntGaugeVec::new(Opts::new(name, help), &[label])?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn latency(&self, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
        let buckets = LATENCY_BUCKETS_SECONDS.to_vec();
        let metric = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_can_be_read() {
        let metrics = Metrics::new().unwrap();
        metrics.answers.with_label_values(&["2xx"]).inc();
        metrics.not_recorded("ai.nexus.audit.access_refused.v1");
        let text = String::from_utf8(metrics.encode().unwrap()).unwrap();
        assert!(
            text.contains(r#"nexus_http_answers_total{class="2xx"} 1"#),
            "{text}"
        );
        let unrecorded = r#"nexus_unrecorded_events_total{kind="access_refused"} 1"#;
        assert!(text.contains(unrecorded), "{text}");
    }
}
