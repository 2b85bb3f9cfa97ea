//! Finding a nats-server that will do.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

/// The first version whose atomic batches share a sync, on which the outbox rests.
const OLDEST: (u32, u32) = (2, 15);

const NAME: &str = "nats-server";

/// The binary to run: the configured one, else the first of a suitable version beside the
/// executable, in `target/tools/bin`, or on `PATH`.
///
/// # Errors
/// The configured one does not run or is too old; or none was found, with what was looked at.
pub fn find(configured: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = configured.filter(|path| !path.as_os_str().is_empty()) {
        let version = version(path)?;
        if version < OLDEST {
            bail!("{}: {}", path.display(), too_old(version));
        }
        return Ok(path.to_path_buf());
    }
    let mut rejected = Vec::new();
    for path in candidates() {
        match version(&path) {
            Ok(version) if version >= OLDEST => return Ok(path),
            Ok(version) => rejected.push(format!("{}: {}", path.display(), too_old(version))),
            Err(error) => rejected.push(format!("{error:#}")),
        }
    }
    if rejected.is_empty() {
        bail!(
            "no nats-server found beside the executable, in target/tools/bin or on PATH: run `make tools`, name one with NEXUS_NATS_SERVER, or use a running one with NEXUS_NATS_URL"
        );
    }
    bail!("no suitable nats-server found: {}", rejected.join("; "))
}

fn too_old((major, minor): (u32, u32)) -> String {
    format!(
        "nats-server {major}.{minor} is too old: 2.15 or newer is required, because older ones do not share syncs between the events of a batch"
    )
}

/// Existing files, in the order in which they are preferred.
fn candidates() -> Vec<PathBuf> {
    let executable = std::env::current_exe().ok();
    let beside = executable.as_deref().and_then(Path::parent);
    let near = beside.into_iter().flat_map(|dir| {
        // target/release/nexus, and target/debug/deps/<test>: the tools are in target/tools/bin.
        [".", "../tools/bin", "../../tools/bin"].map(|there| dir.join(there))
    });
    let here = std::iter::once(PathBuf::from("target/tools/bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<PathBuf> = std::env::split_paths(&path).collect();
    near.chain(here)
        .chain(on_path)
        .map(|dir| dir.join(NAME))
        .filter(|file| file.is_file())
        .collect()
}

/// Major and minor version of a nats-server.
fn version(path: &Path) -> anyhow::Result<(u32, u32)> {
    let output = Command::new(path)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {} --version", path.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_version(&text).with_context(|| {
        format!(
            "{} does not say its version",
            path.file_name().unwrap_or(OsStr::new(NAME)).display()
        )
    })
}

/// Reads `nats-server: v2.15.1`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (_, numbers) = text.trim().rsplit_once('v')?;
    let mut parts = numbers.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn fake(dir: &Path, says: &str) -> PathBuf {
        let path = dir.join(NAME);
        std::fs::write(&path, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn an_old_server_is_refused_with_a_sentence() {
        let dir = tempfile::tempdir().unwrap();
        let old = fake(dir.path(), "nats-server: v2.14.9");
        let refusal = find(Some(&old)).unwrap_err().to_string();
        assert!(
            refusal.contains("2.14 is too old: 2.15 or newer"),
            "{refusal}"
        );
        let odd = fake(dir.path(), "hello");
        assert!(find(Some(&odd)).is_err());
        assert!(find(Some(&dir.path().join("absent"))).is_err());
    }

    #[test]
    fn the_servers_version_is_read() {
        assert_eq!(parse_version("nats-server: v2.15.1\n"), Some((2, 15)));
        assert_eq!(parse_version("nats-server: v3.0.0-beta.1"), Some((3, 0)));
        assert_eq!(parse_version("nats-server"), None);
    }
}
