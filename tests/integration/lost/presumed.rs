//! Two gateways are not heard of: one is dead, one is alive and cut off from the broker. Two others
//! could sweep.

use anyhow::ensure;
use nexus_tests::account::{Account, answer_text, assert_verified, shipped};
use nexus_tests::{Chaos, Gate, Hub, Result};
use tokio::time::Instant;

use super::{Events, LOST_BOUND, Open, Scene, ids, seldom, the_sweeper, total};

/// Who plays.
struct Cast {
    dies: Hub,
    is_cut: Hub,
    others: [Hub; 2],
    /// Between the broker and the one that is cut off.
    wire: Chaos,
    scene: Scene,
}

impl Cast {
    async fn call(scene: Scene) -> Result<Self> {
        let wire = Chaos::start(&scene.broker.host_port())?;
        // The one that dies is the one that sweeps: it comes first.
        let dies = scene.gateway().start().await?;
        the_sweeper(&[&dies]).await?;
        let through_wire = format!("nats://{}", wire.url_host_port());
        let through_wire = scene.gateway().env("NEXUS_NATS_URL", through_wire);
        let (is_cut, one, two) = tokio::try_join!(
            through_wire.start(),
            scene.gateway().start(),
            scene.gateway().start(),
        )?;
        scene.serve(&[&one, &two, &dies, &is_cut]).await?;
        Ok(Self {
            dies,
            is_cut,
            others: [one, two],
            wire,
            scene,
        })
    }

    fn all(&self) -> [&Hub; 4] {
        let [one, two] = &self.others;
        [&self.dies, &self.is_cut, one, two]
    }
}

pub(super) async fn who_dies_and_who_is_cut_off() -> Result<()> {
    let gates = ["dead", "cut", "later", "alive"].map(|name| (name, Gate::closed()));
    let [_, (_, cut), (_, later), (_, alive)] = &gates;
    let mut cast = Cast::call(Scene::set(&gates).await?).await?;
    let [one, _] = &cast.others;
    let dead = Open::all(&cast.dies.client()?, "dead", &[0, 3, 7]).await?;
    let mut soon = Open::all(&cast.is_cut.client()?, "cut", &[2, 5]).await?;
    let mut late = Open::all(&cast.is_cut.client()?, "later", &[1, 4]).await?;
    let mut living = Open::all(&one.client()?, "alive", &[1]).await?;
    for gateway in cast.all() {
        shipped(gateway).await?;
    }
    cast.scene.projected().await?;

    let away = Instant::now();
    cast.wire.refuse().await?;
    cast.wire.cut();
    cast.dies.kill().await?;
    let lost = [ids(&dead), ids(&soon), ids(&late)].concat();
    let presumed = cast
        .scene
        .until_log("the lost are presumed lost", |events| {
            events.assert_presumed_lost(&lost)
        });
    presumed.await?;
    println!("presumed lost after {:?}", away.elapsed());
    ensure!(away.elapsed() < LOST_BOUND, "{:?}", away.elapsed());

    // Its client notices nothing, and it closes its own requests when it can say so.
    cut.open();
    for open in &mut soon {
        open.ends_well().await?;
    }
    let [one, two] = &cast.others;
    the_sweeper(&[one, two]).await?;
    is_shown_and_does_not_count(one, &lost).await?;
    let events = Events(cast.scene.exchanges().await?);
    let closed = lost.iter().filter(|id| !events.terminals(id).is_empty());
    ensure!(closed.count() == 0, "somebody closed what is another's");
    cast.wire.accept()?;
    let own_word = ids(&soon);
    let closed = cast.scene.until_log("it closes them itself", |events| {
        closed_by_their_own(events, &own_word)
    });
    closed.await?;
    later.open();
    alive.open();
    for open in late.iter_mut().chain(&mut living) {
        open.ends_well().await?;
    }
    cast.dies.start_again().await?;
    let theirs = [ids(&soon), ids(&late), ids(&living)].concat();
    taken_to_account(&cast, &dead, &theirs, &lost).await
}

/// Everybody is there again: the dead one's requests were closed when it came back, the others'
/// by themselves.
async fn taken_to_account(
    cast: &Cast,
    dead: &[Open],
    theirs: &[String],
    lost: &[String],
) -> Result<()> {
    for gateway in cast.all() {
        shipped(gateway).await?;
    }
    let account = Account::take(&cast.scene.log).await?;
    account.assert_one_end_each()?;
    for open in dead {
        account.assert_gateway_lost(&open.request_id)?;
        let terminal = account.terminal(&open.request_id)?;
        ensure!(answer_text(terminal) == open.partial(), "{}", terminal.json);
        let tokens = account.output_tokens(&open.request_id);
        ensure!(tokens.is_some(), "{} is not counted", open.tag);
    }
    let events = Events(account.exchanges);
    closed_by_their_own(&events, theirs)?;
    // Two could sweep, one did, and nothing twice.
    events.assert_presumed_lost(lost)?;
    let [one, two] = &cast.others;
    let marked = total(&[one, two], "nexus_presumed_lost_total").await?;
    ensure!(marked == lost.len(), "{marked} were marked");
    the_sweeper(&cast.all()).await?;
    cast.scene.projected().await?;
    assert_verified(&cast.scene.projector).await
}

/// Each of them completed, once, by a word of the gateway that it came to.
fn closed_by_their_own(events: &Events, requests: &[String]) -> Result<()> {
    for request_id in requests {
        let outbox = events.outbox(request_id)?;
        match events.terminals(request_id)[..] {
            [one] if one.name() == "completed" && one.outbox() == outbox => {}
            ref others => anyhow::bail!("{request_id} has {} ends: {others:?}", others.len()),
        }
    }
    Ok(())
}

/// People see that they are presumed lost, and statistics know nothing of them.
async fn is_shown_and_does_not_count(hub: &Hub, lost: &[String]) -> Result<()> {
    let client = hub.client()?;
    for request_id in lost {
        seldom("it is shown", LOST_BOUND, async || {
            let request = client.get(&format!("/requests/{request_id}")).await?;
            let request = request.expect(200)?.json;
            ensure!(
                request["state"] == "presumed_lost" && request["presumed_lost"] == true,
                "{request}"
            );
            Ok(())
        })
        .await?;
    }
    let stats = client.get("/stats").await?.expect(200)?.json;
    ensure!(
        stats["requests"] == 0 && stats["errors"] == 0 && stats["tokens_usage"]["total"] == 0,
        "{stats}"
    );
    Ok(())
}
