//! A reader gives out every event of a stream once and in order, or starts again.

use std::time::Duration;

use anyhow::ensure;
use nexus_events::{
    log::{Known, KnownError, Log, LogSettings, Message, ReadError},
    subject::Stream,
};
use nexus_tests::lossy::Lossy;
use nexus_tests::{Broker, Result};

/// A loaded machine reads some hundred events in far less.
const BOUND: Duration = Duration::from_mins(1);

/// Events in the stream.
const EVENTS: usize = 500;

async fn log(url: &str) -> Result<Log> {
    let log = Log::connect(LogSettings {
        url: url.to_owned(),
        name: "test".to_owned(),
        replicas: 1,
        retention: Duration::from_hours(24),
    })
    .await?;
    log.ready(BOUND).await?;
    Ok(log)
}

/// A stream of numbered events, which nothing but their order matters of.
async fn numbered(broker: &Broker) -> Result<Log> {
    let direct = log(&broker.url()).await?;
    let context = async_nats::jetstream::new(broker.client().await?);
    for number in 0..EVENTS {
        let subject = format!("nexus.exchange.{}.received._._", number % 64);
        let stored = context.publish(subject, number.to_string().into()).await?;
        stored.await?;
    }
    Ok(direct)
}

fn numbers(messages: &[Message]) -> Vec<String> {
    let numbers = messages.iter();
    numbers
        .map(|message| String::from_utf8_lossy(&message.payload).into_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_lost_on_its_way_is_read_again_and_in_its_place() -> Result<()> {
    let broker = Broker::start().await?;
    numbered(&broker).await?;
    let lossy = Lossy::start(&broker.host_port(), 97).await?;
    let through = log(&lossy.url()).await?;
    let mut reader = through.reader(Stream::Exchanges, None, 0);
    let mut read = Vec::new();
    while read.len() < EVENTS {
        let batch = tokio::time::timeout(BOUND, reader.next_batch(64)).await??;
        read.extend(numbers(&batch));
    }
    let expected: Vec<String> = (0..EVENTS).map(|number| number.to_string()).collect();
    assert_eq!(read, expected);
    ensure!(lossy.lost() >= 5, "only {} were lost", lossy.lost());
    Ok(())
}

/// Bytes of each of the large events; forty of them are more than one batch takes.
const LARGE: usize = 900 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_come_in_batches_that_fit_into_memory() -> Result<()> {
    let broker = Broker::start().await?;
    let log = log(&broker.url()).await?;
    let context = async_nats::jetstream::new(broker.client().await?);
    for number in 0..40_u8 {
        let payload = vec![number; LARGE];
        let subject = "nexus.exchange.7.received._._";
        context.publish(subject, payload.into()).await?.await?;
    }
    let mut reader = log.reader(Stream::Exchanges, None, 0);
    let mut read: Vec<u8> = Vec::new();
    while read.len() < 40 {
        let batch = tokio::time::timeout(BOUND, reader.next_batch(1000)).await??;
        let bytes: usize = batch.iter().map(|message| message.payload.len()).sum();
        ensure!(bytes <= 16 * 1024 * 1024 + LARGE, "{bytes} bytes at once");
        read.extend(batch.iter().filter_map(|message| message.payload.first()));
    }
    ensure!(read.iter().copied().eq(0..40), "{read:?}");
    Ok(())
}

/// What a reader would know of a stream whose event `sequence` it read last.
fn known(messages: &[Message], sequence: usize) -> Known {
    Known {
        created_ns: None,
        sequence: messages[sequence - 1].sequence,
        stored_ns: Some(messages[sequence - 1].stored_ns),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_known_by_the_event_that_was_read_last() -> Result<()> {
    let broker = Broker::start().await?;
    let log = numbered(&broker).await?;
    let mut reader = log.reader(Stream::Exchanges, None, 0);
    let mut read = Vec::new();
    while read.len() < EVENTS {
        read.extend(tokio::time::timeout(BOUND, reader.next_batch(EVENTS)).await??);
    }
    let exchanges = Stream::Exchanges;
    log.known_stream(exchanges, known(&read, 10)).await?;
    log.known_stream(exchanges, Known::default()).await?;
    let other = Known {
        sequence: 11,
        ..known(&read, 10)
    };
    let refused = log.known_stream(exchanges, other).await;
    ensure!(
        matches!(
            refused,
            Err(KnownError::Other(ReadError::TailReplaced { read: 11, .. }))
        ),
        "{refused:?}"
    );
    // A reader is told the same, and asks for itself when it begins again.
    let mut reader = log
        .reader(exchanges, None, 11)
        .of_message_stored(other.stored_ns);
    let refused = tokio::time::timeout(BOUND, reader.next_batch(1)).await?;
    ensure!(
        matches!(refused, Err(ReadError::TailReplaced { .. })),
        "{refused:?}"
    );

    // In place of an event there was a cursor, and it has been rolled up; older events are there.
    let context = async_nats::jetstream::new(broker.client().await?);
    let stream = context.get_stream(exchanges.name()).await?;
    stream.delete_message(10).await?;
    let refused = log.known_stream(exchanges, known(&read, 10)).await;
    ensure!(
        matches!(
            refused,
            Err(KnownError::Other(ReadError::TailReplaced { .. }))
        ),
        "{refused:?}"
    );
    // Retention takes all the older ones as well.
    log.purge(exchanges, exchanges.events(), 200).await?;
    log.known_stream(exchanges, known(&read, 10)).await?;
    log.known_stream(exchanges, known(&read, 199)).await?;
    log.known_stream(exchanges, known(&read, 200)).await?;
    log.purge(exchanges, exchanges.events(), 1_000).await?;
    log.known_stream(exchanges, known(&read, EVENTS)).await?;
    Ok(())
}
