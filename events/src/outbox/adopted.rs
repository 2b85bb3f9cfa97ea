//! An incarnation whose process is gone: to be drained, closed and removed.

use std::{io, sync::Arc};

use crate::{
    id::{OutboxId, RequestId},
    outbox::Store,
    subject::Lane,
};

/// How a request of a lost incarnation is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenState {
    /// It has no terminal event.
    Answering,
    /// It has one, but its tokens are still to be counted.
    Uncounted,
}

/// An adopted incarnation. Holding it holds its lock.
///
/// The order that makes closing exact: drain *every* adopted incarnation, then
/// close the open requests by what the log says of each (an earlier adopter
/// may have closed some), and remove the directory only when those terminal
/// events are stored by the broker.
#[derive(Debug)]
pub struct Adopted {
    store: Arc<Store>,
}

impl Adopted {
    pub(super) fn new(store: Store) -> Self {
        Self {
            store: Arc::new(store),
        }
    }

    /// The id of the incarnation.
    pub fn id(&self) -> OutboxId {
        self.store.id()
    }

    /// Its size on disk in bytes.
    pub fn bytes(&self) -> u64 {
        self.store.usage().used_bytes
    }

    /// The requests that it left open.
    pub fn open_requests(&self) -> Vec<(RequestId, OpenState)> {
        self.store.open_requests()
    }

    /// Waits until the broker has stored everything that it holds.
    ///
    /// What is damaged at its end can not be waited for: [`Adopted::alarms`] tells it then.
    ///
    /// # Errors
    /// The lane that cannot be shipped, with the reason in the log.
    pub async fn drained(&self) -> Result<(), super::ReleaseError> {
        for lane in Lane::ALL {
            self.store
                .progress
                .shipped_upto(lane, self.store.last_position(lane))
                .await?;
        }
        Ok(())
    }

    /// What somebody should look into, known once it is drained: events that it held once and
    /// that can not be read any more, and lanes whose end was lost after it had been shipped.
    pub fn alarms(&self) -> Vec<String> {
        let alarms = self.store.progress.alarms().into_iter();
        alarms
            .map(|(lane, reason)| format!("lane {lane}: {reason}"))
            .collect()
    }

    /// Removes its directory.
    ///
    /// # Errors
    /// The directory cannot be removed; it is adopted again by the next start.
    pub fn remove(self) -> io::Result<()> {
        self.store.remove()
    }

    pub(crate) const fn store(&self) -> &Arc<Store> {
        &self.store
    }
}
