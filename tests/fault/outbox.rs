//! The outbox in trouble: full, on a full disk, damaged, restored, idle for too long, and before a
//! broker that does not take what it ships.

mod damaged;
mod full;
mod gone;
mod refused;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nexus_tests::Hub;
use nexus_tests::account::{BOUND, Memory};
use nexus_tests::client::Ending;
use nexus_tests::until;
use serde_json::Value;

/// What a client is told when the outbox can take no more.
const OUTBOX_FULL: &str = "outbox_full";

/// Waits until a gateway says of its outbox that it is ready, or not.
async fn outbox_is_ready(gateway: &Hub, ready: bool) -> Result<()> {
    until("the outbox says how it is", BOUND, async || {
        let part = gateway.part("outbox").await?;
        ensure!(part.get("ready") == Some(&Value::from(ready)), "{part}");
        Ok(())
    })
    .await
}

/// Checks that every refusal was 503, and that no stream broke off without a word: a stream that
/// could not go on ended with the error that says why.
fn proper_ends(memory: &Memory) -> Result<()> {
    let other = memory.refused.iter().find(|(_, status)| *status != 503);
    ensure!(other.is_none(), "refused with another status: {other:?}");
    for stream in &memory.streams {
        match stream.seen.ending() {
            Ending::Done | Ending::HungUp => {}
            Ending::ErrorEvent(error) => {
                let code = error.get("code").context("an error without a code")?;
                ensure!(code == OUTBOX_FULL, "ended with {error}");
            }
            other @ (Ending::Cut(_) | Ending::Refused(_)) => {
                anyhow::bail!("a stream ended with {other:?}")
            }
        }
    }
    Ok(())
}

/// The segments of an outbox, in order.
fn segments(outbox: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(outbox)? {
        let path = entry?.path();
        let is_segment = path.extension().is_some_and(|ending| ending == "segment");
        found.extend(is_segment.then_some(path));
    }
    found.sort_unstable();
    Ok(found)
}
