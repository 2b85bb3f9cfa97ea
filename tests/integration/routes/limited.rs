//! A provider's `rate_limit` in the explanation of a route: looked at, never taken from.

use anyhow::ensure;
use nexus_tests::account::BOUND;
use nexus_tests::{Result, until};
use serde_json::{Value, json};

use crate::stage::{MODEL, Stage};

fn ask(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hello"}]})
}

#[tokio::test]
async fn a_provider_at_its_limit_is_passed_over_in_the_explanation_too() -> Result<()> {
    let stage = Stage::set().await?;
    let client = &stage.client;
    super::provider_at(client, "limited", "few", &stage.upstream.url()).await?;
    let limit = json!({"rate_limit": 1});
    client
        .put("/providers/limited", &limit)
        .await?
        .expect(200)?;
    let targets = json!([{"model": "few"}, {"model": MODEL, "priority": 1}]);
    let route = json!({"name": "r", "targets": targets});
    client.post("/routes", &route).await?.expect(201)?;
    let explain = async |model: &str| {
        let path = format!("/routes/explain?model={model}");
        anyhow::Ok(client.get(&path).await?.expect(200)?.json)
    };
    // However often one looks, nothing is taken.
    for _ in 0..20 {
        let explained = explain("r").await?;
        let [few, other] = [0, 1].map(|place| &explained["candidates"][place]);
        let full = json!({"limit": 1, "remaining": 1, "used_up": false, "retry_after_ms": 0});
        ensure!(few["rate_limit"] == full, "{few}");
        ensure!(
            few["usable"] == true && explained["chosen"] == 0,
            "{explained}"
        );
        ensure!(other["rate_limit"].is_null(), "{other}");
    }
    // It is one a second, and a slow machine may look too late.
    until("the limit is used up", BOUND, async || {
        client.chat(&ask("few")).await?;
        let (by_route, alone) = (explain("r").await?, explain("few").await?);
        let few = &by_route["candidates"][0];
        ensure!(few["rate_limit"]["used_up"] == true, "{few}");
        ensure!(few["rate_limit"]["remaining"] == 0, "{few}");
        let wait = few["rate_limit"]["retry_after_ms"].as_u64();
        ensure!(wait > Some(0) && wait <= Some(1000), "{few}");
        ensure!(
            few["usable"] == false && few["why_not"] == "rate_limited",
            "{few}"
        );
        ensure!(by_route["chosen"] == 1, "{by_route}");
        let because = alone["because"].as_str().unwrap_or_default();
        ensure!(
            alone["chosen"].is_null() && because.contains("429"),
            "{alone}"
        );
        Ok(())
    })
    .await?;
    stage.strike().await
}
