//! Watches over what the broker could never take: told in `/readyz` as long as it is there, and
//! removed when the log would not keep it any longer either.
//!
//! The gateway does so itself: the folder is on its own disk, and the archiver may be on another
//! machine.

use std::{error::Error, time::Duration};

use nexus_events::{clock::UnixMillis, outbox::set_aside::SetAside};
use tokio_util::sync::CancellationToken;

use super::{Process, outbox_dir};
use crate::{
    readiness::{Need, Part},
    state::State,
};

/// How often it looks: every 5 s; a look lists one folder, which is empty as a rule.
const LOOK: Duration = Duration::from_secs(5);

/// The watch.
#[derive(Debug)]
pub(super) struct Keeper {
    state: State,
    folder: SetAside,
    part: Part,
}

impl Keeper {
    /// Over the folder in that of the process's outbox.
    pub(super) fn new(process: &Process, state: &State) -> Self {
        let part = process.readiness.part("unshippable", Need::Told);
        part.ready();
        Self {
            state: State::clone(state),
            folder: SetAside::below(&outbox_dir(process)),
            part,
        }
    }

    /// Looks again and again until the end.
    pub(super) async fn run(self, over: CancellationToken) {
        let looking = async {
            loop {
                self.look().await;
                tokio::time::sleep(LOOK).await;
            }
        };
        over.run_until_cancelled(looking).await;
    }

    async fn look(&self) {
        let retention = self.state.role_settings.retention().as_millis();
        let retention = i64::try_from(retention).unwrap_or(i64::MAX);
        let now = self.state.clock.now().as_millis();
        let before = UnixMillis::from_millis(now.saturating_sub(retention));
        let folder = self.folder.clone();
        let looked = tokio::task::spawn_blocking(move || folder.expire(before)).await;
        match looked.map_err(std::io::Error::other).flatten() {
            Ok(kept) => {
                if kept.expired > 0 {
                    tracing::info!(
                        records = kept.expired,
                        "removed records that could not be shipped, for their age"
                    );
                }
                if kept.records == 0 {
                    self.part.ready();
                } else {
                    self.part.ready_but(format!(
                        "{} records that the broker could not take lie in outbox/unshippable, {} bytes",
                        kept.records, kept.bytes
                    ));
                }
            }
            Err(error) => {
                let error: &dyn Error = &error;
                tracing::warn!(
                    error,
                    "the records that could not be shipped were not looked at"
                );
                self.part
                    .not_ready("outbox/unshippable cannot be read or cleared");
            }
        }
    }
}
