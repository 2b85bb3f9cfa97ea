//! The wall clock of the gateways jumps, forwards and back, while traffic runs and they die.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nexus_tests::account::BOUND;
use nexus_tests::seed::Seed;
use nexus_tests::{Broker, programs};
use tempfile::TempDir;

use crate::deployment::{Deployment, Plan};

/// Jumps in seconds: an hour, half a day, more than a month, both ways; and no jump at the end.
const JUMPS: [i64; 7] = [3_600, -3_600, 43_200, -43_200, 4_000_000, -4_000_000, 0];

/// Builds the library that moves the clock; the compiler is there, for the hub needs it as well.
async fn shim(folder: &Path) -> Result<PathBuf> {
    let library = folder.join("clock_shim.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/fault/clock_shim.c");
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-O1", "-o"]);
    command.arg(&library).arg(source).arg("-ldl");
    let built = programs::run(&command, BOUND).await?;
    built.succeeded().context("cc did not build the shim")?;
    Ok(library)
}

/// Whatever a gateway's clock says: each request is recorded and ends once, and the sums are right.
#[tokio::test(flavor = "multi_thread")]
async fn the_clock_jumps_under_traffic() -> Result<()> {
    if !cfg!(target_os = "linux") {
        println!("NOT RUN: only Linux preloads a library in this way");
        return Ok(());
    }
    let mut seed = Seed::of("clock")?;
    let folder = TempDir::new()?;
    let offset = folder.path().join("offset");
    std::fs::write(&offset, "0")?;
    let library = shim(folder.path()).await?;
    let broker = Broker::start().await?;
    let plan = Plan::direct(&broker.url()).await?;
    let plan = plan
        .set("LD_PRELOAD", &library.display().to_string())
        .set("NEXUS_TEST_CLOCK", &offset.display().to_string());
    let mut deployment = Deployment::of(plan).await?;
    let load = deployment.load(&mut seed)?;
    load.goes_on(10).await?;
    for (round, jump) in JUMPS.into_iter().enumerate() {
        std::fs::write(&offset, jump.to_string())?;
        load.goes_on(15).await?;
        // One of them dies with its clock ahead or behind, and comes back with another one.
        let victim = round % 2;
        load.door(victim, None);
        let gateway = deployment.gateways.get_mut(victim).context("a gateway")?;
        gateway.kill().await?;
        let next = JUMPS.get(seed.index(JUMPS.len())).copied().unwrap_or(0);
        std::fs::write(&offset, next.to_string())?;
        gateway.start_again().await?;
        load.door(victim, Some(gateway.client()?));
    }
    std::fs::write(&offset, "0")?;
    load.goes_on(15).await?;
    let memory = load.stop().await;
    let figures = deployment.settle_and_check(&memory).await?;
    ensure!(
        figures.gateway_lost > 0,
        "nobody died in the middle of anything"
    );
    // The clocks did jump: requests were drawn in the far future and in the past.
    let span = "SELECT max(drawn_ms) - min(drawn_ms) FROM exchanges";
    let span = deployment.projector.read_model().number(span).await?;
    let expected = i64::try_from(Duration::from_secs(7_000_000).as_millis())?;
    ensure!(span > expected, "the clocks jumped by {span} ms only");
    Ok(())
}
