//! The data directory: who holds it, and what a running role says about itself there.
//!
//! One process holds a data directory, by a lock that the kernel lets go of when
//! the process dies, however it dies. A role that has bound its sockets writes
//! `run/<role>.json`, so that tests and tools find the real ports; it removes
//! the file at an orderly exit, and a reader checks the process id for the others.

use std::{
    fs::{self, File},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use nexus_events::private;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize};

/// A data directory that this process holds.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    /// Holds the lock for as long as it is open.
    _lock: File,
}

impl DataDir {
    /// Makes the directory where it is missing and takes its lock.
    ///
    /// # Errors
    /// Another process holds it, which the sentence names, or it cannot be made.
    pub fn hold(root: &Path, role: &str) -> anyhow::Result<Self> {
        private::create_dir_all(root)
            .with_context(|| format!("create the data directory {}", root.display()))?;
        let root = root
            .canonicalize()
            .with_context(|| format!("resolve the data directory {}", root.display()))?;
        let path = root.join("lock");
        let mut lock = private::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                lock.read_to_string(&mut holder).unwrap_or_default();
                bail!(
                    "the data directory {} is held by another hub ({}); stop it, or choose another with NEXUS_DATA_DIR",
                    root.display(),
                    if holder.trim().is_empty() {
                        "unknown"
                    } else {
                        holder.trim()
                    }
                );
            }
            Err(error) => {
                return Err(error).with_context(|| format!("lock {}", path.display()));
            }
        }
        lock.set_len(0)?;
        lock.rewind()?;
        writeln!(lock, "nexus {role}, process {}", std::process::id())?;
        // What a killed process said of itself is not true any more.
        match fs::remove_dir_all(root.join("run")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context("remove old run files");
            }
            _ => {}
        }
        Ok(Self { root, _lock: lock })
    }

    /// The directory, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Says where the role can be reached, until the returned guard is dropped.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn announce(&self, role: &str, run: &RunFile) -> anyhow::Result<Announcement> {
        let dir = self.root.join("run");
        private::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let path = dir.join(format!("{role}.json"));
        write_whole(&path, &serde_json::to_vec_pretty(run)?)
            .with_context(|| format!("write {}", path.display()))?;
        Ok(Announcement(path))
    }
}

/// What `run/<role>.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFile {
    /// The process.
    pub pid: u32,
    /// `host:port` of the client API and the management API, where the role has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// `host:port` of the metrics endpoint.
    pub metrics: String,
    /// Address of the broker.
    pub nats_url: String,
    /// Directory of the read model that it uses; older versions did not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_model_dir: Option<PathBuf>,
    /// Directory of the backups, where the role takes some; older versions did not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_dir: Option<PathBuf>,
}

impl RunFile {
    /// A directory as a run file tells it: wherever the reader stands. JSON holds no path that is
    /// not Unicode; such a one has to be told to the commands.
    ///
    /// # Errors
    /// There is no working directory.
    pub fn told(dir: &Path) -> std::io::Result<Option<PathBuf>> {
        let dir = std::path::absolute(dir)?;
        Ok(dir.to_str().is_some().then_some(dir))
    }
}

/// Removes the file when dropped.
#[derive(Debug)]
pub struct Announcement(PathBuf);

impl Drop for Announcement {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "could not remove the run file");
        }
    }
}

/// What the roles that run on this data directory say about themselves.
pub fn announced(root: &Path) -> Vec<RunFile> {
    let Ok(entries) = fs::read_dir(root.join("run")) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|ext| ext == "json"))
        .filter_map(|entry| serde_json::from_slice(&fs::read(entry.path()).ok()?).ok())
        .filter(|run: &RunFile| is_alive(run.pid))
        .collect()
}

/// Whether there is a process with that id.
fn is_alive(pid: u32) -> bool {
    i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .is_some_and(|pid| !matches!(rustix::process::test_kill_process(pid), Err(Errno::SRCH)))
}

/// Replaces a file by one with that text: a reader, and a crash, see the old one or the new one.
///
/// # Errors
/// As the file system says.
pub fn write_whole(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let whole = path.with_extension("new");
    let mut file = private::create(&whole)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&whole, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_holds_a_data_directory() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataDir::hold(dir.path(), "standalone").unwrap();
        let refusal = DataDir::hold(dir.path(), "gateway")
            .unwrap_err()
            .to_string();
        let holder = format!("nexus standalone, process {}", std::process::id());
        assert!(refusal.contains(&holder), "{refusal}");
        drop(held);
        DataDir::hold(dir.path(), "gateway").unwrap();
    }

    #[test]
    fn a_role_is_announced_while_it_runs() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataDir::hold(dir.path(), "standalone").unwrap();
        let run = RunFile {
            pid: std::process::id(),
            listen: Some("127.0.0.1:1".to_owned()),
            metrics: "127.0.0.1:2".to_owned(),
            nats_url: "nats://127.0.0.1:3".to_owned(),
            read_model_dir: RunFile::told(Path::new("rm")).unwrap(),
            backup_dir: None,
        };
        assert!(run.read_model_dir.as_ref().unwrap().is_absolute());
        let announcement = held.announce("standalone", &run).unwrap();
        assert_eq!(announced(dir.path()), std::slice::from_ref(&run));
        drop(announcement);
        assert_eq!(announced(dir.path()), []);
        std::mem::forget(held.announce("standalone", &run).unwrap());
        drop(held);
        let _held = DataDir::hold(dir.path(), "standalone").unwrap();
        assert_eq!(announced(dir.path()), [], "left by one that was killed");
    }

    #[test]
    fn the_run_file_of_an_older_version_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            r#"{{"pid": {}, "metrics": "127.0.0.1:2", "nats_url": "nats://127.0.0.1:3"}}"#,
            std::process::id()
        );
        fs::create_dir(dir.path().join("run")).unwrap();
        fs::write(dir.path().join("run/projector.json"), text).unwrap();
        let runs = announced(dir.path());
        assert_eq!(runs.len(), 1);
        assert_eq!(runs[0].read_model_dir, None);
        assert_eq!(runs[0].backup_dir, None);
    }
}
