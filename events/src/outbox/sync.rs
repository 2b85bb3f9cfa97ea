//! Forcing the outbox to the disk, away from the runtime.
//!
//! One thread for a process. Waiters share a sync: whoever comes while one is
//! under way is served by the next.

use std::{
    io,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{runtime::Builder, time};

use crate::outbox::{ReleaseError, Store, SyncMode, store::Synced};

/// Time between syncs in the mode `interval`.
const INTERVAL: Duration = Duration::from_millis(200);

/// Pause before a sync is tried again that could not begin: 20 ms.
const RETRY_DELAY: Duration = Duration::from_millis(20);

/// Starts the sync thread that a mode needs; it ends with the store.
pub(super) fn start(store: &Arc<Store>, mode: SyncMode) -> io::Result<()> {
    if mode == SyncMode::Os {
        return Ok(());
    }
    let store = Arc::downgrade(store);
    let runtime = Builder::new_current_thread().enable_time().build()?;
    std::thread::Builder::new()
        .name("outbox-sync".to_owned())
        .spawn(move || runtime.block_on(sync_for_ever(&store, mode)))
        .map(drop)
}

async fn sync_for_ever(store: &Weak<Store>, mode: SyncMode) {
    loop {
        if mode == SyncMode::Interval {
            time::sleep(INTERVAL).await;
        }
        let Some(store) = store.upgrade() else {
            return;
        };
        if mode == SyncMode::Always {
            // Bounded, so that the thread notices when the outbox is gone.
            if time::timeout(INTERVAL, store.sync_wanted.notified())
                .await
                .is_err()
            {
                continue;
            }
        }
        let Synced::Upto(reached) = *store.synced.borrow() else {
            return;
        };
        let (file, end) = match store.tail() {
            Ok(Some((file, end))) if reached < end => (file, end),
            Ok(_) => continue,
            Err(error) => {
                // No sync was tried, so none has failed: no descriptor was to be had.
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the outbox's file could not be opened for a sync; trying again"
                );
                time::sleep(RETRY_DELAY).await;
                store.sync_wanted.notify_one();
                continue;
            }
        };
        match file.sync_data() {
            // A failure that was told meanwhile, by a segment that ended, stays.
            Ok(()) => drop(store.synced.send_if_modified(|synced| {
                let stands = *synced != Synced::Failed;
                if stands {
                    *synced = Synced::Upto(end);
                }
                stands
            })),
            Err(error) => {
                // The kernel may have dropped the pages that it could not
                // write; a later sync would succeed without them.
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the outbox could not be synced"
                );
                store.synced.send_replace(Synced::Failed);
            }
        }
    }
}

impl Store {
    /// Waits until the file is on the disk up to `end`.
    pub(super) async fn synced(&self, end: (u64, u64)) -> Result<(), ReleaseError> {
        let mut synced = self.synced.subscribe();
        loop {
            match *synced.borrow_and_update() {
                Synced::Failed => return Err(ReleaseError::Sync),
                Synced::Upto(reached) if reached >= end => return Ok(()),
                // A sync that is under way may have begun before our append.
                Synced::Upto(_) => self.sync_wanted.notify_one(),
            }
            synced.changed().await.or(Err(ReleaseError::Sync))?;
        }
    }
}
