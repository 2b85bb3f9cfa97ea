//! What a request reserved comes back with its end, whatever the end is.

use std::time::Duration;

use anyhow::ensure;
use nexus_tests::gate::Gate;
use nexus_tests::{Client, Result, Script, until};
use serde_json::json;

use super::pair::{Pair, ask, reserved};

/// The leases of a gateway that is gone end after a minute.
const LEASES_BOUND: Duration = Duration::from_mins(2);

/// What a request ends in, and the status that its client gets.
fn ends() -> [(&'static str, Script, bool, u16); 6] {
    [
        ("whole", Script::answer(), false, 200),
        ("streamed", Script::answer(), true, 200),
        ("uncounted", Script::answer().without_usage(), false, 200),
        (
            "streamed uncounted",
            Script::answer().without_usage(),
            true,
            200,
        ),
        ("failed", Script::failure(400, "bad"), false, 400),
        ("cut", Script::answer().cut_after(2), true, 200),
    ]
}

/// Asks until there is room again: an own count of tokens comes a little after the last byte.
async fn until_admitted(client: &Client, number: usize, stream: bool, status: u16) -> Result<()> {
    let mut body = ask(number);
    body["stream"] = json!(stream);
    until(
        "what was reserved came back",
        Duration::from_secs(10),
        async || {
            if !stream {
                return client.chat(&body).await?.expect(status).map(drop);
            }
            let mut stream = client.chat_stream(&body).await?;
            let seen = stream.end().await?;
            ensure!(stream.status == status, "{seen:?}");
            Ok(())
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_were_not_used_come_back() -> Result<()> {
    let pair = Pair::set().await?;
    // One fits, and the next would wait for more than half a minute if nothing came back.
    let limit = reserved() + reserved() / 4;
    for (what, script, stream, status) in ends() {
        pair.upstream.always(script);
        let key = json!({"name": what, "tokens_per_minute": limit, "concurrent_requests": 1});
        let clients = pair.key(&key).await?;
        for number in 0..6 {
            until_admitted(&clients[number % 2], number, stream, status).await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_leaves_its_place() -> Result<()> {
    let pair = Pair::set().await?;
    for on_disconnect in ["cancel", "finish"] {
        let gate = Gate::closed();
        pair.upstream.always(Script::answer().wait_after(2, &gate));
        let key = json!({
            "name": on_disconnect,
            "on_disconnect": on_disconnect,
            "concurrent_requests": 1,
        });
        let clients = pair.key(&key).await?;
        let mut streamed = ask(0);
        streamed["stream"] = json!(true);
        let mut stream = clients[0].chat_stream(&streamed).await?;
        stream.chunks(1).await?;
        ensure!(clients[1].chat(&ask(1)).await?.status == 429);
        stream.hang_up().await?;
        if on_disconnect == "finish" {
            // It is finished, and holds its place until then.
            ensure!(clients[1].chat(&ask(1)).await?.status == 429);
            gate.open();
        }
        pair.upstream.always(Script::answer());
        until_admitted(&clients[1], 2, false, 200).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_places_of_a_gateway_that_was_killed_come_free() -> Result<()> {
    let mut pair = Pair::set().await?;
    pair.price().await?;
    let gate = Gate::closed();
    pair.upstream
        .always(Script::answer().wait_before_headers(&gate));
    // Two places, and money for two.
    let key = json!({
        "name": "limited",
        "concurrent_requests": 2,
        "monthly_budget": 2 * reserved() * 1000 + 999,
    });
    let [one, other] = pair.key(&key).await?;
    let (first, second) = (ask(0), ask(1));
    let asking = async { tokio::join!(one.chat(&first), one.chat(&second)) };
    let killing = async {
        gate.reached_by(2).await?;
        ensure!(other.chat(&ask(2)).await?.status == 429);
        pair.hubs[0].kill().await
    };
    let (answers, killed) = tokio::join!(asking, killing);
    killed?;
    ensure!(answers.0.is_err() && answers.1.is_err(), "{answers:?}");
    pair.upstream.always(Script::answer());
    ensure!(
        other.chat(&ask(3)).await?.status == 429,
        "they are still held"
    );
    until("the places are free", LEASES_BOUND, async || {
        other.chat(&ask(4)).await?.expect(200).map(drop)
    })
    .await
}
