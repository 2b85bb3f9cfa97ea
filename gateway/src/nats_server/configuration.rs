//! The configuration file of the supervised server, and the port that it keeps.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use nexus_events::private;

use crate::data_dir::write_whole;

/// The files of the server below the data directory.
#[derive(Clone, Debug)]
pub struct Files {
    dir: PathBuf,
}

impl Files {
    /// Makes the server's directory below the data directory.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn below(data_dir: &Path) -> anyhow::Result<Self> {
        let dir = data_dir.join("nats");
        private::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(Self { dir })
    }

    /// The configuration file.
    pub fn conf(&self) -> PathBuf {
        self.dir.join("nats.conf")
    }

    /// The server's log.
    pub fn log(&self) -> PathBuf {
        self.dir.join("nats.log")
    }

    /// What the running server wrote about its ports; the files of earlier ones are tidied away.
    pub fn ports(&self) -> Option<Vec<u8>> {
        let entries = fs::read_dir(&self.dir).ok()?.flatten();
        let path = entries
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|ext| ext == "ports"))?;
        fs::read(path).ok()
    }

    /// The lock that the running server holds.
    pub fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// The port of earlier runs, if there were any.
    pub fn port(&self) -> Option<u16> {
        fs::read_to_string(self.dir.join("port"))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// Remembers the port.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep_port(&self, port: u16) -> anyhow::Result<()> {
        let path = self.dir.join("port");
        write_whole(&path, port.to_string().as_bytes())
            .with_context(|| format!("write {}", path.display()))
    }

    /// Removes what servers that are gone left behind.
    pub fn tidy(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|ext| ext == "ports")
                && let Err(error) = fs::remove_file(entry.path())
            {
                tracing::debug!(%error, "could not remove an old ports file");
            }
        }
    }

    /// Writes the configuration for that port; `None` lets the server take any free one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, port: Option<u16>) -> anyhow::Result<()> {
        let path = self.conf();
        write_whole(&path, self.text(port).as_bytes())
            .with_context(|| format!("write {}", path.display()))
    }

    fn text(&self, port: Option<u16>) -> String {
        let port = port.map_or_else(|| "-1".to_owned(), |port| port.to_string());
        let dir = quoted(&self.dir);
        let log = quoted(&self.log());
        format!(
            "# Written at each start by nexus standalone; edits are lost.\n\
             server_name: \"nexus-standalone\"\n\
             # Loopback only: this server has no accounts.\n\
             listen: \"127.0.0.1:{port}\"\n\
             ports_file_dir: {dir}\n\
             log_file: {log}\n\
             logfile_size_limit: 16MB\n\
             logfile_max_num: 2\n\
             jetstream {{\n\
             \x20 store_dir: {dir}\n\
             \x20 # An acknowledgement means that the event is on the disk.\n\
             \x20 sync_interval: always\n\
             }}\n"
        )
    }
}

/// A path as a string of the configuration language.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::below(dir.path()).unwrap();
        assert_eq!(files.port(), None);
        files.keep_port(4333).unwrap();
        assert_eq!(files.port(), Some(4333));
        assert!(files.text(files.port()).contains("127.0.0.1:4333"));
        assert!(files.text(None).contains("127.0.0.1:-1"));
    }
}
