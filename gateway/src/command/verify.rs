//! `nexus verify`: is the read model what the log says?

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;
use nexus_projector::verify::{Difference, verify};

use super::{banner, interrupted::or_interrupted, reach::Reach};
use crate::settings::value;

/// Rebuilds the read model into a scratch file and compares.
#[derive(Args, Debug)]
pub struct Verify {
    /// Where the log is.
    #[command(flatten)]
    pub reach: Reach,
    /// Directory of the read model; default: that of the running role, else `read_model` in the data directory
    #[arg(long, env = "NEXUS_READ_MODEL_DIR", value_parser = value::path)]
    pub read_model_dir: Option<PathBuf>,
    /// Directory in which the scratch file is made for the time being, with room for a second read model; default: the data directory
    #[arg(long)]
    pub scratch: Option<PathBuf>,
}

impl Verify {
    /// Exit code 0 when they are the same, 1 when they differ; 130 after SIGINT, 143 after SIGTERM.
    ///
    /// # Errors
    /// There is no verdict.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let log = self.reach.log().await?;
        let live = self.reach.read_model_dir(self.read_model_dir.as_deref());
        let scratch = self.scratch.as_ref().unwrap_or(&self.reach.data_dir);
        let verdict = match or_interrupted(verify(&log, &live, scratch)).await? {
            Ok(verdict) => verdict,
            Err(interrupted) => return Ok(interrupted),
        };
        let verdict = verdict.context("verify the read model")?;
        banner::out(&format!(
            "read {} events up to {}; compared {} rows",
            verdict.events, verdict.as_of, verdict.rows
        ))?;
        let beyond = verdict.beyond();
        if beyond > 0 {
            banner::out(&format!(
                "the log goes on beyond that, up to {}: about {beyond} events that the projector has not applied",
                verdict.ends
            ))?;
        }
        let Some(Difference {
            table,
            whole_table,
            live,
            rebuilt,
            events,
        }) = verdict.difference
        else {
            banner::out("the read model is what the log says")?;
            return Ok(ExitCode::SUCCESS);
        };
        let kind = if whole_table { "table" } else { "row" };
        let shown = |shown: Option<String>| shown.unwrap_or_else(|| format!("(no {kind})"));
        banner::out(&format!(
            "the read model differs from the log, first in table {table}:\n  live     {}\n  rebuilt  {}",
            shown(live),
            shown(rebuilt)
        ))?;
        if events.is_empty() && !whole_table {
            banner::out("  it is a sum over the whole log: no single event explains it")?;
        }
        for event in events {
            banner::out(&format!("  from {event}"))?;
        }
        Ok(ExitCode::FAILURE)
    }
}
