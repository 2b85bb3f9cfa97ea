//! Two gateways stay away for longer than anybody waits: one lives and is cut off, one is dead. The
//! time is shortened; otherwise it is a day.

use anyhow::ensure;
use nexus_tests::account::{Account, answer_text, assert_verified, shipped};
use nexus_tests::{Chaos, Gate, Hub, Result};
use serde_json::Value;

use super::{Events, Open, Scene, counts, ids, the_sweeper, total};

pub(super) async fn who_is_given_up() -> Result<()> {
    let gates = ["cut", "dead"].map(|name| (name, Gate::closed()));
    let [(_, cut), _] = &gates;
    let scene = Scene::set(&gates).await?;
    let (wire, held) = (
        Chaos::start(&scene.broker.host_port())?,
        scene.held().await?,
    );
    let gateway = || scene.gateway().env("NEXUS_LOST_SETTLE_SECONDS", 1);
    let sweeps = gateway().start().await?;
    the_sweeper(&[&sweeps]).await?;
    let through_wire = format!("nats://{}", wire.url_host_port());
    let (is_cut, mut dies) = tokio::try_join!(
        gateway().env("NEXUS_NATS_URL", through_wire).start(),
        gateway().env("NEXUS_NATS_URL", held.url()).start(),
    )?;
    scene.serve(&[&sweeps, &is_cut, &dies]).await?;

    let mut lives = Open::all(&is_cut.client()?, "cut", &[2, 5]).await?;
    let dead = Open::all(&dies.client()?, "dead", &[0, 3, 7]).await?;
    shipped(&is_cut).await?;
    wire.refuse().await?;
    wire.cut();
    let uncounted = counts::die_before_telling_counts(&mut dies, &held, &scene).await?;

    let given_up = [ids(&lives), ids(&dead)].concat();
    let events = scene
        .until_log("the given up are settled and counted", |events| {
            settled(events, &given_up, &uncounted, 1)
        })
        .await?;
    events.assert_presumed_lost(&given_up)?;
    for open in lives.iter().chain(&dead) {
        let [end] = events.terminals(&open.request_id)[..] else {
            anyhow::bail!("{} has not one end", open.tag)
        };
        let reason = end.data().pointer("/nexus.failure/reason");
        ensure!(reason == Some(&Value::from("gateway_lost")), "{}", end.json);
        ensure!(answer_text(end) == open.partial(), "{}", end.json);
    }
    let ended = total(&[&sweeps], "nexus_lost_settled_total").await?;
    ensure!(ended == given_up.len(), "{ended} were settled");

    // What they have to say for themselves comes too late, and is kept.
    cut.open();
    for open in &mut lives {
        open.ends_well().await?;
    }
    wire.accept()?;
    dies.start_again().await?;
    for gateway in [&sweeps, &is_cut, &dies] {
        shipped(gateway).await?;
    }
    come_too_late(&scene, &ids(&lives)).await?;
    let account = Account::take(&scene.log).await?;
    for open in &dead {
        account.assert_gateway_lost(&open.request_id)?;
    }
    let events = Events(account.exchanges);
    // It may have counted its answers itself before it died.
    settled(&events, &ids(&dead), &uncounted, 2)?;
    scene.projected().await?;
    is_counted_once(&sweeps, &scene, given_up.len(), uncounted.len()).await?;
    assert_verified(&scene.projector).await
}

/// Each of them failed once and is counted once; those that had ended are counted, first by
/// another gateway, and at most so often.
fn settled(
    events: &Events,
    given_up: &[String],
    uncounted: &[String],
    counts_max: usize,
) -> Result<()> {
    for request_id in given_up {
        let (ends, counts) = (
            events.terminals(request_id),
            events.of(request_id, "tokens_counted"),
        );
        ensure!(
            ends.len() == 1 && ends[0].name() == "failed",
            "{request_id} has the ends {ends:?}"
        );
        let counted_at_once = !ends[0].data()["nexus.usage.source"].is_null();
        ensure!(
            counts.len() == usize::from(!counted_at_once),
            "{request_id} has {} counts",
            counts.len()
        );
    }
    for request_id in uncounted {
        let (ends, counts) = (
            events.terminals(request_id),
            events.of(request_id, "tokens_counted"),
        );
        ensure!(
            ends.len() == 1
                && ends[0].name() == "completed"
                && (1..=counts_max).contains(&counts.len())
                && counts[0].outbox() != ends[0].outbox(),
            "{request_id} has the ends {ends:?} and the counts {counts:?}"
        );
    }
    Ok(())
}

/// The living one's own word is the second one of each request.
async fn come_too_late(scene: &Scene, requests: &[String]) -> Result<()> {
    scene
        .until_log("the late words are recorded", |events| {
            for request_id in requests {
                let names: Vec<&str> = events
                    .terminals(request_id)
                    .iter()
                    .map(|end| end.name())
                    .collect();
                ensure!(names == ["failed", "completed"], "{names:?}");
            }
            Ok(())
        })
        .await
        .map(drop)
}

/// Each request counts once: as failed where it was settled for, whatever came later.
async fn is_counted_once(hub: &Hub, scene: &Scene, failed: usize, completed: usize) -> Result<()> {
    let stats = hub.client()?.get("/stats").await?.expect(200)?.json;
    ensure!(
        stats["requests"] == failed + completed && stats["errors"] == failed,
        "{stats}"
    );
    let read_model = scene.cluster.read_model();
    for (sql, expected) in [
        ("SELECT sum(later_terminals) FROM exchanges", 2),
        (
            "SELECT count(*) FROM exchanges WHERE later_terminals > 0 AND state = 'failed' \
             AND failure_reason = 'gateway_lost'",
            2,
        ),
        ("SELECT count(*) FROM chat_stats WHERE tokens IS NULL", 0),
    ] {
        let found = read_model.number(sql).await?;
        ensure!(found == expected, "{sql} gives {found}, not {expected}");
    }
    Ok(())
}
