//! The outbox and its shipper against a real broker.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use nexus_events::{
    clock::{Clock, SharedClock, SystemClock},
    envelope::{Envelope, Record, Stamp},
    exchange_event::{self, About, TokensCounted},
    id::{ConversationId, EventId, KeyId, OutboxId, RequestId},
    log::{Log, LogSettings},
    outbox::{Adopted, Outbox, OutboxSettings, Release, Shipper, SyncMode},
    subject::{Lane, Stream},
};
use nexus_tests::{Broker, Result, until};
use tempfile::TempDir;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

mod bodies;
mod damage;
mod idle;
mod part;
mod unshippable;

/// A loaded two-core machine ships some thousand events a second; the tests ship a few thousand.
const BOUND: Duration = Duration::from_mins(1);

fn clock() -> SharedClock {
    Arc::new(SystemClock)
}

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

fn open(dir: &Path) -> Result<(Outbox, Vec<Adopted>)> {
    open_with(dir, 1 << 30)
}

fn open_with(dir: &Path, bytes_max: u64) -> Result<(Outbox, Vec<Adopted>)> {
    let settings = OutboxSettings {
        dir: dir.to_owned(),
        bytes_max,
        sync: SyncMode::Os,
        release: Release::Local,
    };
    Ok(Outbox::open(&settings, &clock())?)
}

fn shipper(log: &Log) -> Shipper {
    Shipper {
        log: log.clone(),
        clock: clock(),
        tracker: TaskTracker::new(),
        stop: CancellationToken::new(),
    }
}

fn record(lane: Lane, content: &str) -> Result<Record> {
    let clock = SystemClock;
    let request = RequestId::draw(&clock);
    let about = About {
        source: "/nexus/test",
        request,
        traceparent: None,
    };
    let data = TokensCounted {
        input_tokens: 1,
        output_tokens: 2,
        vocabulary: "test".to_owned(),
        audit: false,
        conversation: Some(ConversationId::draw(&clock)),
        key: KeyId::draw(&clock),
        provider_name: "p".to_owned(),
        configured_model: "m".to_owned(),
    };
    let stamp = Stamp::draw(&clock);
    let record = exchange_event::record(about, stamp, ("p", "m"), &data, Some(content))?;
    let subject = match lane {
        Lane::Exchanges => record.subject.clone(),
        Lane::Chunks => nexus_events::subject::chunk(request, "p", "m"),
        Lane::Audit => nexus_events::subject::audit("test"),
    };
    Ok(Record {
        lane,
        subject,
        ..record
    })
}

/// What a stream holds for one outbox: event ids in the stream's order, with their positions.
async fn stored(log: &Log, stream: Stream, outbox: OutboxId) -> Result<Vec<(u64, EventId)>> {
    let state = log.stream_state(stream).await?;
    let mut reader = log.reader(stream, None, 0);
    let mut found = Vec::new();
    if state.messages <= 1 {
        return Ok(found);
    }
    loop {
        let batch = tokio::time::timeout(BOUND, reader.next_batch(500)).await??;
        let caught_up = batch.last().is_some_and(|last| last.pending == 0);
        for message in batch {
            let envelope = Envelope::decode(&message.payload)?;
            if envelope.outbox == Some(outbox) {
                found.push((envelope.position.unwrap_or(0), envelope.id));
            }
        }
        if caught_up {
            return Ok(found);
        }
    }
}

async fn shipped(outbox: &Outbox) -> Result<()> {
    until("the outbox is shipped", BOUND, async || {
        if outbox.is_shipped() {
            Ok(())
        } else {
            Err(format!("{:?}", outbox.usage()))
        }
    })
    .await
}

/// Waits until nobody holds an incarnation any more.
///
/// A lane that was stopped while it read from the disk holds it a moment longer, and so does a
/// child of another test between its fork and its exec.
async fn abandoned(dir: &Path, outbox: OutboxId) -> Result<()> {
    let lock = dir.join(format!("{outbox}/lock"));
    until("the incarnation is abandoned", BOUND, async || {
        let lock = std::fs::File::open(&lock)?;
        lock.try_lock().context("it is held")
    })
    .await
}

fn numbered(ids: &[EventId]) -> Vec<(u64, EventId)> {
    (1..).zip(ids.iter().copied()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_stored_once_and_in_order_while_the_broker_is_killed() -> Result<()> {
    let mut broker = Broker::start().await?;
    let log = log(&broker.url()).await?;
    let dir = TempDir::new()?;
    let (outbox, _) = open(dir.path())?;
    let shipper = shipper(&log);
    shipper.ship(&outbox);
    let mut appended: HashMap<Lane, Vec<EventId>> = HashMap::new();
    for round in 0..6 {
        for number in 0..1500 {
            let lane = Lane::ALL[number % 3];
            let record = record(
                lane,
                "some content of a usual length, neither short nor long",
            )?;
            outbox.append(&record)?;
            appended.entry(lane).or_default().push(record.id);
            if number % 100 == 0 {
                // Let the lanes get hold of a part, so that the kill meets batches in flight.
                tokio::task::yield_now().await;
            }
        }
        if round % 2 == 0 {
            broker.kill().await?;
        } else {
            broker.restart().await?;
        }
    }
    shipped(&outbox).await?;
    for lane in Lane::ALL {
        let found = stored(&log, lane.stream(), outbox.id()).await?;
        assert_eq!(found, numbered(&appended[&lane]), "{lane}");
    }
    // An orderly end leaves nothing behind.
    shipper.stop.cancel();
    assert!(outbox.retire());
    assert_eq!(std::fs::read_dir(dir.path())?.count(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_outbox_is_drained_once_even_if_part_of_it_was_shipped() -> Result<()> {
    let broker = Broker::start().await?;
    let log = log(&broker.url()).await?;
    let dir = TempDir::new()?;
    let (first, _) = open(dir.path())?;
    let mut ids = Vec::new();
    let append = |ids: &mut Vec<EventId>| -> Result<()> {
        for _ in 0..1200 {
            let record = record(Lane::Exchanges, "x")?;
            first.append(&record)?;
            ids.push(record.id);
        }
        Ok(())
    };
    append(&mut ids)?;
    let shipper_of_first = shipper(&log);
    shipper_of_first.ship(&first);
    shipped(&first).await?;
    shipper_of_first.stop.cancel();
    shipper_of_first.tracker.close();
    shipper_of_first.tracker.wait().await;
    append(&mut ids)?;
    let id = first.id();
    drop((first, shipper_of_first));
    abandoned(dir.path(), id).await?;

    let (second, adopted) = open(dir.path())?;
    let shipper = shipper(&log);
    shipper.ship(&second);
    let [adopted] = <[Adopted; 1]>::try_from(adopted).expect("one was abandoned");
    assert_eq!(adopted.id(), id);
    shipper.drain(&adopted);
    tokio::time::timeout(BOUND, adopted.drained()).await??;
    assert_eq!(stored(&log, Stream::Exchanges, id).await?, numbered(&ids));
    adopted.remove()?;
    assert!(!dir.path().join(id.to_string()).exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_at_the_end_of_a_lane_holds_up_nobody_who_adopts_it() -> Result<()> {
    let broker = Broker::start().await?;
    let log = log(&broker.url()).await?;
    let dir = TempDir::new()?;
    // Segments of 128 KiB: the head of the second one tells where the audit lane ended.
    let (outbox, _) = open_with(dir.path(), 1 << 20)?;
    outbox.append(&record(Lane::Audit, "the only one of its lane")?)?;
    let mut ids = Vec::new();
    for _ in 0..20 {
        let record = record(Lane::Exchanges, &"x".repeat(10_000))?;
        outbox.append(&record)?;
        ids.push(record.id);
    }
    let id = outbox.id();
    drop(outbox);
    abandoned(dir.path(), id).await?;
    let segment = dir.path().join(format!("{id}/000000000001.segment"));
    let mut bytes = std::fs::read(&segment)?;
    let place = bytes.windows(8).position(|text| text == b"the only");
    bytes[place.context("the record is not in the first segment")?] = b'T';
    std::fs::write(&segment, bytes)?;

    let (_next, adopted) = open(dir.path())?;
    let shipper = shipper(&log);
    shipper.drain(&adopted[0]);
    tokio::time::timeout(BOUND, adopted[0].drained()).await??;
    assert_eq!(stored(&log, Stream::Exchanges, id).await?, numbered(&ids));
    assert_eq!(stored(&log, Stream::Audit, id).await?, []);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn large_content_goes_to_the_object_store_before_its_event() -> Result<()> {
    let broker = Broker::start().await?;
    let log = log(&broker.url()).await?;
    let dir = TempDir::new()?;
    let (outbox, _) = open(dir.path())?;
    let shipper = shipper(&log);
    shipper.ship(&outbox);
    let content = "0123456789".repeat(300_000);
    let record = record(Lane::Exchanges, &content)?;
    outbox.append(&record)?;
    shipped(&outbox).await?;
    let mut reader = log.reader(Stream::Exchanges, None, 0);
    let batch = reader.next_batch(10).await?;
    let envelope = Envelope::decode(&batch[0].payload)?;
    assert_eq!(envelope.id, record.id);
    assert!(envelope.dataref.is_some());
    let body = log.body(envelope.id).await?.expect("the content is stored");
    assert_eq!(serde_json::from_slice::<String>(&body)?, content);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_the_broker_cannot_take_blocks_nobody() -> Result<()> {
    let broker = Broker::start_with("max_payload: 100KB\n").await?;
    let log = log(&broker.url()).await?;
    let dir = TempDir::new()?;
    let (outbox, _) = open(dir.path())?;
    let shipper = shipper(&log);
    shipper.ship(&outbox);
    let before = record(Lane::Exchanges, "before")?;
    let huge = record(Lane::Exchanges, &"x".repeat(200_000))?;
    let after = record(Lane::Exchanges, "after")?;
    for record in [&before, &huge, &after] {
        outbox.append(record)?;
    }
    shipped(&outbox).await?;
    let mut reader = log.reader(Stream::Exchanges, None, 0);
    let mut events = Vec::new();
    while events.len() < 3 {
        for message in tokio::time::timeout(BOUND, reader.next_batch(10)).await?? {
            let envelope = Envelope::decode(&message.payload)?;
            events.push((envelope.kind.into_owned(), envelope.position, envelope.id));
        }
    }
    assert_eq!(events[0].2, before.id);
    assert_eq!(events[1].0, "ai.nexus.log.unshippable.v1");
    assert_eq!(events[1].1, Some(2));
    assert_eq!(events[2].2, after.id);
    let kept: Vec<_> =
        std::fs::read_dir(dir.path().join("unshippable"))?.collect::<Result<_, _>>()?;
    let [kept] = &kept[..] else {
        panic!("one record is set aside")
    };
    let kept = std::fs::read(kept.path())?;
    assert_eq!(Envelope::decode(&kept)?.id, huge.id);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_restored_from_an_older_copy_ships_nothing_and_says_so() -> Result<()> {
    let broker = Broker::start().await?;
    let log = log(&broker.url()).await?;
    let dir = TempDir::new()?;
    let (outbox, _) = open(dir.path())?;
    outbox.append(&record(Lane::Audit, "old")?)?;
    let home = dir.path().join(outbox.id().to_string());
    let segment = home.join("000000000001.segment");
    let older_copy = std::fs::read(&segment)?;
    outbox.append(&record(Lane::Audit, "new")?)?;
    let shipper_of_first = shipper(&log);
    shipper_of_first.ship(&outbox);
    shipped(&outbox).await?;
    shipper_of_first.stop.cancel();
    shipper_of_first.tracker.close();
    shipper_of_first.tracker.wait().await;
    let id = outbox.id();
    drop((outbox, shipper_of_first));
    abandoned(dir.path(), id).await?;
    std::fs::write(&segment, older_copy)?;

    let (_second, adopted) = open(dir.path())?;
    let shipper = shipper(&log);
    shipper.drain(&adopted[0]);
    // The stream has all that the copy holds: there is nothing to wait for.
    tokio::time::timeout(BOUND, adopted[0].drained()).await??;
    let [alarm] = &adopted[0].alarms()[..] else {
        panic!("one lane has lost its end: {:?}", adopted[0].alarms())
    };
    assert!(alarm.contains("restored from an older copy"), "{alarm}");
    assert_eq!(stored(&log, Stream::Audit, id).await?.len(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_is_found_in_a_stream_full_of_cursors() -> Result<()> {
    let broker = Broker::start().await?;
    let log = log(&broker.url()).await?;
    let dir = TempDir::new()?;
    let (outbox, _) = open(dir.path())?;
    let shipper = shipper(&log);
    assert_eq!(
        log.sequence_at(Stream::Audit, SystemClock.now()).await?,
        log.stream_state(Stream::Audit).await?.last_sequence + 1
    );
    shipper.ship(&outbox);
    for _ in 0..20 {
        outbox.append(&record(Lane::Audit, "x")?)?;
        shipped(&outbox).await?;
    }
    let mut reader = log.reader(Stream::Audit, None, 0);
    let mut messages = Vec::new();
    while messages.len() < 20 {
        messages.extend(tokio::time::timeout(BOUND, reader.next_batch(50)).await??);
    }
    for message in &messages {
        let first_of_that_time = messages
            .iter()
            .find(|other| other.time == message.time)
            .map(|other| other.sequence);
        let found = log.sequence_at(Stream::Audit, message.time).await?;
        assert_eq!(Some(found), first_of_that_time);
    }
    let future = SystemClock.now().plus(Duration::from_hours(1));
    let behind = log.sequence_at(Stream::Audit, future).await?;
    assert!(behind > messages[19].sequence);
    Ok(())
}
