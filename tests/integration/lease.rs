//! Leases against a real broker: one holds at a time, whoever dies, is frozen or is cut off.

use std::time::Duration;

use anyhow::{bail, ensure};
use nexus_events::clock::SystemClock;
use nexus_events::id::OutboxId;
use nexus_events::log::{Holding, Lease, LeaseTimes, Log, LogError, LogSettings};
use nexus_tests::account::BOUND;
use nexus_tests::seed::Seed;
use nexus_tests::{Broker, Chaos, Result, until};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A hundredth of what the hub takes, with the same proportions but for the margin between the
/// holder's end and the next one's beginning: that is 400 ms, because this machine is shared.
const QUICK: LeaseTimes = LeaseTimes {
    renew_every: Duration::from_millis(50),
    hold_for: Duration::from_millis(200),
    take_over_after: Duration::from_millis(600),
};

/// The same for tests that hold a lease while they do something else, on a machine that stutters.
const CALM: LeaseTimes = LeaseTimes {
    renew_every: Duration::from_secs(1),
    hold_for: Duration::from_secs(3),
    take_over_after: Duration::from_secs(5),
};

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

fn claim(log: &Log, times: LeaseTimes) -> (Lease, Holding) {
    Lease::new(log, "test", OutboxId::draw(&SystemClock), times)
}

/// Tends a lease until it is held.
async fn until_held(lease: &mut Lease, holding: &Holding) -> Result<u64> {
    until("the lease is held", BOUND, async || {
        lease.tend().await?;
        match holding.term() {
            Some(term) => Ok(term),
            None => bail!("it is not"),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_taken_over_only_after_its_holder_has_stopped() -> Result<()> {
    let broker = Broker::start().await?;
    let log = log(&broker.url()).await?;
    let ((mut one, holds_one), (mut two, holds_two)) = (claim(&log, CALM), claim(&log, CALM));
    one.tend().await?;
    let first = holds_one.term();
    assert!(first.is_some(), "a free lease is taken at once");
    for _ in 0..3 {
        two.tend().await?;
        one.tend().await?;
        assert_eq!((holds_one.term(), holds_two.term()), (first, None));
    }
    // The first one stands still, as if it were frozen.
    let frozen = Instant::now();
    until_held(&mut two, &holds_two).await?;
    assert_eq!(holds_one.term(), None, "it must have stopped by itself");
    assert!(
        frozen.elapsed() > CALM.hold_for,
        "it was taken over too soon"
    );
    // It wakes up: it was somebody else's turn, and stays so while that one renews.
    one.tend().await?;
    two.tend().await?;
    assert_eq!(holds_one.term(), None);
    assert!(holds_two.term().is_some());
    // What it knew is void when it holds the lease again.
    drop(two);
    assert_eq!(holds_two.term(), None);
    let second = until_held(&mut one, &holds_one).await?;
    assert_ne!(Some(second), first, "another term");
    assert!(!holds_one.holds(first.unwrap_or_default()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_cannot_do_the_job_leaves_it_to_another() -> Result<()> {
    let broker = Broker::start().await?;
    let log = log(&broker.url()).await?;
    let ((mut one, holds_one), (mut two, holds_two)) = (claim(&log, QUICK), claim(&log, QUICK));
    until_held(&mut one, &holds_one).await?;
    holds_one.stand_back(BOUND);
    assert_eq!(holds_one.term(), None);
    until("the other one holds it", BOUND, async || {
        one.tend().await?;
        two.tend().await?;
        ensure!(holds_one.term().is_none(), "it did not stand back");
        match holds_two.term() {
            Some(_) => Ok(()),
            None => bail!("nobody does"),
        }
    })
    .await
}

/// A write that was stored and whose answer was lost is found again: the holder goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_whose_answer_is_lost_is_read_back() -> Result<()> {
    let broker = Broker::start().await?;
    let log = log(&broker.url()).await?;
    let holder = OutboxId::draw(&SystemClock);
    let (mut lease, holding) = Lease::new(&log, "test", holder, CALM);
    until_held(&mut lease, &holding).await?;
    // The same holder's next renewal, stored behind its back as one whose answer was lost.
    let (mut behind, _) = Lease::new(&log, "test", holder, CALM);
    behind.tend().await?;
    // The first try is refused; then it knows its place again.
    lease.tend().await?;
    lease.tend().await?;
    assert!(holding.term().is_some());
    Ok(())
}

/// A claim of a storm: tended by a task that freezes now and then.
async fn tend_and_freeze(mut lease: Lease, mut seed: Seed) {
    loop {
        // A lease that cannot be tended at present is tended later.
        drop(lease.tend().await);
        let pause = if seed.one_in(20) {
            seed.between(QUICK.hold_for, QUICK.take_over_after * 3)
        } else {
            QUICK.renew_every
        };
        sleep(pause).await;
    }
}

/// Never two of four hold a lease, while they freeze and their ways to the broker are cut and
/// stalled at random.
#[tokio::test(flavor = "multi_thread")]
async fn two_never_hold_a_lease_at_once() -> Result<()> {
    const HANDOVERS: usize = 8;
    let mut seed = Seed::of("two_never_hold_a_lease_at_once")?;
    let broker = Broker::start().await?;
    log(&broker.url()).await?;
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let _stop = stop.clone().drop_guard();
    let (mut wires, mut holdings) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let wire = Chaos::start(&broker.host_port())?;
        let log = log(&format!("nats://{}", wire.url_host_port())).await?;
        let (lease, holding) = claim(&log, QUICK);
        let tending = tend_and_freeze(lease, seed.fork());
        tasks.spawn(stop.clone().run_until_cancelled_owned(tending));
        wires.push(wire);
        holdings.push(holding);
    }
    let (mut handovers, mut last) = (0, None);
    let mut next = Instant::now();
    until("the lease has changed hands often", BOUND * 2, async || {
        let begin = Instant::now();
        let holders: Vec<usize> = (0..holdings.len())
            .filter(|number| holdings[*number].term().is_some())
            .collect();
        // A look that took longer than the margin may have seen one stop and another begin.
        let margin = QUICK.take_over_after.saturating_sub(QUICK.hold_for);
        if holders.len() > 1 && begin.elapsed() < margin / 2 {
            return Ok(Err(anyhow::anyhow!("{holders:?} hold it at once")));
        }
        if let Some(holder) = holders.first().copied()
            && last != Some(holder)
        {
            last = Some(holder);
            handovers += 1;
        }
        if begin >= next {
            let wire = &wires[seed.index(wires.len())];
            match seed.below(4) {
                0 => wire.cut(),
                1 => wire.stall(),
                _ => wires.iter().for_each(Chaos::flow),
            }
            next = begin + seed.between(Duration::ZERO, QUICK.take_over_after);
        }
        if handovers >= HANDOVERS {
            return Ok(Ok(()));
        }
        Err(format!("{handovers} handovers"))
    })
    .await?
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_stream_of_leases_is_refused_by_name() -> Result<()> {
    let broker = Broker::start().await?;
    let jetstream = async_nats::jetstream::new(broker.client().await?);
    jetstream
        .create_stream(async_nats::jetstream::stream::Config {
            name: "NEXUS_LEASES".to_owned(),
            subjects: vec!["nexus.lease.>".to_owned()],
            storage: async_nats::jetstream::stream::StorageType::Memory,
            ..Default::default()
        })
        .await?;
    let refused = log(&broker.url()).await;
    let Err(error) = refused else {
        bail!("a foreign stream must be refused")
    };
    let drift = error.downcast_ref::<LogError>();
    assert!(matches!(drift, Some(LogError::Drift { .. })), "{error:#}");
    let text = error.to_string();
    assert!(text.contains("NEXUS_LEASES"), "{text}");
    assert!(text.contains("storage is Memory, declared File"), "{text}");
    Ok(())
}
