//! What the log holds of one request, taken to account.
//!
//! [`Recorded::wait`] comes back only when the events are complete and in the order that the log
//! promises: `received`, pairs of attempt events, exactly one terminal event, and
//! `tokens_counted` where the terminal event knows no tokens; beside them as many chunks as the
//! terminal event names, numbered from 0 without a gap.

use std::time::Duration;

use anyhow::{Context, ensure};
use nexus_tests::client::Seen;
use nexus_tests::log::{Event, Stream};
use nexus_tests::{Log, Result, until};
use serde_json::Value;

/// Events are in the log some milliseconds after their append; a busy machine may need far more.
const RECORDED_BOUND: Duration = Duration::from_secs(30);

/// The events of one request.
#[derive(Debug)]
pub(crate) struct Recorded {
    /// The request as it came.
    pub(crate) received: Event,
    /// The tries, in order.
    pub(crate) attempts: Vec<Attempt>,
    /// The streamed chunks, in order.
    pub(crate) chunks: Vec<Event>,
    /// How it ended.
    pub(crate) terminal: Event,
    /// The hub's own count of its tokens.
    pub(crate) counted: Option<Event>,
}

/// One try of one provider.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// Its last event.
    pub(crate) ended: Event,
}

impl Recorded {
    /// Waits until the log has the whole of a request.
    pub(crate) async fn wait(log: &Log, request_id: &str) -> Result<Self> {
        let what = format!("the log holds the whole of request {request_id}");
        until(&what, RECORDED_BOUND, async || {
            let mut events = log.events_of_request(request_id).await?;
            events.sort_by_key(|event| event.stream == Stream::Chunks);
            Self::of(events)
        })
        .await
    }

    fn of(events: Vec<Event>) -> Result<Self> {
        let told: Vec<String> = events.iter().map(|event| event.name().to_owned()).collect();
        let mut events = events.into_iter().peekable();
        let mut take = |name: &str| events.next_if(|event| event.name() == name);
        let received = take("received").with_context(|| format!("no received first: {told:?}"))?;
        let mut attempts = Vec::new();
        while let Some(started) = take("attempt_started") {
            let ended = take("attempt_ended").with_context(|| format!("an open try: {told:?}"))?;
            let number = u64::try_from(attempts.len())? + 1;
            for event in [&started, &ended] {
                ensure!(
                    event.data()["nexus.attempt"] == number,
                    "not attempt {number}: {}",
                    event.json
                );
            }
            attempts.push(Attempt { ended });
        }
        let terminal = take("completed")
            .or_else(|| take("failed"))
            .with_context(|| format!("no terminal event after the attempts: {told:?}"))?;
        let counted = take("tokens_counted");
        let chunks: Vec<Event> = events.collect();
        let recorded = Self {
            received,
            attempts,
            chunks,
            terminal,
            counted,
        };
        recorded.ensure_complete()?;
        Ok(recorded)
    }

    fn ensure_complete(&self) -> Result<()> {
        let knows_tokens = self.terminal.data().get("nexus.usage.source").is_some();
        ensure!(
            knows_tokens != self.counted.is_some(),
            "the tokens are known {} times: {}",
            if knows_tokens { 2 } else { 0 },
            self.terminal.json
        );
        ensure!(
            self.terminal.data()["nexus.attempts"] == self.attempts.len(),
            "another number of attempts than {}: {}",
            self.attempts.len(),
            self.terminal.json
        );
        ensure!(
            self.terminal.data()["nexus.chunks"] == self.chunks.len(),
            "another number of chunks than {}: {}",
            self.chunks.len(),
            self.terminal.json
        );
        let mut elapsed_us = 0;
        for (index, chunk) in self.chunks.iter().enumerate() {
            ensure!(
                chunk.name() == "streamed" && chunk.data()["index"] == index,
                "not chunk {index}: {}",
                chunk.json
            );
            let at = chunk.data()["elapsed_us"].as_u64().context("no time")?;
            ensure!(at >= elapsed_us, "chunk {index} came before the one before");
            elapsed_us = at;
        }
        Ok(())
    }

    /// The chunks that were recorded, as they came from the provider.
    pub(crate) fn streamed(&self) -> Vec<Value> {
        self.chunks
            .iter()
            .map(|chunk| chunk.data()["content"].clone())
            .collect()
    }

    /// Fails unless the client has received exactly the chunks that were recorded.
    ///
    /// The usage that the hub asked for and the client did not is recorded and not given out.
    pub(crate) fn ensure_given(&self, seen: &Seen, asked_for_usage: bool) -> Result<()> {
        let is_given = |chunk: &Value| {
            let usage_only = chunk["choices"] == Value::Array(Vec::new());
            asked_for_usage || !usage_only || chunk["usage"].is_null()
        };
        let recorded: Vec<Value> = self.streamed().into_iter().filter(is_given).collect();
        let received: Vec<Value> = seen
            .chunks()
            .into_iter()
            .filter(|chunk| chunk.get("error").is_none_or(Value::is_null))
            .collect();
        ensure!(
            recorded == received,
            "recorded {recorded:#?} and given {received:#?}"
        );
        Ok(())
    }

    /// Why it failed; empty when it did not.
    pub(crate) fn failure(&self) -> &str {
        reason(&self.terminal)
    }

    /// One choice of the recorded answer, whole or as far as it came; `null` if there is none.
    pub(crate) fn choice(&self, index: usize) -> &Value {
        let choices = &self.terminal.data()["content"]["choices"];
        let choice = choices
            .as_array()
            .and_then(|choices| choices.iter().find(|choice| choice["index"] == index));
        choice.unwrap_or(&Value::Null)
    }

    /// The recorded text of one choice; empty if there is none.
    pub(crate) fn text(&self, choice: usize) -> &str {
        let content = &self.choice(choice)["message"]["content"];
        content.as_str().unwrap_or_default()
    }

    /// Prompt and answer tokens, whoever counted them.
    pub(crate) fn tokens(&self) -> (Option<u64>, Option<u64>) {
        let event = self.counted.as_ref().unwrap_or(&self.terminal);
        let of = |name: &str| event.data()[name].as_u64();
        (
            of("gen_ai.usage.input_tokens"),
            of("gen_ai.usage.output_tokens"),
        )
    }
}

impl Attempt {
    /// Why it failed; empty when it did not.
    pub(crate) fn failure(&self) -> &str {
        reason(&self.ended)
    }

    /// The status that the provider answered with.
    pub(crate) fn status(&self) -> Option<u64> {
        self.ended.data()["http.response.status_code"].as_u64()
    }
}

fn reason(event: &Event) -> &str {
    let reason = &event.data()["nexus.failure"]["reason"];
    reason.as_str().unwrap_or_default()
}
