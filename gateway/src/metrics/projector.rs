//! What the projector says of itself.

use prometheus::IntGauge;

use super::Register;

/// How far the read model is, and what it misses.
#[derive(Clone, Debug)]
pub struct ProjectorFigures {
    /// Events in the log that the read model did not have yet at the last contact.
    pub lag_events: IntGauge,
    /// When the projector heard last from the broker, seconds since 1970; 0: not since the start.
    pub last_contact: IntGauge,
    /// Events that could not be applied to the read model since the start.
    pub dead_letters: IntGauge,
    /// Positions that are missing in the log: proof of loss.
    pub log_gaps: IntGauge,
}

impl ProjectorFigures {
    pub(super) fn new(new: &Register<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            lag_events: new.gauge(
                "nexus_projector_lag_events",
                "Events that the read model did not have yet at the last contact with the broker.",
            )?,
            last_contact: new.gauge(
                "nexus_projector_last_contact_timestamp_seconds",
                "When the projector last heard from the broker; 0 for not yet.",
            )?,
            dead_letters: new.gauge("nexus_dead_letters", "Events that could not be applied.")?,
            log_gaps: new.gauge("nexus_log_gaps", "Positions missing in the log.")?,
        })
    }
}
