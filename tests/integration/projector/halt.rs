//! What the projector refuses to go on with: a log that is not the one it read, a read model
//! that another projector writes.

use async_nats::jetstream;
use nexus_events::subject::Stream;
use nexus_projector::{ProjectorError, status::Phase};
use nexus_tests::{Result, until};

use super::{BOUND, Setup};
use crate::running::Running;

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
    let reason = until("the projector halts", BOUND, async || {
        match running.status.current().phase {
            Phase::Halted { reason } => Ok(reason),
            phase => Err(format!("{phase:?}")),
        }
    })
    .await?;
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
    let reason = until("the projector halts", BOUND, async || {
        match running.status.current().phase {
            Phase::Halted { reason } => Ok(reason),
            phase => Err(format!("{phase:?}")),
        }
    })
    .await?;
    assert!(reason.contains("its tail is lost"), "{reason}");
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
