//! `nexus replay`: rebuilds the read model from the log, beside the live one.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, ValueEnum};
use nexus_events::clock::UnixMillis;
use nexus_projector::replay::{self, Outcome, Progress, Scope};
use tokio::time::{Duration, Instant};

use super::{banner, reach::Reach};
use crate::settings::value;

/// How often the progress is told: each second.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// What may be rebuilt alone.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Only {
    /// The tables of statistics.
    Stats,
}

/// Rebuilds the read model beside the live one and swaps it in; interrupted, it goes on when it is
/// run again.
#[derive(Args, Debug)]
pub struct Replay {
    /// Where the log is.
    #[command(flatten)]
    pub reach: Reach,
    /// Directory of the read model; default: that of the running role, else `read_model` in the data directory
    #[arg(long, env = "NEXUS_READ_MODEL_DIR", value_parser = value::path)]
    pub read_model_dir: Option<PathBuf>,
    /// Rebuild only this, and leave every other table as it is
    #[arg(long, value_enum)]
    pub only: Option<Only>,
    /// Throw away what an interrupted replay left, instead of going on with it
    #[arg(long)]
    pub fresh: bool,
    /// Build the state as of this moment (RFC 3339, by the broker's clock); the live read model stays
    #[arg(long, value_name = "TIME", requires = "into", conflicts_with_all = ["only", "fresh"])]
    pub until: Option<String>,
    /// Empty directory for the state as of `--until`: a read model like any other, for a gateway or a SQLite shell
    #[arg(long, value_name = "DIR", requires = "until")]
    pub into: Option<PathBuf>,
}

impl Replay {
    /// Exit code 0 when the new read model is current, or will be when a projector takes it over.
    ///
    /// # Errors
    /// It could not be built; the live one is as it was.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let log = self.reach.log().await?;
        let mut report = Report::begin();
        let mut tell = |progress: &Progress| report.tell(progress);
        if let (Some(moment), Some(into)) = (&self.until, &self.into) {
            let moment = UnixMillis::parse_rfc3339(moment).with_context(|| {
                format!("--until is no time like 2026-11-27T12:00:00Z: {moment}")
            })?;
            let outcome = replay::until(&log, into, moment, &mut tell).await;
            let outcome = outcome.context("build the read model as of a moment")?;
            report.end(&outcome);
            banner::out(&format!(
                "the state as of {}, {}, is in {}",
                moment.to_rfc3339(),
                outcome.as_of,
                into.display()
            ))?;
            return Ok(ExitCode::SUCCESS);
        }
        let dir = self.reach.read_model_dir(self.read_model_dir.as_deref());
        let scope = match self.only {
            Some(Only::Stats) => Scope::Statistics,
            None => Scope::Everything,
        };
        let outcome = replay::replay(&log, &dir, (scope, self.fresh), &mut tell).await;
        let outcome = outcome.context("replay the log into a new read model")?;
        report.end(&outcome);
        banner::out(if outcome.is_current {
            "the replayed read model is current"
        } else {
            "the replayed read model is ready; the projector takes it over as soon as it can"
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Tells on standard error how it goes.
struct Report {
    began: Instant,
    told: Instant,
}

impl Report {
    fn begin() -> Self {
        let now = Instant::now();
        Self {
            began: now,
            told: now,
        }
    }

    fn tell(&mut self, progress: &Progress) {
        if self.told.elapsed() < TELL_EVERY {
            return;
        }
        self.told = Instant::now();
        let rate = per_second(progress.events, self.began.elapsed());
        // What is left is counted in sequences: an estimate, for not each of them is an event.
        let left = progress.ends.sum().saturating_sub(progress.as_of.sum());
        let seconds = left.checked_div(rate).unwrap_or(0);
        banner::err(&format!(
            "{} events, {rate} events/s, up to {}; about {left} to go, {seconds} s",
            progress.events, progress.as_of
        ));
    }

    fn end(&self, outcome: &Outcome) {
        let took = self.began.elapsed();
        banner::err(&format!(
            "{} events in {}.{:03} s, {} events/s, up to {}",
            outcome.events,
            took.as_secs(),
            took.subsec_millis(),
            per_second(outcome.events, took),
            outcome.as_of
        ));
    }
}

fn per_second(events: u64, took: Duration) -> u64 {
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    events.saturating_mul(1000) / millis
}
