//! `nexus events tail`: the log as it is, one event a line. `nexus events reship`: what it lacks.

use std::{io::ErrorKind, process::ExitCode};

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use nexus_events::{log::Log, subject::Stream};
use tokio::{signal::ctrl_c, sync::mpsc};
use tokio_util::task::TaskTracker;

use self::reship::Reship;
use super::{banner, reach::Reach};

mod reship;

/// Lines that wait to be printed: 1 000; a slow terminal slows the reading down.
const LINES_MAX: usize = 1000;

/// What to do with events.
#[derive(Subcommand, Debug)]
pub enum EventsCommand {
    /// Print events as they come, one JSON object a line, until Ctrl-C
    Tail(Tail),
    /// Publish records that the broker could not take and the gateway set aside in `outbox/unshippable`
    Reship(Reship),
}

/// Prints events.
#[derive(Args, Debug)]
pub struct Tail {
    /// Where the log is.
    #[command(flatten)]
    pub reach: Reach,
    /// The streams; default: all of them
    #[arg(long, value_enum)]
    pub stream: Vec<StreamName>,
    /// Only subjects that match, such as `nexus.exchange.*.completed.>`
    #[arg(long)]
    pub filter: Option<String>,
    /// Where to begin: `start`, `now`, or the stream sequence after which to begin
    #[arg(long, default_value = "now", value_parser = from)]
    pub from: From,
    /// End when everything that is there was printed, instead of waiting for more
    #[arg(long)]
    pub no_follow: bool,
}

/// Where a tail begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At the first event that is kept.
    Start,
    /// With the next one.
    Now,
    /// After that stream sequence.
    After(u64),
}

/// The streams, as the command line spells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StreamName {
    /// Configuration changes
    Config,
    /// The life of each request
    Exchanges,
    /// Each streamed chunk
    Chunks,
    /// Management calls, refused access, backups, retention
    Audit,
    /// Closed daily statistics
    Rollups,
}

impl StreamName {
    const fn stream(self) -> Stream {
        match self {
            Self::Config => Stream::Config,
            Self::Exchanges => Stream::Exchanges,
            Self::Chunks => Stream::Chunks,
            Self::Audit => Stream::Audit,
            Self::Rollups => Stream::Rollups,
        }
    }
}

fn from(text: &str) -> Result<From, String> {
    match text {
        "start" => Ok(From::Start),
        "now" => Ok(From::Now),
        number => {
            number
                .parse()
                .map(From::After)
                .map_err(|_not_a_number: std::num::ParseIntError| {
                    "one of: start, now, a stream sequence".to_owned()
                })
        }
    }
}

impl EventsCommand {
    /// Does it.
    ///
    /// # Errors
    /// A sentence for the person at the keyboard.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Tail(tail) => tail.run().await?,
            Self::Reship(reship) => reship.run().await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Tail {
    async fn run(self) -> anyhow::Result<()> {
        let log = self.reach.log().await?;
        let streams = self.streams()?;
        let (lines, mut printed) = mpsc::channel::<anyhow::Result<String>>(LINES_MAX);
        let readers = TaskTracker::new();
        for stream in streams {
            let (log, lines) = (log.clone(), lines.clone());
            let reading = read(
                log,
                stream,
                self.filter.clone(),
                (self.from, self.no_follow),
                lines.clone(),
            );
            readers.spawn(async move {
                if let Err(error) = reading.await {
                    // The printer is gone only when the command ends.
                    lines.send(Err(error)).await.unwrap_or_default();
                }
            });
        }
        drop(lines);
        loop {
            tokio::select! {
                line = printed.recv() => match line {
                    Some(line) => match banner::line(&line?) {
                        // Whoever reads has read enough, as `head` does.
                        Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                        printed => printed.context("print an event")?,
                    },
                    None => return Ok(()),
                },
                end = ctrl_c() => return end.context("listen for Ctrl-C"),
            }
        }
    }

    /// The streams that were named; with a filter and none named, those that it can match.
    fn streams(&self) -> anyhow::Result<Vec<Stream>> {
        let named: Vec<Stream> = self.stream.iter().map(|name| name.stream()).collect();
        if !named.is_empty() {
            return Ok(named);
        }
        let Some(filter) = &self.filter else {
            return Ok(Stream::ALL.to_vec());
        };
        let family = |subjects: &str| {
            subjects
                .split('.')
                .take(2)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let wanted = family(filter);
        let matching: Vec<Stream> = Stream::ALL
            .into_iter()
            .filter(|stream| family(stream.events()) == wanted)
            .collect();
        if matching.is_empty() {
            bail!("the filter {filter} matches no stream: name one with --stream");
        }
        Ok(matching)
    }
}

async fn read(
    log: Log,
    stream: Stream,
    filter: Option<String>,
    (from, no_follow): (From, bool),
    lines: mpsc::Sender<anyhow::Result<String>>,
) -> anyhow::Result<()> {
    let last = log.stream_state(stream).await?.last_sequence;
    let after = match from {
        From::Start => 0,
        From::Now => last,
        From::After(sequence) => sequence,
    };
    let mut reader = log.reader(stream, filter, after);
    // Behind it there may be cursors and what the filter leaves out: none of that ever comes.
    let end = log.last_of_subject(stream, reader.filter()).await?;
    let end = end.map_or(0, |message| message.sequence);
    loop {
        if no_follow && reader.position() >= end {
            return Ok(());
        }
        for message in reader.next_batch(LINES_MAX).await? {
            let line = String::from_utf8_lossy(&message.payload).into_owned();
            if lines.send(Ok(line)).await.is_err() || (no_follow && message.pending == 0) {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_begins_where_it_is_told_to() {
        assert_eq!(from("start"), Ok(From::Start));
        assert_eq!(from("now"), Ok(From::Now));
        assert_eq!(from("17"), Ok(From::After(17)));
        assert!(from("yesterday").is_err());
    }
}
