//! A child process under watch: its output kept, its end noticed, never left behind.
//!
//! The output goes to files in the part's own folder and is printed when the handle is dropped;
//! the test runner shows that only for a test that failed.
//! A process that ended without being asked to fails the test, even one that had seen all it wanted
//! to see.
//!
//! The child dies with us even when we are killed: `setpriv --pdeathsig` asks the kernel for it
//! where that program exists.
//! The kernel ties the child to the *thread* that started it, so parts are started from the test's
//! own task, not from a blocking thread that may end earlier.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::settings;
use crate::wait::until;

/// 16 KiB of each output are shown: enough for the last words, short enough to read.
const SHOWN_BYTES: usize = 16 * 1024;

/// SIGKILL needs no cooperation, but a busy machine needs a moment to clear up.
const KILL_BOUND: Duration = Duration::from_secs(10);

/// A running (or ended) child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    ended: Option<ExitStatus>,
    end_is_told: bool,
}

impl Process {
    /// Starts `command`, its output appended to `<name>.stdout` and `<name>.stderr` in `folder`.
    ///
    /// # Errors
    ///
    /// When the program cannot be started or the files cannot be written.
    pub fn start(name: &str, command: &Command, folder: &Path) -> Result<Self> {
        let stdout = folder.join(format!("{name}.stdout"));
        let stderr = folder.join(format!("{name}.stderr"));
        let child = dying_with_us(command)
            .stdin(Stdio::null())
            .stdout(append_to(&stdout)?)
            .stderr(append_to(&stderr)?)
            .spawn()
            .with_context(|| format!("failed to start {name} ({command:?})"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            stdout,
            stderr,
            ended: None,
            end_is_told: false,
        })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails, with the last words, if the process has ended; its end is then no longer untold.
    ///
    /// # Errors
    ///
    /// When it is no longer running.
    pub fn ensure_running(&mut self) -> Result<()> {
        match self.exit_status()? {
            None => Ok(()),
            Some(status) => {
                self.end_is_told = true;
                bail!(
                    "{} ended unasked ({status})\n{}",
                    self.name,
                    self.last_words()
                )
            }
        }
    }

    /// How the process ended, or nothing while it runs.
    ///
    /// # Errors
    ///
    /// When the operating system does not say.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self
                .child
                .try_wait()
                .context("failed to look at a child process")?;
        }
        Ok(self.ended)
    }

    /// Waits until the process ends by itself, as the test expects it to.
    ///
    /// # Errors
    ///
    /// When it still runs after `bound`.
    pub async fn end(&mut self, bound: Duration) -> Result<ExitStatus> {
        self.end_is_told = true;
        let what = format!("{} ends", self.name);
        let result = until(&what, bound, async || match self.exit_status() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(format!("it is running as process {}", self.pid())),
            Err(error) => Err(format!("{error:#}")),
        })
        .await;
        result.with_context(|| self.last_words())
    }

    /// Sends a signal and does not wait for anything.
    ///
    /// # Errors
    ///
    /// When the process is gone.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.ensure_running()?;
        kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("failed to send {signal:?} to {}", self.name))
    }

    /// Freezes the process and waits until it stands still.
    ///
    /// # Errors
    ///
    /// When the process is gone.
    pub fn freeze(&mut self) -> Result<()> {
        self.signal(Signal::STOP)?;
        // A thread that runs on another core goes on for a moment after the signal was sent.
        let child = WaitId::Pid(Pid::from_child(&self.child));
        waitid(child, WaitIdOptions::STOPPED)
            .with_context(|| format!("{} does not stand still", self.name))?;
        Ok(())
    }

    /// Kills with SIGKILL and waits until the process is gone.
    ///
    /// # Errors
    ///
    /// When it had died before, unasked, or does not go.
    pub async fn kill(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::KILL)?;
        self.end(KILL_BOUND).await
    }

    /// Asks the process to stop with SIGINT, as Ctrl-C does, and waits until it has.
    ///
    /// # Errors
    ///
    /// When it had died before, unasked, or still runs after `bound`.
    pub async fn interrupt(&mut self, bound: Duration) -> Result<ExitStatus> {
        self.signal(Signal::INT)?;
        self.end(bound).await
    }

    /// Everything that it wrote to standard output so far.
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// Everything that it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// The end of both outputs, for a person to read.
    pub fn last_words(&self) -> String {
        format!(
            "--- {name} stdout ---\n{}\n--- {name} stderr ---\n{}\n---",
            tail(&self.stdout()),
            tail(&self.stderr()),
            name = self.name,
        )
    }
}

impl Drop for Process {
    #[expect(
        clippy::print_stderr,
        reason = "shown by the test runner when the test fails"
    )]
    #[expect(
        clippy::panic,
        reason = "a part that died unasked must fail a test that saw nothing"
    )]
    fn drop(&mut self) {
        let ended = self.exit_status().ok().flatten();
        if ended.is_none() {
            // Both fail only when the process is gone, which is what we want.
            drop(self.child.kill());
            drop(self.child.wait());
        }
        eprintln!("{}", self.last_words());
        if let Some(status) = ended
            && !self.end_is_told
            && !std::thread::panicking()
        {
            panic!(
                "{} ended unasked ({status}):\n{}",
                self.name,
                self.last_words()
            );
        }
    }
}

/// The same command, started so that the kernel kills it when the starting thread ends.
fn dying_with_us(command: &Command) -> Command {
    let mut wrapped = match settings::on_path("setpriv") {
        Ok(setpriv) => {
            let mut wrapped = Command::new(setpriv);
            wrapped
                .args(["--pdeathsig", "KILL", "--"])
                .arg(command.get_program());
            wrapped
        }
        Err(_not_there) => Command::new(command.get_program()),
    };
    wrapped.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    wrapped
}

fn append_to(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("failed to open {}", path.display()))
}

fn read(path: &Path) -> String {
    match std::fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("({} cannot be read: {error})", path.display()),
    }
}

fn tail(text: &str) -> &str {
    let cut = text.floor_char_boundary(text.len().saturating_sub(SHOWN_BYTES));
    text.get(cut..).unwrap_or(text).trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn keeps_the_output_and_the_exit_status() {
        let folder = tempfile::tempdir().unwrap();
        let command = shell("echo out; echo err >&2; exit 3");
        let mut process = Process::start("talker", &command, folder.path()).unwrap();
        let status = process.end(KILL_BOUND).await.unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(process.stdout(), "out\n");
        assert_eq!(process.stderr(), "err\n");
    }

    #[tokio::test]
    async fn a_process_that_dies_unasked_fails_its_test() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Process::start(
            "crasher",
            &shell("echo bad luck >&2; exit 9"),
            folder.path(),
        )
        .unwrap();
        until("it has ended", KILL_BOUND, async || {
            match process.exit_status().unwrap() {
                Some(status) => Ok(status),
                None => Err("it is running"),
            }
        })
        .await
        .unwrap();
        let drop_it = std::panic::AssertUnwindSafe(|| drop(process));
        let panic = std::panic::catch_unwind(drop_it).expect_err("the drop must panic");
        assert!(panic.downcast_ref::<String>().unwrap().contains("bad luck"));
    }

    #[tokio::test]
    async fn a_dropped_handle_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start("sleeper", &shell("exec sleep 60"), folder.path()).unwrap();
        let proc_entry = PathBuf::from(format!("/proc/{}", process.pid()));
        assert!(proc_entry.exists());
        drop(process);
        assert!(!proc_entry.exists());
    }

    #[tokio::test]
    async fn a_child_dies_with_the_thread_that_started_it() {
        if settings::on_path("setpriv").is_err() {
            // Without it the kernel is not asked, and only dropped handles clear up.
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_path_buf();
        let starter = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                let script = shell("echo ready; exec sleep 60");
                let process = Process::start("orphan", &script, &path).unwrap();
                // Only a child that is past `setpriv` has asked the kernel.
                until("the orphan is ready", KILL_BOUND, async || {
                    match process.stdout() {
                        said if said.contains("ready") => Ok(()),
                        said => Err(said),
                    }
                })
                .await
                .unwrap();
                let pid = process.pid();
                // As if this process had been killed: no handle is dropped.
                std::mem::forget(process);
                pid
            })
        });
        let pid = starter.join().unwrap();
        until("the orphan is gone", KILL_BOUND, async || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // Z: dead, and not collected because the handle was forgotten.
            if stat.is_empty() || stat.contains(") Z ") {
                Ok(())
            } else {
                Err(stat)
            }
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn interrupt_reports_a_process_that_does_not_stop() {
        let folder = tempfile::tempdir().unwrap();
        let command = shell("trap '' INT; echo ready; while :; do sleep 1; done");
        let mut process = Process::start("stubborn", &command, folder.path()).unwrap();
        until("it ignores SIGINT", KILL_BOUND, async || {
            let said = process.stdout();
            if said.contains("ready") {
                Ok(())
            } else {
                Err(said)
            }
        })
        .await
        .unwrap();
        let error = process
            .interrupt(Duration::from_millis(200))
            .await
            .unwrap_err();
        assert!(
            format!("{error:#}").contains("it is running as process"),
            "{error:#}"
        );
    }
}
