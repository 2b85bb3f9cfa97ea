//! What can be configured of routes, and that it is in force.

use anyhow::ensure;
use nexus_tests::account::BOUND;
use nexus_tests::client::Ending;
use nexus_tests::hub::Cluster;
use nexus_tests::{Broker, Hub, Redis, Result, Script, Upstream, until};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{ask_for, provider, route};
use crate::recorded::Recorded;
use crate::stage::{MODEL, Stage, ensure_error, request_id};

#[tokio::test]
async fn a_route_is_created_read_changed_and_deleted() -> Result<()> {
    let hub = Hub::standalone().start().await?;
    let admin = hub.client()?;
    let operator = admin.with_new_key("operator", "operator").await?;
    let viewer = admin.with_new_key("viewer", "viewer").await?;
    let body = json!({"name": "smart/one", "attempts": 2, "targets": [
        {"model": "echo", "provider": "echo", "weight": 3}, {"model": "echo", "priority": 1},
    ]});
    ensure!(viewer.post("/routes", &body).await?.status == 403);
    let created = operator.post("/routes", &body).await?.expect(201)?;
    let id = created.id()?;
    let echo = viewer.get("/providers/echo").await?.expect(200)?.id()?;
    let targets = json!([
        {"model": "echo", "provider": echo, "provider_name": "echo", "weight": 3, "priority": 0},
        {"model": "echo", "provider": null, "provider_name": null, "weight": 1, "priority": 1},
    ]);
    ensure!(created.json["targets"] == targets, "{}", created.text());
    ensure!(created.json["first_byte_timeout_ms"].is_null());
    for path in [format!("/routes/{id}"), "/routes/smart%2Fone".to_owned()] {
        let got = viewer.get(&path).await?.expect(200)?;
        ensure!(got.json == created.json && got.header("etag") == created.header("etag"));
    }
    let taken = operator.post("/routes", &body).await?.expect(409)?;
    ensure!(taken.error_code() == "name_taken");

    let path = format!("/routes/{id}");
    let seen = operator.with_header("if-match", created.header("etag").unwrap_or_default())?;
    let change = json!({"attempts": null, "idle_timeout_ms": 5000});
    let changed = seen.put(&path, &change).await?.expect(200)?;
    ensure!(changed.json["attempts"].is_null() && changed.json["idle_timeout_ms"] == 5000);
    ensure!(changed.json["targets"] == targets, "{}", changed.text());
    ensure!(seen.put(&path, &change).await?.status == 412);
    let same = operator.put(&path, &change).await?.expect(200)?;
    ensure!(
        same.header("etag") == changed.header("etag"),
        "nothing changed"
    );
    let renamed = json!({"name": "smart"});
    operator.put(&path, &renamed).await?.expect(200)?;
    let listed = viewer.get("/routes").await?.expect(200)?;
    ensure!(
        listed.json["data"][0]["name"] == "smart",
        "{}",
        listed.text()
    );
    let offered = viewer.get("/v1/models").await?.expect(200)?;
    let ids: Vec<_> = offered.json["data"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    let ids: Vec<_> = ids.iter().map(|model| &model["id"]).collect();
    ensure!(ids == ["echo", "smart"], "{ids:?}");

    admin.chat(&ask_for("smart", "hello")).await?.expect(200)?;
    ensure!(seen.delete("/routes/smart").await?.status == 412);
    operator.delete("/routes/smart").await?.expect(200)?;
    viewer.get(&path).await?.expect(404)?;
    let gone = admin.chat(&ask_for("smart", "hello")).await?;
    ensure_error(&gone, 404)?;
    // The projector has read all of it, and understood.
    let calls =
        "SELECT count(*) FROM audit_log WHERE kind = 'management_call' AND about LIKE '/routes%'";
    hub.read_model().until_number(calls, 9).await?;
    let dead = hub
        .read_model()
        .number("SELECT count(*) FROM dead_letter")
        .await?;
    ensure!(dead == 0, "{dead} events were not understood");
    Ok(())
}

#[tokio::test]
async fn a_target_that_names_nothing_is_refused_by_its_place() -> Result<()> {
    let hub = Hub::standalone().start().await?;
    let admin = hub.client()?;
    for (target, param) in [
        (
            json!({"model": "echo", "provider": "nobody"}),
            "targets[1].provider",
        ),
        (
            json!({"model": "echo", "provider": "0193b8e0-0000-7000-8000-000000000000"}),
            "targets[1].provider",
        ),
        (
            json!({"model": "moon", "provider": "echo"}),
            "targets[1].model",
        ),
        (json!({"model": "moon"}), "targets[1].model"),
        (
            json!({"model": "echo", "weight": "much"}),
            "targets[1].weight",
        ),
        (json!(null), "targets[1]"),
    ] {
        let body = json!({"name": "r", "targets": [{"model": "echo"}, target]});
        let refused = admin.post("/routes", &body).await?;
        ensure_error(&refused, 400)?;
        ensure!(
            refused.json["error"]["param"] == param,
            "{}",
            refused.text()
        );
    }
    ensure!(admin.get("/routes").await?.json["data"] == json!([]));
    // Also when a route is changed.
    route(&admin, "r", json!([{"model": "echo"}])).await?;
    let change = json!({"targets": [{"model": "moon"}]});
    let refused = admin.put("/routes/r", &change).await?;
    ensure_error(&refused, 400)?;
    ensure!(refused.json["error"]["param"] == "targets[0].model");
    for query in ["", "?model=echo&model=echo", "?modell=echo"] {
        ensure_error(&admin.get(&format!("/routes/explain{query}")).await?, 400)?;
    }
    ensure_error(&admin.get("/routes/explain?model=moon").await?, 404)
}

#[tokio::test]
async fn a_route_falls_back_to_another_model_and_keeps_those_that_are_left() -> Result<()> {
    let stage = Stage::set().await?;
    let client = &stage.client;
    let large = provider(client, "large", "large-1").await?;
    let small = provider(client, "small", "small-1").await?;
    // It goes before the configured model of the same name.
    let targets = json!([
        {"model": "large-1", "provider": "large"},
        {"model": "small-1", "priority": 1},
        {"model": MODEL, "priority": 2},
    ]);
    route(client, MODEL, targets).await?;
    let first = client.chat(&ask_for(MODEL, "first")).await?.expect(200)?;
    let recorded = Recorded::wait(&stage.log, &request_id(&first)?).await?;
    let data = recorded.terminal.data();
    ensure!(data["nexus.model"] == "large-1", "{data}");
    ensure!(data["gen_ai.request.model"] == MODEL, "{data}");
    ensure!(large.the_exchange()?.request.model() == "large-1");

    large.always(Script::failure(503, "overloaded"));
    let mut stream = client.chat_stream(&ask_for(MODEL, "second")).await?;
    ensure!(stream.end().await?.ending() == Ending::Done);
    ensure!(small.exchanges_of("second").len() == 1);
    ensure!(stage.upstream.exchanges().is_empty());

    // Without them, whoever is left answers.
    client.delete("/providers/large").await?.expect(200)?;
    client.delete("/providers/small").await?.expect(200)?;
    client.chat(&ask_for(MODEL, "third")).await?.expect(200)?;
    ensure!(stage.upstream.exchanges_of("third").len() == 1);
    let shown = client.get(&format!("/routes/{MODEL}")).await?.expect(200)?;
    ensure!(shown.json["targets"].as_array().map(Vec::len) == Some(3));
    ensure!(shown.json["targets"][0]["provider_name"].is_null());
    stage.strike().await
}

#[tokio::test]
async fn different_weights_are_a_split() -> Result<()> {
    let stage = Stage::set().await?;
    let client = &stage.client;
    let (most, some) = (
        provider(client, "most", "split").await?,
        provider(client, "some", "split").await?,
    );
    let targets = json!([
        {"model": "split", "provider": "most", "weight": 800},
        {"model": "split", "provider": "some", "weight": 200},
    ]);
    route(client, "split", targets).await?;
    for number in 0..200 {
        let body = ask_for("split", &format!("n-{number}"));
        client.chat(&body).await?.expect(200)?;
    }
    let counts = (most.exchanges().len(), some.exchanges().len());
    ensure!(counts.0 + counts.1 == 200, "{counts:?}");
    // Six standard deviations, of 5.7 each, on either side of 160.
    ensure!((126..=194).contains(&counts.0), "{counts:?}");
    stage.strike().await
}

#[tokio::test]
async fn a_route_bounds_the_wait_for_each_of_its_targets() -> Result<()> {
    let stage = Stage::set().await?;
    let client = &stage.client;
    let stuck = provider(client, "stuck", "m").await?;
    let quick = provider(client, "quick", "m").await?;
    let body = json!({"name": "bounded", "first_byte_timeout_ms": 150, "idle_timeout_ms": 150, "targets": [
        {"model": "m", "provider": "stuck"}, {"model": "m", "provider": "quick", "priority": 1},
    ]});
    client.post("/routes", &body).await?.expect(201)?;
    // A head without a body is no first byte of an answer.
    let late = [
        ("late", Script::answer().stall_before_headers()),
        ("queued", Script::answer().stall_after_headers()),
    ];
    for (asked, (name, script)) in (1..).zip(late) {
        stuck.always(script);
        let answer = client.chat(&ask_for("bounded", name)).await?.expect(200)?;
        let recorded = Recorded::wait(&stage.log, &request_id(&answer)?).await?;
        ensure!(
            recorded.attempts[0].failure() == "upstream_timeout",
            "{recorded:#?}"
        );
        ensure!(quick.exchanges().len() == asked);
    }
    stuck.always(Script::answer().stall_after(2));
    let mut stream = client.chat_stream(&ask_for("bounded", "stalls")).await?;
    let Ending::ErrorEvent(error) = stream.end().await?.ending() else {
        anyhow::bail!("no error event");
    };
    ensure!(error["code"] == "upstream_stalled", "{error}");
    ensure!(
        error["message"]
            .as_str()
            .is_some_and(|text| text.contains("150 ms")),
        "{error}"
    );
    stage.strike().await
}

#[tokio::test]
async fn who_would_be_asked_is_explained() -> Result<()> {
    let stage = Stage::set().await?;
    let client = &stage.client;
    let viewer = client.with_new_key("viewer", "viewer").await?;
    let explain = async |model: &str| {
        let path = format!("/routes/explain?model={model}");
        anyhow::Ok(viewer.get(&path).await?.expect(200)?.json)
    };
    let implicit = explain(MODEL).await?;
    ensure!(
        implicit["route_id"].is_null() && implicit["chosen"] == 0,
        "{implicit}"
    );
    ensure!(
        implicit["because"] == "It is the only usable candidate of priority 0.",
        "{implicit}"
    );

    let nobody = Upstream::refusing_url()?;
    super::provider_at(client, "down", "up", &nobody).await?;
    let targets = json!([
        {"model": "up", "provider": "down"}, {"model": MODEL, "priority": 7, "weight": 5},
    ]);
    let id = route(client, "r", targets).await?.id()?;
    for number in 0..5 {
        client
            .chat(&ask_for("r", &format!("n-{number}")))
            .await?
            .expect(200)?;
    }
    let explained = explain("r").await?;
    ensure!(
        explained["route_id"] == *id && explained["chosen"] == 1,
        "{explained}"
    );
    let [down, up] = explained["candidates"]
        .as_array()
        .map_or(&[][..], Vec::as_slice)
    else {
        anyhow::bail!("not two candidates: {explained}");
    };
    ensure!(
        down["provider_name"] == "down" && down["upstream_model"] == "up",
        "{down}"
    );
    ensure!(
        down["breaker"] == "open" && down["usable"] == false,
        "{down}"
    );
    ensure!(down["why_not"] == "breaker_open", "{down}");
    ensure!(
        down["cost_ms"].as_u64() > Some(0) && down["latency_ms"].is_null(),
        "{down}"
    );
    ensure!(
        up["priority"] == 7 && up["weight"] == 5 && up["usable"] == true,
        "{up}"
    );
    ensure!(up["in_flight"] == 0 && up["latency_ms"].is_u64(), "{up}");
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_in_force_at_the_other_gateway() -> Result<()> {
    let (broker, redis) = (Broker::start().await?, Redis::start().await?);
    let cluster = Cluster::new(&broker, &redis)?;
    let (a, b) = tokio::try_join!(cluster.gateway().start(), cluster.gateway().start())?;
    let (one, two) = (a.client()?, b.client()?);
    route(&one, "r", json!([{"model": "echo"}])).await?;
    let mut took = Vec::new();
    for number in 1..=20 {
        let targets = json!([{"model": "echo", "weight": number}]);
        let change = json!({"targets": targets});
        one.put("/routes/r", &change).await?.expect(200)?;
        let answered = Instant::now();
        let weight = Value::from(number);
        loop {
            let explained = two.get("/routes/explain?model=r").await?;
            if explained.json["candidates"][0]["weight"] == weight {
                break;
            }
            ensure!(answered.elapsed() < BOUND, "{number} does not arrive");
            tokio::task::yield_now().await;
        }
        took.push(answered.elapsed());
    }
    took.sort();
    println!(
        "a change of a route was in force at the other gateway after {:?} (median), {:?} (p99 of 20)",
        took[10], took[19]
    );
    two.chat(&ask_for("r", "hello")).await?.expect(200)?;
    one.delete("/routes/r").await?.expect(200)?;
    until("it is gone there as well", BOUND, async || {
        two.chat(&ask_for("r", "hello"))
            .await?
            .expect(404)
            .map(drop)
    })
    .await
}
