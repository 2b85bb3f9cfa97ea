//! The audit trail is told of each backup once, whatever happens in between.

use std::{path::Path, time::Duration};

use nexus_archiver::{ArchiverStatus, backup_now};
use nexus_events::{
    envelope::Envelope,
    id::EventId,
    log::{Log, LogSettings},
    subject::Stream,
};
use nexus_tests::{Result, until};
use tokio_util::sync::CancellationToken;

use super::{BOUND, Setup, clock};
use crate::traffic::NOON;

/// The events of backups in the log, in order.
async fn told(log: &Log) -> Result<Vec<EventId>> {
    let mut told = Vec::new();
    let reader = log.reader(
        Stream::Audit,
        Some("nexus.audit.backup_taken".to_owned()),
        0,
    );
    log.walk(reader, u64::MAX, |message| {
        let event = Envelope::decode(&message.payload).map(|envelope| envelope.id);
        told.extend(event.ok());
    })
    .await?;
    Ok(told)
}

/// Lets an archiver start and work until there is no note of what is untold.
#[expect(clippy::disallowed_methods, reason = "the test joins the task itself")]
async fn catch_up(setup: &Setup, note: &Path) -> Result<()> {
    let shutdown = CancellationToken::new();
    let archiver = tokio::spawn(nexus_archiver::run(
        setup.settings.clone(),
        setup.log.clone(),
        clock(NOON),
        shutdown.clone(),
        ArchiverStatus::default(),
    ));
    until("the log has the backup", BOUND, async || {
        let told = told(&setup.log).await.map_err(|error| error.to_string())?;
        if note.exists() || told.is_empty() {
            return Err(format!("told: {told:?}, note: {}", note.exists()));
        }
        Ok(())
    })
    .await?;
    shutdown.cancel();
    archiver.await??;
    Ok(())
}

#[tokio::test]
async fn a_backup_that_was_not_told_is_told_once_after_a_restart() -> Result<()> {
    let mut setup = Setup::new().await?;
    setup.exchange(NOON, "remember this").await?;
    let away = Log::connect(LogSettings {
        url: "nats://127.0.0.1:1".to_owned(),
        name: "test".to_owned(),
        replicas: 1,
        retention: Duration::from_hours(24),
    })
    .await?;
    let backup = backup_now(&setup.settings, &away, &clock(NOON)).await?;
    assert_eq!(told(&setup.log).await?, []);
    let note = setup.backup_file(&backup.name, "untold.json");
    let noted = std::fs::read(&note).unwrap_or_default();
    catch_up(&setup, &note).await?;
    let event = Envelope::decode(&noted)?.id;
    assert_eq!(told(&setup.log).await?, [event]);

    // As if the archiver had died between the broker's word and the note of it.
    std::fs::write(&note, &noted)?;
    catch_up(&setup, &note).await?;
    assert_eq!(told(&setup.log).await?, [event]);

    // And as if somebody else had told of another backup since.
    let later = clock(NOON + 60_000);
    let other = backup_now(&setup.settings, &setup.log, &later).await?;
    assert!(!setup.backup_file(&other.name, "untold.json").exists());
    let both = told(&setup.log).await?;
    assert_eq!(both.len(), 2);
    std::fs::write(&note, &noted)?;
    catch_up(&setup, &note).await?;
    assert_eq!(told(&setup.log).await?, both);
    setup.projector.stop().await
}
