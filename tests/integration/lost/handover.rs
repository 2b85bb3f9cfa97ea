//! The sweeper dies in the middle of its work, after it has closed requests and before it has
//! counted their tokens. Another one takes over, and does what is left.

use anyhow::ensure;
use nexus_tests::account::{Account, answer_text, assert_verified, shipped};
use nexus_tests::{Gate, Result};

use super::{Events, Open, Scene, ids, the_sweeper};

pub(super) async fn a_sweeper_that_dies_at_work() -> Result<()> {
    let gates = [("dead", Gate::closed())];
    let scene = Scene::set(&gates).await?;
    let gateway = || scene.gateway().env("NEXUS_LOST_SETTLE_SECONDS", 1);
    // What it closes is stored, and what it counts is not.
    let held = scene.held().await?;
    let mut first = gateway().env("NEXUS_NATS_URL", held.url()).start().await?;
    the_sweeper(&[&first]).await?;
    let (second, mut dies) = tokio::try_join!(gateway().start(), gateway().start())?;
    scene.serve(&[&first, &second, &dies]).await?;
    let dead = Open::all(&dies.client()?, "dead", &[1, 3, 5]).await?;
    let lost = ids(&dead);
    shipped(&dies).await?;
    scene.projected().await?;
    dies.kill().await?;

    scene
        .until_log("they are presumed lost", |events| {
            events.assert_presumed_lost(&lost)
        })
        .await?;
    let closed = scene.until_log("they are closed", |events| {
        let open = lost.iter().filter(|id| events.terminals(id).is_empty());
        let open = open.count();
        ensure!(open == 0, "{open} are open");
        Ok(())
    });
    let closed = closed.await?;
    first.kill().await?;
    held.release();
    ensure!(counts(&closed, &lost) == [0; 3], "a count came through");

    let events = scene
        .until_log("they are counted", |events| {
            let counts = counts(events, &lost);
            ensure!(counts == [1; 3], "{counts:?}");
            Ok(())
        })
        .await?;
    for open in &dead {
        let ended = events.terminals(&open.request_id);
        let counted = events.of(&open.request_id, "tokens_counted");
        ensure!(
            ended[0].outbox() != counted[0].outbox(),
            "one gateway did both"
        );
    }
    // Whoever comes back finds nothing to do; the sweeper may have a count of its own to tell.
    let (dies_again, first_again) = tokio::join!(dies.start_again(), first.start_again());
    dies_again.and(first_again)?;
    for gateway in [&first, &second, &dies] {
        shipped(gateway).await?;
    }
    let account = Account::take(&scene.log).await?;
    account.assert_one_end_each()?;
    for open in &dead {
        account.assert_gateway_lost(&open.request_id)?;
        let terminal = account.terminal(&open.request_id)?;
        ensure!(answer_text(terminal) == open.partial(), "{}", terminal.json);
    }
    let events = Events(account.exchanges);
    events.assert_presumed_lost(&lost)?;
    let told = counts(&events, &lost);
    ensure!(told.iter().all(|told| (1..=2).contains(told)), "{told:?}");
    let rows = "SELECT count(*) FROM chat_stats WHERE tokens IS NULL OR tokens = 0";
    scene.projected().await?;
    let uncounted = scene.cluster.read_model().number(rows).await?;
    ensure!(uncounted == 0, "{uncounted} are not counted");
    assert_verified(&scene.projector).await
}

fn counts(events: &Events, requests: &[String]) -> Vec<usize> {
    let counts = |id: &String| events.of(id, "tokens_counted").len();
    requests.iter().map(counts).collect()
}
