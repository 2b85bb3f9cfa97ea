//! Every command and every program of the README is run; the Chinese one has the same.
//!
//! Fenced blocks are told apart by their info string: `sh` is run by bash, all of them one after
//! the other in one shell; `python` and `js` are run with the pinned clients; `sh docker` needs a
//! Docker engine and is only looked at; blocks without a name are pictures.

mod clients;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use nexus_tests::programs::{self, Outcome};
use nexus_tests::{Hub, Result, settings};
use serde_json::Value;

use nexus_tests::account::{BOUND, EQUAL};

const README: &str = "README.md";
const README_IN_CHINESE: &str = "README.zh-CN.md";

/// A fenced block.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Block {
    info: String,
    text: String,
}

fn read(file: &str) -> Result<String> {
    let path = settings::workspace().join(file);
    std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
}

fn blocks(file: &str) -> Result<Vec<Block>> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for line in read(file)?.lines() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(info), None) => {
                open = Some(Block {
                    info: info.to_owned(),
                    text: String::new(),
                });
            }
            (Some(_end), Some(block)) => found.push(block),
            (None, Some(mut block)) => {
                block.text.push_str(line);
                block.text.push('\n');
                open = Some(block);
            }
            (None, None) => {}
        }
    }
    ensure!(open.is_none(), "{file} has a block without an end");
    Ok(found)
}

fn of_kind(info: &str) -> Result<Vec<String>> {
    let blocks = blocks(README)?.into_iter();
    Ok(blocks
        .filter(|block| block.info == info)
        .map(|block| block.text)
        .collect())
}

#[test]
fn both_languages_have_the_same_commands() -> Result<()> {
    let english = blocks(README)?;
    ensure!(english.len() > 10, "the blocks were not found: {english:?}");
    assert_eq!(blocks(README_IN_CHINESE)?, english);
    for block in &english {
        let known = ["", "sh", "python", "js", "sh docker"];
        ensure!(
            known.contains(&block.info.as_str()),
            "nobody runs {block:?}"
        );
    }
    Ok(())
}

/// The variables of a settings table with their defaults, empty for none.
fn settings_table(file: &str) -> Result<BTreeMap<String, String>> {
    let text = read(file)?;
    let rows = text.lines().filter(|line| line.starts_with("| `NEXUS_"));
    let rows = rows.filter_map(|row| {
        let mut cells = row.split('|').skip(1).map(str::trim);
        let name = cells.next()?.trim_matches('`');
        let default = cells.next()?.trim_matches('`').trim_matches('–');
        Some((name.to_owned(), default.to_owned()))
    });
    // The table of the streams has names that look alike; there the subjects come second.
    Ok(rows
        .filter(|(_, default)| !default.starts_with("nexus."))
        .collect())
}

/// The variables that `nexus standalone --help` documents, with their defaults.
async fn settings_of_help() -> Result<BTreeMap<String, String>> {
    let mut command = Command::new(settings::nexus()?);
    settings::clear_environment(&mut command);
    command.args(["standalone", "--help"]);
    let outcome = programs::run(&command, BOUND).await?;
    let help = outcome.succeeded()?.stdout.clone();
    let mut found = BTreeMap::new();
    let mut name = None;
    for line in help.lines().map(str::trim) {
        let inside = |prefix: &str| Some(line.strip_prefix(prefix)?.strip_suffix(']')?.to_owned());
        if let Some(variable) = inside("[env: ") {
            let variable = variable.trim_end_matches('=').to_owned();
            found.insert(variable.clone(), String::new());
            name = Some(variable);
        } else if let Some(default) = inside("[default: ")
            && let Some(name) = name.take()
        {
            found.insert(name, default);
        }
    }
    Ok(found)
}

#[tokio::test]
async fn the_table_of_settings_is_what_help_says() -> Result<()> {
    let help = settings_of_help().await?;
    ensure!(help.len() > 20, "settings were not found: {help:?}");
    assert_eq!(settings_table(README)?, help);
    assert_eq!(settings_table(README_IN_CHINESE)?, help);
    Ok(())
}

#[test]
fn the_links_lead_somewhere() -> Result<()> {
    for file in [README, README_IN_CHINESE] {
        let text = read(file)?;
        let links = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        let local = links.filter(|link| !link.contains("://"));
        let missing: Vec<&str> = local
            .filter(|link| !settings::workspace().join(link).exists())
            .collect();
        ensure!(missing.is_empty(), "{file} links to {missing:?}");
    }
    Ok(())
}

#[test]
fn the_compose_commands_name_files_that_exist() -> Result<()> {
    let commands = of_kind("sh docker")?.concat();
    let files: Vec<&str> = commands
        .split_whitespace()
        .filter(|word| word.starts_with("compose/docker-compose"))
        .collect();
    ensure!(!files.is_empty(), "{commands}");
    for file in files {
        ensure!(settings::workspace().join(file).is_file(), "no {file}");
    }
    Ok(())
}

/// What `make` would do for a target, without doing it.
async fn dry_run(target: &str) -> Result<String> {
    let mut make = Command::new(settings::on_path("make")?);
    make.args(["--no-print-directory", "--dry-run", target]);
    make.current_dir(settings::workspace());
    let outcome = programs::run(&make, BOUND).await?;
    Ok(outcome.succeeded()?.stdout.clone())
}

/// A program that does what `make run` does after the build: the last line of its recipe, run where the links lead to
/// the programs of the tests instead of what the build would have made. The settings are those of the line and the
/// defaults, but for the ports.
async fn make_run(folder: &Path) -> Result<PathBuf> {
    let recipe = dry_run("run").await?;
    let start = recipe.trim_end().lines().next_back();
    let start = start.context("`make run` has no recipe")?;
    let link = |what: &str, path: PathBuf| format!("ln -sf '{}' '{what}'\n", path.display());
    let script = [
        "#!/bin/sh -eu\nunset NEXUS_DATA_DIR NEXUS_NATS_SERVER\n".to_owned(),
        "mkdir -p target/release target/tools/bin\n".to_owned(),
        link("target/release/nexus", settings::nexus()?),
        link("target/tools/bin/nats-server", settings::nats_server()?),
        format!("{start}\n"),
    ];
    let program = folder.join("make-run");
    std::fs::write(&program, script.concat())?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700))?;
    Ok(program)
}

/// A hub as `make run` starts it, and a folder that looks like the workspace to the commands.
struct Place {
    hub: Hub,
    key: String,
    folder: PathBuf,
}

impl Place {
    async fn start() -> Result<Self> {
        let programs = tempfile::tempdir()?;
        let hub = Hub::standalone()
            .program(make_run(programs.path()).await?)
            .env("NEXUS_ADMIN_KEY", "");
        let hub = hub.start().await?;
        // Commands without a data folder of their own take `./data`.
        let folder = hub.data_dir().parent().context("no folder")?.to_path_buf();
        let printed = hub.stdout();
        let key = printed
            .split_whitespace()
            .find(|word| word.starts_with("nx-"));
        let key = key.context("no key was printed")?.to_owned();
        Ok(Self { hub, key, folder })
    }

    /// A text of the README with the addresses and the key of this hub.
    fn here(&self, text: &str) -> Result<String> {
        Ok(text
            .replace("http://127.0.0.1:8001", &self.hub.url()?)
            .replace("http://127.0.0.1:9464", &self.hub.metrics_url())
            .replace("nx-the-key-that-was-printed", &self.key))
    }

    async fn bash(&self, script: &str) -> Result<Outcome> {
        let mut bash = Command::new(settings::on_path("bash")?);
        settings::clear_environment(&mut bash);
        bash.args(["-euo", "pipefail", "-c", script]);
        bash.current_dir(&self.folder);
        programs::run(&bash, BOUND).await
    }

    /// A program of the README as a file.
    fn program(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        std::fs::write(&path, self.here(text)?)?;
        Ok(path)
    }
}

/// The line that stands between the outputs of two blocks.
const BETWEEN: &str = "---8<--- between two blocks ---8<---";

/// The output of the only block whose commands contain `words`.
fn output_of<'a>(ran: &'a [(String, String)], words: &str) -> Result<&'a str> {
    let found: Vec<_> = ran
        .iter()
        .filter(|(text, _)| text.contains(words))
        .collect();
    match found[..] {
        [(_text, output)] => Ok(output),
        _ => anyhow::bail!("{} blocks have {words:?}", found.len()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_works_as_it_stands() -> Result<()> {
    ensure!(dry_run("test").await?.contains(".ci/test"));
    let build = "build --release --locked --package nexus-gateway --bin nexus";
    ensure!(dry_run("build").await?.contains(build));
    let place = Place::start().await?;
    let mut commands = of_kind("sh")?;
    // The hub was started by what `make run` does after the build.
    let before = commands.len();
    commands.retain(|text| text != "make run\n");
    assert_eq!(
        commands.len(),
        before - 1,
        "`make run` is a block of its own"
    );

    let script = place.here(&commands.join(&format!("echo; echo '{BETWEEN}'\n")))?;
    let script = format!("{script}\necho \"$NATS_URL\" > nats_url\n");
    let outcome = place.bash(&script).await?;
    let outputs = outcome.succeeded()?.stdout.split(BETWEEN);
    let ran: Vec<(String, String)> = commands
        .into_iter()
        .zip(outputs.map(str::to_owned))
        .collect();
    assert!(ran.len() > 6, "{ran:?}");

    let answer: Value = serde_json::from_str(output_of(&ran, "/v1/chat/completions")?.trim())?;
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello, hub");
    ensure!(output_of(&ran, "sk-your-key")?.contains("\"model_name\""));
    ensure!(output_of(&ran, "\"name\": \"smart\"")?.contains("\"targets\""));
    ensure!(
        !outcome.stdout.contains("sk-your-key"),
        "a provider's key came back"
    );
    ensure!(output_of(&ran, "\"name\": \"ada\"")?.contains("nx-"));
    ensure!(output_of(&ran, "/stats ")?.contains("total_conversations"));
    let events = output_of(&ran, "events tail")?;
    for kind in [
        "received",
        "completed",
        "provider_changed",
        "management_call",
    ] {
        ensure!(events.contains(kind), "no {kind} in {events}");
    }
    let checks = output_of(&ran, "nexus verify")?;
    ensure!(checks.contains(EQUAL), "{checks}");
    let backups = std::fs::read_dir(place.hub.data_dir().join("backups"))?;
    ensure!(backups.count() > 0, "there is no backup: {checks}");
    let nats_url = std::fs::read_to_string(place.folder.join("nats_url"))?;
    assert_eq!(nats_url.trim(), place.hub.nats_url()?);
    Ok(())
}
