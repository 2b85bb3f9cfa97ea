//! Events in the stream that no reader can make sense of.

use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use nexus_tests::account::{BOUND, assert_verified, projected, shipped};
use nexus_tests::broker;
use nexus_tests::seed::Seed;
use nexus_tests::{Broker, until};
use serde_json::json;

use crate::deployment::Deployment;

/// Poison is kept whole with its reason, counted, and blocks nobody; a rebuild says the same.
#[tokio::test(flavor = "multi_thread")]
async fn poison_in_the_stream_is_kept_and_stepped_over() -> Result<()> {
    let mut seed = Seed::of("poison")?;
    let broker = Broker::start().await?;
    let deployment = Deployment::start(&broker.url()).await?;
    let context = jetstream::new(broker::connect(&broker.url()).await?);
    let load = deployment.load(&mut seed)?;
    let event = |kind: &str| {
        json!({
            "specversion": "1.0", "id": "0199c0de-9999-7000-8000-000000000001",
            "source": "/nexus/test", "type": kind, "time": "2026-11-24T02:00:00.000Z",
            "subject": "01a21c11-e76a-7e46-ab29-170422f3a56d", "data": {"nobody": "knows"},
        })
        .to_string()
    };
    let poisons: Vec<Vec<u8>> = vec![
        b"\x00\xff{ not json".to_vec(),
        b"{}".to_vec(),
        event("ai.nexus.exchange.completed.v1").into_bytes(),
        event("ai.nexus.exchange.completed.v9").into_bytes(),
        event("com.example.something.else").into_bytes(),
    ];
    for poison in &poisons {
        load.goes_on(10).await?;
        let subject = "nexus.exchange.7.completed._._";
        let stored = context.publish(subject, poison.clone().into()).await?;
        stored.await.context("the broker did not take the poison")?;
    }
    load.goes_on(20).await?;
    let memory = load.stop().await;
    for gateway in &deployment.gateways {
        shipped(gateway).await?;
    }
    let one = deployment.gateways.first().context("a gateway")?;
    projected(one).await?;
    let read_model = one.read_model();
    let expected = i64::try_from(poisons.len())?;
    let count = "SELECT count(*) FROM dead_letter WHERE reason <> ''";
    read_model.until_number(count, expected).await?;
    for poison in &poisons {
        let mut text = String::new();
        for byte in poison {
            write!(text, "{byte:02X}")?;
        }
        let whole = format!("SELECT count(*) FROM dead_letter WHERE payload = X'{text}'");
        ensure!(read_model.number(&whole).await? == 1, "{text} is not there");
    }
    until("they are counted", BOUND, async || {
        let dead = deployment.projector.metric("nexus_dead_letters").await?;
        ensure!(dead == Some(5.0), "{dead:?}");
        anyhow::Ok(())
    })
    .await?;
    let answered = memory.answers.len() + memory.streams.len();
    let requests = "SELECT count(*) FROM exchanges WHERE is_received";
    ensure!(
        read_model.number(requests).await? >= i64::try_from(answered)?,
        "requests are missing"
    );
    assert_verified(one).await
}
