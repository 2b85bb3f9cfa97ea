//! A lost answer that is larger than the outbox of who adopts it.

use anyhow::{Context, ensure};
use nexus_events::{id::RequestId, subject};
use nexus_tests::account::{Account, answer_text, assert_verified, projected, shipped};
use nexus_tests::client::ChatStream;
use nexus_tests::{Broker, Gate, Hub, Result, Script, Upstream};

use super::{MODEL, ask, until_repaired};

/// What the adopter's outbox takes, and less than the large answer has.
const SMALL: &str = "1MiB";

/// 100 KB of text, twelve times.
const LARGE_CHUNKS: usize = 12;

fn id(stream: &ChatStream) -> Result<RequestId> {
    let id = stream.header("x-request-id").context("no X-Request-Id")?;
    Ok(id.parse()?)
}

/// Where an adopter has a request: pages are of a shard each.
fn place(request: RequestId) -> (u8, RequestId) {
    (subject::shard(request), request)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_without_room_holds_up_no_other_and_ends_without_its_text() -> Result<()> {
    let (broker, upstream, gate) = (
        Broker::start().await?,
        Upstream::start().await?,
        Gate::closed(),
    );
    let (stand_still, text) = (gate.clone(), "river ".repeat(17_000));
    upstream.choose(move |request| {
        let answer = Script::answer();
        if request.tag() == "large" {
            let texts = std::iter::repeat_n(text.as_str(), LARGE_CHUNKS + 1);
            return answer.saying(texts).wait_after(LARGE_CHUNKS, &stand_still);
        }
        answer.wait_after(2, &stand_still)
    });
    let mut hub = Hub::standalone().nats(&broker).start().await?;
    let client = hub.client()?;
    client.serve_model(MODEL, &upstream.url()).await?;
    // The opening event with the role comes first.
    let mut large = client.chat_stream(&ask("large")).await?;
    large.chunks(1 + LARGE_CHUNKS).await?;
    let large = id(&large)?;
    let mut small = Vec::new();
    // Until one comes after the large one, whatever the shards are that the dice give.
    while !small.iter().any(|other| place(*other) > place(large)) {
        let mut stream = client
            .chat_stream(&ask(&format!("small-{}", small.len())))
            .await?;
        stream.chunks(3).await?;
        small.push(id(&stream)?);
    }
    shipped(&hub).await?;
    hub.kill().await?;
    hub.set_env("NEXUS_OUTBOX_MAX_BYTES", SMALL);
    hub.start_again().await?;

    let log = hub.log().await?;
    until_repaired(&log).await?;
    shipped(&hub).await?;
    projected(&hub).await?;
    let account = Account::take(&log).await?;
    account.assert_one_end_each()?;
    let end = account.terminal(&large.to_string())?;
    let reason = &end.data()["nexus.failure"]["reason"];
    ensure!(reason == "gateway_lost", "{reason}");
    ensure!(answer_text(end).is_empty(), "it had room");
    let tokens = account.output_tokens(&large.to_string());
    ensure!(tokens > Some(17_000), "its chunks have {tokens:?} tokens");
    for other in small {
        let end_of_other = account.terminal(&other.to_string())?;
        ensure!(
            !answer_text(end_of_other).is_empty(),
            "{}",
            end_of_other.json
        );
        ensure!(
            end_of_other.position() < end.position(),
            "{other} waited for the large one"
        );
    }
    assert_verified(&hub).await
}
