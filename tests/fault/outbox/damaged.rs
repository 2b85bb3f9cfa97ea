//! Segments that a crash tore or a disk spoiled, while nobody had shipped them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nexus_events::outbox::segment::Kind;
use nexus_events::outbox::segment_reader::{Scanned, SegmentReader};
use nexus_events::subject::Lane;
use nexus_tests::account::{Account, BOUND, Memory, assert_verified, projected, shipped};
use nexus_tests::log::{Event, Stream, assert_no_duplicates};
use nexus_tests::seed::Seed;
use nexus_tests::{Broker, until};
use serde_json::Value;

use super::segments;
use crate::deployment::{Deployment, Plan};

/// 4 MiB: segments of 512 KiB, so that some are filled within seconds.
const SMALL: &str = "4MiB";

/// A record of a segment file.
struct Found {
    kind: Kind,
    position: u64,
    begin: u64,
    end: u64,
    /// What it records: the event's name, and its request.
    name: String,
    request: String,
}

/// The records of a segment, in order.
fn records(segment: &Path) -> Result<Vec<Found>> {
    let file = File::open(segment)?;
    let length = file.metadata()?.len();
    let mut reader = SegmentReader::new(file, 0);
    let mut found = Vec::new();
    loop {
        let begin = reader.offset();
        let Scanned::Record(record) = reader.next(length)? else {
            return Ok(found);
        };
        let (kind, position) = (record.kind, record.position);
        let event = serde_json::from_slice::<Value>(record.payload).unwrap_or_default();
        let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default();
        let name = text("type")
            .split('.')
            .nth(3)
            .unwrap_or_default()
            .to_owned();
        let request = text("subject").to_owned();
        found.push(Found {
            kind,
            position,
            begin,
            end: reader.offset(),
            name,
            request,
        });
    }
}

/// Tears the end of a segment, as a crash in the middle of a write does; gives the request whose
/// last event was lost with it.
fn tear(segment: &Path, seed: &mut Seed) -> Result<Option<String>> {
    let records = records(segment)?;
    let last = records.last().context("an empty segment")?;
    let inside = 1 + seed.below(last.end - last.begin - 1);
    let file = File::options().read(true).write(true).open(segment)?;
    // The provider may have been asked by then, which only this event tells; so another is torn.
    if last.name == "attempt_started" || last.kind == Kind::Head {
        let mut half = vec![0; usize::try_from(inside)?];
        file.read_exact_at(&mut half, last.begin)?;
        file.write_all_at(&half, last.end)?;
        return Ok(None);
    }
    file.set_len(last.begin + inside)?;
    Ok(Some(last.request.clone()))
}

/// What a client remembers of a request is not asked about any more.
fn forget(memory: &mut Memory, request: &str) {
    memory.streams.retain(|stream| stream.request_id != request);
    memory.answers.retain(|answer| answer.request_id != request);
}

/// A torn tail is cut off and costs what was torn, and nothing before it.
#[tokio::test(flavor = "multi_thread")]
async fn a_torn_tail_costs_what_was_torn_only() -> Result<()> {
    let mut seed = Seed::of("torn tail")?;
    let mut broker = Broker::start().await?;
    let mut deployment = Deployment::start(&broker.url()).await?;
    let load = deployment.load(&mut seed)?;
    let mut torn = Vec::new();
    for _ in 0..3 {
        load.is_answered(10).await?;
        broker.kill().await?;
        load.goes_on(20 + usize::try_from(seed.below(20))?).await?;
        let victim = seed.index(deployment.gateways.len());
        deployment.kill(victim, &load).await?;
        let gateway = deployment.gateways.get(victim).context("no such gateway")?;
        let outboxes = gateway.outboxes()?;
        let outbox = outboxes.last().context("no outbox")?;
        let segment = segments(outbox)?;
        torn.extend(tear(segment.last().context("no segment")?, &mut seed)?);
        deployment.launch(victim, &load).await?;
        load.goes_on(10).await?;
        broker.restart().await?;
        deployment.ready().await?;
    }
    load.is_answered(10).await?;
    let mut memory = load.stop().await;
    for request in &torn {
        forget(&mut memory, request);
    }
    deployment.settle_and_check(&memory).await?;
    Ok(())
}

/// Flips a byte of an event's record somewhere in the middle of a segment; gives what was there.
fn spoil(segment: &Path, seed: &mut Seed) -> Result<Found> {
    let mut events = records(segment)?;
    events.retain(|record| record.kind == Kind::Event(Lane::Exchanges));
    ensure!(
        !events.is_empty(),
        "no exchange event in {}",
        segment.display()
    );
    let chosen = events.swap_remove(seed.index(events.len()));
    let place = chosen.begin + seed.below(chosen.end - chosen.begin);
    let file = File::options().read(true).write(true).open(segment)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, place)?;
    let flipped = byte.map(|byte| byte ^ (1 << seed.below(8)));
    file.write_all_at(&flipped, place)?;
    Ok(chosen)
}

/// Fills an outbox until so many more segments have begun.
async fn more_segments(outbox: &Path, more: usize) -> Result<Vec<PathBuf>> {
    let before = segments(outbox)?.len();
    until("more segments have begun", BOUND, async || {
        let segments = segments(outbox)?;
        ensure!(segments.len() >= before + more, "{}", segments.len());
        Ok(segments)
    })
    .await
}

/// Positions that are missing in the log, by stream and outbox.
fn missing(events: &[Event]) -> BTreeMap<(&'static str, String), Vec<u64>> {
    let mut lanes: BTreeMap<(&'static str, String), BTreeSet<u64>> = BTreeMap::new();
    for event in events {
        if let Some(position) = event.position() {
            let lane = (event.stream.name(), event.outbox().to_owned());
            lanes.entry(lane).or_default().insert(position);
        }
    }
    lanes
        .into_iter()
        .map(|(lane, positions)| {
            let last = positions.last().copied().unwrap_or(0);
            let missing = (1..=last).filter(|position| !positions.contains(position));
            (lane, missing.collect::<Vec<_>>())
        })
        .filter(|(_, missing)| !missing.is_empty())
        .collect()
}

/// Damage costs exactly the damaged record: the log has a gap there that everybody is told of, and
/// every request that the log has still ends once.
#[tokio::test(flavor = "multi_thread")]
async fn damage_costs_the_damaged_record_and_is_told() -> Result<()> {
    let mut seed = Seed::of("damaged segment")?;
    let mut broker = Broker::start().await?;
    let plan = Plan::direct(&broker.url()).await?;
    let mut deployment = Deployment::of(plan.set("NEXUS_OUTBOX_MAX_BYTES", SMALL)).await?;
    let load = deployment.load(&mut seed)?;
    load.is_answered(10).await?;
    broker.kill().await?;
    let victim = seed.index(deployment.gateways.len());
    let gateway = deployment.gateways.get(victim).context("no such gateway")?;
    let outbox = gateway.outboxes()?.pop().context("no outbox")?;
    let segments = more_segments(&outbox, 2).await?;
    deployment.kill(victim, &load).await?;
    let [.., earlier, _last] = &segments[..] else {
        anyhow::bail!("too few segments: {segments:?}");
    };
    let spoiled = spoil(earlier, &mut seed)?;
    println!("spoiled {} of {}", spoiled.name, spoiled.request);
    deployment.launch(victim, &load).await?;
    broker.restart().await?;
    deployment.ready().await?;
    load.is_answered(20).await?;
    let mut memory = load.stop().await;
    forget(&mut memory, &spoiled.request);

    for gateway in &deployment.gateways {
        shipped(gateway).await?;
    }
    let gateway = deployment.gateways.first().context("no gateway")?;
    projected(gateway).await?;
    let log = gateway.log().await?;
    let mut events = Vec::new();
    for stream in Stream::SHIPPED {
        events.extend(log.events(stream).await?);
    }
    assert_no_duplicates(&events)?;
    let dead = outbox.file_name().context("a name")?.display().to_string();
    let gap = ((Stream::Exchanges.name(), dead), vec![spoiled.position]);
    ensure!(
        missing(&events) == BTreeMap::from([gap]),
        "{:?}",
        missing(&events)
    );
    let account = Account::of(events);
    account.assert_one_end_each()?;
    for stream in &memory.streams {
        account.assert_holds(stream)?;
    }
    gap_is_told(&deployment).await?;
    assert_verified(gateway).await
}

/// Waits until the projector tells of one missing event, in its metrics and its readiness.
async fn gap_is_told(deployment: &Deployment) -> Result<()> {
    let projector = &deployment.projector;
    until("the gap is told", BOUND, async || {
        let told = projector.metric("nexus_log_gaps").await?;
        ensure!(told == Some(1.0), "nexus_log_gaps is {told:?}");
        let readiness = projector.metrics()?.get("/readyz").await?.text();
        ensure!(
            readiness.contains("1 events are missing in the log"),
            "{readiness}"
        );
        Ok(())
    })
    .await
}
