//! The images: each is built from files that exist, with the versions that the rest of the
//! repository has.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use nexus_tests::settings;

use super::stack::{Stack, setting_names, text};

#[test]
fn images_are_built_from_files_that_exist() -> Result<()> {
    let root = settings::workspace();
    for (name, service) in Stack::read()?.services {
        let Some(build) = service.build else { continue };
        let context = root.join("compose").join(&build.context);
        let dockerfile = context.join(&build.dockerfile);
        let copies = copied(&dockerfile)?;
        ensure!(!copies.is_empty(), "the image of {name} copies nothing");
        for path in copies {
            let source = context.join(&path);
            ensure!(
                source.exists(),
                "{} copies {path}, which is not there",
                dockerfile.display()
            );
        }
    }
    Ok(())
}

#[test]
fn docker_is_sent_everything_that_the_image_copies_and_no_more() -> Result<()> {
    let ignore = text(".dockerignore")?;
    let rules: Vec<&str> = ignore
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    assert_eq!(
        rules.first(),
        Some(&"*"),
        "nothing is sent unless it is named"
    );
    let sent: BTreeSet<String> = rules
        .iter()
        .filter_map(|rule| rule.strip_prefix('!'))
        .map(str::to_owned)
        .collect();
    let copies = copied(&settings::workspace().join("compose/Dockerfile"))?;
    assert_eq!(sent, copies.into_iter().collect());
    Ok(())
}

#[test]
fn the_workspace_is_whole_with_what_the_image_copies() -> Result<()> {
    let root = settings::workspace();
    let image = tempfile::tempdir()?;
    for path in copied(&root.join("compose/Dockerfile"))? {
        copy(&root.join(&path), &image.path().join(&path))?;
    }
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--locked",
            "--format-version",
            "1",
        ])
        .current_dir(image.path())
        .output()
        .context("failed to run cargo")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "cargo refuses the copied workspace: {complaint}"
    );
    Ok(())
}

#[test]
fn the_image_is_built_by_our_toolchain() -> Result<()> {
    let toolchain = text("rust-toolchain.toml")?;
    let channel = toolchain
        .lines()
        .find_map(|line| line.strip_prefix("channel = "))
        .context("rust-toolchain.toml names no channel")?
        .trim_matches('"');
    let dockerfile = text("compose/Dockerfile")?;
    let base = dockerfile
        .lines()
        .find_map(|line| line.strip_prefix("FROM rust:"));
    let version = base.and_then(|tag| tag.split('-').next());
    assert_eq!(version, Some(channel));
    Ok(())
}

#[test]
fn no_image_runs_as_root_or_follows_a_moving_tag() -> Result<()> {
    for path in ["compose/Dockerfile", "compose/nats/Dockerfile"] {
        let dockerfile = text(path)?;
        let user = dockerfile
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("USER "));
        assert!(
            user.is_some_and(|user| user != "root"),
            "{path} runs as {user:?}"
        );
        let checked = dockerfile
            .lines()
            .any(|line| line.starts_with("HEALTHCHECK "));
        assert!(checked, "{path} has no health check");
        let bases = dockerfile
            .lines()
            .filter_map(|line| line.strip_prefix("FROM "));
        for base in bases {
            let image = base.split(' ').next().unwrap_or(base);
            let tag = image.split_once(':').map(|(_name, tag)| tag);
            assert!(
                tag.is_some_and(|tag| tag != "latest"),
                "{path} is built from {image}"
            );
        }
    }
    Ok(())
}

/// The names of the `NEXUS_…` variables that an image sets.
pub(super) fn environment(dockerfile: &str) -> Result<Vec<String>> {
    let instructions = instructions(&text(dockerfile)?);
    let set = instructions
        .iter()
        .filter_map(|instruction| instruction.strip_prefix("ENV "));
    Ok(set.flat_map(setting_names).collect())
}

/// What the image takes from its build context, as the `COPY` instructions name it.
fn copied(dockerfile: &Path) -> Result<Vec<String>> {
    let content = fs::read_to_string(dockerfile)
        .with_context(|| format!("failed to read {}", dockerfile.display()))?;
    let mut sources = Vec::new();
    for instruction in instructions(&content) {
        let Some(arguments) = instruction.strip_prefix("COPY ") else {
            continue;
        };
        if arguments.starts_with("--from=") {
            continue;
        }
        let mut words: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
        words.pop().context("COPY without a destination")?;
        if words.iter().any(|word| word.contains('*')) {
            bail!("the tests do not read patterns: {instruction}");
        }
        sources.append(&mut words);
    }
    Ok(sources)
}

/// One string for each instruction, its continued lines joined.
fn instructions(dockerfile: &str) -> Vec<String> {
    let lines = dockerfile
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let joined = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    joined.lines().map(str::to_owned).collect()
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        for entry in fs::read_dir(from)? {
            let entry: PathBuf = entry?.path();
            let name = entry.file_name().context("a folder without a name")?;
            // What .dockerignore keeps out, and what would take long.
            if name != "node_modules" {
                copy(&entry, &to.join(name))?;
            }
        }
        return Ok(());
    }
    fs::create_dir_all(to.parent().context("a file without a folder")?)?;
    fs::copy(from, to).with_context(|| format!("failed to copy {}", from.display()))?;
    Ok(())
}
