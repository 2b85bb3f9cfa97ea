//! The response cache: an answer that was given before, given again and recorded as such.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, ensure};
use nexus_tests::account::{Account, assert_verified, projected, shipped};
use nexus_tests::client::{Answer, Ending};
use nexus_tests::hub::Cluster;
use nexus_tests::{Broker, Client, Log, Redis, Result, Script, Upstream};
use serde_json::{Value, json};

use crate::stage::{MODEL, Stage, VISIBLE_BOUND, ask, request_id, shown};

/// A route named as the model, whose answers are kept.
async fn keep_answers(client: &Client) -> Result<()> {
    let route = json!({"name": MODEL, "targets": [{"model": MODEL}], "cache_ttl_seconds": 600});
    client.post("/routes", &route).await?.expect(201)?;
    Ok(())
}

/// A deterministic request.
fn fixed(tag: &str) -> Value {
    let mut body = ask(tag);
    body["temperature"] = json!(0);
    body
}

fn outcome(answer: &Answer) -> Option<&str> {
    answer.header("x-nexus-cache")
}

#[tokio::test]
async fn an_identical_request_gets_the_same_answer_and_uses_nothing() -> Result<()> {
    let stage = Stage::set().await?;
    keep_answers(&stage.client).await?;
    let first = stage.client.chat(&fixed("whole")).await?.expect(200)?;
    ensure!(outcome(&first) == Some("miss"));
    let again = stage.client.chat(&fixed("whole")).await?.expect(200)?;
    ensure!(outcome(&again) == Some("hit") && again.json == first.json);
    // What is not the same, not deterministic, or wanted anew goes to the provider.
    let other = stage.client.chat(&fixed("another")).await?.expect(200)?;
    ensure!(outcome(&other) == Some("miss"));
    let free = stage.client.chat(&ask("whole")).await?.expect(200)?;
    ensure!(outcome(&free).is_none());
    let anew = stage.client.with_header("cache-control", "no-cache")?;
    let anew = anew.chat(&fixed("whole")).await?.expect(200)?;
    ensure!(outcome(&anew) == Some("miss"));
    ensure!(stage.upstream.idle().await?.len() == 4);

    shipped(&stage.hub).await?;
    let account = Account::take(&stage.log).await?;
    let (hit, miss) = (request_id(&again)?, request_id(&first)?);
    let names = |id: &str| {
        let events = account.events_of(id);
        events.iter().map(|event| event.name()).collect::<Vec<_>>()
    };
    ensure!(
        names(&hit) == ["received", "completed"],
        "{:?}",
        names(&hit)
    );
    let end = account.terminal(&hit)?.data();
    ensure!(end["nexus.usage.source"] == "cache", "{end}");
    ensure!(end["gen_ai.usage.input_tokens"] == 0 && end["nexus.attempts"] == 0);
    ensure!(end["nexus.model"] == MODEL, "{end}");
    let asked = account.terminal(&miss)?.data();
    ensure!(asked["nexus.usage.source"] == "provider", "{asked}");
    projected(&stage.hub).await?;
    let path = format!("/requests/{hit}");
    let request = shown(&stage.client, &path, |body| {
        if body["usage_source"] == "cache" {
            Ok(())
        } else {
            Err("not yet")
        }
    })
    .await?;
    ensure!(
        request["attempts"] == json!([]) || request["attempts"] == 0,
        "{request}"
    );
    assert_verified(&stage.hub).await?;
    stage.strike().await
}

#[tokio::test]
async fn a_stream_is_given_again_chunk_by_chunk() -> Result<()> {
    let stage = Stage::set().await?;
    keep_answers(&stage.client).await?;
    let first = stage.client.chat_stream(&fixed("s")).await?.end().await?;
    let mut again = stage.client.chat_stream(&fixed("s")).await?;
    ensure!(again.header("x-nexus-cache") == Some("hit"));
    let again = again.end().await?;
    ensure!(again.ending() == Ending::Done && again.chunks() == first.chunks());
    // The usage that only the log has is for whoever asks for it.
    ensure!(again.usage().is_none());
    let mut with_usage = fixed("s");
    with_usage["stream_options"] = json!({"include_usage": true});
    let told = stage.client.chat_stream(&with_usage).await?.end().await?;
    ensure!(told.usage().is_some());
    ensure!(stage.upstream.idle().await?.len() == 1);
    stage.strike().await
}

#[tokio::test]
async fn what_is_broken_or_of_another_key_is_not_given() -> Result<()> {
    let stage = Stage::set().await?;
    keep_answers(&stage.client).await?;
    stage.upstream.once(Script::answer().cut_after(2));
    let cut = stage.client.chat_stream(&fixed("cut")).await?.end().await?;
    ensure!(cut.ending() != Ending::Done, "{:?}", cut.ending());
    let whole = stage.client.chat_stream(&fixed("cut")).await?.end().await?;
    ensure!(whole.ending() == Ending::Done);
    ensure!(stage.upstream.idle().await?.len() == 2);
    let member = stage.client.with_new_key("member", "member").await?;
    // Its own word goes before the route's.
    let never = json!({"cache_ttl_seconds": 0});
    stage
        .client
        .put("/keys/member", &never)
        .await?
        .expect(200)?;
    let theirs = member.chat_stream(&fixed("cut")).await?;
    ensure!(theirs.header("x-nexus-cache").is_none());
    drop(theirs);
    let again = json!({"cache_ttl_seconds": null});
    stage
        .client
        .put("/keys/member", &again)
        .await?
        .expect(200)?;
    let theirs = member.chat_stream(&fixed("cut")).await?;
    ensure!(theirs.header("x-nexus-cache") == Some("miss"));
    drop(theirs);
    // A provider that was changed may answer otherwise.
    let provider = format!("/providers/provider-of-{MODEL}");
    let change = json!({"rate_limit": 1000});
    stage.client.put(&provider, &change).await?.expect(200)?;
    let changed = stage.client.chat_stream(&fixed("cut")).await?;
    ensure!(changed.header("x-nexus-cache") == Some("miss"));
    drop(changed);
    stage.upstream.idle().await?;
    stage.strike().await
}

#[tokio::test]
async fn an_answer_that_did_not_end_soundly_is_not_kept() -> Result<()> {
    let stage = Stage::set().await?;
    keep_answers(&stage.client).await?;
    let message = json!({"role": "assistant", "content": "and so"});
    let open = json!({
        "id": "chatcmpl-open", "object": "chat.completion", "created": 1, "model": MODEL,
        "choices": [{"index": 0, "message": message}],
    });
    let filtered = Script::answer().finish_reason("content_filter");
    for (tag, script) in [("open", Script::json(200, &open)), ("filtered", filtered)] {
        stage.upstream.once(script);
        stage.client.chat(&fixed(tag)).await?.expect(200)?;
        let again = stage.client.chat(&fixed(tag)).await?.expect(200)?;
        ensure!(outcome(&again) == Some("miss"), "{tag} was given again");
        let third = stage.client.chat(&fixed(tag)).await?.expect(200)?;
        ensure!(outcome(&third) == Some("hit"), "{tag}");
    }
    stage.strike().await
}

#[tokio::test]
async fn a_hit_says_nothing_of_the_provider() -> Result<()> {
    let stage = Stage::set().await?;
    let route = json!({"name": MODEL, "targets": [{"model": MODEL}], "attempts": 1, "cache_ttl_seconds": 600});
    stage.client.post("/routes", &route).await?.expect(201)?;
    stage.client.chat(&fixed("known")).await?.expect(200)?;
    stage.upstream.always(Script::failure(500, "down"));
    for number in 0..5 {
        // The breaker opens with the fifth failure in a row, and what is known is no success in between.
        let hit = stage.client.chat(&fixed("known")).await?.expect(200)?;
        ensure!(outcome(&hit) == Some("hit"));
        let failed = stage.client.chat(&fixed(&number.to_string())).await?;
        ensure!(failed.status >= 500, "{}", failed.text());
    }
    let path = format!("/providers/provider-of-{MODEL}");
    let provider = stage.client.get(&path).await?.expect(200)?;
    ensure!(
        provider.json["health"]["state"] == "open",
        "{}",
        provider.text()
    );
    stage.strike().await
}

/// Names of provider and model in a request's end, and its provider's id.
fn booked(account: &Account, answer: &Answer) -> Result<(Value, Value, Value)> {
    let end = account.terminal(&request_id(answer)?)?.data();
    ensure!(end["nexus.usage.source"] == "cache", "{end}");
    let member = |name: &str| end[name].clone();
    let (name, id) = ("gen_ai.provider.name", "nexus.provider.id");
    Ok((member(name), member("nexus.model"), member(id)))
}

#[tokio::test]
async fn a_hit_is_booked_on_who_gave_the_answer() -> Result<()> {
    let stage = Stage::set().await?;
    let (client, second) = (&stage.client, Upstream::start().await?);
    let served = client.serve_model("another", &second.url()).await?;
    let targets = json!([{"model": MODEL}, {"model": "another", "priority": 1}]);
    let route = json!({"name": "both", "targets": targets, "cache_ttl_seconds": 600});
    client.post("/routes", &route).await?.expect(201)?;
    let of = |tag: &str| {
        let mut body = fixed(tag);
        body["model"] = json!("both");
        body
    };
    client.chat(&of("by the first")).await?.expect(200)?;
    stage.upstream.always(Script::failure(500, "down"));
    client.chat(&of("by the second")).await?.expect(200)?;
    // The first would be asked now.
    let of_second = client.chat(&of("by the second")).await?.expect(200)?;
    for number in 0..5 {
        client
            .chat(&of(&format!("again {number}")))
            .await?
            .expect(200)?;
    }
    let provider = format!("/providers/provider-of-{MODEL}");
    let seen = client.get(&provider).await?.expect(200)?;
    ensure!(seen.json["health"]["state"] == "open", "{}", seen.text());
    // And now the second.
    let of_first = client.chat(&of("by the first")).await?.expect(200)?;
    ensure!(outcome(&of_first) == Some("hit") && outcome(&of_second) == Some("hit"));

    shipped(&stage.hub).await?;
    let account = Account::take(&stage.log).await?;
    let first_id = seen.id()?;
    let expected = |model: &str, id: &str| {
        let provider = json!(format!("provider-of-{model}"));
        (provider, json!(model), json!(id))
    };
    let (first, second) = (booked(&account, &of_first)?, booked(&account, &of_second)?);
    ensure!(first == expected(MODEL, &first_id), "{first:?}");
    ensure!(
        second == expected("another", &served.provider_id),
        "{second:?}"
    );
    projected(&stage.hub).await?;
    for (model, requests) in [(MODEL, 2), ("another", 7)] {
        let used = format!(
            "SELECT sum(requests) FROM usage_hourly WHERE provider = 'provider-of-{model}'"
        );
        let seen = stage.hub.read_model().number(&used).await?;
        ensure!(seen == requests, "{model}: {seen}");
    }
    assert_verified(&stage.hub).await?;
    stage.strike().await
}

#[tokio::test]
async fn answers_do_not_fill_a_redis_with_a_bound() -> Result<()> {
    let (broker, redis) = (Broker::start().await?, Redis::start().await?);
    let upstream = Upstream::start().await?;
    let cluster = Cluster::new(&broker, &redis)?;
    let gateway = cluster.gateway().start().await?;
    let client = gateway.client()?;
    client.serve_model(MODEL, &upstream.url()).await?;
    keep_answers(&client).await?;
    let kept = async || -> Result<usize> {
        let mut connection = redis.connection().await?;
        let keys: Vec<String> = redis::cmd("KEYS")
            .arg("nexus:{answer:*")
            .query_async(&mut connection)
            .await?;
        Ok(keys.len())
    };
    // A busy Redis is not waited for, so one answer may not be kept.
    let tries = AtomicUsize::new(0);
    let before = nexus_tests::until("an answer is kept", VISIBLE_BOUND, async || {
        let number = tries.fetch_add(1, Ordering::Relaxed);
        let body = fixed(&format!("first {number}"));
        client.chat(&body).await?.expect(200)?;
        let kept = kept().await?;
        ensure!(kept > 0, "none is kept");
        anyhow::Ok(kept)
    })
    .await?;
    let mut connection = redis.connection().await?;
    let info: String = redis::cmd("INFO")
        .arg("memory")
        .query_async(&mut connection)
        .await?;
    let used = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    let used: u64 = used.context("no used_memory")?.trim().parse()?;
    redis::cmd("CONFIG")
        .arg(&["SET", "maxmemory", &(used + used / 2).to_string()])
        .exec_async(&mut connection)
        .await?;
    client.chat(&fixed("second")).await?.expect(200)?;
    let after = kept().await?;
    ensure!(after == before, "there is room for other things only");
    Ok(())
}

#[tokio::test]
async fn gateways_share_what_they_keep_and_go_on_without_redis() -> Result<()> {
    let (broker, mut redis) = (Broker::start().await?, Redis::start().await?);
    let upstream = Upstream::start().await?;
    let cluster = Cluster::new(&broker, &redis)?;
    let (a, b) = (
        cluster.gateway().start().await?,
        cluster.gateway().start().await?,
    );
    let (here, there) = (a.client()?, b.client()?);
    here.serve_model(MODEL, &upstream.url()).await?;
    keep_answers(&here).await?;
    // The first one always fails, and is who would be asked.
    let second = Upstream::start().await?;
    here.serve_model("another", &second.url()).await?;
    let targets = json!([{"model": MODEL}, {"model": "another", "priority": 1}]);
    let change = json!({"targets": targets});
    let route = format!("/routes/{MODEL}");
    here.put(&route, &change).await?.expect(200)?;
    upstream.always(Script::failure(500, "down"));
    here.chat(&fixed("shared")).await?.expect(200)?;
    let hit = nexus_tests::until("the route is there as well", VISIBLE_BOUND, async || {
        let answer = there.chat(&fixed("shared")).await?;
        ensure!(outcome(&answer) == Some("hit"), "{}", answer.text());
        anyhow::Ok(answer)
    })
    .await?;
    shipped(&b).await?;
    let account = Account::take(&Log::connect(&broker.url()).await?).await?;
    let (provider, model, _) = booked(&account, &hit)?;
    ensure!((provider, model) == (json!("provider-of-another"), json!("another")));
    redis.kill().await.context("kill Redis")?;
    let kept = here.chat(&fixed("shared")).await?.expect(200)?;
    ensure!(outcome(&kept) == Some("hit"), "it keeps its own");
    Ok(())
}
