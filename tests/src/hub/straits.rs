//! A hub in straits: up but not ready, or with no room on its disk; and what it keeps there.

use std::path::PathBuf;

use anyhow::{Context, Result};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;

use super::{Hub, START_BOUND};
use crate::wait::until;

impl Hub {
    /// Waits until a hub that was launched can be asked, ready or not.
    ///
    /// # Errors
    ///
    /// When it dies or does not come up.
    pub async fn answers(&mut self) -> Result<()> {
        let answers = until("the hub can be asked", START_BOUND, async || {
            if let Err(died) = self.process.ensure_running() {
                return Ok(Err(died));
            }
            self.launch.listening(self.process.pid()).map(Ok)
        });
        self.listening = answers.await??;
        Ok(())
    }

    /// What `/readyz` says of one part, `null` when it says nothing.
    ///
    /// # Errors
    ///
    /// When the endpoint does not answer.
    pub async fn part(&self, name: &str) -> Result<Value> {
        let answer = self.metrics()?.get("/readyz").await?;
        let parts = answer.json.get("parts").and_then(Value::as_array);
        let part = parts
            .into_iter()
            .flatten()
            .find(|part| part.get("part") == Some(&Value::from(name)));
        Ok(part.cloned().unwrap_or_default())
    }

    /// Sets an environment variable for its next start.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.launch.env.push((name.to_owned(), value.to_owned()));
    }

    /// Lets no file of the running process grow beyond so many bytes, as a full disk does; `None`
    /// lifts the limit.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn limit_files(&self, bytes: Option<u64>) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid())?).context("no process")?;
        let limit = Rlimit {
            current: bytes,
            // Only the soft limit, which may be raised again without privileges.
            maximum: None,
        };
        prlimit(Some(pid), Resource::Fsize, limit).context("failed to limit the size of files")?;
        Ok(())
    }

    /// The directories of the outboxes that it holds, oldest first.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read.
    pub fn outboxes(&self) -> Result<Vec<PathBuf>> {
        let folder = self.data_dir().join("outbox");
        let entries = std::fs::read_dir(&folder).context("the outbox cannot be read")?;
        let mut found = Vec::new();
        for entry in entries {
            let path = entry?.path();
            found.extend(path.join("lock").exists().then_some(path));
        }
        found.sort_unstable();
        Ok(found)
    }
}
