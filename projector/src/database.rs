//! The database files: where they lie, how they are opened, which one is current.
//!
//! A read model is a folder. The file `current` names the database that
//! readers use, in the same folder. A new database is built beside the live
//! one under a name of its own; when it has caught up, `current` is replaced
//! atomically. Nothing is ever renamed over a live database, so a reader that
//! still holds the old one goes on reading it until its transaction ends.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use nexus_events::private;
use sqlx::{
    ConnectOptions, SqliteConnection,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

/// Name of the pointer file.
pub const POINTER: &str = "current";

/// Name of the file that says why the projector has halted; its absence says that it has not.
const HALTED: &str = "halted";

/// The schema, embedded; forward only.
pub static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// How long a reader or a backup may hold up a lock: 5 s, far above any of our transactions.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Page cache of the writer: 64 MiB keeps the inner pages of all indexes in memory.
const WRITER_CACHE_KIB: &str = "-65536";

/// Which database is current: its path, and which file that is, should it be deleted and made anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The database file.
    pub path: PathBuf,
    device: u64,
    inode: u64,
}

/// There is no database to open.
#[derive(Debug, thiserror::Error)]
pub enum Absent {
    /// No pointer file, or one that cannot be read.
    #[error("no read model has been built yet")]
    Pointer(#[source] io::Error),
    /// The pointer names no file of the folder.
    #[error("the file that names the current read model is damaged")]
    Damaged,
    /// The database that the pointer names is gone.
    #[error("the database of the read model is gone")]
    Database(#[source] io::Error),
}

/// The database that the pointer in `dir` names.
///
/// # Errors
/// [`Absent`].
pub fn current(dir: &Path) -> Result<Identity, Absent> {
    let name = std::fs::read_to_string(dir.join(POINTER)).map_err(Absent::Pointer)?;
    let name = name.trim();
    if name.is_empty() || name.contains(['/', '\\']) || name.starts_with('.') {
        return Err(Absent::Damaged);
    }
    identify(dir.join(name)).map_err(Absent::Database)
}

/// Which file lies at the path.
pub(crate) fn identify(path: PathBuf) -> io::Result<Identity> {
    let metadata = std::fs::metadata(&path)?;
    Ok(Identity {
        device: metadata.dev(),
        inode: metadata.ino(),
        path,
    })
}

/// Makes the database `name` the current one: written aside, synced, renamed, folder synced.
pub(crate) fn point_to(dir: &Path, name: &str) -> io::Result<()> {
    let aside = dir.join("current.new");
    let mut file = private::create(&aside)?;
    file.write_all(name.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    std::fs::rename(&aside, dir.join(POINTER))?;
    File::open(dir)?.sync_all()
}

/// Makes no database the current one: what was is not to be trusted.
pub(crate) fn point_to_none(dir: &Path) -> io::Result<()> {
    match std::fs::remove_file(dir.join(POINTER)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Notes for all readers, of this process and of others, that what is here is not what the log
/// says, and why; or that this is over.
pub(crate) fn note_halt(dir: &Path, reason: Option<&str>) -> io::Result<()> {
    let note = dir.join(HALTED);
    match reason {
        Some(reason) => private::create(&note)?.write_all(reason.as_bytes()),
        None => match std::fs::remove_file(note) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
    }
}

/// Why the projector of the read model in `dir` has halted, if it has.
pub(crate) fn halt(dir: &Path) -> Option<String> {
    std::fs::read_to_string(dir.join(HALTED)).ok()
}

/// How a reader opens a database: it can write nothing and creates nothing.
pub fn reader_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .create_if_missing(false)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("query_only", "on")
        .disable_statement_logging()
}

/// How a copy is taken: as a reader, but `VACUUM INTO` writes the copy over the same connection.
pub(crate) fn copier_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .create_if_missing(false)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging()
}

/// How the one writer opens a database.
///
/// `synchronous = normal`: after a power loss the database is consistent and
/// may lack the last commits, which are then read from the log again.
fn writer_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(BUSY_TIMEOUT)
        .statement_cache_capacity(256)
        .pragma("cache_size", WRITER_CACHE_KIB)
        .pragma("temp_store", "memory")
        .disable_statement_logging()
}

/// A database that cannot be opened for writing.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file is no database or could not be opened.
    #[error("the database {path} could not be opened")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// Its schema is newer than this program, or a migration failed.
    #[error("the schema of {path} does not fit this program")]
    Migrate {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: MigrateError,
    },
}

/// Opens the database for its one writer, creates it if it is missing, and migrates it.
///
/// # Errors
/// [`OpenError`]; a schema newer than this program is refused.
pub async fn open_writer(path: &Path) -> Result<SqliteConnection, OpenError> {
    let failed = |source| OpenError::Open {
        path: path.to_owned(),
        source,
    };
    match create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed(error.into()));
        }
        _ => {}
    }
    let mut connection = writer_options(path).connect().await.map_err(failed)?;
    // `run` takes any `Acquire`, which makes the future one that cannot be spawned (sqlx says so
    // beside `run_direct`).
    MIGRATIONS
        .run_direct(None, &mut connection, false)
        .await
        .map_err(|source| OpenError::Migrate {
            path: path.to_owned(),
            source,
        })?;
    Ok(connection)
}

/// Makes the empty file of a database, for its owner alone; SQLite gives its mode to the files
/// beside it.
///
/// One that is there must not even be opened: to close it would take away the locks that other
/// connections of this process have on it.
///
/// # Errors
/// It is there, or cannot be made.
pub(crate) fn create(path: &Path) -> io::Result<()> {
    let mut options = private::options();
    options.write(true).create_new(true).open(path).map(drop)
}

/// Whether an error says that the file is no sound database, so that only a new one helps.
pub(crate) fn is_unsound(error: &sqlx::Error) -> bool {
    /// `SQLITE_CORRUPT` and `SQLITE_NOTADB`.
    const UNSOUND: [i32; 2] = [11, 26];
    /// `SQLITE_IOERR_SHORT_READ`: the file is shorter than it says.
    const CUT: i32 = 522;
    code(error).is_some_and(|code| code == CUT || UNSOUND.contains(&(code & 0xff)))
}

/// Whether an error says that the file is not there.
pub(crate) fn is_absent(error: &sqlx::Error) -> bool {
    /// `SQLITE_CANTOPEN`.
    const ABSENT: i32 = 14;
    code(error).map(|code| code & 0xff) == Some(ABSENT)
}

/// SQLite's extended result code; the primary one is its lowest byte.
fn code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use sqlx::AssertSqlSafe;

    use super::*;
    use crate::dump;

    /// The sample rows that belong to a migration.
    fn sample_rows(version: i64, description: &str) -> String {
        let name = format!("{version:04}_{}.sql", description.replace(' ', "_"));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations/testdata");
        let rows = std::fs::read_to_string(path.join(&name));
        rows.unwrap_or_else(|error| panic!("migrations/testdata/{name}: {error}"))
    }

    #[tokio::test]
    async fn every_migration_works_on_rows() {
        let dir = tempfile::tempdir().unwrap();
        let mut database = writer_options(&dir.path().join("rows.db"))
            .connect()
            .await
            .unwrap();
        for migration in MIGRATIONS.iter() {
            sqlx::raw_sql(migration.sql.clone())
                .execute(&mut database)
                .await
                .unwrap();
            let rows = sample_rows(migration.version, &migration.description);
            sqlx::raw_sql(AssertSqlSafe(rows))
                .execute(&mut database)
                .await
                .unwrap();
        }
        for table in dump::tables(&mut database).await.unwrap() {
            let count = format!("SELECT count(*) FROM \"{}\"", table.name);
            let rows: i64 = sqlx::query_scalar(AssertSqlSafe(count))
                .fetch_one(&mut database)
                .await
                .unwrap();
            assert!(rows > 0, "{} has no sample row", table.name);
        }
    }

    #[tokio::test]
    async fn a_reader_can_write_nothing_and_makes_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("read_model.db");
        let error = reader_options(&path).connect().await.unwrap_err();
        assert!(is_absent(&error), "{error:?}");
        assert!(!path.exists());
        let writer = open_writer(&path).await.unwrap();
        let mut reader = reader_options(&path).connect().await.unwrap();
        let outcome = sqlx::query("DELETE FROM retention")
            .execute(&mut reader)
            .await;
        assert!(outcome.is_err());
        drop(writer);
    }

    #[test]
    fn the_pointer_names_a_file_of_its_own_folder_only() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(current(dir.path()), Err(Absent::Pointer(_))));
        point_to(dir.path(), "a.db").unwrap();
        assert!(matches!(current(dir.path()), Err(Absent::Database(_))));
        std::fs::write(dir.path().join("a.db"), "").unwrap();
        let first = current(dir.path()).unwrap();
        assert_eq!(first.path, dir.path().join("a.db"));
        // The same name, another file.
        std::fs::write(dir.path().join("b.db"), "").unwrap();
        std::fs::rename(dir.path().join("b.db"), dir.path().join("a.db")).unwrap();
        assert_ne!(current(dir.path()).unwrap(), first);
        std::fs::write(dir.path().join(POINTER), "../a.db").unwrap();
        assert!(matches!(current(dir.path()), Err(Absent::Damaged)));
    }
}
