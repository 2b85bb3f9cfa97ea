//! Retention: what is old goes, and every number stays.

use std::time::Duration;

use nexus_archiver::retention;
use nexus_events::{
    audit_event::{self, RetentionApplied},
    chunk_event::{self, Chunk},
    clock::{Clock, SharedClock, SystemClock},
    envelope::Stamp,
    exchange_event::About,
    id::OutboxId,
    log::{Expected, Log, LogSettings},
    rollup_event::{DayClosed, UsageHour, day_name},
    subject::{self, Lane, Stream},
};
use nexus_projector::{ReadModel, verify};
use nexus_tests::{Result, until};
use serde_json::value::RawValue;

use super::{BOUND, RETENTION, Setup, clock, messages};
use crate::traffic::{self, DAY, Exchange};

/// An hour in milliseconds.
const HOUR: i64 = 60 * 60 * 1000;

/// A log with something old and something new; the clock stands 185 days after the old.
struct Aged {
    setup: Setup,
    clock: SharedClock,
    old: Exchange,
    new: Exchange,
}

async fn aged() -> Result<Aged> {
    let mut setup = Setup::new().await?;
    // What the broker stores is dated by its own clock, so the old is of today.
    let today = SystemClock.now().as_millis();
    // A day more than the retention, so that the margin of contents is over at any time of the day.
    let later = today + 185 * DAY;
    let cursor = subject::cursor(Lane::Exchanges, OutboxId::draw(&SystemClock));
    setup
        .log
        .publish(cursor, b"{}".to_vec(), Expected::Any)
        .await?;
    let long = "long ".repeat(200_000);
    let old = setup.exchange(today, &long).await?;
    let chunk = chunk_event::record(
        About {
            source: "/nexus/test",
            request: old.request,
            traceparent: None,
        },
        Stamp::draw(&SystemClock),
        &subject::chunk(old.request, "openai", "gpt"),
        Chunk {
            index: 0,
            elapsed_us: 1,
        },
        &RawValue::from_string("{}".to_owned())?,
    )?;
    setup.traffic.publish(chunk).await?;
    let new = setup.exchange(later, &long).await?;
    Ok(Aged {
        setup,
        clock: clock(later),
        old,
        new,
    })
}

#[tokio::test]
async fn retention_removes_the_old_and_keeps_every_number() -> Result<()> {
    let Aged {
        setup,
        clock,
        old,
        new,
    } = aged().await?;
    let read_model = setup.read_model();
    let before = read_model.stats(clock.now()).await?;

    let outcome = retention::apply(&setup.log, &read_model, &clock, RETENTION).await?;
    assert_eq!(outcome.days_closed, 1);
    assert_eq!(outcome.purged, 3, "two events of the exchange and a chunk");
    assert_eq!(outcome.bodies_removed, 2);
    until("the read model follows", BOUND, async || {
        match read_model.request(old.request).await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}").chars().take(200).collect::<String>()),
        }
    })
    .await?;

    let after = read_model.stats(clock.now()).await?;
    assert_eq!(after.tokens_usage, before.tokens_usage);
    assert_eq!(after.total_conversations, before.total_conversations);
    assert_eq!((after.requests, after.errors), (2, 0));
    let kept = read_model.request(new.request).await?;
    assert!(kept.is_some_and(|request| request.request_complete));
    assert_eq!(
        messages(&setup.log, Stream::Exchanges).await?,
        3,
        "the cursor stays"
    );
    assert_eq!(messages(&setup.log, Stream::Chunks).await?, 0);

    // The same numbers come from what is left of the log.
    let scratch = setup.folder.path().join("scratch");
    let verdict = verify(&setup.log, &setup.settings.read_model_dir, &scratch).await?;
    assert_eq!(verdict.difference, None);
    setup.projector.stop().await
}

#[tokio::test]
async fn retention_twice_is_once() -> Result<()> {
    let Aged { setup, clock, .. } = aged().await?;
    let read_model = setup.read_model();
    retention::apply(&setup.log, &read_model, &clock, RETENTION).await?;
    let outcome = retention::apply(&setup.log, &read_model, &clock, RETENTION).await?;
    assert_eq!(
        (outcome.days_closed, outcome.purged, outcome.bodies_removed),
        (0, 0, 0)
    );
    setup
        .dump()
        .until_number(
            "SELECT count(*) FROM audit_log WHERE kind = 'retention_applied'",
            1,
        )
        .await?;
    assert_eq!(messages(&setup.log, Stream::Rollups).await?, 1);
    setup.projector.stop().await
}

#[tokio::test]
async fn a_run_that_died_before_it_purged_is_ended_by_the_next() -> Result<()> {
    let Aged {
        setup,
        clock,
        old,
        new,
    } = aged().await?;
    let read_model = setup.read_model();
    let cutoff_ms = clock.now().minus(RETENTION).as_millis();
    let event = RetentionApplied {
        cutoff_ms: cutoff_ms - cutoff_ms.rem_euclid(DAY),
        exchanges_sequence: new.sequence - 1,
        chunks_sequence: 2,
        audit_sequence: 1,
    };
    let today = old.request.drawn_at().as_millis();
    let rollup = DayClosed {
        day: day_name(old.request.drawn_at()),
        part: 1,
        more: false,
        usage: vec![UsageHour {
            hour_ms: today - today.rem_euclid(HOUR),
            model: "gpt".to_owned(),
            provider: "openai".to_owned(),
            key: traffic::key().to_string(),
            user: String::new(),
            requests: 1,
            errors: 0,
            prompt_tokens: 10,
            completion_tokens: 20,
            duration_ms: 100,
        }],
        conversations: 1,
        begun: Vec::new(),
    };
    let (subject, payload) = rollup.encode(Stamp::draw(clock.as_ref()), "/nexus/test")?;
    setup
        .log
        .publish(subject, payload, Expected::SubjectAt(0))
        .await?;
    let stamp = Stamp::draw(clock.as_ref());
    let (subject, payload) = audit_event::direct("/nexus/test", stamp, "retention", &event)?;
    setup.log.publish(subject, payload, Expected::Any).await?;

    let outcome = retention::apply(&setup.log, &read_model, &clock, RETENTION).await?;
    assert_eq!((outcome.days_closed, outcome.purged), (0, 3));
    assert_eq!(messages(&setup.log, Stream::Audit).await?, 1, "told once");
    let scratch = setup.folder.path().join("scratch");
    let verdict = verify(&setup.log, &setup.settings.read_model_dir, &scratch).await?;
    assert_eq!(verdict.difference, None);
    setup.projector.stop().await
}

#[tokio::test]
async fn a_shorter_retention_is_followed_once_the_days_are_closed() -> Result<()> {
    let Aged { setup, clock, .. } = aged().await?;
    let keeping = Duration::from_hours(400 * 24);
    let longer = Log::connect(LogSettings {
        url: setup.broker.url(),
        name: "longer".to_owned(),
        replicas: 1,
        retention: keeping,
    })
    .await?;
    longer.ready(BOUND).await?;
    let age = async || {
        let jetstream = async_nats::jetstream::new(setup.broker.client().await?);
        let stream = jetstream.get_stream("NEXUS_EXCHANGES").await?;
        anyhow::Ok(stream.cached_info().config.max_age)
    };
    let backstop = Duration::from_hours(30 * 24);
    assert_eq!(age().await?, keeping + backstop);

    // A start with a shorter retention changes nothing, nor does a run that closes no day.
    setup.log.ready(BOUND).await?;
    let nowhere = ReadModel::open(setup.folder.path().join("nowhere"));
    let refused = retention::apply(&setup.log, &nowhere, &clock, RETENTION).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(age().await?, keeping + backstop);

    let read_model = setup.read_model();
    let outcome = retention::apply(&setup.log, &read_model, &clock, RETENTION).await?;
    assert_eq!(outcome.days_closed, 1);
    assert_eq!(age().await?, RETENTION + backstop);
    setup.projector.stop().await
}

#[tokio::test]
async fn nothing_is_purged_that_the_read_model_does_not_hold() -> Result<()> {
    let Aged {
        mut setup, clock, ..
    } = aged().await?;
    let nowhere = ReadModel::open(setup.folder.path().join("nowhere"));
    let refused = retention::apply(&setup.log, &nowhere, &clock, RETENTION).await;
    assert!(refused.is_err(), "{refused:?}");

    setup.projector.stop().await?;
    setup
        .traffic
        .exchange(clock.now().as_millis(), "not read yet")
        .await?;
    let read_model = ReadModel::open(&setup.settings.read_model_dir);
    let before = messages(&setup.log, Stream::Exchanges).await?;
    let waiting = retention::apply(&setup.log, &read_model, &clock, RETENTION);
    let waited = tokio::time::timeout(Duration::from_secs(1), waiting).await;
    assert!(waited.is_err(), "it waits for the projector: {waited:?}");
    assert_eq!(messages(&setup.log, Stream::Exchanges).await?, before);
    assert_eq!(messages(&setup.log, Stream::Rollups).await?, 0);
    Ok(())
}
