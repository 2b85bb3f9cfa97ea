//! The thread that starts the server, waits for it and starts it again.

use std::{
    fs,
    io::{Read, Seek, SeekFrom},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::sync::oneshot;

use super::{
    binary,
    configuration::Files,
    exec::{self, NatsExec},
};
use crate::settings::NatsServerSettings;

/// How often the thread looks whether the server lives: 20 ms, cheap and soon enough.
const LOOK: Duration = Duration::from_millis(20);

/// A server with a large store needs this long at most to listen: 2 min.
const START_TIME: Duration = Duration::from_mins(2);

/// After SIGTERM the server closes its files; after this long it is killed: 10 s.
const STOP_TIME: Duration = Duration::from_secs(10);

/// Longest pause before the server is started again: 5 s.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A server that has run this long starts anew without a growing pause: 1 min.
const STEADY: Duration = Duration::from_mins(1);

/// A supervised server; [`NatsServer::stop`] ends it.
#[derive(Debug)]
pub struct NatsServer {
    url: String,
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl NatsServer {
    /// Starts a server with its store below the data directory and waits until it listens.
    ///
    /// # Errors
    /// There is no suitable server, or it does not start; with the end of its log.
    pub async fn start(data_dir: &Path, settings: &NatsServerSettings) -> anyhow::Result<Self> {
        let files = Files::below(data_dir)?;
        let server = Server {
            binary: binary::find(settings.nats_server.as_deref())?,
            itself: std::env::current_exe().context("find the path of this executable")?,
            files,
        };
        let (stop, stopped) = mpsc::channel();
        let (started, listening) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("nats-server".to_owned())
            .spawn(move || server.supervise(&stopped, started))
            .context("start the supervisor's thread")?;
        let port = listening
            .await
            .unwrap_or_else(|_| Err(anyhow!("the supervisor's thread ended")))
            .context("start the NATS server")?;
        Ok(Self {
            url: format!("nats://127.0.0.1:{port}"),
            stop,
            thread,
        })
    }

    /// The address that clients and subscribers use.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Stops the server and waits until it is gone.
    pub async fn stop(self) {
        // An error means that the thread has ended by itself.
        if self.stop.send(()).is_err() {
            tracing::warn!("the NATS server's supervisor had ended");
        }
        let thread = self.thread;
        if tokio::task::spawn_blocking(|| thread.join().is_err())
            .await
            .unwrap_or(true)
        {
            tracing::error!("the NATS server's supervisor panicked");
        }
    }
}

/// How one child ended.
enum End {
    /// It was told to.
    Stopped,
    /// By itself.
    Died(ExitStatus),
}

struct Server {
    binary: PathBuf,
    itself: PathBuf,
    files: Files,
}

impl Server {
    /// Runs on its own thread until it is told to stop.
    fn supervise(&self, stop: &mpsc::Receiver<()>, started: oneshot::Sender<anyhow::Result<u16>>) {
        let (mut child, port) = match self.first_start(stop) {
            Ok(running) => running,
            Err(error) => {
                // Nobody waits any more only if the start was given up.
                started.send(Err(error)).unwrap_or_default();
                return;
            }
        };
        if started.send(Ok(port)).is_err() {
            end(&mut child);
            return;
        }
        let mut pause = LOOK;
        loop {
            let began = tokio::time::Instant::now();
            match wait(&mut child, stop) {
                End::Stopped => return,
                End::Died(status) => {
                    tracing::error!(%status, "the NATS server died; starting it again");
                }
            }
            pause = if began.elapsed() > STEADY {
                LOOK
            } else {
                (pause * 2).min(PAUSE_MAX)
            };
            loop {
                if told_to_stop(stop, pause) {
                    return;
                }
                match self.start(Some(port), stop) {
                    Ok((again, _)) => {
                        child = again;
                        break;
                    }
                    Err(error) => {
                        tracing::error!(
                            error = format!("{error:#}"),
                            "the NATS server does not start"
                        );
                        pause = (pause * 2).min(PAUSE_MAX);
                    }
                }
            }
        }
    }

    /// Starts on the port of earlier runs, else on any free one, which is remembered.
    fn first_start(&self, stop: &mpsc::Receiver<()>) -> anyhow::Result<(Child, u16)> {
        if let Some(port) = self.files.port() {
            match self.start(Some(port), stop) {
                Ok(running) => return Ok(running),
                Err(error) => tracing::warn!(
                    port,
                    error = format!("{error:#}"),
                    "the NATS server cannot use the port of earlier runs; subscribers need the new address"
                ),
            }
        }
        let (child, port) = self.start(None, stop)?;
        self.files.keep_port(port)?;
        Ok((child, port))
    }

    /// Starts a child and waits until it listens.
    fn start(&self, port: Option<u16>, stop: &mpsc::Receiver<()>) -> anyhow::Result<(Child, u16)> {
        self.files.tidy();
        self.files.write(port)?;
        let exec = NatsExec {
            parent: i32::try_from(std::process::id()).context("process id")?,
            lock: self.files.lock(),
            server: self.binary.clone(),
            conf: self.files.conf(),
        };
        let log_from = fs::metadata(self.files.log()).map_or(0, |metadata| metadata.len());
        let mut child = Command::new(&self.itself)
            .args(exec.arguments())
            .env_clear()
            .stdin(exec::leash())
            .stdout(Stdio::null())
            // A group of its own: Ctrl-C is for the hub, which stops the server last.
            .process_group(0)
            .spawn()
            .with_context(|| format!("run {}", self.itself.display()))?;
        match self.listening(&mut child, stop) {
            Ok(port) => Ok((child, port)),
            Err(error) => {
                end(&mut child);
                let said = self.last_words(log_from);
                Err(error.context(format!("the NATS server did not start: {said}")))
            }
        }
    }

    /// Waits for the file that names the port.
    fn listening(&self, child: &mut Child, stop: &mpsc::Receiver<()>) -> anyhow::Result<u16> {
        #[derive(Deserialize)]
        struct Ports {
            nats: Vec<String>,
        }
        let began = tokio::time::Instant::now();
        while began.elapsed() < START_TIME {
            // The server writes the file in place, so it may be read half written.
            let ports = self
                .files
                .ports()
                .and_then(|text| serde_json::from_slice::<Ports>(&text).ok());
            if let Some(ports) = ports {
                let port = ports.nats.iter().find_map(|url| port_of(url));
                return port.context("the server's ports file names no port");
            }
            if let Some(status) = child.try_wait()? {
                bail!("it ended with {status}");
            }
            if told_to_stop(stop, Duration::from_millis(2)) {
                bail!("it was stopped");
            }
        }
        bail!("it did not listen within {} s", START_TIME.as_secs())
    }

    /// The end of the server's log, for the operator: at most 2 KiB of what this child wrote.
    fn last_words(&self, from: u64) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = fs::File::open(self.files.log())?;
            let end = file.metadata()?.len();
            file.seek(SeekFrom::Start(from.max(end.saturating_sub(2048))))?;
            let mut text = Vec::new();
            file.take(2048).read_to_end(&mut text)?;
            Ok(String::from_utf8_lossy(&text).trim().to_owned())
        };
        read().unwrap_or_else(|_| format!("see {}", self.files.log().display()))
    }
}

fn port_of(url: &str) -> Option<u16> {
    url.rsplit_once(':')?.1.parse().ok()
}

/// Waits that long; true when the stop came, or whoever could send it is gone.
fn told_to_stop(stop: &mpsc::Receiver<()>, pause: Duration) -> bool {
    !matches!(stop.recv_timeout(pause), Err(RecvTimeoutError::Timeout))
}

/// Waits until the child ends, or ends it when told to.
fn wait(child: &mut Child, stop: &mpsc::Receiver<()>) -> End {
    loop {
        if told_to_stop(stop, LOOK) {
            end(child);
            return End::Stopped;
        }
        match child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => return End::Died(status),
            Err(error) => {
                tracing::error!(%error, "cannot look after the NATS server");
                end(child);
            }
        }
    }
}

/// SIGTERM, and SIGKILL when that does not help in time.
fn end(child: &mut Child) {
    let began = tokio::time::Instant::now();
    // A guard on a leash ends the server by itself when it is let go.
    let leash = child.stdin.take();
    if leash.is_none()
        && let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw)
        && matches!(child.try_wait(), Ok(None))
    {
        // It may have ended this very moment; then there is nothing to tell it.
        kill_process(pid, Signal::TERM).unwrap_or_default();
    }
    drop(leash);
    while began.elapsed() < STOP_TIME {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    tracing::warn!("the NATS server did not stop in time; killing it");
    if let Err(error) = child.kill().and_then(|()| child.wait().map(drop)) {
        tracing::error!(%error, "could not kill the NATS server");
    }
}
