//! Where the harness finds the programs that it runs.
//!
//! The only module that reads the environment: two variables name programs, two more are numbers
//! for scenarios of faults; everything else is found in the `target` folder that `make test` fills.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// What to do when a program is missing.
const PROVISION: &str = "run `make test`, which provisions everything the tests need";

/// The `nexus` executable: `NEXUS_BIN`, else the one built beside this test binary.
///
/// # Errors
///
/// When there is none; the message says how to get it.
pub fn nexus() -> Result<PathBuf> {
    if let Some(named) = variable("NEXUS_BIN") {
        return Ok(named.into());
    }
    let test_binary = std::env::current_exe().context("failed to find the test binary")?;
    // target/<profile>/deps/<test binary> -> target/<profile>/nexus
    test_binary
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("nexus"))
        .find(|candidate| candidate.is_file())
        .with_context(|| {
            format!(
                "no `nexus` executable beside {}: run `cargo build --bin nexus` first, or name one \
                 with NEXUS_BIN",
                test_binary.display()
            )
        })
}

/// The `nats-server` executable: `NEXUS_NATS_SERVER`, else the provisioned one, else from `PATH`.
///
/// # Errors
///
/// When there is none; the message says how to get it.
pub fn nats_server() -> Result<PathBuf> {
    if let Some(named) = variable("NEXUS_NATS_SERVER") {
        return Ok(named.into());
    }
    provisioned_or_on_path("nats-server")
}

/// The Redis-compatible server: the provisioned `valkey-server`, else the one on `PATH`.
///
/// # Errors
///
/// When there is none; the message says how to get it.
pub fn valkey_server() -> Result<PathBuf> {
    provisioned_or_on_path("valkey-server")
}

/// The environment of an official client, for example `openai/bin/python` or `node`.
///
/// # Errors
///
/// When it has not been provisioned; the message says how to get it.
pub fn client_environment(relative: &str) -> Result<PathBuf> {
    let path = target().join("clients").join(relative);
    anyhow::ensure!(
        path.exists(),
        "{} is not there: {PROVISION}",
        path.display()
    );
    Ok(path)
}

/// A program that the machine itself has, for example `node`.
///
/// # Errors
///
/// When `PATH` does not have it.
pub fn on_path(program: &str) -> Result<PathBuf> {
    variable("PATH")
        .iter()
        .flat_map(|path| std::env::split_paths(path).collect::<Vec<_>>())
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("`{program}` is not on PATH"))
}

/// The folder of the client programs, `tests/clients/programs`.
pub fn client_programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/programs")
}

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_path_buf()
}

/// Takes out of a child's environment what would make a test depend on the outside.
///
/// `NEXUS_*` is ours to set; a proxy would come between us and loopback.
pub fn clear_environment(command: &mut Command) {
    for (name, _value) in std::env::vars_os() {
        let upper = name.to_string_lossy().to_uppercase();
        if upper.starts_with("NEXUS_") || upper.ends_with("_PROXY") {
            command.env_remove(name);
        }
    }
}

fn provisioned_or_on_path(program: &str) -> Result<PathBuf> {
    let provisioned = target().join("tools/bin").join(program);
    if provisioned.is_file() {
        return Ok(provisioned);
    }
    on_path(program)
        .with_context(|| format!("{} is not there either: {PROVISION}", provisioned.display()))
}

fn target() -> PathBuf {
    workspace().join("target")
}

/// `FAULT_SEED`: the seed to repeat a scenario with.
///
/// # Errors
///
/// When it is no number.
pub fn fault_seed() -> Result<Option<u64>> {
    number("FAULT_SEED")
}

/// `FAULT_SECONDS`: how long a storm lasts; nothing: as long as an ordinary test run can bear.
///
/// # Errors
///
/// When it is no number.
pub fn fault_seconds() -> Result<Option<u64>> {
    number("FAULT_SECONDS")
}

fn number(name: &str) -> Result<Option<u64>> {
    let Some(text) = variable(name) else {
        return Ok(None);
    };
    let number = text.parse();
    number
        .map(Some)
        .with_context(|| format!("{name} is no number: {text}"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the module that reads the environment"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
