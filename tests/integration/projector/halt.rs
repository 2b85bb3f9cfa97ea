//! What the projector refuses to go on with: a log that is not the one it read, a read model
//! that another projector writes.

use async_nats::jetstream;
use nexus_events::subject::Stream;
use nexus_projector::{
    ProjectorError,
    checkpoint::APPLY_VERSION,
    replay::{self, Progress, ReplayError, Scope},
    status::Phase,
};
use nexus_tests::{Result, until};

use super::{BOUND, Setup};
use crate::running::Running;
use crate::traffic::NOON;

/// Why the projector has halted, once it has.
async fn halted(running: &Running) -> Result<String> {
    until("the projector halts", BOUND, async || {
        match running.status.current().phase {
            Phase::Halted { reason } => Ok(reason),
            phase => Err(format!("{phase:?}")),
        }
    })
    .await
}

#[tokio::test]
async fn a_stream_that_was_made_anew_halts_the_projector() -> Result<()> {
    let mut setup = Setup::new().await?;
    let running = Running::start(&setup.dir(), &setup.log);
    let last = setup.exchanges(3).await?;
    running.applied(last).await?;
    running.stop().await?;
    jetstream::new(setup.broker.client().await?)
        .delete_stream(Stream::Exchanges.name())
        .await?;
    setup.log.ready(BOUND).await?;
    let running = Running::start(&setup.dir(), &setup.log);
    let reason = halted(&running).await?;
    assert!(
        reason.contains("NEXUS_EXCHANGES was created anew"),
        "{reason}"
    );
    assert!(running.status.not_ready().is_some());
    // It halts itself, not the process: reads are refused, and a stop is orderly.
    let refused = setup.requests().await;
    assert!(refused.is_err(), "{refused:?}");
    assert!(!running.task.is_finished());
    running.stop().await
}

#[tokio::test]
async fn a_stream_that_lost_its_tail_halts_the_projector() -> Result<()> {
    let mut setup = Setup::new().await?;
    let running = Running::start(&setup.dir(), &setup.log);
    let last = setup.exchanges(3).await?;
    running.applied(last).await?;
    running.stop().await?;
    setup
        .tamper(
            "UPDATE checkpoint SET sequence = 100 WHERE outbox = '' AND stream = 'NEXUS_EXCHANGES'",
        )
        .await?;
    let running = Running::start(&setup.dir(), &setup.log);
    let reason = halted(&running).await?;
    assert!(reason.contains("its tail is lost"), "{reason}");
    running.stop().await
}

#[tokio::test]
async fn a_lost_tail_is_no_less_lost_when_the_stream_has_grown_again() -> Result<()> {
    let mut setup = Setup::new().await?;
    let running = Running::start(&setup.dir(), &setup.log);
    let last = setup.exchanges(3).await?;
    running.applied(last).await?;
    running.stop().await?;
    let copy = setup.broker.copy_store().await?;
    setup.log.ready(BOUND).await?;
    let running = Running::start(&setup.dir(), &setup.log);
    let applied = setup.exchanges(3).await?;
    running.applied(applied).await?;
    running.stop().await?;

    setup.broker.put_back(&copy).await?;
    setup.log.ready(BOUND).await?;
    let running = Running::start(&setup.dir(), &setup.log);
    let reason = halted(&running).await?;
    assert!(reason.contains("its tail is lost"), "{reason}");
    running.stop().await?;

    let grown = setup.exchanges(6).await?;
    assert!(grown > applied, "{grown} > {applied}");
    let running = Running::start(&setup.dir(), &setup.log);
    let reason = halted(&running).await?;
    assert!(reason.contains("its tail is lost"), "{reason}");
    assert!(reason.contains(&applied.to_string()), "{reason}");
    let refused = setup.requests().await;
    assert!(refused.is_err(), "{refused:?}");

    // What is to be done about it stands in the reason, and needs no restart.
    std::fs::remove_dir_all(setup.dir())?;
    running.applied(grown).await?;
    assert_eq!(setup.requests().await?, 9);
    running.stop().await
}

#[tokio::test]
async fn a_replay_helps_a_projector_that_has_halted() -> Result<()> {
    let mut setup = Setup::new().await?;
    let running = Running::start(&setup.dir(), &setup.log);
    let copy = setup.broker.copy_store().await?;
    setup.log.ready(BOUND).await?;
    let last = setup.exchanges(3).await?;
    running.applied(last).await?;
    running.stop().await?;
    // An earlier replay was interrupted; it had read what is lost now.
    let interrupted = format!("replay-v{APPLY_VERSION}.db");
    std::fs::copy(setup.dump().database()?, setup.dir().join(interrupted))?;
    setup.broker.put_back(&copy).await?;
    setup.log.ready(BOUND).await?;
    let running = Running::start(&setup.dir(), &setup.log);
    halted(&running).await?;

    let (dir, mut tell) = (setup.dir(), |_: &Progress| {});
    let statistics = (Scope::Statistics, false);
    let refused = replay::replay(&setup.log, &dir, statistics, &mut tell).await;
    assert!(
        matches!(&refused, Err(ReplayError::Halted { reason }) if reason.contains("tail is lost")),
        "{refused:?}"
    );
    let everything = (Scope::Everything, false);
    let outcome = replay::replay(&setup.log, &dir, everything, &mut tell).await?;
    assert!(outcome.is_current);
    running.applied(0).await?;
    assert_eq!(setup.requests().await?, 0);
    let last = setup.exchanges(2).await?;
    running.applied(last).await?;
    assert_eq!(setup.requests().await?, 2);
    running.stop().await
}

#[tokio::test]
async fn what_retention_takes_is_no_lost_tail() -> Result<()> {
    let mut setup = Setup::new().await?;
    let running = Running::start(&setup.dir(), &setup.log);
    let last = setup.exchanges(3).await?;
    running.applied(last).await?;
    running.stop().await?;
    let events = Stream::Exchanges.events();
    setup.log.purge(Stream::Exchanges, events, last + 1).await?;
    let running = Running::start(&setup.dir(), &setup.log);
    let exchange = setup.traffic.exchange(NOON + 60_000, "and now?").await?;
    running.applied(exchange.sequence).await?;
    running.stop().await?;
    // And a database of a version that did not keep which event was the last.
    setup
        .tamper("UPDATE checkpoint SET stored_ns = NULL")
        .await?;
    let running = Running::start(&setup.dir(), &setup.log);
    let exchange = setup.traffic.exchange(NOON + 90_000, "and then?").await?;
    running.applied(exchange.sequence).await?;
    assert_eq!(setup.requests().await?, 5);
    running.stop().await
}

#[tokio::test]
async fn one_read_model_has_one_projector() -> Result<()> {
    let mut setup = Setup::new().await?;
    let running = Running::start(&setup.dir(), &setup.log);
    let last = setup.exchanges(1).await?;
    running.applied(last).await?;
    let second = Running::start(&setup.dir(), &setup.log);
    let outcome = second.task.await?;
    assert!(
        matches!(outcome, Err(ProjectorError::Locked { .. })),
        "{outcome:?}"
    );
    running.stop().await
}
