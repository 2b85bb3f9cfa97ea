//! The folder of what could never be shipped, `unshippable/` beside the incarnations.
//!
//! # Promises
//! * Only the owner can read it: content stands there in clear.
//! * Each record is whole: the event, and content that was to go to the object store. So it can be
//!   shipped later, when the broker takes larger messages, say; the note in the log says where to.
//! * Nothing stays longer than the log keeps anything: [`SetAside::expire`].

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use super::segments::sync_dir;
use crate::{clock::UnixMillis, envelope::Envelope, id::EventId, subject::Lane};

/// The event itself.
const EVENT: &str = ".json";

/// Its content, where that is not within.
const CONTENT: &str = ".content.json";

/// Only the owner may look into the folder.
const DIR_MODE: u32 = 0o700;

/// Only the owner may read a file.
const FILE_MODE: u32 = 0o600;

/// The folder.
#[derive(Clone, Debug)]
pub struct SetAside {
    dir: PathBuf,
}

/// What is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Records.
    pub records: u64,
    /// Bytes of all their files.
    pub bytes: u64,
    /// Records that were removed for their age just now.
    pub expired: u64,
}

/// A record that was set aside, as it can be published again.
#[derive(Debug)]
pub struct Unshipped {
    /// The event's id.
    pub event: EventId,
    /// Its lane, by the name of its file.
    pub lane: Lane,
    /// The event, without its place in the outbox: the note that replaced it has that.
    pub payload: Vec<u8>,
    /// Content that belongs into the object store.
    pub content: Option<Vec<u8>>,
}

impl SetAside {
    /// The folder below the one that holds the incarnations.
    pub fn below(outbox: &Path) -> Self {
        Self {
            dir: outbox.join("unshippable"),
        }
    }

    /// Keeps a record; tells whether it was not there before.
    pub(super) fn keep(
        &self,
        name: &str,
        (event, content): (&[u8], Option<&[u8]>),
    ) -> io::Result<bool> {
        DirBuilder::new()
            .recursive(true)
            .mode(DIR_MODE)
            .create(&self.dir)?;
        // One that an older version made.
        fs::set_permissions(&self.dir, fs::Permissions::from_mode(DIR_MODE))?;
        let event_file = self.dir.join(format!("{name}{EVENT}"));
        let is_new = !event_file.exists();
        if let Some(content) = content {
            write(&self.dir.join(format!("{name}{CONTENT}")), content)?;
        }
        write(&event_file, event)?;
        sync_dir(&self.dir)?;
        Ok(is_new)
    }

    /// Removes what was set aside before a moment, and tells what is left.
    ///
    /// # Errors
    /// The folder cannot be read, or a file not be removed.
    pub fn expire(&self, before: UnixMillis) -> io::Result<Kept> {
        let mut kept = Kept::default();
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(kept),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            // Another gateway with the same folder may have been faster.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            let name = entry.file_name();
            let is_event = name.to_str().is_some_and(is_event);
            let since = metadata.modified()?.duration_since(UNIX_EPOCH);
            let time = millis(since.unwrap_or_default());
            if time < before {
                match fs::remove_file(entry.path()) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => kept.expired += u64::from(is_event),
                }
                continue;
            }
            kept.records += u64::from(is_event);
            kept.bytes += metadata.len();
        }
        Ok(kept)
    }
}

impl Unshipped {
    /// Reads a record by the path of its event.
    ///
    /// # Errors
    /// A file is missing, or is not what was set aside.
    pub fn read(event: &Path) -> io::Result<Self> {
        let mut payload = fs::read(event)?;
        let beside = Beside::of(event)?;
        let content = match fs::read(&beside.content) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            content => Some(content?),
        };
        let (id, place) = {
            let envelope = Envelope::decode(&payload).map_err(io::Error::other)?;
            let (Some(outbox), Some(position)) = (envelope.outbox, envelope.position) else {
                return Err(io::Error::other("the event has no place in an outbox"));
            };
            let place = format!(r#","outbox":"{outbox}","position":{position}}}"#);
            (envelope.id, place)
        };
        if !payload.ends_with(place.as_bytes()) {
            return Err(io::Error::other("the event does not end with its place"));
        }
        payload.truncate(payload.len() - place.len());
        payload.push(b'}');
        Ok(Self {
            event: id,
            lane: beside.lane,
            payload,
            content,
        })
    }

    /// Removes a record that the broker has.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn remove(event: &Path) -> io::Result<()> {
        let beside = Beside::of(event)?;
        fs::remove_file(event)?;
        match fs::remove_file(beside.content) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// What the name of an event's file says.
struct Beside {
    lane: Lane,
    content: PathBuf,
}

impl Beside {
    fn of(event: &Path) -> io::Result<Self> {
        let name = event.file_name().and_then(|name| name.to_str());
        let name = name.filter(|name| is_event(name));
        let name = name.and_then(|name| name.strip_suffix(EVENT));
        let name = name.ok_or_else(|| io::Error::other("not the file of an event"))?;
        // As `<outbox>-<lane>-<position>`.
        let lane = name.rsplit('-').nth(1);
        let lane = lane.and_then(|lane| Lane::ALL.into_iter().find(|one| one.name() == lane));
        Ok(Self {
            lane: lane.ok_or_else(|| io::Error::other("the file's name names no lane"))?,
            content: event.with_file_name(format!("{name}{CONTENT}")),
        })
    }
}

fn is_event(name: &str) -> bool {
    name.ends_with(EVENT) && !name.ends_with(CONTENT)
}

fn millis(since: Duration) -> UnixMillis {
    UnixMillis::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(FILE_MODE)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    const PLACED: &str = r#"{"specversion":"1.0","id":"0199c0de-0000-7000-8000-000000000001","source":"/s","type":"t","time":"2026-11-24T12:00:00.000Z","data":{"n":1},"outbox":"0199c0de-0000-7000-8000-000000000002","position":7}"#;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn kept(folder: &SetAside, name: &str, content: Option<&[u8]>) -> bool {
        folder.keep(name, (PLACED.as_bytes(), content)).unwrap()
    }

    #[test]
    fn what_is_set_aside_is_the_owners_alone_and_is_new_once() {
        let dir = tempfile::TempDir::new().unwrap();
        let folder = SetAside::below(dir.path());
        let unshippable = dir.path().join("unshippable");
        // As an older version made it.
        fs::create_dir(&unshippable).unwrap();
        fs::set_permissions(&unshippable, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(kept(&folder, "a", Some(b"[]")));
        assert!(!kept(&folder, "a", Some(b"[]")));
        assert_eq!(mode(&unshippable), 0o700);
        for file in fs::read_dir(&unshippable).unwrap() {
            assert_eq!(mode(&file.unwrap().path()), 0o600);
        }
    }

    #[test]
    fn what_is_old_goes_with_all_its_files_and_what_is_not_stays() {
        let dir = tempfile::TempDir::new().unwrap();
        let folder = SetAside::below(dir.path());
        let now = UnixMillis::from_millis(1_795_000_000_000);
        assert_eq!(folder.expire(now).unwrap(), Kept::default());
        kept(&folder, "old", Some(b"[]"));
        kept(&folder, "young", None);
        for file in fs::read_dir(dir.path().join("unshippable")).unwrap() {
            let path = file.unwrap().path();
            let is_old = path.to_str().unwrap().contains("/old.");
            let seconds = if is_old { 1_794_999_999 } else { 1_795_000_000 };
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            File::options()
                .append(true)
                .open(&path)
                .unwrap()
                .set_modified(time)
                .unwrap();
        }
        let found = folder.expire(now).unwrap();
        assert_eq!((found.records, found.expired), (1, 1));
        let files = fs::read_dir(dir.path().join("unshippable")).unwrap();
        assert_eq!(files.count(), 1, "the young one");
        assert_eq!(
            folder.expire(now).unwrap(),
            Kept {
                expired: 0,
                ..found
            }
        );
    }

    #[test]
    fn what_was_set_aside_reads_back_without_its_place() {
        let dir = tempfile::TempDir::new().unwrap();
        let folder = SetAside::below(dir.path());
        kept(&folder, "o-audit-7", Some(b"[1]"));
        let path = dir.path().join("unshippable/o-audit-7.json");
        let record = Unshipped::read(&path).unwrap();
        assert_eq!(record.lane, Lane::Audit);
        assert_eq!(
            record.event.to_string(),
            "0199c0de-0000-7000-8000-000000000001"
        );
        assert_eq!(record.content.as_deref(), Some(&b"[1]"[..]));
        let envelope = Envelope::decode(&record.payload).unwrap();
        assert_eq!((envelope.outbox, envelope.position), (None, None));
        assert_eq!(envelope.data.get(), r#"{"n":1}"#);
        assert!(Unshipped::read(&path.with_file_name("o-audit-7.content.json")).is_err());
        Unshipped::remove(&path).unwrap();
        assert_eq!(
            fs::read_dir(dir.path().join("unshippable"))
                .unwrap()
                .count(),
            0
        );
    }
}
