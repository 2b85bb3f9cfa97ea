//! What the audit trail has not been told of backups yet.
//!
//! The event of a backup is encoded once and lies in the backup's folder before
//! the backup is one. When the broker has it, it is removed. So it is told
//! after whatever restart, and a try whose outcome is not known is looked for in
//! the log first, also behind the events of other backups: `nexus backup now`
//! tells of its own. Two that tell at once cannot both, for each expects the
//! last event of its kind to be the one that it saw.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use nexus_events::{
    audit_event::{self, AuditEvent, BackupTaken},
    envelope::{EncodeError, Envelope, Stamp},
    id::EventId,
    log::{Expected, Log, LogError, PublishError, history::HistoryError},
    private,
    subject::Stream,
};

use crate::retention::SOURCE;

/// Name of the file in a backup's folder.
const FILE: &str = "untold.json";

/// An event that the broker has not taken yet.
#[derive(Debug)]
pub(crate) struct Untold {
    /// Of the backup; empty for one that could not be taken.
    pub(crate) name: String,
    event: EventId,
    subject: String,
    payload: Vec<u8>,
    /// Where it is noted; one that is not is forgotten when the process ends.
    note: Option<PathBuf>,
}

/// Why an event is still untold.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TellError {
    #[error("there is no connection to the broker")]
    Unconnected,
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    History(#[from] HistoryError),
    #[error(transparent)]
    Publish(#[from] PublishError),
}

impl Untold {
    pub(crate) fn of(taken: &BackupTaken, stamp: Stamp) -> Result<Self, EncodeError> {
        let (subject, payload) = audit_event::direct(SOURCE, stamp, &taken.name, taken)?;
        Ok(Self {
            name: taken.name.clone(),
            event: stamp.id,
            subject,
            payload,
            note: None,
        })
    }

    /// Notes it in a folder, synced.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        let mut file = private::create(&folder.join(FILE))?;
        file.write_all(&self.payload)?;
        file.sync_all()
    }

    /// What a backup's folder notes; `None` when it is told.
    pub(crate) fn read(folder: &Path) -> io::Result<Option<Self>> {
        let note = folder.join(FILE);
        let payload = match std::fs::read(&note) {
            Ok(payload) => payload,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let envelope = Envelope::decode(&payload).map_err(io::Error::other)?;
        let event = AuditEvent::decode(&envelope).map_err(io::Error::other)?;
        let Some(AuditEvent::BackupTaken(taken)) = event else {
            return Err(io::Error::other("it is not the event of a backup"));
        };
        Ok(Some(Self {
            event: envelope.id,
            subject: audit_event::subject_of(&taken),
            name: taken.name,
            payload,
            note: Some(note),
        }))
    }

    /// Whether the log has it among the events of backups, up to a sequence.
    ///
    /// All of them are read, some thousands of a few hundred bytes: nobody's clock tells where to begin.
    async fn is_in(&self, log: &Log, last: u64) -> Result<bool, HistoryError> {
        let reader = log.reader(Stream::Audit, Some(self.subject.clone()), 0);
        let mut found = false;
        log.walk(reader, last, |message| {
            let event = Envelope::decode(&message.payload).map(|envelope| envelope.id);
            found |= event.ok() == Some(self.event);
        })
        .await?;
        Ok(found)
    }

    /// Publishes it, unless the log has it already, and forgets its note.
    pub(crate) async fn tell(&self, log: &Log) -> Result<(), TellError> {
        if !log.is_connected() {
            return Err(TellError::Unconnected);
        }
        let last = log.last_of_subject(Stream::Audit, &self.subject).await?;
        let last = last.map_or(0, |message| message.sequence);
        if !self.is_in(log, last).await? {
            let expected = Expected::SubjectAt(last);
            log.publish(self.subject.clone(), self.payload.clone(), expected)
                .await?;
        }
        if let Some(note) = &self.note
            && let Err(error) = std::fs::remove_file(note)
            // The backup may have been removed meanwhile.
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(note = %note.display(), %error, "a note of what was told could not be removed");
        }
        Ok(())
    }
}
