//! An event of a lost request that nobody can read.

use anyhow::Context;
use nexus_tests::client::ChatStream;
use nexus_tests::log::{Stream, terminals_by_request};
use nexus_tests::{Broker, Gate, Hub, Result, Script, Upstream};
use serde_json::json;

use super::{MODEL, ask, until_repaired};

/// Requests that the gateway leaves open.
const OPEN: usize = 3;

fn id(stream: &ChatStream) -> Result<String> {
    let id = stream.header("x-request-id").context("no X-Request-Id")?;
    Ok(id.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_event_holds_up_no_lost_request() -> Result<()> {
    let broker = Broker::start().await?;
    let upstream = Upstream::start().await?;
    let gate = Gate::closed();
    let stand_still = gate.clone();
    upstream.choose(move |_| Script::answer().wait_after(2, &stand_still));
    let mut hub = Hub::standalone().nats(&broker).start().await?;
    let client = hub.client()?;
    client.serve_model(MODEL, &upstream.url()).await?;
    let mut streams = Vec::new();
    for number in 0..OPEN {
        let mut stream = client.chat_stream(&ask(&format!("open-{number}"))).await?;
        stream.chunks(3).await?;
        streams.push(stream);
    }
    gate.reached_by(OPEN).await?;
    let log = hub.log().await?;
    let chunks = log.until_events(Stream::Chunks, "all chunks are shipped", |events| {
        // The opening event with the role comes first.
        if events.len() == 3 * OPEN {
            Ok(())
        } else {
            Err("some are missing")
        }
    });
    chunks.await?;
    hub.kill().await?;

    let unreadable = json!({
        "specversion": "1.0",
        "id": "0199c0de-9999-7000-8000-0000000000ff",
        "source": "/nexus/test",
        "type": "ai.nexus.exchange.attempt_ended.v1",
        "time": "2026-11-24T12:00:00.000Z",
        "subject": id(&streams[0])?,
        "data": {"nexus.attempt": "not a number"},
    });
    let subject = "nexus.exchange.0.attempt_ended.openai.gpt".to_owned();
    let jetstream = async_nats::jetstream::new(broker.client().await?);
    let payload = serde_json::to_vec(&unreadable)?;
    jetstream.publish(subject, payload.into()).await?.await?;

    hub.start_again().await?;
    until_repaired(&log).await?;
    let events = log.events(Stream::Exchanges).await?;
    let terminals = terminals_by_request(&events);
    for stream in &streams {
        let terminal = terminals.get(id(stream)?.as_str()).context("no end")?;
        assert_eq!(terminal.len(), 1, "{terminal:?}");
    }
    assert!(
        hub.stderr().contains("cannot be read"),
        "nobody was told: {}",
        hub.stderr()
    );
    Ok(())
}
