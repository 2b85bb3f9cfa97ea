//! Two gateways under load let through exactly what a limit allows.

use anyhow::ensure;
use nexus_tests::client::{Answer, Ending};
use nexus_tests::gate::Gate;
use nexus_tests::{Result, Script};
use serde_json::{Value, json};

use super::pair::{Pair, a_refusal, ask, at_once, held_at_once, reserved};
use crate::stage::ensure_error;

fn ensure_refusal(answer: &Answer, kind: &str, code: &str, says: &str) -> Result<()> {
    ensure_error(answer, 429)?;
    let error = &answer.json["error"];
    ensure!(error["type"] == kind && error["code"] == code, "{error}");
    let message = error["message"].as_str().unwrap_or_default();
    ensure!(message.contains(says), "{message}");
    ensure!(answer.header("retry-after").is_some(), "{answer:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_a_minute_of_a_key_and_of_a_user_with_two() -> Result<()> {
    let pair = Pair::set().await?;
    pair.upstream.always(Script::answer());
    let limited = json!({"name": "limited", "requests_per_minute": 7});
    let clients = pair.key(&limited).await?;
    let began = pair.begin().await?;
    let answers = at_once(&clients, 40).await?;
    pair.ensure_exact(&answers, (7, 1), &began).await?;
    let says = "The key 'limited' may send 7 requests a minute.";
    ensure_refusal(
        a_refusal(&answers)?,
        "requests",
        "rate_limit_exceeded",
        says,
    )?;

    let user = json!({"name": "ann", "requests_per_minute": 5});
    pair.admins[0].post("/users", &user).await?.expect(201)?;
    let mut clients = Vec::new();
    for name in ["ann-1", "ann-2"] {
        let key = json!({"name": name, "user_id": "ann"});
        clients.extend(pair.key(&key).await?);
    }
    let began = pair.begin().await?;
    let answers = at_once(&clients, 40).await?;
    pair.ensure_exact(&answers, (5, 1), &began).await?;
    let says = "The user 'ann' may send 5 requests a minute.";
    ensure_refusal(
        a_refusal(&answers)?,
        "requests",
        "rate_limit_exceeded",
        says,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_a_minute() -> Result<()> {
    let pair = Pair::set().await?;
    let gate = Gate::closed();
    pair.upstream
        .always(Script::answer().wait_before_headers(&gate));
    let limit = 3 * reserved() + reserved() / 10;
    let clients = pair
        .key(&json!({"name": "limited", "tokens_per_minute": limit}))
        .await?;
    let began = pair.begin().await?;
    let answers = held_at_once(&clients, 20, &gate).await?;
    pair.ensure_exact(&answers, (limit, reserved()), &began)
        .await?;
    let says = format!("The key 'limited' may use {limit} tokens a minute");
    ensure_refusal(a_refusal(&answers)?, "tokens", "rate_limit_exceeded", &says)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_at_once_and_money() -> Result<()> {
    let pair = Pair::set().await?;
    pair.price().await?;
    // Micro-dollars: one thousand a token.
    let budget = 3 * reserved() * 1000 + 999;
    let cases: [(Value, &str, &str, &str); 2] = [
        (
            json!({"name": "narrow", "concurrent_requests": 3}),
            "requests",
            "rate_limit_exceeded",
            "The key 'narrow' may have 3 requests under way at once.",
        ),
        (
            json!({"name": "poor", "monthly_budget": budget}),
            "insufficient_quota",
            "insufficient_quota",
            "The key 'poor' may spend",
        ),
    ];
    for (key, kind, code, says) in cases {
        let clients = pair.key(&key).await?;
        for _ in 0..2 {
            let gate = Gate::closed();
            pair.upstream
                .always(Script::answer().wait_before_headers(&gate));
            let began = pair.begin().await?;
            let answers = held_at_once(&clients, 20, &gate).await?;
            pair.ensure_count(&answers, 3, 3, &began).await?;
            ensure_refusal(a_refusal(&answers)?, kind, code, says)?;
            // What the three did not use is there again: so the second round is as the first.
            if kind == "insufficient_quota" {
                let raised = json!({"monthly_budget": budget + 3 * 10 * 1000});
                pair.admins[0]
                    .put("/keys/poor", &raised)
                    .await?
                    .expect(200)?;
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_request_of_a_client_finds_its_place_free() -> Result<()> {
    let pair = Pair::set().await?;
    pair.upstream.always(Script::answer());
    let one = pair
        .key(&json!({"name": "one", "concurrent_requests": 1}))
        .await?;
    for number in 0..10 {
        // By turns, and by turns streamed.
        let client = &one[number % 2];
        client.chat(&ask(number)).await?.expect(200)?;
        let mut streamed = ask(number);
        streamed["stream"] = json!(true);
        let seen = client.chat_stream(&streamed).await?.end().await?;
        ensure!(seen.ending == Some(Ending::Done), "{seen:?}");
    }
    Ok(())
}
