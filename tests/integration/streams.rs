//! The declared streams against a real broker: made, followed, refused by name.

use std::time::Duration;

use async_nats::jetstream::{object_store, stream::Config};
use nexus_events::{
    clock::SystemClock,
    id::EventId,
    log::{Log, LogError, LogSettings},
};
use nexus_tests::{Broker, Result};

/// A loaded two-core machine makes its streams in well under a second.
const BOUND: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_differs_from_its_declaration_is_refused_by_name() -> Result<()> {
    let broker = Broker::start().await?;
    let client = broker.client().await?;
    let jetstream = async_nats::jetstream::new(client);
    jetstream
        .create_stream(Config {
            name: "NEXUS_CHUNKS".to_owned(),
            subjects: vec!["nexus.chunk.>".to_owned()],
            max_bytes: 1_000_000,
            ..Default::default()
        })
        .await?;
    let log = Log::connect(LogSettings {
        url: broker.url(),
        name: "test".to_owned(),
        replicas: 1,
        retention: Duration::from_hours(24),
    })
    .await?;
    let Err(error @ LogError::Drift { .. }) = log.ready(BOUND).await else {
        panic!("a foreign stream must be refused")
    };
    let text = error.to_string();
    assert!(text.contains("NEXUS_CHUNKS"), "{text}");
    assert!(text.contains("max_bytes is 1000000, declared -1"), "{text}");
    assert!(text.contains("discard is Old, declared New"), "{text}");
    Ok(())
}

/// Declares the streams as a hub does that keeps events so many days.
async fn declare(broker: &Broker, days: u64) -> Result<Log, LogError> {
    let log = Log::connect(LogSettings {
        url: broker.url(),
        name: "test".to_owned(),
        replicas: 1,
        retention: Duration::from_hours(24 * days),
    })
    .await?;
    log.ready(BOUND).await.map(|()| log)
}

async fn config(broker: &Broker, stream: &str) -> Result<Config> {
    let jetstream = async_nats::jetstream::new(broker.client().await?);
    let stream = jetstream.get_stream(stream).await?;
    Ok(stream.cached_info().config.clone())
}

/// The age limit of a stream in days.
async fn age_days(broker: &Broker, stream: &str) -> Result<u64> {
    Ok(config(broker, stream).await?.max_age.as_secs() / (24 * 60 * 60))
}

/// The bucket of bodies.
const BUCKET: &str = "OBJ_NEXUS_BODIES";

/// What has an age limit: the retention and 30 days.
const AGING: [&str; 4] = ["NEXUS_EXCHANGES", "NEXUS_CHUNKS", "NEXUS_AUDIT", BUCKET];

#[tokio::test(flavor = "multi_thread")]
async fn the_age_limits_follow_the_setting_but_not_a_foreign_hand() -> Result<()> {
    let broker = Broker::start().await?;
    declare(&broker, 1).await?;
    declare(&broker, 2).await?;
    for stream in AGING {
        assert_eq!(age_days(&broker, stream).await?, 32, "{stream}");
    }
    for stream in ["NEXUS_CONFIG", "NEXUS_ROLLUPS"] {
        assert_eq!(age_days(&broker, stream).await?, 0, "{stream}: for ever");
    }
    for stream in ["NEXUS_EXCHANGES", BUCKET] {
        let ours = config(&broker, stream).await?;
        let jetstream = async_nats::jetstream::new(broker.client().await?);
        let max_age = Duration::from_hours(3);
        jetstream
            .update_stream(Config {
                max_age,
                ..ours.clone()
            })
            .await?;
        let refused = declare(&broker, 2).await;
        assert!(matches!(refused, Err(LogError::Drift { .. })), "{stream}");
        jetstream.update_stream(ours).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_asks_for_it_lowers_the_age_limits() -> Result<()> {
    let broker = Broker::start().await?;
    declare(&broker, 5).await?;
    let log = declare(&broker, 1).await?;
    for stream in AGING {
        assert_eq!(age_days(&broker, stream).await?, 35, "{stream}");
    }
    log.lower_age_limits().await?;
    for stream in AGING {
        assert_eq!(age_days(&broker, stream).await?, 31, "{stream}");
    }
    // It is the hub's own limit again, which it may raise.
    declare(&broker, 3).await?;
    assert_eq!(age_days(&broker, BUCKET).await?, 33);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_may_drop_bodies_is_refused_by_name() -> Result<()> {
    let broker = Broker::start().await?;
    let jetstream = async_nats::jetstream::new(broker.client().await?);
    jetstream
        .create_object_store(object_store::Config {
            bucket: "NEXUS_BODIES".to_owned(),
            max_age: Duration::from_hours(24),
            max_bytes: 1_000_000,
            ..Default::default()
        })
        .await?;
    let Err(error @ LogError::Drift { .. }) = declare(&broker, 1).await else {
        panic!("a foreign bucket must be refused")
    };
    let text = error.to_string();
    assert!(text.contains("OBJ_NEXUS_BODIES"), "{text}");
    assert!(text.contains("max_bytes is 1000000, declared -1"), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_without_a_note_of_its_age_is_taken_over() -> Result<()> {
    let broker = Broker::start().await?;
    let jetstream = async_nats::jetstream::new(broker.client().await?);
    jetstream
        .create_object_store(object_store::Config {
            bucket: "NEXUS_BODIES".to_owned(),
            max_age: Duration::from_hours(24),
            compression: true,
            ..Default::default()
        })
        .await?;
    let log = declare(&broker, 1).await?;
    assert_eq!(age_days(&broker, BUCKET).await?, 31);
    let event = EventId::draw(&SystemClock);
    log.put_body(event, b"a body").await?;
    assert_eq!(log.body(event).await?.as_deref(), Some(&b"a body"[..]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_jetstream_is_refused() -> Result<()> {
    // Accounts without JetStream stand for a server without it.
    let broker = Broker::start_with(
        "accounts { plain { users = [ { user: u, password: p } ] } }\nno_auth_user: u\n",
    )
    .await?;
    let log = Log::connect(LogSettings {
        url: broker.url(),
        name: "test".to_owned(),
        replicas: 1,
        retention: Duration::from_hours(24),
    })
    .await?;
    let refused = log.ready(BOUND).await;
    assert!(
        matches!(refused, Err(LogError::JetStreamOff)),
        "{refused:?}"
    );
    Ok(())
}
