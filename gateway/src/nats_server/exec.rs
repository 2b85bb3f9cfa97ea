//! `nexus nats-exec`: sees to it that the NATS server dies with the hub.
//!
//! On Linux it asks the kernel for a signal at the parent's death and then
//! becomes the server. Elsewhere no kernel gives that, so it stays beside the
//! server as its guard, on a leash: its standard input is a pipe that nobody
//! writes to, and that ends when the parent does, however it does.

use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use rustix::{
    fs::{FlockOperation, flock},
    io::{Errno, FdFlags, fcntl_setfd},
};

/// The server of a hub that was killed is gone within this time: 20 s, for a large store.
const PREDECESSOR_TIME: Duration = Duration::from_secs(20);

/// What the supervisor gives the process as its standard input.
pub fn leash() -> Stdio {
    if cfg!(target_os = "linux") {
        Stdio::null()
    } else {
        Stdio::piped()
    }
}

/// What the supervisor passes on.
#[derive(Args, Clone, Debug)]
pub struct NatsExec {
    /// Process id of the supervisor
    #[arg(long)]
    pub parent: i32,
    /// File whose lock the server holds for as long as it runs
    #[arg(long)]
    pub lock: PathBuf,
    /// The server
    #[arg(long)]
    pub server: PathBuf,
    /// Its configuration
    #[arg(long)]
    pub conf: PathBuf,
}

impl NatsExec {
    /// The command line that runs this.
    pub fn arguments(&self) -> Vec<String> {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        vec![
            "nats-exec".to_owned(),
            format!("--parent={}", self.parent),
            format!("--lock={}", path(&self.lock)),
            format!("--server={}", path(&self.server)),
            format!("--conf={}", path(&self.conf)),
        ]
    }

    /// Becomes the server.
    ///
    /// # Errors
    /// The parent is gone already, the store is in use, or the server cannot be started.
    #[cfg(target_os = "linux")]
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        use std::os::unix::process::CommandExt;

        use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

        // SIGKILL, because the next hub may start at once and the store is safe without good-byes.
        set_parent_process_death_signal(Some(Signal::KILL))
            .context("ask for a signal at the parent's death")?;
        // The parent may have died before that was asked; then no signal comes.
        if getppid() != Pid::from_raw(self.parent) {
            bail!("the supervisor is gone");
        }
        self.hold_store()?;
        let error = self.server().exec();
        Err(error).with_context(|| format!("run {}", self.server.display()))
    }

    /// Guards the server until it or the parent ends.
    ///
    /// # Errors
    /// The store is in use, or the server cannot be started.
    #[cfg(not(target_os = "linux"))]
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        use std::{io::Read, sync::mpsc};

        self.hold_store()?;
        let mut server = self
            .server()
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("run {}", self.server.display()))?;
        let (parent_ended, watch) = mpsc::channel();
        std::thread::spawn(move || {
            // The pipe is never written to: whatever ends the reading is the end of the parent.
            std::io::stdin().read(&mut [0]).unwrap_or_default();
            parent_ended.send(()).unwrap_or_default();
        });
        loop {
            if let Some(status) = server.try_wait().context("look after the server")? {
                return Ok(if status.success() {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::FAILURE
                });
            }
            if watch.recv_timeout(Duration::from_millis(20)).is_ok() {
                server.kill().context("end the server")?;
                server.wait().context("end the server")?;
                return Ok(ExitCode::SUCCESS);
            }
        }
    }

    fn server(&self) -> Command {
        let mut command = Command::new(&self.server);
        command.arg("-c").arg(&self.conf);
        command
    }

    /// Takes the lock of the store and leaves it to the server, until it dies.
    fn hold_store(&self) -> anyhow::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.lock)
            .with_context(|| format!("open {}", self.lock.display()))?;
        let step = Duration::from_millis(10);
        let mut waited = Duration::ZERO;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if waited < PREDECESSOR_TIME => {
                    // There is no runtime here, and no one else who waits.
                    std::thread::park_timeout(step);
                    waited += step;
                }
                Err(Errno::WOULDBLOCK) => bail!("another NATS server still uses the store"),
                Err(error) => return Err(error).context("lock the store"),
            }
        }
        // Without close-on-exec the server inherits the descriptor, and with it the lock.
        fcntl_setfd(&file, FdFlags::empty()).context("pass the lock on")?;
        std::mem::forget(file);
        Ok(())
    }
}
