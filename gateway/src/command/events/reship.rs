//! `nexus events reship`: publishes what a gateway has set aside, once the broker takes it.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use nexus_events::{
    log::{Log, publish::Expected},
    outbox::{InLog, set_aside::Unshipped},
};

use crate::command::{banner, reach::Reach};

/// Publishes records that were set aside, and removes the files of each that the broker has stored.
///
/// An event comes into the log without a place in an outbox: the note that replaced it has that.
/// One without a note is left alone: its gateway ships it still.
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
        let mut failed = 0;
        // What stands beside an event matches the same pattern of a shell.
        let is_event = |file: &&PathBuf| !file.to_string_lossy().ends_with(".content.json");
        for file in self.files.iter().filter(is_event) {
            let name = file.display();
            let line = match reship(&log, file).await {
                Ok(Some(sequence)) => format!("{name} is stored at sequence {sequence}"),
                Ok(None) => format!("{name} was in the log already"),
                Err(error) => {
                    failed += 1;
                    format!("{name} is not shipped: {error:#}")
                }
            };
            banner::line(&line).context("print what was done")?;
        }
        if failed > 0 {
            bail!("{failed} records are not shipped");
        }
        Ok(())
    }
}

/// The sequence that it has now; `None` if the log held it before.
async fn reship(log: &Log, file: &Path) -> anyhow::Result<Option<u64>> {
    let record = Unshipped::read(file).context("read the record")?;
    let found = log.set_aside(record.lane, record.event).await;
    let sequence = match found.context("ask the log for it")? {
        InLog::NotGivenUp => bail!("the log has no note in its place; its gateway ships it itself"),
        InLog::Shipped => None,
        InLog::Replaced(note) => {
            if let Some(content) = &record.content {
                let stored = log.put_body(record.event, content).await;
                stored.context("store its content")?;
            }
            let published = log.publish(note.subject, record.payload, Expected::Any);
            Some(published.await?)
        }
    };
    Unshipped::remove(file).context("remove the files of a record that is in the log now")?;
    Ok(sequence)
}
