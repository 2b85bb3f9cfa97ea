//! `nexus events reship`: publishes what a gateway has set aside, once the broker takes it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use nexus_events::{
    envelope::Envelope,
    log::{Log, publish::Expected},
    outbox::set_aside::Unshipped,
};

use crate::command::{banner, reach::Reach};

/// Publishes records that were set aside, and removes the files of each that the broker has stored.
///
/// An event comes into the log without a place in an outbox: the note that replaced it has that.
#[derive(Args, Debug)]
pub struct Reship {
    /// Where the log is.
    #[command(flatten)]
    pub reach: Reach,
    /// The files of the events, such as `data/outbox/unshippable/*.json`
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
}

impl Reship {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let log = self.reach.log().await?;
        // What stands beside an event matches the same pattern of a shell.
        let is_event = |file: &&PathBuf| !file.to_string_lossy().ends_with(".content.json");
        for file in self.files.iter().filter(is_event) {
            let sequence = reship(&log, file)
                .await
                .with_context(|| format!("ship {}", file.display()))?;
            banner::line(&format!(
                "{} is stored at sequence {sequence}",
                file.display()
            ))
            .context("print what was done")?;
        }
        Ok(())
    }
}

async fn reship(log: &Log, file: &Path) -> anyhow::Result<u64> {
    let record = Unshipped::read(file).context("read the record")?;
    if let Some(content) = &record.content {
        let event = Envelope::decode(&record.payload)?.id;
        log.put_body(event, content)
            .await
            .context("store its content")?;
    }
    let published = log.publish(record.subject, record.payload, Expected::Any);
    let sequence = published.await?;
    Unshipped::remove(file).context("remove the files of a record that is in the log now")?;
    Ok(sequence)
}
