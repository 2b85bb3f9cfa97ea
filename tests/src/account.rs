//! What several tests ask after they have done their damage: is everything in the log, is the read
//! model up to it, and does the one follow from the other.

mod settle;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::client::Seen;
use crate::log::{Event, Stream, assert_no_duplicates, assert_no_gaps, is_terminal};
use crate::programs::{self, Outcome};
use crate::upstream::record::text_of_chunks;
use crate::{Hub, Log, Result, until};
use anyhow::{Context, ensure};
use serde_json::Value;

pub use settle::{Accounting, Figures, Memory};

/// Far more than a loaded two-core machine needs for the events of one test.
pub const BOUND: Duration = Duration::from_mins(1);

/// A stream of a client, and what it got of it.
#[derive(Debug, Clone)]
pub struct Received {
    /// The hub's id of the request.
    pub request_id: String,
    /// What came.
    pub seen: Seen,
}

/// A whole answer that a client got.
#[derive(Debug, Clone)]
pub struct Answered {
    /// The hub's id of the request.
    pub request_id: String,
    /// The text of its first choice.
    pub text: String,
}

/// Everything that outboxes have shipped, read at one moment.
#[derive(Debug)]
pub struct Account {
    /// The events of `NEXUS_EXCHANGES`, in the stream's order.
    pub exchanges: Vec<Event>,
    /// The events of `NEXUS_CHUNKS`, in the stream's order.
    pub chunks: Vec<Event>,
    /// Places of each request's events in `exchanges`.
    of_request: HashMap<String, Vec<usize>>,
    /// Places of each request's chunks in `chunks`.
    chunks_of_request: HashMap<String, Vec<usize>>,
}

impl Account {
    /// Reads the log.
    ///
    /// # Errors
    ///
    /// When an event is there twice or one is missing.
    pub async fn take(log: &Log) -> Result<Self> {
        let mut all = Vec::new();
        for stream in Stream::SHIPPED {
            all.extend(log.events(stream).await?);
        }
        assert_no_duplicates(&all)?;
        assert_no_gaps(&all)?;
        Ok(Self::of(all))
    }

    /// The account of these events, whether there are gaps among them or not.
    pub fn of(all: Vec<Event>) -> Self {
        let (mut exchanges, mut chunks) = (Vec::new(), Vec::new());
        for event in all {
            match event.stream {
                Stream::Exchanges => exchanges.push(event),
                Stream::Chunks => chunks.push(event),
                Stream::Config | Stream::Audit | Stream::Rollups => {}
            }
        }
        Self {
            of_request: places(&exchanges),
            chunks_of_request: places(&chunks),
            exchanges,
            chunks,
        }
    }

    /// The requests that were received, in the order of the log.
    pub fn received(&self) -> Vec<&str> {
        let received = self.exchanges.iter();
        received
            .filter(|event| event.name() == "received")
            .map(Event::request_id)
            .collect()
    }

    /// The exchange events of a request, in the order of the log.
    pub fn events_of(&self, request_id: &str) -> Vec<&Event> {
        let places = self.of_request.get(request_id).into_iter().flatten();
        places
            .filter_map(|place| self.exchanges.get(*place))
            .collect()
    }

    /// The only terminal event of a request.
    ///
    /// # Errors
    ///
    /// When there is none, or more than one.
    pub fn terminal(&self, request_id: &str) -> Result<&Event> {
        let mut terminals = self.events_of(request_id);
        terminals.retain(|event| is_terminal(event));
        match terminals[..] {
            [one] => Ok(one),
            [] => anyhow::bail!("request {request_id} has no terminal event"),
            ref more => anyhow::bail!("{} terminal events: {more:?}", more.len()),
        }
    }

    /// Checks that each received request is there once and has exactly one terminal event.
    ///
    /// # Errors
    ///
    /// With the first that is not so.
    pub fn assert_one_end_each(&self) -> Result<()> {
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        for request_id in self.received() {
            *times.entry(request_id).or_default() += 1;
            self.terminal(request_id)?;
        }
        let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
        ensure!(twice.is_empty(), "received more than once: {twice:?}");
        Ok(())
    }

    /// The streamed chunks of a request as they came.
    ///
    /// # Errors
    ///
    /// When they are not numbered from 0.
    pub fn chunks_of(&self, request_id: &str) -> Result<Vec<Value>> {
        let places = self.chunks_of_request.get(request_id).into_iter().flatten();
        places
            .filter_map(|place| self.chunks.get(*place))
            .enumerate()
            .map(|(number, event)| {
                let index = event.data().get("index");
                ensure!(
                    index.and_then(Value::as_u64) == u64::try_from(number).ok(),
                    "chunk {number} of {request_id} is {}",
                    event.json
                );
                Ok(event.data().get("content").cloned().unwrap_or_default())
            })
            .collect()
    }

    /// Checks that the log has all that the client got, in that order, from the first chunk on.
    ///
    /// # Errors
    ///
    /// When it has not; with both.
    pub fn assert_holds(&self, received: &Received) -> Result<()> {
        let logged = self.chunks_of(&received.request_id)?;
        let mut got = received.seen.chunks();
        // An error at the end of a stream is the hub's own word; the terminal event has it.
        got.retain(|chunk| chunk.get("error").is_none());
        ensure!(
            logged.starts_with(&got),
            "the client of {} got\n{got:#?}\nand the log has\n{logged:#?}",
            received.request_id
        );
        Ok(())
    }

    /// Checks that the request ended as one whose gateway died, with what was logged as its answer.
    ///
    /// # Errors
    ///
    /// When it did not.
    pub fn assert_gateway_lost(&self, request_id: &str) -> Result<()> {
        let terminal = self.terminal(request_id)?;
        let reason = terminal.data().pointer("/nexus.failure/reason");
        ensure!(
            terminal.name() == "failed" && reason == Some(&Value::from("gateway_lost")),
            "{} ended with {}",
            request_id,
            terminal.json
        );
        let logged = text_of_chunks(&self.chunks_of(request_id)?, 0);
        ensure!(
            answer_text(terminal) == logged,
            "the log has the chunks {logged:?} and the answer {}",
            terminal.json
        );
        Ok(())
    }

    /// The tokens of a request: of its terminal event, or of the first count that fills in.
    ///
    /// Prompt and completion; nothing until somebody has counted.
    pub fn tokens(&self, request_id: &str) -> Option<(u64, u64)> {
        let events = self.events_of(request_id);
        let mut sources = events.iter().filter(|event| {
            let audit = event.data().get("nexus.tokens.audit");
            is_terminal(event)
                || event.name() == "tokens_counted" && audit == Some(&Value::Bool(false))
        });
        sources.find_map(|event| {
            let tokens = |name: &str| event.data().get(name)?.as_u64();
            let prompt = tokens("gen_ai.usage.input_tokens")?;
            Some((prompt, tokens("gen_ai.usage.output_tokens")?))
        })
    }

    /// The tokens of an answer, whoever counted them.
    pub fn output_tokens(&self, request_id: &str) -> Option<u64> {
        self.tokens(request_id).map(|(_, output)| output)
    }
}

fn places(events: &[Event]) -> HashMap<String, Vec<usize>> {
    let mut places: HashMap<String, Vec<usize>> = HashMap::new();
    for (place, event) in events.iter().enumerate() {
        let of_request = places.entry(event.request_id().to_owned()).or_default();
        of_request.push(place);
    }
    places
}

/// The text of the first choice in a terminal event.
pub fn answer_text(terminal: &Event) -> &str {
    let text = terminal
        .data()
        .pointer("/content/choices/0/message/content");
    text.and_then(Value::as_str).unwrap_or_default()
}

/// Waits until everything that was appended is in the log, and nothing of a lost gateway is left.
///
/// # Errors
///
/// When it does not get there.
pub async fn shipped(hub: &Hub) -> Result<()> {
    until("everything is shipped", BOUND, async || {
        for lane in ["exchanges", "chunks", "audit"] {
            let name = format!("nexus_outbox_lag_events{{lane=\"{lane}\"}}");
            let lag = hub.metric(&name).await?;
            ensure!(lag == Some(0.0), "{name} is {lag:?}");
        }
        let adopted = hub.metric("nexus_adopted_outboxes").await?;
        ensure!(adopted == Some(0.0), "{adopted:?} outboxes are not settled");
        Ok(())
    })
    .await
}

/// Waits until the read model has everything that the log had when it was asked.
///
/// # Errors
///
/// When it does not get there, or finds what must not be.
pub async fn projected(hub: &Hub) -> Result<()> {
    let log = hub.log().await?;
    let read_model = hub.read_model();
    for stream in [Stream::Config, Stream::Exchanges, Stream::Audit] {
        let last = log.last_sequence(stream).await?;
        let what = format!("the read model has event {last} of {}", stream.name());
        let sql = format!(
            "SELECT coalesce(max(sequence), 0) FROM checkpoint WHERE stream = '{}' AND outbox = ''",
            stream.name()
        );
        until(&what, BOUND, async || {
            let reached = read_model.number(&sql).await?;
            let last = i64::try_from(last)?;
            ensure!(reached >= last, "it has event {reached}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Waits until the read model tells of the backup that an archiver takes as soon as it can: it would
/// come between two looks otherwise.
async fn first_backup(hub: &Hub) -> Result<()> {
    if hub.part("archiver").await?.is_null() {
        return Ok(());
    }
    until("the first backup is told", BOUND, async || {
        let told = "SELECT count(*) FROM audit_log WHERE kind = 'backup_taken'";
        ensure!(hub.read_model().number(told).await? > 0, "it is not");
        anyhow::Ok(())
    })
    .await
}

/// Waits until all is shipped, counted and projected, and returns the whole read model as text.
///
/// # Errors
///
/// When it does not get there, or finds what must not be.
pub async fn settled_dump(hub: &Hub) -> Result<String> {
    first_backup(hub).await?;
    shipped(hub).await?;
    projected(hub).await?;
    let read_model = hub.read_model();
    let uncounted = "SELECT count(*) FROM chat_stats WHERE tokens IS NULL";
    read_model.until_number(uncounted, 0).await?;
    projected(hub).await?;
    read_model.dump().await
}

/// What `nexus verify` says when it found no difference.
pub const EQUAL: &str = "the read model is what the log says";

/// A rebuild of what the longest scenario wrote, with time to spare.
const VERIFY_BOUND: Duration = Duration::from_mins(10);

/// Runs `nexus verify` beside the hub.
///
/// # Errors
///
/// When it does not get there, or finds what must not be.
pub async fn verify(hub: &Hub) -> Result<Outcome> {
    let url = hub.nats_url()?;
    let mut command = hub.command(["verify"]);
    command.env("NEXUS_NATS_URL", url);
    programs::run(&command, VERIFY_BOUND).await
}

/// Checks that `nexus verify` finds the read model equal to a rebuilt one.
///
/// # Errors
///
/// When it does not get there, or finds what must not be.
pub async fn assert_verified(hub: &Hub) -> Result<()> {
    let outcome = verify(hub).await?;
    outcome
        .succeeded()
        .context("nexus verify found a difference")?;
    ensure!(outcome.stdout.contains(EQUAL), "{}", outcome.stdout);
    Ok(())
}
