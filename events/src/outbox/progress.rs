//! How far each lane has come: appended, shipped, stopped; and waiting for it.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::{
    outbox::{ReleaseError, joint::Joint},
    subject::Lane,
};

/// One lane.
#[derive(Debug)]
struct LaneProgress {
    appended: Notify,
    shipped: watch::Sender<u64>,
    stopped: watch::Sender<Option<String>>,
    alarm: Mutex<Option<String>>,
    gaps: Mutex<Gaps>,
}

/// Events of a lane that were appended and cannot be read any more.
#[derive(Debug, Default)]
struct Gaps {
    missing: u64,
    /// The last position that was counted: a batch may be read again.
    upto: u64,
}

/// All lanes of an incarnation.
#[derive(Debug)]
pub(super) struct Progress {
    lanes: [LaneProgress; 3],
    joint: Arc<Joint>,
}

impl Progress {
    pub(super) fn new(joint: Arc<Joint>) -> Self {
        let lanes = std::array::from_fn(|_| LaneProgress {
            appended: Notify::new(),
            shipped: watch::Sender::new(0),
            stopped: watch::Sender::new(None),
            alarm: Mutex::default(),
            gaps: Mutex::default(),
        });
        Self { lanes, joint }
    }

    fn lane(&self, lane: Lane) -> &LaneProgress {
        let [exchanges, chunks, audit] = &self.lanes;
        match lane {
            Lane::Exchanges => exchanges,
            Lane::Chunks => chunks,
            Lane::Audit => audit,
        }
    }

    /// Wakes the lane's shipper.
    pub(super) fn tell_appended(&self, lane: Lane) {
        self.lane(lane).appended.notify_one();
    }

    /// Waits until something may have been appended to a lane since the last call.
    pub(super) async fn appended(&self, lane: Lane) {
        self.lane(lane).appended.notified().await;
    }

    /// Notes that the broker has stored a lane up to a position.
    pub(super) fn set_shipped(&self, lane: Lane, position: u64) {
        self.lane(lane).shipped.send_if_modified(|reached| {
            let grows = position > *reached;
            *reached = position.max(*reached);
            grows
        });
    }

    /// The last position that the broker has stored, by lane.
    pub(super) fn shipped(&self) -> [u64; 3] {
        Lane::ALL.map(|lane| *self.lane(lane).shipped.borrow())
    }

    /// Notes what somebody should look into, although the lane goes on or has come to its end.
    pub(super) fn alarm(&self, lane: Lane, what: String) {
        *self.lane(lane).alarm.lock() = Some(what);
        self.joint.alarm(lane);
    }

    /// Counts the events behind one position up to another as lost, each once, and raises the alarm.
    pub(super) fn gap(&self, lane: Lane, after: u64, upto: u64) {
        let mut gaps = self.lane(lane).gaps.lock();
        let missing = upto.saturating_sub(after.max(gaps.upto));
        if missing == 0 {
            return;
        }
        gaps.upto = upto;
        gaps.missing += missing;
        let all = gaps.missing;
        drop(gaps);
        tracing::error!(%lane, missing, upto, "events of an outbox lane are damaged and lost");
        self.joint.gap(lane, missing);
        let alarm = format!("{all} events are damaged and lost, the last at position {upto}");
        self.alarm(lane, alarm);
    }

    /// The last position that cannot be read any more, by lane.
    pub(super) fn lost(&self) -> [u64; 3] {
        Lane::ALL.map(|lane| self.lane(lane).gaps.lock().upto)
    }

    /// Counts a record that was set aside.
    pub(super) fn set_aside(&self, lane: Lane) {
        self.joint.set_aside(lane);
    }

    /// What somebody should look into, by lane.
    pub(super) fn alarms(&self) -> Vec<(Lane, String)> {
        Lane::ALL
            .into_iter()
            .filter_map(|lane| Some((lane, self.lane(lane).alarm.lock().clone()?)))
            .collect()
    }

    /// Notes that a lane ships no more.
    pub(super) fn stop_lane(&self, lane: Lane, reason: String) {
        self.lane(lane).stopped.send_replace(Some(reason));
        self.joint.alarm(lane);
    }

    /// Which lanes ship no more, and why.
    pub(super) fn stopped_lanes(&self) -> Vec<(Lane, String)> {
        Lane::ALL
            .into_iter()
            .filter_map(|lane| Some((lane, self.lane(lane).stopped.borrow().clone()?)))
            .collect()
    }

    /// Waits until the broker has stored a lane up to a position.
    pub(super) async fn shipped_upto(&self, lane: Lane, position: u64) -> Result<(), ReleaseError> {
        let progress = self.lane(lane);
        let mut shipped = progress.shipped.subscribe();
        let mut stopped = progress.stopped.subscribe();
        tokio::select! {
            biased;
            reached = shipped.wait_for(|reached| *reached >= position) => {
                reached.map(drop).or(Err(ReleaseError::LaneStopped(lane)))
            }
            _ = stopped.wait_for(Option::is_some) => Err(ReleaseError::LaneStopped(lane)),
        }
    }
}
