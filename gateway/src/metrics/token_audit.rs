//! How exact the hub's own token counts are: what audits of providers' counts came to.

use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

/// Upper bounds of the buckets of the relative error: from exact to twice as many or none at all.
const ERROR_BUCKETS: &[f64] = &[0.0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0];

/// The figures.
#[derive(Clone, Debug)]
pub struct TokenAudits {
    audits: IntCounter,
    dropped: IntCounter,
    exact: IntCounterVec,
    error: HistogramVec,
}

impl TokenAudits {
    /// Registers them.
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let audits = IntCounter::new(
            "nexus_token_audits_total",
            "Answers whose provider's token counts the hub has checked with its own.",
        )?;
        let dropped = IntCounter::new(
            "nexus_token_audits_dropped_total",
            "Answers of the sample that were not checked: the counter was busy or the outbox full.",
        )?;
        let exact = IntCounterVec::new(
            Opts::new(
                "nexus_token_audit_exact_total",
                "Checked counts that are the provider's own, by direction.",
            ),
            &["direction"],
        )?;
        let error = HistogramVec::new(
            HistogramOpts::new(
                "nexus_token_audit_error_ratio",
                "Distance of the hub's count from the provider's, as a share of the provider's.",
            )
            .buckets(ERROR_BUCKETS.to_vec()),
            &["direction"],
        )?;
        registry.register(Box::new(audits.clone()))?;
        registry.register(Box::new(dropped.clone()))?;
        registry.register(Box::new(exact.clone()))?;
        registry.register(Box::new(error.clone()))?;
        let figures = Self {
            audits,
            dropped,
            exact,
            error,
        };
        // Shown from the start, so that a share of them can be computed.
        for direction in ["input", "output"] {
            figures.exact.with_label_values(&[direction]);
            figures.error.with_label_values(&[direction]);
        }
        Ok(figures)
    }

    /// An answer of the sample was not checked.
    pub fn dropped(&self) {
        self.dropped.inc();
    }

    /// An answer was checked: tokens in and out, as the provider and as the hub counted them.
    pub fn audited(&self, provider: (u64, u64), hub: (u64, u64)) {
        self.audits.inc();
        for (direction, provider, hub) in
            [("input", provider.0, hub.0), ("output", provider.1, hub.1)]
        {
            if provider == hub {
                self.exact.with_label_values(&[direction]).inc();
            }
            let error = self.error.with_label_values(&[direction]);
            error.observe(relative_error(provider, hub));
        }
    }
}

/// In millionths at most; what the provider counted as nothing is off by the whole.
#[expect(
    clippy::float_arithmetic,
    reason = "a ratio for Prometheus, whose values are floats; tokens stay integers"
)]
fn relative_error(provider: u64, hub: u64) -> f64 {
    let millionths = u128::from(provider.abs_diff(hub)) * 1_000_000 / u128::from(provider.max(1));
    f64::from(u32::try_from(millionths).unwrap_or(u32::MAX)) / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn an_audit_is_told_by_direction() {
        let metrics = Metrics::new().unwrap();
        metrics.token_audits.audited((100, 50), (100, 51));
        metrics.token_audits.audited((100, 0), (103, 0));
        metrics.token_audits.dropped();
        let text = String::from_utf8(metrics.encode().unwrap()).unwrap();
        for line in [
            "nexus_token_audits_total 2",
            "nexus_token_audits_dropped_total 1",
            r#"nexus_token_audit_exact_total{direction="input"} 1"#,
            r#"nexus_token_audit_exact_total{direction="output"} 1"#,
            r#"nexus_token_audit_error_ratio_bucket{direction="input",le="0"} 1"#,
            r#"nexus_token_audit_error_ratio_bucket{direction="input",le="0.02"} 1"#,
            r#"nexus_token_audit_error_ratio_bucket{direction="input",le="0.05"} 2"#,
            r#"nexus_token_audit_error_ratio_bucket{direction="output",le="0.02"} 2"#,
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line} in {text}");
        }
    }

    #[test]
    fn a_provider_that_counted_nothing_divides_nothing() {
        for (provider, hub, millionths) in [(0, 0, 0), (0, 1, 1_000_000), (4, 3, 250_000)] {
            let expected = f64::from(millionths) / 1e6;
            assert!((relative_error(provider, hub) - expected).abs() < 1e-9);
        }
        assert!(relative_error(1, u64::MAX) > 1000.0);
    }
}
