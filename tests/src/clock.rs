//! A wall clock that tests move: the processes that are given it live in another time.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::programs;

/// To compile one page of C takes a second; a busy machine may need far more: two minutes.
const BUILD_BOUND: Duration = Duration::from_mins(2);

/// A clock that stands a number of seconds off the machine's; only on Linux, by a preloaded library.
#[derive(Debug)]
pub struct MovedClock {
    folder: TempDir,
    library: PathBuf,
}

impl MovedClock {
    /// Builds the library that moves the clock; the compiler is there, for the hub needs it as well.
    ///
    /// # Errors
    ///
    /// When there is no compiler, or no room for what it makes.
    pub async fn by(seconds: i64) -> Result<Self> {
        let folder = TempDir::new()?;
        let library = folder.path().join("clock_shim.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/clock_shim.c");
        let mut command = Command::new("cc");
        command.args(["-shared", "-fPIC", "-O1", "-o"]);
        command.arg(&library).arg(source).arg("-ldl");
        let built = programs::run(&command, BUILD_BOUND).await?;
        built.succeeded().context("cc did not build the shim")?;
        let clock = Self { folder, library };
        clock.set(seconds)?;
        Ok(clock)
    }

    /// Moves it, in all processes that have it.
    ///
    /// # Errors
    ///
    /// When the file that they read cannot be written.
    pub fn set(&self, seconds: i64) -> Result<()> {
        std::fs::write(self.offset(), seconds.to_string())?;
        Ok(())
    }

    /// What a process must find in its environment to live by it.
    pub fn env(&self) -> [(&'static str, String); 2] {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("NEXUS_TEST_CLOCK", self.offset().display().to_string()),
        ]
    }

    fn offset(&self) -> PathBuf {
        self.folder.path().join("offset")
    }
}
