//! The projector stands still: the sweeper's index is old, and the log must tell it what is new.

use anyhow::{Context, ensure};
use nexus_tests::account::{Account, assert_verified, shipped};
use nexus_tests::log::Stream;
use nexus_tests::{Gate, Result};

use super::{LOST_BOUND, Open, Scene, ids, seldom, the_sweeper};

pub(super) async fn a_sweeper_with_an_old_index() -> Result<()> {
    let gates = ["back", "first", "second"].map(|name| (name, Gate::closed()));
    let mut scene = Scene::set(&gates).await?;
    let sweeps = scene.gateway().start().await?;
    the_sweeper(&[&sweeps]).await?;
    let (mut back, mut first, mut second) = tokio::try_join!(
        scene.gateway().start(),
        scene.gateway().start(),
        scene.gateway().start(),
    )?;
    scene.serve(&[&sweeps, &back, &first, &second]).await?;
    let closed = Open::all(&back.client()?, "back", &[2, 4]).await?;
    let dead = Open::all(&first.client()?, "first", &[1, 3]).await?;
    let dies_later = Open::all(&second.client()?, "second", &[2]).await?;
    for gateway in [&back, &first, &second] {
        shipped(gateway).await?;
    }
    scene.projected().await?;
    scene.projector.pause()?;

    back.kill().await?;
    first.kill().await?;
    back.start_again().await?;
    shipped(&back).await?;
    // So that the sweeper comes by the first one's requests more than once, three heartbeats later.
    heartbeats(&scene, 3).await?;
    second.kill().await?;
    let lost = [ids(&dead), ids(&dies_later)].concat();
    scene
        .until_log("the dead are presumed lost", |events| {
            for open in &closed {
                ensure!(events.terminals(&open.request_id).len() == 1, "not closed");
            }
            // Those that came back and closed theirs are not, nor is anybody twice.
            events.assert_presumed_lost(&lost)
        })
        .await?;

    scene.projector.resume()?;
    let (first, second) = tokio::join!(first.start_again(), second.start_again());
    first.and(second)?;
    scene
        .until_log("all are closed", |events| {
            for id in &lost {
                ensure!(events.terminals(id).len() == 1, "{id} is open");
            }
            events.assert_presumed_lost(&lost)
        })
        .await?;
    Account::take(&scene.log).await?.assert_one_end_each()?;
    scene.projected().await?;
    assert_verified(&scene.projector).await
}

/// Waits until an idle outbox has renewed its cursor so many times.
async fn heartbeats(scene: &Scene, count: usize) -> Result<()> {
    let newest = async || {
        let cursors = scene.log.cursors(Stream::Audit).await?;
        let cursor = cursors.into_iter().map(|(_, payload)| payload).max();
        cursor.context("no cursor")
    };
    for _ in 0..count {
        let before = newest().await?;
        seldom("a cursor is renewed", LOST_BOUND, async || {
            ensure!(newest().await? != before, "it stands still");
            Ok(())
        })
        .await?;
    }
    Ok(())
}
