//! Users, prices and the limits of keys: what may be said of them, and what not.

use anyhow::ensure;
use nexus_tests::Result;
use serde_json::{Value, json};

use crate::stage::{MODEL, Stage, ensure_error};

const LIMITS: [&str; 4] = [
    "requests_per_minute",
    "tokens_per_minute",
    "concurrent_requests",
    "monthly_budget",
];

/// A price in which one member is another.
fn price(member: &str, value: Value) -> Value {
    let mut body = json!({
        "model_name": MODEL,
        "input_micros_per_million": 1,
        "output_micros_per_million": 1,
    });
    body[member] = value;
    body
}

/// Path, body, and the member that the error names.
type BadCall = (&'static str, Value, &'static str);

fn bad_limits() -> Vec<BadCall> {
    let mut calls = Vec::new();
    for member in LIMITS {
        for value in [
            json!(-1),
            json!(0),
            json!(1e30),
            json!(1.5),
            json!("9"),
            json!([]),
            json!(true),
        ] {
            for path in ["/keys", "/users"] {
                calls.push((path, json!({"name": "new", member: value}), member));
            }
        }
    }
    calls.push(("/users", json!({}), "name"));
    calls.push(("/users", json!({"name": "new", "limit": 1}), "limit"));
    calls.push((
        "/keys",
        json!({"name": "new", "user_id": "nobody"}),
        "user_id",
    ));
    calls.push(("/keys", json!({"name": "new", "user_id": 7}), "user_id"));
    calls
}

fn bad_prices() -> Vec<BadCall> {
    let mut calls = Vec::new();
    for (member, value) in [
        ("input_micros_per_million", json!(-1)),
        ("input_micros_per_million", json!(null)),
        ("output_micros_per_million", json!(1e30)),
        ("cached_input_micros_per_million", json!("1")),
        ("currency", json!("usd")),
        ("currency", json!("EURO")),
        ("currency", json!(7)),
        ("valid_from_ms", json!(-1)),
        ("valid_from_ms", json!(u64::MAX)),
        ("provider_id", json!("nobody")),
        ("model_name", json!("")),
        ("discount", json!(1)),
    ] {
        calls.push(("/prices", price(member, value), member));
    }
    calls
}

#[tokio::test]
async fn bad_limits_and_prices_are_refused_by_name() -> Result<()> {
    let stage = Stage::set().await?;
    let client = &stage.client;
    for (path, body, member) in bad_limits().into_iter().chain(bad_prices()) {
        let answer = client.post(path, &body).await?;
        ensure_error(&answer, 400)?;
        ensure!(
            answer.json["error"]["param"] == member,
            "{path} {body}: {}",
            answer.text()
        );
    }
    // Well formed, and together with what is there without sense.
    let answer = client
        .post("/prices", &price("model_name", json!("nope")))
        .await?;
    ensure_error(&answer, 422)?;
    client
        .post("/prices", &price("currency", json!("EUR")))
        .await?
        .expect(201)?;
    let answer = client
        .post("/prices", &price("currency", json!("USD")))
        .await?;
    ensure_error(&answer, 422)?;
    ensure!(
        answer.json["error"]["param"] == "currency",
        "{}",
        answer.text()
    );
    // One that names none is in the currency of the others.
    let answer = client
        .post("/prices", &price("valid_from_ms", json!(0)))
        .await?;
    ensure!(answer.expect(201)?.json["currency"] == "EUR");
    stage.strike().await
}

#[tokio::test]
async fn users_and_keys_are_changed_by_what_is_named() -> Result<()> {
    let stage = Stage::set().await?;
    let client = &stage.client;
    let user = json!({"name": "ann", "monthly_budget": 5});
    let user = client.post("/users", &user).await?.expect(201)?;
    ensure_error(&client.post("/users", &json!({"name": "ann"})).await?, 409)?;
    let key = json!({"name": "hers", "user_id": "ann", "tokens_per_minute": 7});
    let key = client.post("/keys", &key).await?.expect(201)?;
    ensure!(key.json["user_id"] == user.json["id"], "{}", key.text());
    let path = format!("/keys/{}", key.id()?);

    let change = json!({"requests_per_minute": 9, "tokens_per_minute": null, "name": "his"});
    let outdated = client.with_header("if-match", "\"1\"")?;
    ensure_error(&outdated.put(&path, &change).await?, 412)?;
    let changed = client.put(&path, &change).await?.expect(200)?;
    for (member, expected) in [
        ("name", json!("his")),
        ("requests_per_minute", json!(9)),
        ("tokens_per_minute", json!(null)),
        ("user_id", user.json["id"].clone()),
        ("role", json!("member")),
        ("on_disconnect", json!("finish")),
    ] {
        ensure!(
            changed.json[member] == expected,
            "{member}: {}",
            changed.text()
        );
    }
    ensure!(changed.json.get("hash").is_none() && changed.json.get("key").is_none());
    let tag = changed.header("etag").unwrap_or_default().to_owned();
    let same = client.get("/keys/his").await?.expect(200)?;
    ensure!(same.header("etag") == Some(&*tag) && same.json == changed.json);

    // A user goes only when no key names it.
    ensure_error(&client.delete("/users/ann").await?, 409)?;
    client
        .put(&path, &json!({"user_id": null}))
        .await?
        .expect(200)?;
    let operator = client.with_new_key("operator", "operator").await?;
    ensure_error(&operator.delete("/users/ann").await?, 403)?;
    ensure_error(
        &operator
            .put("/keys/admin", &json!({"name": "mine"}))
            .await?,
        403,
    )?;
    operator
        .put(&path, &json!({"monthly_budget": 1}))
        .await?
        .expect(200)?;
    client.delete("/users/ann").await?.expect(200)?;
    ensure_error(&client.get("/users/ann").await?, 404)?;
    let rows = client.get("/users").await?.expect(200)?;
    ensure!(rows.json["data"] == json!([]), "{}", rows.text());

    // The read model has the same.
    let model = stage.hub.read_model();
    let budget = "SELECT count(*) FROM api_keys WHERE name = 'his' AND monthly_budget = 1
                  AND requests_per_minute = 9 AND tokens_per_minute IS NULL AND user_id IS NULL";
    model.until_number(budget, 1).await?;
    model.until_number("SELECT count(*) FROM users", 0).await?;
    stage.strike().await
}
