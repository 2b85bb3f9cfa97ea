//! The sweeper has no room for a lost answer: it settles the others, and that one when there is room.

use anyhow::{Context, ensure};
use nexus_tests::account::{Account, answer_text, assert_verified, shipped};
use nexus_tests::client::{ChatStream, Ending};
use nexus_tests::{Client, Gate, Result, Script};
use serde_json::json;

use super::{Events, MODEL, Scene, the_sweeper};

/// What the sweeper's outbox takes.
const SMALL: &str = "1MiB";

/// 100 KB of text.
const LARGE: usize = 100_000;

/// So many large chunks has the sweeper's own stream, which holds room for its end.
const OWN: usize = 6;

/// And so many the lost one: they fit, but not beside the other.
const LOST: usize = 5;

/// Asks for large chunks and reads them up to the gate; gives the stream and its request's id.
async fn open(client: &Client, tag: &str, chunks: usize) -> Result<(ChatStream, String)> {
    let content = format!("tell me about rivers {tag}");
    let body = json!({"model": MODEL, "messages": [{"role": "user", "content": content}]});
    let mut stream = client.chat_stream(&body).await?;
    // The opening event with the role comes first.
    stream.chunks(1 + chunks).await?;
    let id = stream.header("x-request-id").context("no X-Request-Id")?;
    let id = id.to_owned();
    Ok((stream, id))
}

/// The provider answers `own` a chunk at each gate, the others of a gateway that dies never whole.
fn script(scene: &Scene, gates: Vec<Gate>) {
    let (dead, text) = (Gate::closed(), "x".repeat(LARGE));
    scene.upstream.choose(move |request| {
        let large =
            |chunks| Script::answer().saying(std::iter::repeat_n(text.as_str(), chunks + 1));
        match request.tag().as_str() {
            "own" => (1..).zip(&gates).fold(large(OWN), |answer, (after, gate)| {
                answer.wait_after(after, gate)
            }),
            "large" => large(LOST).wait_after(LOST, &dead),
            _ => Script::answer().wait_after(2, &dead),
        }
    });
}

/// Waits until a request has its end; gives the log as it is then.
async fn settled(scene: &Scene, id: &str) -> Result<Events> {
    let what = format!("{id} is settled");
    let settled = scene.until_log(&what, |events| {
        let ends = events.terminals(id);
        ensure!(ends.len() == 1, "{ends:?}");
        Ok(())
    });
    settled.await
}

pub(super) async fn a_sweeper_without_room() -> Result<()> {
    let scene = Scene::set(&[]).await?;
    let own_gates: Vec<Gate> = (0..OWN).map(|_| Gate::closed()).collect();
    script(&scene, own_gates.clone());
    let gateway = || scene.gateway().env("NEXUS_LOST_SETTLE_SECONDS", 1);
    let sweeps = gateway()
        .env("NEXUS_OUTBOX_MAX_BYTES", SMALL)
        .start()
        .await?;
    the_sweeper(&[&sweeps]).await?;
    let mut dies = gateway().start().await?;
    scene.serve(&[&sweeps, &dies]).await?;
    let client = dies.client()?;
    // In the order in which the sweeper finds them.
    let (_large, large_id) = open(&client, "large", LOST).await?;
    let (_small, small_id) = open(&client, "small", 2).await?;
    let (mut own, own_id) = open(&sweeps.client()?, "own", 1).await?;
    let (last, gates) = own_gates.split_last().context("no gates")?;
    for gate in gates {
        // What is not shipped takes room as well.
        shipped(&sweeps).await?;
        gate.open();
        own.chunks(1).await?;
    }
    shipped(&dies).await?;
    scene.projected().await?;
    dies.kill().await?;

    let events = settled(&scene, &small_id).await?;
    ensure!(
        events.terminals(&large_id).is_empty(),
        "there was room for the large one"
    );
    last.open();
    let seen = own.end().await?;
    ensure!(seen.ending == Some(Ending::Done), "{:?}", seen.ending);
    settled(&scene, &large_id).await?;

    dies.start_again().await?;
    for gateway in [&dies, &sweeps] {
        shipped(gateway).await?;
    }
    let account = Account::take(&scene.log).await?;
    account.assert_one_end_each()?;
    for id in [&large_id, &small_id] {
        account.assert_gateway_lost(id)?;
    }
    let whole = answer_text(account.terminal(&large_id)?).len();
    ensure!(
        whole == LOST * LARGE,
        "{whole} bytes of the large one were settled"
    );
    let own_end = account.terminal(&own_id)?.name();
    ensure!(own_end == "completed", "the own one {own_end}");
    scene.projected().await?;
    assert_verified(&scene.projector).await
}
