//! The first admin key reaches somebody, whatever happens to the start that drew it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;
use nexus_tests::account::BOUND;
use nexus_tests::{Hub, Result, programs, settings};

use super::keys;

/// `nexus` with nobody to talk to while there is a file `full` in its folder.
fn muted(folder: &Path) -> Result<PathBuf> {
    let nexus = settings::nexus()?.display().to_string();
    let full = folder.join("full").display().to_string();
    let script = format!(
        "#!/bin/sh\n[ -e '{full}' ] && exec '{nexus}' \"$@\" > /dev/full\nexec '{nexus}' \"$@\"\n"
    );
    let program = folder.join("muted");
    std::fs::write(&program, script)?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700))?;
    Ok(program)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_key_that_nobody_was_told_is_told_at_the_next_start() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("full"), "")?;
    let hub = Hub::standalone().program(muted(folder.path())?);
    let mut hub = hub.env("NEXUS_ADMIN_KEY", "").start().await?;
    let kept = hub.data_dir().join("first-admin-key");
    ensure!(hub.stdout().is_empty(), "{}", hub.stdout());
    ensure!(
        hub.stderr().contains(&kept.display().to_string()),
        "it does not say where the key is: {}",
        hub.stderr()
    );
    let mode = std::fs::metadata(&kept)?.permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // As killed between the event and the banner: the key is in the log, and nobody has it.
    hub.kill().await?;

    std::fs::remove_file(folder.path().join("full"))?;
    hub.start_again().await?;
    let printed = hub.stdout();
    let mut told = keys(&printed);
    told.dedup();
    let [key] = told[..] else {
        anyhow::bail!("one key must be printed: {printed}");
    };
    hub.anonymous()?
        .with_key(key)?
        .get("/providers")
        .await?
        .expect(200)?;
    ensure!(!kept.exists(), "it was told and is still there");

    ensure!(hub.stop().await?.success());
    hub.start_again().await?;
    let again = hub.stdout().replace(&printed, "");
    ensure!(keys(&again).is_empty(), "it is told once: {again}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_secret_reached_nobody_is_named() -> Result<()> {
    let hub = Hub::standalone().start().await?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("full"), "")?;
    let mut create = Command::new(muted(folder.path())?);
    settings::clear_environment(&mut create);
    create.env("NEXUS_DATA_DIR", hub.data_dir());
    create.args(["keys", "create", "ada"]);
    let outcome = programs::run(&create, BOUND).await?;
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    let way_out = "nexus keys revoke ada";
    ensure!(outcome.stderr.contains(way_out), "{}", outcome.stderr);
    Ok(())
}
