//! The last word about an outbox that is gone.

use std::{error::Error, time::Duration};

use tokio::time::timeout;

use super::Shipper;
use crate::{
    id::OutboxId,
    outbox::{
        batch::{self, BatchError},
        cursor::Cursor,
    },
    subject::{self, Lane},
};

/// The last word is worth waiting for the broker for so long: 2 s.
const SAID_WITHIN: Duration = Duration::from_secs(2);

impl Shipper {
    /// Marks the cursors of an outbox that was shipped, closed and removed: nothing more comes from it.
    ///
    /// Without the mark, nobody could tell it from one that is cut off from the broker and holds
    /// events still. A broker that is away leaves it out; the outbox is then as one that was lost.
    pub async fn tell_ended(&self, outbox: OutboxId) {
        for lane in Lane::ALL {
            let marked = timeout(SAID_WITHIN, self.mark_ended(lane, outbox)).await;
            let marked = marked.unwrap_or_else(|elapsed| Err(Box::new(elapsed)));
            if let Err(error) = marked {
                tracing::debug!(%lane, %outbox, error = &*error as &dyn Error, "the end of an outbox is not told");
                return;
            }
        }
    }

    async fn mark_ended(
        &self,
        lane: Lane,
        outbox: OutboxId,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        if !self.log.is_connected() {
            return Err(BatchError::Unknown("no connection to the broker".to_owned()).into());
        }
        let subject = subject::cursor(lane, outbox);
        let last = self.log.last_of_subject(lane.stream(), &subject).await?;
        // A lane that never moved has nothing to end.
        let Some(last) = last else {
            return Ok(());
        };
        let cursor = Cursor {
            time_ms: self.clock.now(),
            ended: true,
            ..serde_json::from_slice(&last.payload)?
        };
        batch::publish(self.log.client(), lane, &[], cursor, last.sequence).await?;
        Ok(())
    }
}
