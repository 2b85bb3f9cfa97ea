//! Keys that are revoked while the configuration in force is not the log's.
//!
//! A gateway whose copy and whose log contradict each other goes on with its
//! copy, and changes nothing, until somebody decides which of the two is right.
//! That may take days, and nobody may be let in for so long whose key was taken
//! away: so the log is read from its start all the same, for what it says of
//! revoked keys. Nothing else of it is put in force. A key that the log does not
//! know can not be revoked there; it goes with the copy.

use std::{collections::BTreeSet, convert::Infallible, time::Duration};

use nexus_events::{
    config_event::{Action, ConfigEvent},
    envelope::Envelope,
    id::KeyId,
    log::Message,
    subject::Stream,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Configuration, follow::Follower};

/// Events that are read at once: 1 000, a replay's worth.
const BATCH_MAX: usize = 1000;

/// Pause before a log that changed once more is read from its start again: 1 s.
const PAUSE: Duration = Duration::from_secs(1);

impl Follower {
    /// Takes keys out of force that the log says are revoked, and nothing else, until the stop.
    pub async fn heed_revocations(
        &mut self,
        configuration: &Configuration,
        stop: &CancellationToken,
    ) {
        let heeding = Box::pin(self.heed(configuration));
        stop.run_until_cancelled(heeding).await;
    }

    async fn heed(&mut self, configuration: &Configuration) -> Infallible {
        loop {
            let mut reader = self.log.reader(Stream::Config, None, 0);
            while let Ok(batch) = reader.next_batch(BATCH_MAX).await {
                let revoked = batch.iter().filter_map(revoked).collect();
                self.revoke(&revoked, configuration);
            }
            sleep(PAUSE).await;
        }
    }

    fn revoke(&mut self, revoked: &BTreeSet<KeyId>, configuration: &Configuration) {
        if !self.fold.revoke(revoked) {
            return;
        }
        match self.fold.snapshot(&self.master) {
            Ok(without) => {
                configuration.replace(without);
                tracing::warn!("keys that the log says are revoked are out of force");
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "keys that are revoked are still in force");
            }
        }
        // Removed, it says that somebody has decided.
        if self.disk.load().is_some() {
            self.store_copy();
        }
    }
}

/// The key that a message revokes, if it does that.
fn revoked(message: &Message) -> Option<KeyId> {
    let envelope = Envelope::decode(&message.payload).ok()?;
    match ConfigEvent::decode(&envelope).ok()?? {
        ConfigEvent::Key(change) => {
            (change.action == Action::Deleted).then_some(change.resource.id)
        }
        ConfigEvent::Provider(_)
        | ConfigEvent::Model(_)
        | ConfigEvent::Route(_)
        | ConfigEvent::Setting(_)
        | ConfigEvent::User(_)
        | ConfigEvent::Price(_) => None,
    }
}
