//! The outbox's figures, read at the moment when they are asked for.
//!
//! A gauge that a task sets now and then would say "nothing to ship" for a
//! moment after something was appended, and who waits for an empty outbox
//! would go on too early.

use nexus_events::{outbox::Outbox, subject::Lane};
use parking_lot::Mutex;
use prometheus::{
    IntCounterVec, IntGauge, IntGaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// Bytes, and by lane: events not shipped, events shipped, events lost, events set aside, alarms.
#[derive(Debug)]
pub(super) struct OutboxFigures {
    outbox: Outbox,
    bytes: IntGauge,
    lag: IntGaugeVec,
    shipped: IntGaugeVec,
    gaps: IntCounterVec,
    unshippable: IntCounterVec,
    /// Held while the counters are brought up to date, so that two readers add nothing twice.
    counting: Mutex<()>,
    alarm: IntGaugeVec,
}

impl OutboxFigures {
    pub(super) fn of(outbox: Outbox) -> Result<Self, prometheus::Error> {
        let by_lane = |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help), &["lane"]);
        Ok(Self {
            outbox,
            bytes: IntGauge::new("nexus_outbox_bytes", "Bytes in the outbox.")?,
            lag: by_lane("nexus_outbox_lag_events", "Events not yet shipped.")?,
            shipped: by_lane("nexus_shipped_events", "Events shipped since the start.")?,
            gaps: IntCounterVec::new(
                Opts::new(
                    "nexus_outbox_gaps_total",
                    "Events that were appended and cannot be read any more.",
                ),
                &["lane"],
            )?,
            unshippable: IntCounterVec::new(
                Opts::new(
                    "nexus_outbox_unshippable_total",
                    "Events that the broker cannot take; they were set aside on disk.",
                ),
                &["lane"],
            )?,
            counting: Mutex::default(),
            alarm: by_lane(
                "nexus_outbox_alarm",
                "1 when the lane lost events or stopped since the start.",
            )?,
        })
    }
}

impl Collector for OutboxFigures {
    fn desc(&self) -> Vec<&Desc> {
        let mut descriptions = self.bytes.desc();
        descriptions.extend(self.lag.desc());
        descriptions.extend(self.shipped.desc());
        descriptions.extend(self.gaps.desc());
        descriptions.extend(self.unshippable.desc());
        descriptions.extend(self.alarm.desc());
        descriptions
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let usage = self.outbox.usage();
        let (lost, alarmed) = (self.outbox.gaps(), self.outbox.alarmed());
        let set_aside = self.outbox.set_aside();
        let counting = self.counting.lock();
        self.bytes.set(gauge(usage.used_bytes));
        for lane in Lane::ALL {
            let of = |counts: [u64; 3]| counts.get(lane.index()).copied().unwrap_or(0);
            let (appended, shipped) = (of(usage.appended), of(usage.shipped));
            let labels = [lane.name()];
            let lag = gauge(appended.saturating_sub(shipped));
            self.lag.with_label_values(&labels).set(lag);
            self.shipped.with_label_values(&labels).set(gauge(shipped));
            for (counter, reached) in [(&self.gaps, lost), (&self.unshippable, set_aside)] {
                let counter = counter.with_label_values(&labels);
                counter.inc_by(of(reached).saturating_sub(counter.get()));
            }
            let alarm = alarmed.get(lane.index()).copied().unwrap_or_default();
            self.alarm.with_label_values(&labels).set(i64::from(alarm));
        }
        drop(counting);
        let mut families = self.bytes.collect();
        families.extend(self.lag.collect());
        families.extend(self.shipped.collect());
        families.extend(self.gaps.collect());
        families.extend(self.unshippable.collect());
        families.extend(self.alarm.collect());
        families
    }
}

fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
