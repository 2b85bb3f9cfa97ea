//! The gateway that sweeps stands still, with the lease in its hand and streams of its own.

use anyhow::ensure;
use nexus_tests::account::{Account, assert_verified, shipped};
use nexus_tests::{Gate, Result};

use super::{Events, LOST_BOUND, Open, Scene, ids, seldom, sweepers, the_sweeper};

pub(super) async fn a_sweeper_that_stands_still() -> Result<()> {
    let gates = [("frozen", Gate::closed()), ("dead", Gate::closed())];
    let [(_, gate), _] = &gates;
    let scene = Scene::set(&gates).await?;
    let mut frozen = scene.gateway().start().await?;
    the_sweeper(&[&frozen]).await?;
    let (mut dies, other) = tokio::try_join!(scene.gateway().start(), scene.gateway().start())?;
    scene.serve(&[&frozen, &other, &dies]).await?;
    let mut open = Open::all(&frozen.client()?, "frozen", &[2, 5]).await?;
    let dead = Open::all(&dies.client()?, "dead", &[1, 3]).await?;
    shipped(&frozen).await?;
    shipped(&dies).await?;
    scene.projected().await?;

    // It would mark the dead one's requests, if it knew only what it knew before.
    dies.kill().await?;
    frozen.pause()?;
    let sweeper = the_sweeper(&[&other]).await;
    let lost = [ids(&open), ids(&dead)].concat();
    let presumed = scene
        .until_log("the silent are presumed lost", |events| {
            events.assert_presumed_lost(&lost)
        })
        .await;
    frozen.resume()?;
    sweeper?;
    let presumed = presumed?;
    let closed = lost.iter().filter(|id| !presumed.terminals(id).is_empty());
    ensure!(closed.count() == 0, "somebody closed what is another's");

    // It notices that it is another's turn, and goes on serving.
    gate.open();
    for open in &mut open {
        open.ends_well().await?;
    }
    seldom("the other one goes on sweeping", LOST_BOUND, async || {
        let found = sweepers(&[&frozen, &other]).await?;
        ensure!(found == [1], "{found:?} sweep");
        Ok(())
    })
    .await?;
    dies.start_again().await?;
    for gateway in [&frozen, &other, &dies] {
        shipped(gateway).await?;
    }
    let account = Account::take(&scene.log).await?;
    account.assert_one_end_each()?;
    for open in &open {
        let terminal = account.terminal(&open.request_id)?;
        ensure!(terminal.name() == "completed", "{}", terminal.json);
    }
    for open in &dead {
        account.assert_gateway_lost(&open.request_id)?;
    }
    Events(account.exchanges).assert_presumed_lost(&lost)?;
    scene.projected().await?;
    assert_verified(&scene.projector).await
}
