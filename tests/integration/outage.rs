//! The broker dies, or is away: no client notices, nothing is lost, and no `nats-server` is ever
//! left behind.

use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use nexus_tests::client::Ending;
use nexus_tests::{Broker, Client, Hub, Result, process_table, until};
use serde_json::{Value, json};

use nexus_tests::account::{self, Account, BOUND, Received, assert_verified, shipped};

/// The server that a standalone hub runs.
fn nats_servers(hub: &Hub) -> Result<Vec<u32>> {
    process_table::find("nats-server", &hub.data_dir().display().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_hub_leaves_no_nats_server_behind() -> Result<()> {
    let mut hub = Hub::standalone().start().await?;
    let url = hub.nats_url()?;
    let [before] = nats_servers(&hub)?[..] else {
        anyhow::bail!("one server must run: {:?}", nats_servers(&hub)?);
    };
    let body = json!({"name": "kept", "server_url": "http://127.0.0.1:9"});
    hub.client()?.post("/providers", &body).await?.expect(201)?;
    hub.kill().await?;
    let address = url.trim_start_matches("nats://");
    until("the server is gone", Duration::from_secs(10), async || {
        let left = nats_servers(&hub)?;
        ensure!(left.is_empty(), "{left:?} are left");
        // A process that ends loses its name before it closes its sockets.
        let refused = tokio::net::TcpStream::connect(address).await;
        ensure!(refused.is_err(), "somebody still listens at {address}");
        anyhow::Ok(())
    })
    .await?;

    hub.start_again().await?;
    assert_eq!(hub.nats_url()?, url, "subscribers keep their address");
    let after = nats_servers(&hub)?;
    assert!(after.len() == 1 && !after.contains(&before), "{after:?}");
    let client = hub.client()?;
    client.get("/providers/kept").await?.expect(200)?;
    client.chat(&echo("hello again")).await?.expect(200)?;
    Ok(())
}

fn echo(text: &str) -> Value {
    json!({"model": "echo", "messages": [{"role": "user", "content": text}]})
}

/// Sends `count` streams, 8 at once, and calls `damage` when a third of them has ended.
async fn stream_through(
    client: &Client,
    count: usize,
    damage: impl AsyncFnOnce() -> Result<()>,
) -> Result<Vec<Received>> {
    let asking = stream::iter(0..count).map(|number| async move {
        let text = format!("word after word of request {number} until it ends");
        let mut stream = client.chat_stream(&echo(&text)).await?;
        let seen = stream.end().await?;
        ensure!(
            seen.ending == Some(Ending::Done) && seen.text(0).trim() == text,
            "a client noticed something: {seen:?}"
        );
        let request_id = stream.header("x-request-id").context("no X-Request-Id")?;
        Ok(Received {
            request_id: request_id.to_owned(),
            seen,
        })
    });
    let mut ends = asking.buffer_unordered(8);
    let mut received = Vec::new();
    while received.len() < count / 3 {
        received.push(ends.try_next().await?.context("too few streams")?);
    }
    let (damaged, rest) = tokio::join!(damage(), ends.try_collect::<Vec<_>>());
    damaged?;
    received.extend(rest?);
    Ok(received)
}

async fn assert_all_recorded(hub: &Hub, received: &[Received]) -> Result<()> {
    shipped(hub).await?;
    let account = Account::take(&hub.log().await?).await?;
    account.assert_one_end_each()?;
    assert_eq!(account.received().len(), received.len(), "requests");
    for client in received {
        account.assert_holds(client)?;
        assert_eq!(account.terminal(&client.request_id)?.name(), "completed");
    }
    account::projected(hub).await?;
    assert_verified(hub).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_server_killed_under_load_comes_back_and_nothing_is_lost() -> Result<()> {
    let hub = Hub::standalone().start().await?;
    let client = hub.client()?;
    let url = hub.nats_url()?;
    let mut received = Vec::new();
    for _round in 0..3 {
        let kill = async || {
            let [before] = nats_servers(&hub)?[..] else {
                anyhow::bail!("one server must run: {:?}", nats_servers(&hub)?);
            };
            process_table::kill(before)?;
            until("another server runs", BOUND, async || {
                let now = nats_servers(&hub)?;
                ensure!(now.len() == 1 && now != [before], "{now:?} run");
                anyhow::Ok(())
            })
            .await
        };
        received.extend(stream_through(&client, 60, kill).await?);
    }
    assert_eq!(hub.nats_url()?, url, "subscribers keep their address");
    until("changes are taken again", BOUND, async || {
        let name = json!({"name": "after", "server_url": "http://127.0.0.1:9"});
        let answer = client.post("/providers", &name).await?;
        // Whether a change that was not acknowledged was stored is not known.
        if answer.status == 409 {
            Ok(answer)
        } else {
            answer.expect(201)
        }
    })
    .await?;
    assert_all_recorded(&hub, &received).await
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_do_not_notice_that_the_broker_is_away() -> Result<()> {
    let mut broker = Broker::start().await?;
    let hub = Hub::standalone().nats(&broker).start().await?;
    let client = hub.client()?;
    let mut received = stream_through(&client, 30, async || broker.kill().await).await?;
    // All of these see no broker from their beginning to their end.
    received.extend(stream_through(&client, 60, async || Ok(())).await?);
    until("their events wait in the outbox", BOUND, async || {
        let lag = "nexus_outbox_lag_events{lane=\"chunks\"}";
        let waiting = hub.metric(lag).await?;
        ensure!(waiting > Some(500.0), "{waiting:?} wait");
        anyhow::Ok(())
    })
    .await?;
    broker.restart().await?;
    assert_all_recorded(&hub, &received).await
}
