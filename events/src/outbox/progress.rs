//! How far each lane has come: appended, shipped, stopped; and waiting for it.

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::{outbox::ReleaseError, subject::Lane};

/// One lane.
#[derive(Debug)]
struct LaneProgress {
    appended: Notify,
    shipped: watch::Sender<u64>,
    stopped: watch::Sender<Option<String>>,
    alarm: Mutex<Option<String>>,
}

/// All lanes of an incarnation.
#[derive(Debug)]
pub(super) struct Progress([LaneProgress; 3]);

impl Progress {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| LaneProgress {
            appended: Notify::new(),
            shipped: watch::Sender::new(0),
            stopped: watch::Sender::new(None),
            alarm: Mutex::default(),
        }))
    }

    fn lane(&self, lane: Lane) -> &LaneProgress {
        let [exchanges, chunks, audit] = &self.0;
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
