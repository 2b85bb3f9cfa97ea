//! The read model can be thrown away: it comes back from the log, row for row, and `nexus verify`
//! finds the row that is not as the log has it.

use std::time::Duration;

use anyhow::{Context, ensure};
use nexus_tests::client::Ending;
use nexus_tests::log::Stream;
use nexus_tests::read_model::assert_same;
use nexus_tests::{Broker, Client, Hub, Result, Script, Upstream, until};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tokio_util::sync::CancellationToken;

use nexus_tests::account::{self, BOUND, assert_verified, settled_dump, verify};

const MODEL: &str = "gpt-test";

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn ask(messages: &[Value]) -> Value {
    json!({"model": MODEL, "messages": messages})
}

/// Something of everything that an event can say: turns and branches, streams, tools, choices,
/// failures of each kind, refusals, counted tokens, several keys, and changes of configuration.
async fn varied_load(hub: &Hub, upstream: &Upstream) -> Result<()> {
    let admin = hub.client()?;
    admin.serve_model(MODEL, &upstream.url()).await?;
    let member = admin.with_new_key("varied", "member").await?;
    converse(&member).await?;
    answer_in_many_ways(&admin, upstream).await?;
    fail_in_many_ways(&member, upstream).await?;
    change_configuration(&admin).await
}

/// A conversation of three turns with a branch at the second, under a system message.
async fn converse(client: &Client) -> Result<()> {
    let mut messages = vec![
        json!({"role": "system", "content": "You like rivers."}),
        user("where do rivers begin, turn-1"),
    ];
    let mut conversations = Vec::new();
    for turn in 2..=4 {
        let answer = client.chat(&ask(&messages)).await?.expect(200)?;
        conversations.push(answer.header("x-conversation-id").map(str::to_owned));
        if turn == 3 {
            let mut branch = messages.clone();
            branch.pop();
            branch.push(user("no, where do they end, branch-2"));
            client.chat(&ask(&branch)).await?.expect(200)?;
        }
        messages.push(json!({"role": "assistant", "content": answer.content()}));
        messages.push(user(&format!("and then, turn-{turn}")));
    }
    conversations.dedup();
    ensure!(
        conversations.len() == 1,
        "one conversation: {conversations:?}"
    );
    Ok(())
}

async fn answer_in_many_ways(client: &Client, upstream: &Upstream) -> Result<()> {
    let plain = ask(&[user("tell me, plain")]);
    let mut choices = plain.clone();
    choices["n"] = json!(3);
    choices["user"] = json!("ada");
    choices["temperature"] = json!(0.25);
    for script in [
        Script::answer(),
        Script::answer().tool_call("find_river", &json!({"name": "Elbe"})),
        Script::answer().without_usage(),
        Script::answer().saying(["one ", "two ", "河流"]),
    ] {
        upstream.once(script.clone());
        client.chat(&choices).await?.expect(200)?;
        upstream.once(script);
        let end = client.chat_stream(&choices).await?.end().await?;
        ensure!(end.ending == Some(Ending::Done), "{end:?}");
    }
    let embeddings = json!({"model": "echo", "input": ["tell me", "embedded"], "user": "ada"});
    client
        .post("/v1/embeddings", &embeddings)
        .await?
        .expect(200)?;
    // Content that is too large for a message.
    let large = ask(&[user(&"meander ".repeat(100_000))]);
    client.chat(&large).await?.expect(200)?;
    Ok(())
}

async fn fail_in_many_ways(client: &Client, upstream: &Upstream) -> Result<()> {
    for script in [
        Script::failure(400, "bad"),
        Script::garbage(),
        Script::status(200, "").header("content-type", "application/json"),
    ] {
        upstream.once(script);
        let answer = client.chat(&ask(&[user("it fails, plain")])).await?;
        ensure!(answer.status >= 400, "{}", answer.text());
    }
    for script in [
        Script::answer().cut_after(2),
        Script::answer().error_event_after(1, "fell_over"),
        Script::answer().garbage_after(3),
    ] {
        upstream.once(script);
        let end = client
            .chat_stream(&ask(&[user("it fails, stream")]))
            .await?
            .end()
            .await?;
        ensure!(matches!(end.ending, Some(Ending::ErrorEvent(_))), "{end:?}");
    }
    client
        .post_bytes("/v1/chat/completions", "{")
        .await?
        .expect(400)?;
    let unknown = json!({"model": "no-such", "messages": [user("anybody")]});
    client.chat(&unknown).await?.expect(404)?;
    // A member may not look at providers: that is an audit event.
    client.get("/providers").await?.expect(403)?;
    Ok(())
}

async fn change_configuration(client: &Client) -> Result<()> {
    let provider = json!({"name": "short-lived", "kind": "openai", "server_url": "http://127.0.0.1:9/v1", "server_key": "k"});
    client.post("/providers", &provider).await?.expect(201)?;
    let change = json!({"rate_limit": 7, "name": "renamed"});
    client
        .put("/providers/short-lived", &change)
        .await?
        .expect(200)?;
    client.delete("/providers/renamed").await?.expect(200)?;
    let key = json!({"name": "short-lived", "role": "viewer"});
    let key = client.post("/keys", &key).await?.expect(201)?.id()?;
    client.delete(&format!("/keys/{key}")).await?.expect(200)?;
    Ok(())
}

/// Rows of tables that the load must have filled: an empty read model equals an empty one.
async fn assert_something_of_everything(hub: &Hub) -> Result<()> {
    let read_model = hub.read_model();
    for (at_least, sql) in [
        (18, "SELECT count(*) FROM exchanges"),
        (6, "SELECT count(*) FROM exchanges WHERE state = 'failed'"),
        (2, "SELECT count(*) FROM exchanges WHERE state = 'rejected'"),
        (
            1,
            "SELECT count(*) FROM exchanges WHERE counted_output_tokens IS NOT NULL",
        ),
        (15, "SELECT count(*) FROM attempts"),
        (30, "SELECT count(*) FROM chat_stats"),
        (20, "SELECT count(*) FROM chat_messages"),
        (5, "SELECT count(*) FROM conversations"),
        (2, "SELECT count(*) FROM service_providers"),
        (2, "SELECT count(*) FROM provider_models"),
        (2, "SELECT count(*) FROM api_keys"),
        (8, "SELECT count(*) FROM audit_log"),
        (1, "SELECT count(*) FROM usage_hourly"),
    ] {
        let count = read_model.number(sql).await?;
        ensure!(count >= at_least, "{sql}: {count}");
    }
    let dead = "SELECT count(*) FROM dead_letter";
    ensure!(
        read_model.number(dead).await? == 0,
        "there are dead letters"
    );
    Ok(())
}

async fn loaded_hub() -> Result<(Hub, Upstream)> {
    let upstream = Upstream::start().await?;
    let hub = Hub::standalone().start().await?;
    varied_load(&hub, &upstream).await?;
    // The first backup of a day in the audit trail must not come between two comparisons.
    let log = hub.log().await?;
    log.until_events(Stream::Audit, "the first backup is recorded", |events| {
        let taken = events.iter().any(|event| event.name() == "backup_taken");
        if taken { Ok(()) } else { Err("no backup") }
    })
    .await?;
    Ok((hub, upstream))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_read_model_comes_back_identical() -> Result<()> {
    let (mut hub, _upstream) = loaded_hub().await?;
    let before = settled_dump(&hub).await?;
    assert_something_of_everything(&hub).await?;
    assert_verified(&hub).await?;

    // Deleted while nobody looks.
    ensure!(hub.stop().await?.success());
    std::fs::remove_dir_all(hub.read_model().folder())?;
    hub.start_again().await?;
    assert_same(&before, &settled_dump(&hub).await?).context("after a restart")?;

    // Deleted under a running hub, which goes on.
    let deleted = hub.read_model().database()?;
    std::fs::remove_dir_all(hub.read_model().folder())?;
    until("there is another database", BOUND, async || {
        let database = hub.read_model().database()?;
        ensure!(database.exists(), "{} is not there", database.display());
        anyhow::Ok(())
    })
    .await
    .with_context(|| format!("{} was deleted", deleted.display()))?;
    assert_same(&before, &settled_dump(&hub).await?).context("while it runs")?;
    assert_verified(&hub).await?;
    until("statistics are answered again", BOUND, async || {
        hub.client()?.get("/stats").await?.expect(200).map(drop)
    })
    .await
}

/// Changes the read model behind the projector's back.
async fn tamper(hub: &Hub, sql: &'static str) -> Result<()> {
    let mut connection = SqliteConnectOptions::new()
        .filename(hub.read_model().database()?)
        .busy_timeout(Duration::from_secs(10))
        .connect()
        .await?;
    let done = sqlx::query(sql).execute(&mut connection).await?;
    ensure!(done.rows_affected() == 1, "{sql} changed {done:?}");
    connection.close().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_prints_the_first_row_that_was_tampered_with() -> Result<()> {
    let (hub, _upstream) = loaded_hub().await?;
    settled_dump(&hub).await?;
    assert_verified(&hub).await?;
    // Each with what explains the row.
    for (table, explained, tampering, undo) in [
        (
            "usage_totals",
            "no single event",
            "UPDATE usage_totals SET prompt_tokens = prompt_tokens + 1",
            "UPDATE usage_totals SET prompt_tokens = prompt_tokens - 1",
        ),
        (
            "api_keys",
            "of NEXUS_CONFIG: ai.nexus.config.key_changed.v1",
            "UPDATE api_keys SET role = 'admin' WHERE name = 'varied'",
            "UPDATE api_keys SET role = 'member' WHERE name = 'varied'",
        ),
        (
            "chat_messages",
            "of NEXUS_EXCHANGES: ai.nexus.exchange.completed.v1",
            "INSERT INTO chat_messages SELECT conversation_id, 'forged', parent_id, role, message, \
             choice, request_id, carried_ms FROM chat_messages LIMIT 1",
            "DELETE FROM chat_messages WHERE message_id = 'forged'",
        ),
    ] {
        tamper(&hub, tampering).await?;
        let found = verify(&hub).await?;
        assert_eq!(found.status.code(), Some(1), "{table}: {found:?}");
        ensure!(found.stdout.contains(table), "{table}: {}", found.stdout);
        ensure!(
            found.stdout.contains(explained),
            "{table}: {}",
            found.stdout
        );
        tamper(&hub, undo).await?;
        assert_verified(&hub).await?;
    }
    // A row that is missing.
    let first = "DELETE FROM attempts WHERE (request_id, attempt) = \
                 (SELECT min(request_id), 1 FROM attempts)";
    tamper(&hub, first).await?;
    let found = verify(&hub).await?;
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    ensure!(found.stdout.contains("attempts"), "{}", found.stdout);
    let explained = "of NEXUS_EXCHANGES: ai.nexus.exchange.attempt_started.v1, about";
    ensure!(found.stdout.contains(explained), "{}", found.stdout);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_works_while_traffic_runs() -> Result<()> {
    let upstream = Upstream::start().await?;
    let hub = Hub::standalone().start().await?;
    let client = hub.client()?;
    client.serve_model(MODEL, &upstream.url()).await?;
    let enough = CancellationToken::new();
    let traffic = async {
        let mut sent = 0;
        // 2 000 is a bound, not a goal: verification takes a second or two.
        while !enough.is_cancelled() && sent < 2_000 {
            let body = ask(&[user(&format!("on and on, req-{sent}"))]);
            client.chat(&body).await?.expect(200)?;
            sent += 1;
        }
        anyhow::Ok(sent)
    };
    let verification = async {
        let verified = async {
            for _round in 0..3 {
                assert_verified(&hub).await?;
            }
            anyhow::Ok(())
        };
        let verified = verified.await;
        enough.cancel();
        verified
    };
    let (sent, verified) = tokio::join!(traffic, verification);
    verified?;
    ensure!(sent? > 10, "there was no traffic to speak of");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_goes_on_where_the_first_ended() -> Result<()> {
    let (mut hub, _upstream) = loaded_hub().await?;
    let before = settled_dump(&hub).await?;
    let database = hub.read_model().database()?;
    ensure!(hub.stop().await?.success());
    hub.start_again().await?;
    assert_eq!(hub.read_model().database()?, database, "it was rebuilt");
    assert_same(&before, &settled_dump(&hub).await?)?;
    let answer = hub
        .client()?
        .chat(&ask(&[user("once more, again")]))
        .await?;
    let request_id = answer
        .expect(200)?
        .header("x-request-id")
        .map(str::to_owned);
    let path = format!("/requests/{}", request_id.context("no X-Request-Id")?);
    until("the new request is shown", BOUND, async || {
        hub.client()?.get(&path).await?.expect(200).map(drop)
    })
    .await?;
    assert_eq!(hub.read_model().database()?, database, "it was rebuilt");
    assert_verified(&hub).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projector_whose_stream_was_created_anew_halts_itself_and_says_so() -> Result<()> {
    let broker = Broker::start().await?;
    let hub = Hub::standalone().nats(&broker).start().await?;
    let client = hub.client()?;
    let echo = json!({"model": "echo", "messages": [user("hello there")]});
    client.chat(&echo).await?.expect(200)?;
    settled_dump(&hub).await?;

    let jetstream = async_nats::jetstream::new(broker.client().await?);
    let stream = jetstream.get_stream("NEXUS_AUDIT").await?;
    let config = stream.cached_info().config.clone();
    drop(stream);
    jetstream.delete_stream("NEXUS_AUDIT").await?;
    jetstream.create_stream(config).await?;

    let metrics = hub.metrics()?;
    until(
        "/readyz tells that the read model halted",
        BOUND,
        async || {
            let ready = metrics.get("/readyz").await?;
            let parts = ready.json["parts"].as_array().into_iter().flatten();
            let mut halted =
                parts.filter(|part| part["part"] == "read_model" && part["ready"] == false);
            let why = halted.find_map(|part| part["reason"].as_str());
            ensure!(
                why.is_some_and(|why| why.contains("NEXUS_AUDIT")),
                "{}",
                ready.text()
            );
            anyhow::Ok(())
        },
    )
    .await?;
    // Traffic goes on, and the process is alive.
    client.chat(&echo).await?.expect(200)?;
    metrics.get("/healthz").await?.expect(200)?;
    let stats = client.get("/stats").await?.expect(503)?;
    assert_eq!(stats.error_code(), "read_model_unavailable");
    account::shipped(&hub).await
}
