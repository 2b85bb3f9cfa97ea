//! A provider that is the hub itself: refused when it is written, caught when another name hides it.

use anyhow::{Context, ensure};
use nexus_tests::hub::Cluster;
use nexus_tests::{Broker, Chaos, Client, Hub, Redis, Result, until};
use serde_json::{Value, json};

use crate::stage::{MODEL, Stage, VISIBLE_BOUND, ensure_error, request_id, shown_request};

/// The names that lead to a hub which listens on loopback.
const SPELLINGS: [&str; 6] = [
    "127.0.0.1",
    "localhost",
    "127.1",
    "127.9.9.9",
    "0.0.0.0",
    "[::ffff:127.0.0.1]",
];

#[tokio::test]
async fn the_hubs_own_address_is_no_provider() -> Result<()> {
    let stage = Stage::set().await?;
    let url = stage.hub.url()?;
    let port = url.rsplit(':').next().context("no port")?;
    let provider = stage.client.get("/providers").await?.expect(200)?;
    let id = provider.json["data"][0]["id"].as_str().context("no id")?;
    for host in SPELLINGS {
        let own = format!("http://{host}:{port}/v1");
        let body = json!({"name": "circle", "kind": "openai", "server_url": own});
        let change = json!({"server_url": own});
        for answer in [
            stage.client.post("/providers", &body).await?,
            stage
                .client
                .put(&format!("/providers/{id}"), &change)
                .await?,
        ] {
            ensure_error(&answer, 400)?;
            ensure!(answer.json["error"]["param"] == "server_url", "{answer:?}");
        }
    }
    // The same host at another port is another server: the upstream of this test is one.
    let same_host = json!({"server_url": stage.upstream.url()});
    let changed = stage
        .client
        .put(&format!("/providers/{id}"), &same_host)
        .await?;
    changed.expect(200)?;
    stage.strike().await
}

#[tokio::test]
async fn a_circle_that_no_address_shows_is_cut_after_one_round() -> Result<()> {
    let stage = Stage::set().await?;
    let hub = stage.hub.url()?;
    let hidden = Chaos::start(hub.trim_start_matches("http://"))?;
    serve_through(&stage, &hidden).await?;
    let answer = stage
        .client
        .chat(&json!({"model": "circle", "messages": [{"role": "user", "content": "round"}]}))
        .await?;
    ensure_error(&answer, 508)?;
    ensure!(answer.error_code() == "loop_detected", "{answer:?}");
    let shown = shown_request(&stage.client, &request_id(&answer)?).await?;
    ensure!(shown["state"] == "failed", "{shown}");
    let told = shown["failure"].to_string();
    ensure!(told.contains("server_url"), "{shown}");
    let series = r#"nexus_rejected_total{code="loop_detected"}"#;
    until("the round is recorded", VISIBLE_BOUND, async || {
        let rounds = stage.hub.metric(series).await?;
        ensure!(rounds == Some(1.0), "{rounds:?}");
        Ok(())
    })
    .await?;
    let rejected = stage
        .log
        .events(nexus_tests::log::Stream::Exchanges)
        .await?;
    let mut rejected = rejected.iter().filter(|event| event.name() == "rejected");
    let event = rejected.next().context("no rejected event")?;
    ensure!(
        event.data()["http.response.status_code"] == 508,
        "{}",
        event.json
    );
    ensure!(rejected.next().is_none());
    stage.strike().await
}

#[tokio::test]
async fn two_hubs_that_are_each_others_provider_are_a_circle() -> Result<()> {
    let stage = Stage::set().await?;
    let other = Hub::standalone().start().await?;
    let theirs = other.client()?;
    serve_at(&stage.client, &other.url()?, other.admin_key()).await?;
    serve_at(&theirs, &stage.hub.url()?, stage.hub.admin_key()).await?;
    let answer = stage.client.chat(&ask("circle")).await?;
    ensure_error(&answer, 508)?;
    ensure!(answer.error_code() == "loop_detected", "{answer:?}");
    let series = r#"nexus_rejected_total{code="loop_detected"}"#;
    until("one round is refused, here", VISIBLE_BOUND, async || {
        let rounds = (stage.hub.metric(series).await?, other.metric(series).await?);
        ensure!(rounds == (Some(1.0), None), "{rounds:?}");
        Ok(())
    })
    .await?;
    // In a row they are none: what the other one offers itself is answered.
    let echo = json!({"provider_id": "circle", "model_name": "theirs", "upstream_model": "echo"});
    stage
        .client
        .post("/provider_models", &echo)
        .await?
        .expect(201)?;
    stage.client.chat(&ask("theirs")).await?.expect(200)?;
    stage.strike().await
}

#[tokio::test]
async fn two_gateways_of_an_installation_are_one_hub() -> Result<()> {
    let (broker, redis) = (Broker::start().await?, Redis::start().await?);
    let cluster = Cluster::new(&broker, &redis)?;
    let (a, b) = tokio::try_join!(cluster.gateway().start(), cluster.gateway().start())?;
    let client = a.client()?;
    serve_at(&client, &b.url()?, b.admin_key()).await?;
    let answer = client.chat(&ask("circle")).await?;
    ensure_error(&answer, 508)?;
    ensure!(answer.error_code() == "loop_detected", "{answer:?}");
    Ok(())
}

#[tokio::test]
async fn where_a_request_has_been_goes_on_with_it_and_has_a_bound() -> Result<()> {
    let stage = Stage::set().await?;
    let passing = |list: &str| stage.client.with_header("x-nexus-hop", list);
    let ids: Vec<_> = (0..8).map(|number| format!("{number:016x}")).collect();
    stage.client.chat(&ask(MODEL)).await?.expect(200)?;
    let own = hops_seen(&stage)?;
    ensure!(own.len() == 16, "{own}");
    for count in [1, 7] {
        let list = ids[..count].join(",");
        passing(&list)?.chat(&ask(MODEL)).await?.expect(200)?;
        let seen = hops_seen(&stage)?;
        ensure!(seen == format!("{list},{own}"), "{seen}");
    }
    for (list, status, code) in [
        (ids.join(","), 508, "too_many_hops"),
        (format!("{},{own}", ids[0]), 508, "loop_detected"),
        ("somewhere".to_owned(), 400, "null"),
        (format!("{};{}", ids[0], ids[1]), 400, "null"),
    ] {
        let answer = passing(&list)?.chat(&ask(MODEL)).await?;
        ensure_error(&answer, status)?;
        let error = &answer.json["error"];
        let is_it = error["code"] == code || error["param"] == "X-Nexus-Hop";
        ensure!(is_it, "{list}: {error}");
    }
    ensure!(stage.upstream.exchanges().len() == 3, "the others went on");
    stage.strike().await
}

fn ask(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "round"}]})
}

/// The list that the upstream got last.
fn hops_seen(stage: &Stage) -> Result<String> {
    let asked = stage.upstream.exchanges().pop().context("not asked")?;
    let list = asked.request.header("x-nexus-hop").context("no header")?;
    Ok(list.to_owned())
}

/// A model whose provider is that hub.
async fn serve_at(client: &Client, url: &str, key: &str) -> Result<()> {
    let provider =
        json!({"name": "circle", "kind": "openai", "server_url": url, "server_key": key});
    client.post("/providers", &provider).await?.expect(201)?;
    let model = json!({"provider_id": "circle", "model_name": "circle"});
    client.post("/provider_models", &model).await?.expect(201)?;
    Ok(())
}

/// A model whose provider is the hub, by an address that does not show it, with a key that is good.
async fn serve_through(stage: &Stage, hidden: &Chaos) -> Result<()> {
    let url = format!("http://{}", hidden.url_host_port());
    serve_at(&stage.client, &url, stage.hub.admin_key()).await
}
