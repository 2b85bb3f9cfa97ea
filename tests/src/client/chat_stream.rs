//! A chat stream that remembers what it got, also when the connection died.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures_util::{StreamExt, TryFutureExt};
use http::HeaderMap;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Answer;
use crate::sse::{Decoder, Event};
use crate::upstream::record::text_of_chunks;

/// A stream of a test that shows nothing new for so long will not end by itself.
const PATIENCE: Duration = Duration::from_mins(1);

/// A stream being read in the background; dropping it hangs up.
#[derive(Debug)]
pub struct ChatStream {
    /// The status code.
    pub status: u16,
    /// The header fields.
    pub headers: HeaderMap,
    seen: watch::Receiver<Seen>,
    hang_up: CancellationToken,
}

/// What a client has received of a stream so far.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Every complete event, `[DONE]` included, with the moment it was complete.
    pub events: Vec<(Instant, Event)>,
    /// Bytes of an event that is not complete.
    pub rest: String,
    /// How the stream ended, once it has.
    pub ending: Option<Ending>,
}

/// How a stream ended, seen from the client.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// `[DONE]` came, once and last.
    Done,
    /// An event with an `error` object came; this is the object.
    ErrorEvent(Value),
    /// It was not a stream: another status than 200, with this body.
    Refused(Value),
    /// The connection broke, or the stream ended without `[DONE]` or with too much.
    Cut(String),
    /// The test hung up.
    HungUp,
}

impl ChatStream {
    /// Reads an answer in the background.
    pub(super) fn read(answer: reqwest::Response) -> Self {
        let status = answer.status().as_u16();
        let headers = answer.headers().clone();
        let (sender, seen) = watch::channel(Seen::default());
        let hang_up = CancellationToken::new();
        let reading = receive(answer, sender, hang_up.clone());
        // The task ends with the connection or with `hang_up`, which our drop triggers.
        TaskTracker::new().spawn(reading);
        Self {
            status,
            headers,
            seen,
            hang_up,
        }
    }

    /// A header field as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// What has been received so far.
    pub fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Waits until `count` chunks (events but `[DONE]`) have been received.
    ///
    /// # Errors
    ///
    /// When the stream ends before, or does not show them in 60 s.
    pub async fn chunks(&mut self, count: usize) -> Result<Vec<Value>> {
        let enough = |seen: &Seen| seen.chunks().len() >= count || seen.ending.is_some();
        let seen = self.wait_for(enough).await?;
        let chunks = seen.chunks();
        ensure!(
            chunks.len() >= count,
            "the stream ended before {count} chunks: {seen:?}"
        );
        Ok(chunks)
    }

    /// Waits until the stream has ended, and returns all that was received.
    ///
    /// # Errors
    ///
    /// When it is still open after 60 s; a cut is not an error but an [`Ending`].
    pub async fn end(&mut self) -> Result<Seen> {
        self.wait_for(|seen| seen.ending.is_some()).await
    }

    /// Closes the connection, as a client that has lost interest.
    ///
    /// # Errors
    ///
    /// When the reading does not stop.
    pub async fn hang_up(mut self) -> Result<Seen> {
        self.hang_up.cancel();
        self.end().await
    }

    async fn wait_for(&mut self, state: impl FnMut(&Seen) -> bool) -> Result<Seen> {
        let waiting = self.seen.wait_for(state).map_ok(|seen| seen.clone());
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(seen) => seen.context("the reading of a stream was aborted"),
            Err(_elapsed) => bail!(
                "waited {PATIENCE:?} for a stream in vain: {:?}",
                self.seen()
            ),
        }
    }
}

impl Drop for ChatStream {
    fn drop(&mut self) {
        self.hang_up.cancel();
    }
}

impl Seen {
    /// The data of every event, as received, `[DONE]` included.
    pub fn data(&self) -> Vec<&str> {
        self.events
            .iter()
            .map(|(_at, event)| event.data.as_str())
            .collect()
    }

    /// Every event but `[DONE]`, as JSON (`null` for one that is not).
    pub fn chunks(&self) -> Vec<Value> {
        let data = self.data().into_iter().filter(|data| *data != "[DONE]");
        data.map(|data| serde_json::from_str(data).unwrap_or_default())
            .collect()
    }

    /// The `id` of every event that has one.
    pub fn ids(&self) -> Vec<&str> {
        let ids = self.events.iter().map(|(_at, event)| event.id.as_str());
        ids.filter(|id| !id.is_empty()).collect()
    }

    /// The text of one choice, as far as received.
    pub fn text(&self, choice: usize) -> String {
        text_of_chunks(&self.chunks(), choice)
    }

    /// The usage block, if one was received.
    pub fn usage(&self) -> Option<Value> {
        let chunks = self.chunks();
        chunks
            .iter()
            .rev()
            .find_map(|chunk| chunk.get("usage").filter(|usage| !usage.is_null()))
            .cloned()
    }

    /// How it ended; an open stream counts as cut.
    pub fn ending(&self) -> Ending {
        self.ending
            .clone()
            .unwrap_or_else(|| Ending::Cut("it is still open".to_owned()))
    }
}

async fn receive(answer: reqwest::Response, seen: watch::Sender<Seen>, hang_up: CancellationToken) {
    let ending = if answer.status() == 200 {
        let reading = read_events(answer, &seen);
        hang_up
            .run_until_cancelled(reading)
            .await
            .unwrap_or(Ending::HungUp)
    } else {
        match Answer::read(answer).await {
            Ok(answer) => Ending::Refused(answer.json),
            Err(error) => Ending::Cut(format!("{error:#}")),
        }
    };
    seen.send_modify(|seen| seen.ending = Some(ending));
}

async fn read_events(answer: reqwest::Response, seen: &watch::Sender<Seen>) -> Ending {
    let mut decoder = Decoder::default();
    let mut body = answer.bytes_stream();
    let mut broken = None;
    while let Some(piece) = body.next().await {
        let piece: Bytes = match piece {
            Ok(piece) => piece,
            Err(error) => {
                broken = Some(format!("{:#}", anyhow::Error::from(error)));
                break;
            }
        };
        let at = Instant::now();
        let events = decoder.feed(&piece);
        seen.send_modify(|seen| {
            seen.events
                .extend(events.into_iter().map(|event| (at, event)));
            seen.rest = decoder.rest();
        });
    }
    ending_of(&seen.borrow(), broken)
}

fn ending_of(seen: &Seen, broken: Option<String>) -> Ending {
    let data = seen.data();
    let done = data.iter().filter(|data| **data == "[DONE]").count();
    let error = seen
        .chunks()
        .iter()
        .find_map(|chunk| chunk.get("error").cloned());
    if let Some(error) = error.filter(|error| !error.is_null()) {
        return Ending::ErrorEvent(error);
    }
    match broken {
        Some(error) => Ending::Cut(error),
        None if !seen.rest.is_empty() => Ending::Cut(format!("half an event: {}", seen.rest)),
        None if done == 0 => Ending::Cut("ended without [DONE]".to_owned()),
        None if done > 1 => Ending::Cut(format!("[DONE] came {done} times")),
        None if data.last() != Some(&"[DONE]") => Ending::Cut("more came after [DONE]".to_owned()),
        None => Ending::Done,
    }
}
