//! A real `nats-server` for each test, that can be killed, paused and brought back.
//!
//! It has its own store folder, JetStream with `sync_interval: always` as we ship it, and a port
//! that the operating system chose and the server wrote to its ports file.
//! [`Broker::restart`] comes back on the same port with the same store.

use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result};
use async_nats::ConnectOptions;
use rustix::process::Signal;
use serde::Deserialize;
use tempfile::TempDir;

use crate::process::Process;
use crate::settings;
use crate::wait::until;

/// The server starts in some 50 ms; a busy two-core machine may need a hundred times that.
const START_BOUND: Duration = Duration::from_secs(20);

/// An orderly stop syncs and closes every stream.
const STOP_BOUND: Duration = Duration::from_secs(20);

/// 20 ms between reconnects of a test's own client: a test waits for the broker, not for a client.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);

/// A running `nats-server` of this test's own.
#[derive(Debug)]
pub struct Broker {
    // Before the folder: the server must be gone when its store is removed.
    process: Process,
    addresses: Addresses,
    extra_config: String,
    folder: TempDir,
}

/// `host:port` of what the server listens on.
#[derive(Debug, Clone)]
struct Addresses {
    clients: String,
    monitoring: String,
}

impl Broker {
    /// Starts a server with an empty store and waits until it takes connections.
    ///
    /// # Errors
    ///
    /// When there is no `nats-server`, or it does not come up; with its last words.
    pub async fn start() -> Result<Self> {
        Self::start_with("").await
    }

    /// The same with lines of configuration of the test's own, for example accounts; `{store}`
    /// stands for the folder of the JetStream store.
    ///
    /// # Errors
    ///
    /// As [`Broker::start`].
    pub async fn start_with(extra_config: &str) -> Result<Self> {
        let folder = tempfile::tempdir().context("failed to create a folder for the broker")?;
        let anywhere = Addresses {
            clients: "127.0.0.1:-1".to_owned(),
            monitoring: "127.0.0.1:-1".to_owned(),
        };
        let (process, addresses) = launch(folder.path(), &anywhere, extra_config).await?;
        Ok(Self {
            process,
            addresses,
            extra_config: extra_config.to_owned(),
            folder,
        })
    }

    /// The address for clients, `nats://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("nats://{}", self.addresses.clients)
    }

    /// The address for clients as `host:port`, for a [`crate::Chaos`] to stand before it.
    pub fn host_port(&self) -> String {
        self.addresses.clients.clone()
    }

    /// The address of the server's own monitoring (`/varz`, `/healthz`, `/jsz`).
    pub fn monitoring_url(&self) -> String {
        format!("http://{}", self.addresses.monitoring)
    }

    /// A client of the test's own.
    ///
    /// # Errors
    ///
    /// When the server takes no connection.
    pub async fn client(&self) -> Result<async_nats::Client> {
        connect(&self.url()).await
    }

    /// The folder of the JetStream store.
    pub fn store(&self) -> std::path::PathBuf {
        self.folder.path().join("store")
    }

    /// The process id of the server.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Kills the server with SIGKILL.
    ///
    /// # Errors
    ///
    /// When it had died before.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.kill().await?;
        Ok(())
    }

    /// Stops the server in an orderly way.
    ///
    /// # Errors
    ///
    /// When it does not stop.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        self.process.interrupt(STOP_BOUND).await
    }

    /// Freezes the server: connections stay open and nothing answers.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn pause(&mut self) -> Result<()> {
        self.process.freeze()
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn resume(&mut self) -> Result<()> {
        self.process.signal(Signal::CONT)
    }

    /// Starts the server again with other lines of configuration than before.
    ///
    /// # Errors
    ///
    /// As [`Broker::restart`].
    pub async fn restart_with(&mut self, extra_config: &str) -> Result<()> {
        extra_config.clone_into(&mut self.extra_config);
        self.restart().await
    }

    /// Starts the server again on the same port and store, killing it first if it still runs.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub async fn restart(&mut self) -> Result<()> {
        if self.process.exit_status()?.is_none() {
            self.process.kill().await?;
        }
        let (process, addresses) =
            launch(self.folder.path(), &self.addresses, &self.extra_config).await?;
        self.process = process;
        self.addresses = addresses;
        Ok(())
    }
}

/// An older state of a broker's store.
#[derive(Debug)]
pub struct StoreCopy(TempDir);

impl Broker {
    /// Stops the server, copies its store, and starts it again.
    ///
    /// # Errors
    ///
    /// When it does not stop or come up, or the store cannot be read.
    pub async fn copy_store(&mut self) -> Result<StoreCopy> {
        self.stop().await?;
        let copy = tempfile::tempdir().context("failed to create a folder for the copy")?;
        copy_folder(&self.store(), &copy.path().join("store"))?;
        self.restart().await?;
        Ok(StoreCopy(copy))
    }

    /// Stops the server and starts it with a store that was copied before, as who restores a backup.
    ///
    /// # Errors
    ///
    /// As [`Broker::copy_store`].
    pub async fn put_back(&mut self, copy: &StoreCopy) -> Result<()> {
        self.stop().await?;
        std::fs::remove_dir_all(self.store()).context("failed to remove the store")?;
        copy_folder(&copy.0.path().join("store"), &self.store())?;
        self.restart().await
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir(to).with_context(|| format!("failed to make {}", to.display()))?;
    for entry in std::fs::read_dir(from)? {
        let (entry, to) = (entry?.path(), to.to_owned());
        let to = to.join(entry.file_name().context("a file without a name")?);
        if entry.is_dir() {
            copy_folder(&entry, &to)?;
        } else {
            std::fs::copy(&entry, &to)
                .with_context(|| format!("failed to copy {}", entry.display()))?;
        }
    }
    Ok(())
}

/// A client that comes back quickly, for tests; several addresses are separated by commas.
///
/// # Errors
///
/// When nothing answers at `url`.
pub async fn connect(url: &str) -> Result<async_nats::Client> {
    ConnectOptions::new()
        .reconnect_delay_callback(|_attempts| RECONNECT_PAUSE)
        .connect(url.split(',').collect::<Vec<_>>())
        .await
        .with_context(|| format!("failed to connect to NATS at {url}"))
}

async fn launch(folder: &Path, listen: &Addresses, extra: &str) -> Result<(Process, Addresses)> {
    let ports_folder = folder.join("ports");
    std::fs::create_dir_all(&ports_folder).context("failed to create the ports folder")?;
    let config = folder.join("nats.conf");
    std::fs::write(&config, configuration(folder, listen, extra))
        .context("failed to write nats.conf")?;

    let mut command = Command::new(settings::nats_server()?);
    command
        .arg("--config")
        .arg(&config)
        .arg("--ports_file_dir")
        .arg(&ports_folder);
    settings::clear_environment(&mut command);
    let mut process = Process::start("nats-server", &command, folder)?;

    let addresses = until(
        "nats-server wrote its ports file",
        START_BOUND,
        async || {
            if let Err(died) = process.ensure_running() {
                return Ok(Err(died));
            }
            read_ports(&ports_folder, process.pid()).map(Ok)
        },
    )
    .await
    .with_context(|| process.last_words())??;
    Ok((process, addresses))
}

fn configuration(folder: &Path, listen: &Addresses, extra: &str) -> String {
    format!(
        r#"listen: "{clients}"
http: "{monitoring}"
jetstream {{
  store_dir: "{store}"
  sync_interval: always
}}
{extra}
"#,
        extra = extra.replace("{store}", &folder.join("store").display().to_string()),
        clients = listen.clients,
        monitoring = listen.monitoring,
        store = folder.join("store").display(),
    )
}

/// The server writes `<program>_<pid>.ports` once it listens.
fn read_ports(folder: &Path, pid: u32) -> Result<Addresses> {
    #[derive(Deserialize)]
    struct Ports {
        nats: Vec<String>,
        monitoring: Vec<String>,
    }

    let ending = format!("_{pid}.ports");
    let file = std::fs::read_dir(folder)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().ends_with(&ending))
        .with_context(|| format!("no file *{ending} in {}", folder.display()))?;
    let ports: Ports = serde_json::from_slice(&std::fs::read(&file)?)
        .with_context(|| format!("{} is not complete", file.display()))?;
    Ok(Addresses {
        clients: host_port(&ports.nats)?,
        monitoring: host_port(&ports.monitoring)?,
    })
}

fn host_port(urls: &[String]) -> Result<String> {
    let url = urls.first().context("the ports file names no address")?;
    let (_scheme, rest) = url
        .split_once("://")
        .context("the ports file has a strange address")?;
    Ok(rest.to_owned())
}

#[cfg(test)]
mod tests {
    use async_nats::jetstream;

    use super::*;

    #[tokio::test]
    async fn a_killed_broker_comes_back_with_its_store_on_its_port() {
        let mut broker = Broker::start().await.unwrap();
        let url = broker.url();
        let context = jetstream::new(broker.client().await.unwrap());
        let config = jetstream::stream::Config {
            name: "KEPT".to_owned(),
            subjects: vec!["kept".to_owned()],
            ..Default::default()
        };
        context.create_stream(config).await.unwrap();
        context
            .publish("kept", "still here".into())
            .await
            .unwrap()
            .await
            .unwrap();

        broker.kill().await.unwrap();
        broker.restart().await.unwrap();
        assert_eq!(broker.url(), url);

        let context = jetstream::new(broker.client().await.unwrap());
        let stream = context.get_stream("KEPT").await.unwrap();
        let message = stream.get_raw_message(1).await.unwrap();
        assert_eq!(message.payload, "still here");
    }

    #[tokio::test]
    async fn a_paused_broker_is_silent_until_resumed() {
        let mut broker = Broker::start().await.unwrap();
        let client = broker.client().await.unwrap();
        broker.pause().unwrap();
        let silent = tokio::time::timeout(Duration::from_millis(300), client.flush()).await;
        let asked = client.clone();
        let account = async move {
            jetstream::new(asked)
                .query_account()
                .await
                .map(|account| account.streams)
        };
        let mut account = Box::pin(account);
        let waited = tokio::time::timeout(Duration::from_millis(300), &mut account).await;
        assert!(
            waited.is_err(),
            "a frozen server answered (flush: {silent:?})"
        );
        broker.resume().unwrap();
        assert_eq!(account.await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_broken_configuration_is_told_at_once() {
        let error = Broker::start_with("nonsense { ").await.unwrap_err();
        assert!(
            format!("{error:#}").contains("nats-server ended"),
            "{error:#}"
        );
    }
}
