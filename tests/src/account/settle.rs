//! The one check that every scenario of faults ends with.
//!
//! Three memories are compared: what the clients got, what the upstream was asked and sent, and
//! what the hub recorded. Nothing that a client or the upstream has seen may be missing from the
//! log, nothing may be there twice, and what people read must follow from the log.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Account, Answered, BOUND, Received, answer_text, assert_verified, projected, shipped};
use crate::client::Ending;
use crate::log::{Event, is_terminal};
use crate::wait::until;
use crate::{Hub, Upstream};

/// What the clients of a scenario remember.
#[derive(Debug, Default)]
pub struct Memory {
    /// The tag of every request that was asked, whatever came of it.
    pub asked: Vec<String>,
    /// Streams, whole and broken.
    pub streams: Vec<Received>,
    /// Whole answers.
    pub answers: Vec<Answered>,
    /// Requests that were answered with an error: tag and status.
    pub refused: Vec<(String, u16)>,
}

/// What an account found, for a person to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Requests in the log.
    pub requests: usize,
    /// Of these, closed because their gateway was lost.
    pub gateway_lost: usize,
    /// Events in the log.
    pub events: usize,
    /// Chunks that clients remember, every one of them in the log.
    pub chunks_seen: usize,
    /// Prompt and completion tokens.
    pub tokens: (u64, u64),
}

/// Who is to be heard.
#[derive(Debug)]
pub struct Accounting<'a> {
    /// Every gateway, each alive and with its way to the broker open.
    pub gateways: Vec<&'a Hub>,
    /// The provider of all requests.
    pub upstream: &'a Upstream,
    /// What the clients remember.
    pub memory: &'a Memory,
}

impl Accounting<'_> {
    /// Waits until all is recorded and projected, and takes everything to account.
    ///
    /// # Errors
    ///
    /// With the first thing that is missing, twice, out of order or not the same.
    pub async fn settle_and_check(&self) -> Result<Figures> {
        let one = *self.gateways.first().context("there is no gateway")?;
        for gateway in &self.gateways {
            shipped(gateway).await?;
        }
        ended_and_counted(one).await?;
        for gateway in &self.gateways {
            shipped(gateway).await?;
        }
        projected(one).await?;
        let account = Account::take(&one.log().await?).await?;
        account.assert_one_end_each()?;
        self.clients(&account)?;
        self.provider(&account)?;
        for request_id in account.received() {
            in_order(&account.events_of(request_id))?;
        }
        let tokens = statistics(one, &account).await?;
        assert_verified(one).await?;
        Ok(self.figures(&account, tokens))
    }

    /// What clients got is in the log.
    fn clients(&self, account: &Account) -> Result<()> {
        for stream in &self.memory.streams {
            account.assert_holds(stream)?;
            if stream.seen.ending == Some(Ending::Done) {
                let terminal = account.terminal(&stream.request_id)?;
                ensure!(
                    terminal.name() == "completed" && answer_text(terminal) == stream.seen.text(0),
                    "a client got {:?} and the log has {}",
                    stream.seen.text(0),
                    terminal.json
                );
            }
        }
        for answer in &self.memory.answers {
            let terminal = account.terminal(&answer.request_id)?;
            ensure!(
                terminal.name() == "completed" && answer_text(terminal) == answer.text,
                "a client got {:?} and the log has {}",
                answer.text,
                terminal.json
            );
        }
        Ok(())
    }

    /// What the provider was asked is in the log, and no request of the log is one that nobody asked.
    fn provider(&self, account: &Account) -> Result<()> {
        let mut logged: HashMap<String, &str> = HashMap::new();
        let received = account.exchanges.iter();
        for event in received.filter(|event| event.name() == "received") {
            let earlier = logged.insert(tag_of(event), event.request_id());
            ensure!(
                earlier.is_none(),
                "asked once, received twice: {}",
                event.json
            );
        }
        for asked in self.upstream.exchanges() {
            let tag = asked.request.tag();
            let request_id = logged.get(&tag).with_context(|| {
                format!("the provider was asked {tag}, the log has no such request")
            })?;
            let attempts = count(account, request_id, "attempt_started");
            ensure!(
                attempts > 0,
                "the provider was asked {tag}, the log has no attempt"
            );
        }
        let asked: HashSet<&String> = self.memory.asked.iter().collect();
        let made_up: Vec<&String> = logged.keys().filter(|tag| !asked.contains(tag)).collect();
        ensure!(made_up.is_empty(), "nobody asked these: {made_up:?}");
        Ok(())
    }

    fn figures(&self, account: &Account, tokens: (u64, u64)) -> Figures {
        let streams = self.memory.streams.iter();
        let lost = account.exchanges.iter().filter(|event| {
            let reason = event.data().pointer("/nexus.failure/reason");
            reason == Some(&Value::from("gateway_lost"))
        });
        Figures {
            requests: account.received().len(),
            gateway_lost: lost.filter(|event| is_terminal(event)).count(),
            events: account.exchanges.len() + account.chunks.len(),
            chunks_seen: streams.map(|stream| stream.seen.chunks().len()).sum(),
            tokens,
        }
    }
}

/// The last word of the last message of a request.
fn tag_of(received: &Event) -> String {
    let messages = received.data().pointer("/content/messages");
    let last = messages
        .and_then(Value::as_array)
        .and_then(|all| all.last());
    let text = last.and_then(|last| last.get("content")?.as_str());
    let word = text.and_then(|text| text.split_whitespace().last());
    word.unwrap_or_default().to_owned()
}

fn count(account: &Account, request_id: &str, name: &str) -> usize {
    let events = account.events_of(request_id);
    events.iter().filter(|event| event.name() == name).count()
}

/// Received first; each attempt begins before it ends; all of that before the end; counts after it.
fn in_order(events: &[&Event]) -> Result<()> {
    let names: Vec<&str> = events.iter().map(|event| event.name()).collect();
    let wrong = || {
        format!(
            "out of order: {names:?} of {}",
            events.first().map_or("", |event| event.request_id())
        )
    };
    let end = events.iter().position(|event| is_terminal(event));
    let end = end.with_context(wrong)?;
    let mut attempts = (0, 0);
    for (place, name) in names.iter().enumerate() {
        let fits = match *name {
            "received" => place == 0,
            "attempt_started" => {
                attempts.0 += 1;
                place < end && attempts.0 == attempts.1 + 1
            }
            "attempt_ended" => {
                attempts.1 += 1;
                place < end && attempts.0 == attempts.1
            }
            "tokens_counted" => place > end,
            "completed" | "failed" => place == end,
            "presumed_lost" => place > 0,
            _ => false,
        };
        ensure!(fits, wrong());
    }
    ensure!(attempts.0 == attempts.1, wrong());
    Ok(())
}

/// Waits until every request of the read model has ended and its tokens are known.
async fn ended_and_counted(hub: &Hub) -> Result<()> {
    let read_model = hub.read_model();
    for (what, sql) in [
        (
            "every request has ended",
            "SELECT count(*) FROM exchanges WHERE is_received AND terminal_sequence IS NULL",
        ),
        (
            "every answer is counted",
            "SELECT count(*) FROM chat_stats WHERE tokens IS NULL",
        ),
    ] {
        until(what, BOUND, async || {
            projected(hub).await?;
            let open = read_model.number(sql).await?;
            ensure!(open == 0, "{open} are open");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// The log's sums are the read model's, and what people are shown; gives the tokens.
async fn statistics(hub: &Hub, account: &Account) -> Result<(u64, u64)> {
    let received = account.received();
    let (mut prompt, mut completion, mut failed) = (0, 0, 0);
    for request_id in &received {
        let tokens = account.tokens(request_id);
        let tokens = tokens.with_context(|| format!("nobody counted {request_id}"))?;
        prompt += tokens.0;
        completion += tokens.1;
        failed += u64::from(account.terminal(request_id)?.name() == "failed");
    }
    let requests = u64::try_from(received.len())?;
    let read_model = hub.read_model();
    for (sql, expected) in [
        ("SELECT count(*) FROM exchanges WHERE is_received", requests),
        ("SELECT total(requests) FROM usage_hourly", requests),
        ("SELECT total(errors) FROM usage_hourly", failed),
        ("SELECT total(prompt_tokens) FROM usage_hourly", prompt),
        (
            "SELECT total(completion_tokens) FROM usage_hourly",
            completion,
        ),
        ("SELECT coalesce(sum(later_terminals), 0) FROM exchanges", 0),
        ("SELECT count(*) FROM dead_letter", 0),
    ] {
        let cast = format!("SELECT CAST(({sql}) AS INTEGER)");
        let found = read_model.number(&cast).await?;
        ensure!(
            u64::try_from(found) == Ok(expected),
            "{sql} is {found}, the log says {expected}"
        );
    }
    let stats = hub.client()?.get("/stats").await?.expect(200)?;
    let usage = |name: &str| {
        stats
            .json
            .pointer(&format!("/tokens_usage/{name}"))
            .and_then(Value::as_u64)
    };
    ensure!(
        usage("prompt") == Some(prompt) && usage("completion") == Some(completion),
        "/stats says {}, the log {prompt} and {completion}",
        stats.text()
    );
    Ok((prompt, completion))
}
