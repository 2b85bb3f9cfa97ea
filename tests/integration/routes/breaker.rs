//! Breakers: a provider that fails is left alone, and asked again when it may have recovered.

use anyhow::ensure;
use nexus_tests::client::Ending;
use nexus_tests::{Chaos, Result, Script, Upstream, until};
use serde_json::json;

use super::{ask_for, health, provider, provider_at, route, until_changes};
use crate::stage::{Stage, VISIBLE_BOUND};

#[tokio::test]
async fn streams_that_break_off_open_it() -> Result<()> {
    let stage = Stage::set().await?;
    let client = &stage.client;
    let cutting = provider(client, "cutting", "m").await?;
    let whole = provider(client, "whole", "m").await?;
    let targets = json!([
        {"model": "m", "provider": "cutting"}, {"model": "m", "provider": "whole", "priority": 1},
    ]);
    route(client, "r", targets).await?;
    for script in [
        Script::answer().cut_after(2),
        Script::answer().error_event_after(1, "engine_down"),
        Script::answer().garbage_after(1),
        Script::answer().end_after(3),
        Script::answer().reset_after(2),
    ] {
        cutting.once(script);
        let mut stream = client.chat_stream(&ask_for("r", "broken")).await?;
        let ending = stream.end().await?.ending();
        ensure!(matches!(ending, Ending::ErrorEvent(_)), "{ending:?}");
    }
    let mut stream = client.chat_stream(&ask_for("r", "whole")).await?;
    ensure!(stream.end().await?.ending() == Ending::Done);
    ensure!(whole.exchanges_of("whole").len() == 1);
    let health = health(client, "cutting").await?;
    ensure!(health["state"] == "open", "{health}");
    ensure!(
        health["last_failure"]["reason"] == "upstream_cut",
        "{health}"
    );
    ensure!(health["in_flight"] == 0, "{health}");
    until_changes(&stage, "cutting", &["closed open failures_in_a_row"]).await?;
    let told = "SELECT count(*) FROM audit_log WHERE kind = 'breaker_changed'";
    stage.hub.read_model().until_number(told, 1).await?;
    let open = stage.hub.metric("nexus_breakers_open").await?;
    ensure!(open == Some(1.0), "{open:?}");
    let dead = stage.hub.read_model();
    ensure!(dead.number("SELECT count(*) FROM dead_letter").await? == 0);
    stage.strike().await
}

#[tokio::test]
async fn a_client_that_leaves_or_asks_wrong_opens_nothing() -> Result<()> {
    let stage = Stage::set().await?;
    let client = &stage.client;
    let upstream = provider(client, "good", "m").await?;
    let key = json!({"name": "leaving", "role": "member", "on_disconnect": "cancel"});
    let key = client.post("/keys", &key).await?.expect(201)?;
    let leaving = client.with_key(key.json["key"].as_str().unwrap_or_default())?;
    for number in 0..6 {
        upstream.once(Script::failure(400, "bad"));
        client.chat(&ask_for("m", "wrong")).await?.expect(400)?;
        upstream.once(Script::answer().stall_after(1));
        let mut stream = leaving
            .chat_stream(&ask_for("m", &format!("l-{number}")))
            .await?;
        stream.chunks(1).await?;
        stream.hang_up().await?;
    }
    let seen = until("nothing is under way", VISIBLE_BOUND, async || {
        let seen = health(client, "good").await?;
        ensure!(seen["in_flight"] == 0, "{seen}");
        anyhow::Ok(seen)
    })
    .await?;
    ensure!(
        seen["state"] == "closed" && seen["last_failure"].is_null(),
        "{seen}"
    );
    stage.strike().await
}

#[tokio::test]
async fn a_look_lets_the_probe_through_that_closes_it() -> Result<()> {
    let stage = Stage::set_with(|hub| hub.env("NEXUS_HEALTH_INTERVAL_SECONDS", "0.2")).await?;
    let client = &stage.client;
    let upstream = Upstream::start().await?;
    let line = Chaos::start(&upstream.host_port())?;
    let url = format!("http://{}/v1", line.url_host_port());
    provider_at(client, "away", "m", &url).await?;
    let reachable = async |expected: bool| {
        until("a look was taken", VISIBLE_BOUND, async || {
            let seen = health(client, "away").await?;
            ensure!(seen["reachable"] == expected, "{seen}");
            ensure!(seen["checked_ms"].is_u64(), "{seen}");
            anyhow::Ok(())
        })
        .await
    };
    reachable(true).await?;
    line.refuse().await?;
    line.cut();
    reachable(false).await?;
    ensure!(
        health(client, "away").await?["state"] == "closed",
        "a look opens nothing"
    );
    // It is alone, so it is asked nevertheless: three times, then two.
    for tag in ["one", "two"] {
        client.chat(&ask_for("m", tag)).await?.expect(502)?;
    }
    ensure!(health(client, "away").await?["state"] == "open");
    line.accept()?;
    until("it may be asked again", VISIBLE_BOUND, async || {
        let seen = health(client, "away").await?;
        ensure!(seen["state"] == "half_open", "{seen}");
        anyhow::Ok(())
    })
    .await?;
    client.chat(&ask_for("m", "again")).await?.expect(200)?;
    let changes = [
        "closed open failures_in_a_row",
        "open half_open reachable_again",
        "half_open closed answered",
    ];
    until_changes(&stage, "away", &changes).await?;
    // Nothing but the address is asked for, and no key goes along.
    let looks = upstream.others();
    ensure!(!looks.is_empty(), "nobody looked");
    for look in looks {
        ensure!(
            look.method == "GET" && look.header("authorization").is_none(),
            "{look:?}"
        );
    }
    stage.strike().await
}
