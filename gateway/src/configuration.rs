//! The configuration in force: a fold of `NEXUS_CONFIG`, swapped whole.
//!
//! *What it is.* Every gateway reads the stream from its start (or from its
//! local snapshot) and folds it into a [`Snapshot`] that never changes. A
//! request takes the snapshot once and sees one configuration from its first
//! to its last step, whatever is changed meanwhile.
//!
//! *What it promises.* What a management call changed is in force in the
//! answering gateway before the call is answered, and everywhere else as soon
//! as the event arrives. Reading it takes no lock.

pub mod bootstrap;
pub mod commands;
pub mod disk;
pub mod first_key;
pub mod fold;
pub mod follow;
mod revoked;
pub mod snapshot;

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use arc_swap::ArcSwap;
use nexus_events::clock::UnixMillis;
use tokio::sync::watch;

pub use commands::{CommandError, Commands};
pub use fold::Fold;
pub use snapshot::{
    Alternative, Alternatives, Candidate, Entry, MessageKey, ProviderRecord, Snapshot,
};

/// The configuration in force; a cheap handle.
#[derive(Clone, Debug)]
pub struct Configuration {
    current: Arc<ArcSwap<Snapshot>>,
    sequence: watch::Sender<u64>,
    /// When it was known to be the newest, milliseconds since 1970.
    newest_at: Arc<AtomicI64>,
}

impl Configuration {
    /// Begins with that snapshot, which was the newest one at that moment.
    pub fn new(snapshot: Snapshot, newest_at: UnixMillis) -> Self {
        let sequence = watch::Sender::new(snapshot.sequence);
        Self {
            current: Arc::new(ArcSwap::from_pointee(snapshot)),
            sequence,
            newest_at: Arc::new(AtomicI64::new(newest_at.as_millis())),
        }
    }

    /// Notes that it is the newest one at that moment.
    pub fn is_newest(&self, now: UnixMillis) {
        self.newest_at.store(now.as_millis(), Ordering::Relaxed);
    }

    /// When it was known to be the newest one.
    pub fn newest_at(&self) -> UnixMillis {
        UnixMillis::from_millis(self.newest_at.load(Ordering::Relaxed))
    }

    /// What is in force now.
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Puts another snapshot in force.
    pub fn replace(&self, snapshot: Snapshot) {
        let sequence = snapshot.sequence;
        self.current.store(Arc::new(snapshot));
        self.sequence.send_replace(sequence);
    }

    /// Waits until the event with that stream sequence is in force.
    ///
    /// # Cancel safety
    /// Nothing is lost when it is dropped.
    pub async fn reached(&self, sequence: u64) {
        let mut watch = self.sequence.subscribe();
        // An error would mean that the sender is gone, and `self` holds it.
        if watch
            .wait_for(|reached| *reached >= sequence)
            .await
            .is_err()
        {
            tracing::error!("the configuration's own channel is closed");
        }
    }
}
