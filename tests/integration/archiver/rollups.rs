//! A day whose statistics are larger than a message.

use nexus_archiver::retention::{self, RetentionError};
use nexus_events::{
    clock::{Clock, SharedClock, SystemClock},
    envelope::Stamp,
    id::ConversationId,
    log::Expected,
    rollup_event::{DayClosed, day_name},
    subject::Stream,
};
use nexus_projector::{read_model::Stats, verify};
use nexus_tests::{Broker, Result};

use super::{RETENTION, Setup, clock, messages};
use crate::traffic::DAY;

/// A broker that takes a quarter of the usual message, so that a small day is too large for one.
const SMALL_MESSAGES: &str = "max_payload: 262144";

/// Rows of the day: with a `user` of 256 characters each is some 460 bytes, all of them 270 KiB.
const ROWS: usize = 600;

/// A day of so many rows, a request that is kept, and the clock 184 days after the day.
async fn large_day() -> Result<(Setup, SharedClock)> {
    let mut setup = Setup::on(Broker::start_with(SMALL_MESSAGES).await?).await?;
    let today = SystemClock.now().as_millis();
    let later = today + 184 * DAY;
    for number in 0..ROWS {
        let user = format!("{number:0>256}");
        let conversation = ConversationId::draw(&SystemClock);
        setup
            .traffic
            .exchange_of(today, "hello", conversation, Some(user))
            .await?;
    }
    setup.exchange(later, "hello").await?;
    Ok((setup, clock(later)))
}

/// The numbers stay, and what is left of the log gives the same read model.
async fn assert_kept(setup: &Setup, before: &Stats) -> Result<()> {
    setup
        .dump()
        .until_number("SELECT count(*) FROM exchanges", 1)
        .await?;
    let read_model = setup.read_model();
    let after = read_model.stats(SystemClock.now()).await?;
    assert_eq!(after.tokens_usage, before.tokens_usage);
    assert_eq!(after.total_conversations, before.total_conversations);
    assert_eq!(after.requests, before.requests);
    let scratch = setup.folder.path().join("scratch");
    let verdict = verify(&setup.log, &setup.settings.read_model_dir, &scratch).await?;
    assert_eq!(verdict.difference, None);
    Ok(())
}

#[tokio::test]
async fn a_day_larger_than_a_message_is_closed_in_parts() -> Result<()> {
    let (setup, clock) = large_day().await?;
    let read_model = setup.read_model();
    let before = read_model.stats(clock.now()).await?;

    let outcome = retention::apply(&setup.log, &read_model, &clock, RETENTION).await?;
    assert_eq!(outcome.days_closed, 1);
    assert_eq!(outcome.purged, 2 * u64::try_from(ROWS)?);
    let parts = messages(&setup.log, Stream::Rollups).await?;
    assert!((2..10).contains(&parts), "{parts} parts");
    assert_kept(&setup, &before).await?;
    setup.projector.stop().await
}

#[tokio::test]
async fn what_a_dead_archiver_began_is_begun_anew() -> Result<()> {
    let (setup, clock) = large_day().await?;
    let read_model = setup.read_model();
    let before = read_model.stats(clock.now()).await?;
    let begun = DayClosed {
        day: day_name(SystemClock.now()),
        part: 1,
        more: true,
        usage: Vec::new(),
        conversations: 0,
        begun: Vec::new(),
    };
    let (subject, payload) = begun.encode(Stamp::draw(clock.as_ref()), "/nexus/test")?;
    let dead = Expected::SubjectAt(0);
    setup.log.publish(subject, payload, dead).await?;

    let outcome = retention::apply(&setup.log, &read_model, &clock, RETENTION).await?;
    assert_eq!(outcome.days_closed, 1);
    assert_kept(&setup, &before).await?;

    // Once it is closed, nobody begins it again.
    let last = messages(&setup.log, Stream::Rollups).await?;
    retention::apply(&setup.log, &read_model, &clock, RETENTION).await?;
    assert_eq!(messages(&setup.log, Stream::Rollups).await?, last);
    setup.projector.stop().await
}

#[tokio::test]
async fn two_archivers_close_a_day_once() -> Result<()> {
    let (setup, clock) = large_day().await?;
    let read_model = setup.read_model();
    let before = read_model.stats(clock.now()).await?;
    let one = retention::apply(&setup.log, &read_model, &clock, RETENTION);
    let other = retention::apply(&setup.log, &read_model, &clock, RETENTION);
    let (one, other) = tokio::join!(one, other);
    let expected = |outcome: &Result<_, RetentionError>| {
        outcome.is_ok() || matches!(outcome, Err(RetentionError::Overtaken { .. }))
    };
    assert!(expected(&one) && expected(&other), "{one:?}, {other:?}");
    retention::apply(&setup.log, &read_model, &clock, RETENTION).await?;
    assert_kept(&setup, &before).await?;
    setup.projector.stop().await
}

#[tokio::test]
async fn a_conversation_of_a_made_up_id_is_counted_once() -> Result<()> {
    let mut setup = Setup::new().await?;
    let today = SystemClock.now().as_millis();
    let made_up: ConversationId = "6b1f2a34-8f43-4c55-9a52-0c1a9d3b7e11".parse()?;
    for day in 0..3 {
        let exchange = setup
            .traffic
            .exchange_of(today + day * DAY, "hello", made_up, None)
            .await?;
        setup.projector.applied(exchange.sequence).await?;
    }
    let read_model = setup.read_model();
    let conversations = async || {
        anyhow::Ok(
            read_model
                .stats(SystemClock.now())
                .await?
                .total_conversations,
        )
    };
    assert_eq!(conversations().await?, 1);
    for (day, left) in [(184, 2), (185, 1)] {
        let clock = clock(today + day * DAY);
        retention::apply(&setup.log, &read_model, &clock, RETENTION).await?;
        setup
            .dump()
            .until_number("SELECT count(*) FROM exchanges", left)
            .await?;
        assert_eq!(conversations().await?, 1, "{left} days are left");
    }
    let scratch = setup.folder.path().join("scratch");
    let verdict = verify(&setup.log, &setup.settings.read_model_dir, &scratch).await?;
    assert_eq!(verdict.difference, None);
    setup.projector.stop().await
}
