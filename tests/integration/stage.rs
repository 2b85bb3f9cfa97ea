//! What most end-to-end tests start with: a broker, a hub on it, a scripted upstream, a model.
//!
//! The broker is the test's own, so that the log can be read when the hub is gone:
//! [`Stage::strike`] stops the hub in an orderly way and takes the whole log to account.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nexus_tests::client::Answer;
use nexus_tests::hub::HubBuilder;
use nexus_tests::log::{Event, Stream, assert_no_duplicates, assert_no_gaps};
use nexus_tests::{Broker, Client, Hub, Log, Result, Upstream, until};
use serde_json::{Value, json};

/// The model of every stage.
pub(crate) const MODEL: &str = "gpt-test";

/// A figure is in the read model some 50 ms after its event; a busy machine may need far more.
pub(crate) const VISIBLE_BOUND: Duration = Duration::from_secs(30);

/// The parts of an end-to-end test.
pub(crate) struct Stage {
    /// The hub. Before its broker, so that it is gone first.
    pub(crate) hub: Hub,
    /// The provider of [`MODEL`].
    pub(crate) upstream: Upstream,
    /// A client with the admin key.
    pub(crate) client: Client,
    /// The log in the broker.
    pub(crate) log: Log,
    _broker: Broker,
}

impl Stage {
    /// A hub with the default settings.
    pub(crate) async fn set() -> Result<Self> {
        Self::set_with(|hub| hub).await
    }

    /// A hub with settings of the test's own.
    pub(crate) async fn set_with(settings: impl FnOnce(HubBuilder) -> HubBuilder) -> Result<Self> {
        Self::set_before(Upstream::start().await?, settings).await
    }

    /// The same before an upstream of the test's own.
    pub(crate) async fn set_before(
        upstream: Upstream,
        settings: impl FnOnce(HubBuilder) -> HubBuilder,
    ) -> Result<Self> {
        let broker = Broker::start().await?;
        let hub = settings(Hub::standalone().nats(&broker)).start().await?;
        let client = hub.client()?;
        client.serve_model(MODEL, &upstream.url()).await?;
        Ok(Self {
            log: Log::connect(&broker.url()).await?,
            hub,
            upstream,
            client,
            _broker: broker,
        })
    }

    /// Stops the hub as Ctrl-C does and takes the whole log to account: nothing twice, no gap,
    /// each request that was received ended exactly once, each attempt that began ended.
    pub(crate) async fn strike(mut self) -> Result<()> {
        let status = self.hub.stop().await?;
        ensure!(status.success(), "the hub ended with {status}");
        let mut events = Vec::new();
        for stream in Stream::SHIPPED {
            events.extend(self.log.events(stream).await?);
        }
        assert_no_duplicates(&events)?;
        assert_no_gaps(&events)?;
        every_request_adds_up(&events)
    }
}

/// A chat request of one user message; its last word is the test's own name for it.
pub(crate) fn ask(tag: &str) -> Value {
    json!({
        "model": MODEL,
        "messages": [{"role": "user", "content": format!("tell me about rivers {tag}")}],
    })
}

/// The hub's id of the request that got this answer.
pub(crate) fn request_id(answer: &Answer) -> Result<String> {
    let id = answer.header("x-request-id");
    Ok(id.context("the answer has no X-Request-Id")?.to_owned())
}

/// Fails unless the answer is an error object as OpenAI words it, with the request's id in it.
pub(crate) fn ensure_error(answer: &Answer, status: u16) -> Result<()> {
    ensure!(
        answer.status == status,
        "answered {} instead of {status}: {}",
        answer.status,
        answer.text()
    );
    let content_type = answer.header("content-type").unwrap_or_default();
    ensure!(
        content_type.starts_with("application/json"),
        "the error has content type {content_type:?}"
    );
    ensure_error_object(&answer.json["error"], &request_id(answer)?)
}

/// Fails unless this is the `error` of an OpenAI error object for that request.
pub(crate) fn ensure_error_object(error: &Value, request_id: &str) -> Result<()> {
    let is_text = |name: &str| error[name].as_str().is_some_and(|text| !text.is_empty());
    ensure!(is_text("message"), "no message in {error}");
    ensure!(is_text("type"), "no type in {error}");
    ensure!(is_text("code"), "no code in {error}");
    let has_param = error.get("param").is_some();
    ensure!(
        has_param && (error["param"].is_null() || is_text("param")),
        "a strange param in {error}"
    );
    ensure!(
        error["request_id"] == request_id,
        "the error is of another request than {request_id}: {error}"
    );
    Ok(())
}

/// Waits until `GET path` answers 200 with a body that `state` accepts, and returns the body.
pub(crate) async fn shown<E: std::fmt::Display>(
    client: &Client,
    path: &str,
    state: impl Fn(&Value) -> Result<(), E>,
) -> Result<Value> {
    until(
        &format!("{path} shows it"),
        VISIBLE_BOUND,
        async || match client.get(path).await {
            Ok(answer) if answer.status == 200 => match state(&answer.json) {
                Ok(()) => Ok(answer.json),
                Err(seen) => Err(format!("{seen}: {}", answer.text())),
            },
            Ok(answer) => Err(format!("{}: {}", answer.status, answer.text())),
            Err(error) => Err(format!("{error:#}")),
        },
    )
    .await
}

/// `GET /requests/{id}` once the request has ended and its tokens are known.
pub(crate) async fn shown_request(client: &Client, request_id: &str) -> Result<Value> {
    shown(client, &format!("/requests/{request_id}"), |request| {
        let ended = matches!(request["state"].as_str(), Some("completed" | "failed"));
        if ended && !request["tokens_usage"].is_null() {
            Ok(())
        } else {
            Err("not ended yet")
        }
    })
    .await
}

fn every_request_adds_up(events: &[Event]) -> Result<()> {
    let mut requests: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for event in events
        .iter()
        .filter(|event| event.stream == Stream::Exchanges)
    {
        let names = requests.entry(event.request_id()).or_default();
        names.push(event.name());
    }
    for (request, names) in requests {
        let count = |name: &str| names.iter().filter(|other| **other == name).count();
        let terminals = count("completed") + count("failed");
        let as_expected = match count("received") {
            0 => names == ["rejected"],
            1 => terminals == 1 && count("attempt_started") == count("attempt_ended"),
            _ => false,
        };
        if !as_expected {
            bail!("request {request} does not add up: {names:?}");
        }
    }
    Ok(())
}
