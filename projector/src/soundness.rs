//! Whether the live database is sound on the disk.
//!
//! The projector keeps most pages in memory and would go on for a long time on
//! a file that was overwritten or cut, while everybody who reads it fails. So
//! the file is read again and again as a reader does, over a connection of its
//! own that knows nothing. Each reading is followed by a pause of twenty times
//! its length: a small database is looked at every few seconds, and a large one
//! costs a twentieth of one core.

use std::path::Path;

use sqlx::{ConnectOptions, Connection};
use tokio::time::{Duration, Instant, sleep};

use crate::database;

/// Shortest pause between two readings: 3 s.
const PAUSE_MIN: Duration = Duration::from_secs(3);

/// The pause is so many times as long as the reading before it.
const PAUSE_TIMES: u32 = 20;

/// Reads the database again and again; returns what is wrong with it when something is.
pub(crate) async fn damage(path: &Path) -> String {
    loop {
        let began = Instant::now();
        match findings(path).await {
            Ok(findings) if findings == ["ok"] => {}
            Ok(findings) => return findings.join("; "),
            Err(error) if database::is_unsound(&error) => return crate::apply::explain(&error),
            // It is gone, or this machine is short of something: others will tell.
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::debug!(error, "the read model could not be looked over");
            }
        }
        sleep((began.elapsed() * PAUSE_TIMES).max(PAUSE_MIN)).await;
    }
}

async fn findings(path: &Path) -> Result<Vec<String>, sqlx::Error> {
    let mut reader = database::reader_options(path).connect().await?;
    let findings = sqlx::query_scalar("PRAGMA quick_check(1)")
        .fetch_all(&mut reader)
        .await;
    reader.close().await?;
    findings
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::testing::{Database, MemoryLog};

    #[tokio::test]
    async fn damage_that_the_writer_does_not_see_is_found() {
        let mut database = Database::of(&MemoryLog::new()).await;
        let path = database.dir.path().join("read_model.db");
        assert_eq!(findings(&path).await.unwrap(), ["ok"]);
        // What the writer has in its log of changes is in the file from here on.
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .execute(database.writer.connection())
            .await
            .unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        let length = file.metadata().unwrap().len();
        file.write_all_at(&vec![0x5a; 8192], (length / 2) & !4095)
            .unwrap();
        let found = tokio::time::timeout(Duration::from_secs(20), damage(&path)).await;
        assert!(!found.unwrap().is_empty());
        assert_eq!(database.number("SELECT one FROM retention").await, 1);
    }
}
