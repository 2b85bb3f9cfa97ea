//! The hub itself: the `nexus` executable as a child process, whole or one role at a time.
//!
//! Each has its own data folder and asks for port 0; where it really listens stands in
//! `run/<role>.json`, which the process writes once it is bound, and nothing is read from a log.
//! A hub is started when `/readyz` says so, and a hub that dies while we wait fails at once with
//! its last words.

mod builder;
mod cluster;
mod straits;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde::Deserialize;
use tempfile::TempDir;

use crate::client::{self, Client};
use crate::log::Log;
use crate::process::Process;
use crate::read_model::ReadModel;
use crate::wait::until;

pub use builder::HubBuilder;
pub use cluster::Cluster;

/// A start takes about a second; a busy two-core machine in its first minute may need far more.
const START_BOUND: Duration = Duration::from_secs(30);

/// An orderly stop waits for open answers and ships the outbox.
const STOP_BOUND: Duration = Duration::from_mins(1);

/// A running `nexus` process.
#[derive(Debug)]
pub struct Hub {
    // Before the folders: the process must be gone when they are removed.
    process: Process,
    listening: Listening,
    launch: Launch,
}

/// Everything that is needed to start the process again as it was.
#[derive(Debug, Clone)]
struct Launch {
    role: String,
    program: PathBuf,
    env: Vec<(String, String)>,
    admin_key: String,
    data_dir: PathBuf,
    /// Folders that must outlive the process.
    _folders: Vec<Arc<TempDir>>,
}

/// What `run/<role>.json` says.
#[derive(Debug, Clone, Deserialize)]
struct Listening {
    pid: u32,
    listen: Option<String>,
    metrics: String,
    nats_url: Option<String>,
}

/// How a start failed, for tests of starts that must fail.
#[derive(Debug)]
pub struct FailedStart {
    /// How the process ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Hub {
    /// `nexus standalone`: everything in one process, with its own supervised broker.
    pub fn standalone() -> HubBuilder {
        HubBuilder::role("standalone")
    }

    /// The base URL of the data plane and the management API.
    ///
    /// # Errors
    ///
    /// When this role serves none.
    pub fn url(&self) -> Result<String> {
        let listen = self.listening.listen.as_deref();
        let listen = listen.with_context(|| format!("{} serves no API", self.launch.role))?;
        Ok(format!("http://{listen}"))
    }

    /// The base URL as an OpenAI client is configured with it, with `/v1`.
    ///
    /// # Errors
    ///
    /// When this role serves none.
    pub fn api_base(&self) -> Result<String> {
        Ok(format!("{}/v1", self.url()?))
    }

    /// The base URL of `/metrics`, `/healthz` and `/readyz`.
    pub fn metrics_url(&self) -> String {
        format!("http://{}", self.listening.metrics)
    }

    /// The address of its broker.
    ///
    /// # Errors
    ///
    /// When it did not say.
    pub fn nats_url(&self) -> Result<String> {
        self.listening
            .nats_url
            .clone()
            .context("the run file names no NATS address")
    }

    /// The bootstrap admin key.
    pub fn admin_key(&self) -> &str {
        &self.launch.admin_key
    }

    /// The data folder.
    pub fn data_dir(&self) -> &Path {
        &self.launch.data_dir
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// A client with the admin key.
    ///
    /// # Errors
    ///
    /// When this role serves no API.
    pub fn client(&self) -> Result<Client> {
        self.anonymous()?.with_key(self.admin_key())
    }

    /// A client without a key.
    ///
    /// # Errors
    ///
    /// When this role serves no API.
    pub fn anonymous(&self) -> Result<Client> {
        Client::new(&self.url()?)
    }

    /// A client of the metrics address.
    ///
    /// # Errors
    ///
    /// When the TLS library cannot be set up.
    pub fn metrics(&self) -> Result<Client> {
        Client::new(&self.metrics_url())
    }

    /// The log as it is in the broker.
    ///
    /// # Errors
    ///
    /// When the broker is away.
    pub async fn log(&self) -> Result<Log> {
        Log::connect(&self.nats_url()?).await
    }

    /// The read model that this hub reads or writes.
    pub fn read_model(&self) -> ReadModel {
        let named = self
            .launch
            .env
            .iter()
            .find(|(name, _)| name == "NEXUS_READ_MODEL_DIR");
        match named {
            Some((_, folder)) => ReadModel::at(Path::new(folder)),
            None => ReadModel::at(&self.data_dir().join("read_model")),
        }
    }

    /// A command of `nexus` with this hub's data folder and settings, for [`crate::programs::run`].
    ///
    /// For example `hub.command(["verify"])`.
    pub fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = self.launch.command();
        command.args(arguments);
        command
    }

    /// What the process has written to standard output, over all its starts.
    pub fn stdout(&self) -> String {
        self.process.stdout()
    }

    /// What the process has written to standard error, over all its starts.
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// Fails, with the last words, if the process has ended.
    ///
    /// # Errors
    ///
    /// When it has.
    pub fn ensure_running(&mut self) -> Result<()> {
        self.process.ensure_running()
    }

    /// Kills the process with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    ///
    /// When it had died before.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.kill().await?;
        Ok(())
    }

    /// Stops the process as Ctrl-C does and returns how it ended.
    ///
    /// # Errors
    ///
    /// When it had died before or is still there after a minute.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        self.process.interrupt(STOP_BOUND).await
    }

    /// Sends SIGINT and does not wait; [`Hub::ended`] does.
    ///
    /// # Errors
    ///
    /// When it had died before.
    pub fn interrupt(&mut self) -> Result<()> {
        self.process.signal(Signal::INT)
    }

    /// Waits until the process ends by itself, as the test expects it to.
    ///
    /// # Errors
    ///
    /// When it is still there after a minute.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        self.process.end(STOP_BOUND).await
    }

    /// Freezes the process, so that it seems dead to everybody else.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn pause(&mut self) -> Result<()> {
        self.process.freeze()
    }

    /// Lets a frozen process go on.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn resume(&mut self) -> Result<()> {
        self.process.signal(Signal::CONT)
    }

    /// Starts a stopped or killed hub again on the same data folder with the same settings.
    ///
    /// Its addresses are new: ask for them, and for clients, again.
    ///
    /// # Errors
    ///
    /// When it still runs, or does not come up.
    pub async fn start_again(&mut self) -> Result<()> {
        ensure!(
            self.process.exit_status()?.is_some(),
            "the hub is still running"
        );
        let (process, listening) = self.launch.start().await?;
        self.process = process;
        self.listening = listening;
        Ok(())
    }

    /// Starts it again as [`Hub::start_again`] does, and does not wait for anything.
    ///
    /// Its addresses are still the old ones until [`Hub::ready`].
    ///
    /// # Errors
    ///
    /// When it still runs or cannot be started.
    pub fn launch_again(&mut self) -> Result<()> {
        ensure!(
            self.process.exit_status()?.is_some(),
            "the hub is still running"
        );
        self.process = self.launch.spawn()?;
        Ok(())
    }

    /// Waits until a hub that was launched is ready.
    ///
    /// # Errors
    ///
    /// When it dies or does not become ready.
    pub async fn ready(&mut self) -> Result<()> {
        self.listening = self.launch.ready(&mut self.process).await?;
        Ok(())
    }

    /// The value of a metric, with its labels as the metrics endpoint writes them, for example
    /// `nexus_outbox_lag_events{lane="chunks"}`; nothing if it is not there.
    ///
    /// # Errors
    ///
    /// When the endpoint does not answer.
    pub async fn metric(&self, name: &str) -> Result<Option<f64>> {
        let answer = self.metrics()?.get("/metrics").await?.expect(200)?;
        Ok(answer.metric(name))
    }
}

impl Launch {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        crate::settings::clear_environment(&mut command);
        command.env("NEXUS_DATA_DIR", &self.data_dir);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.data_dir.parent().unwrap_or(&self.data_dir));
        command
    }

    fn spawn(&self) -> Result<Process> {
        let outputs = self.data_dir.parent().unwrap_or(&self.data_dir);
        let mut command = self.command();
        command.arg(&self.role);
        Process::start(&format!("nexus-{}", self.role), &command, outputs)
    }

    async fn start(&self) -> Result<(Process, Listening)> {
        let mut process = self.spawn()?;
        let listening = self.ready(&mut process).await?;
        Ok((process, listening))
    }

    async fn ready(&self, process: &mut Process) -> Result<Listening> {
        let http = client::http()?;
        let what = format!("nexus {} is ready", self.role);
        let ready = until(&what, START_BOUND, async || {
            if let Err(died) = process.ensure_running() {
                return Ok(Err(died));
            }
            let listening = self.listening(process.pid())?;
            ask_readiness(&http, &listening).await?;
            anyhow::Ok(Ok(listening))
        })
        .await;
        ready.with_context(|| process.last_words())?
    }

    async fn fail_to_start(&self) -> Result<FailedStart> {
        let mut process = self.spawn()?;
        let status = process.end(START_BOUND).await?;
        Ok(FailedStart {
            status,
            stdout: process.stdout(),
            stderr: process.stderr(),
        })
    }

    /// The run file of this very process: one that was killed has left its own behind.
    fn listening(&self, pid: u32) -> Result<Listening> {
        let file = self.data_dir.join(format!("run/{}.json", self.role));
        let text = std::fs::read(&file).with_context(|| format!("no {}", file.display()))?;
        let listening: Listening = serde_json::from_slice(&text)
            .with_context(|| format!("{}: {}", file.display(), String::from_utf8_lossy(&text)))?;
        ensure!(
            listening.pid == pid,
            "{} is of process {}",
            file.display(),
            listening.pid
        );
        Ok(listening)
    }
}

async fn ask_readiness(http: &reqwest::Client, listening: &Listening) -> Result<()> {
    let answer = http
        .get(format!("http://{}/readyz", listening.metrics))
        .send()
        .await?;
    let status = answer.status();
    let text = answer.text().await.unwrap_or_default();
    ensure!(status == 200, "/readyz answers {status}: {text}");
    Ok(())
}

#[cfg(test)]
mod tests;
