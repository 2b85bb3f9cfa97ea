//! Directories of incarnations: made, locked, adopted.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    clock::SharedClock,
    id::OutboxId,
    outbox::{
        Adopted, OpenError, OutboxSettings, Store, SyncMode,
        joint::{Budget, Joint},
        recover,
        segments::sync_dir,
        store::Home,
    },
    private,
};

/// The file in each directory that its holder locks.
const LOCK_FILE: &str = "lock";

/// Opens a new incarnation.
pub(super) fn create(
    settings: &OutboxSettings,
    clock: &SharedClock,
    joint: &Arc<Joint>,
) -> Result<Store, OpenError> {
    let id = OutboxId::draw(&**clock);
    let dir = settings.dir.join(id.to_string());
    let failed = |doing: &'static str| {
        let path = dir.clone();
        move |source: io::Error| OpenError {
            doing,
            path,
            source,
        }
    };
    private::create_dir_all(&dir).map_err(failed("create"))?;
    let lock = lock(&dir)
        .and_then(|lock| lock.ok_or_else(|| io::ErrorKind::WouldBlock.into()))
        .map_err(failed("lock"))?;
    let syncs = settings.sync != SyncMode::Os;
    if syncs {
        sync_dir(&settings.dir).map_err(failed("sync"))?;
    }
    let budget = Budget::Own {
        bound: settings.bytes_max,
        joint: Arc::clone(joint),
    };
    let home = Home {
        id,
        dir: dir.clone(),
        _lock: lock,
    };
    Store::create(home, budget, syncs).map_err(failed("begin"))
}

/// Adopts every directory that nobody holds; `joint` is told what they take.
pub(super) fn adopt_abandoned(dir: &Path, joint: &Arc<Joint>) -> Result<Vec<Adopted>, OpenError> {
    let failed = |doing: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| OpenError {
            doing,
            path,
            source,
        }
    };
    private::create_dir_all(dir).map_err(failed("create", dir))?;
    let mut adopted = Vec::new();
    for (id, dir) in directories(dir).map_err(failed("list", dir))? {
        let Some(lock) = lock(&dir).map_err(failed("lock", &dir))? else {
            continue;
        };
        let contents = recover::recover(&dir).map_err(failed("recover", &dir))?;
        let home = Home {
            id,
            dir,
            _lock: lock,
        };
        adopted.push(Adopted::new(Store::adopted(home, contents, joint)));
    }
    Ok(adopted)
}

/// The directories of incarnations, oldest first.
fn directories(dir: &Path) -> io::Result<Vec<(OutboxId, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if let Some(id) = name.to_str().and_then(|name| name.parse().ok()) {
            found.push((id, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Locks a directory; `None` when someone else holds it.
fn lock(dir: &Path) -> io::Result<Option<File>> {
    let file = private::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join(LOCK_FILE))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
