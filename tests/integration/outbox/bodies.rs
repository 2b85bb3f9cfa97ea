//! Content in the object store: put again and again, and not whole any more.

use async_nats::jetstream;
use nexus_events::{
    clock::SystemClock,
    id::EventId,
    log::{Log, bodies},
};
use nexus_tests::{Broker, Result};

use super::{BOUND, log};

/// The stream of the bucket.
const STREAM: &str = "OBJ_NEXUS_BODIES";

/// 2 MiB of content: sixteen parts of 128 KiB.
const PARTS: usize = 16;

fn content() -> Vec<u8> {
    let numbers = (0_u32..).flat_map(u32::to_le_bytes);
    numbers.take(PARTS * 128 * 1024).collect()
}

async fn messages(jetstream: &jetstream::Context) -> Result<u64> {
    Ok(jetstream
        .get_stream(STREAM)
        .await?
        .get_info()
        .await?
        .state
        .messages)
}

async fn limit(jetstream: &jetstream::Context, bytes_max: i64) -> Result<()> {
    let mut config = jetstream.get_stream(STREAM).await?.get_info().await?.config;
    config.max_bytes = bytes_max;
    jetstream.update_stream(config).await?;
    Ok(())
}

async fn body(log: &Log, event: EventId) -> Result<Option<Vec<u8>>> {
    let body = tokio::time::timeout(BOUND, log.body(event)).await??;
    Ok(body.map(|body| body.to_vec()))
}

fn parts_of(event: EventId) -> String {
    format!("$O.{}.C.{event}", bodies::BUCKET)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_put_after_tries_that_failed_leaves_nothing_else() -> Result<()> {
    let broker = Broker::start().await?;
    let log = log(&broker.url()).await?;
    let jetstream = jetstream::new(broker.client().await?);
    let (event, content) = (EventId::draw(&SystemClock), content());
    limit(&jetstream, 1 << 20).await?;
    for _ in 0..2 {
        assert!(log.put_body(event, &content).await.is_err());
    }
    assert!(messages(&jetstream).await? > 0, "a try wrote nothing");
    limit(&jetstream, -1).await?;
    for _ in 0..2 {
        log.put_body(event, &content).await?;
        assert_eq!(messages(&jetstream).await?, PARTS as u64 + 1);
        assert_eq!(body(&log, event).await?.as_ref(), Some(&content));
    }

    // What a try without an end left goes with its event as well.
    let unended = EventId::draw(&SystemClock);
    let part = jetstream.publish(parts_of(unended), "a part".into());
    part.await?.await?;
    for event in [event, unended] {
        log.delete_body(event).await?;
        assert_eq!(body(&log, event).await?, None);
    }
    // That the object is deleted.
    assert_eq!(messages(&jetstream).await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_whole_any_more_is_missing_and_holds_nobody_up() -> Result<()> {
    let broker = Broker::start().await?;
    let log = log(&broker.url()).await?;
    let jetstream = jetstream::new(broker.client().await?);
    let stream = jetstream.get_stream(STREAM).await?;
    let (without_parts, without_one) = (EventId::draw(&SystemClock), EventId::draw(&SystemClock));
    for event in [without_parts, without_one] {
        log.put_body(event, &content()).await?;
    }
    stream.purge().filter(parts_of(without_parts)).await?;
    let part = stream
        .get_last_raw_message_by_subject(&parts_of(without_one))
        .await?;
    stream.delete_message(part.sequence).await?;
    assert_eq!(body(&log, without_parts).await?, None);
    assert_eq!(body(&log, without_one).await?, None);
    Ok(())
}
