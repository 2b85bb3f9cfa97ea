//! An outbox that takes no more of what clients ask still takes what is to be audited.

use anyhow::ensure;
use nexus_tests::account::{BOUND, shipped};
use nexus_tests::log::{Event, Stream};
use nexus_tests::{Broker, Chaos, Hub, Result, until};
use serde_json::json;

/// The smallest that the hub takes.
const SMALL: &str = "1MiB";

/// A prompt that takes most of it.
const PROMPT_BYTES: usize = 800_000;

/// Refusals that fit beside that prompt, and some more: each has some hundred bytes.
const REFUSALS: usize = 1_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_outbox_hides_no_refused_access() -> Result<()> {
    let broker = Broker::start().await?;
    let wire = Chaos::start(&broker.host_port())?;
    let hub = Hub::standalone()
        .env("NEXUS_NATS_URL", format!("nats://{}", wire.url_host_port()))
        .env("NEXUS_OUTBOX_MAX_BYTES", SMALL)
        .start()
        .await?;
    let admin = hub.client()?;
    let viewer = admin.with_new_key("eve", "viewer").await?;
    admin.serve_model("nobody", "http://127.0.0.1:9").await?;
    shipped(&hub).await?;

    wire.stall();
    let ask = |model: &str, prompt: String| json!({"model": model, "messages": [{"role": "user", "content": prompt}]});
    let large = ask("nobody", "x".repeat(PROMPT_BYTES));
    admin.chat(&large).await?.expect(502)?;
    let mut refusals = 0;
    let unrecorded = r#"nexus_unrecorded_events_total{kind="rejected"}"#;
    while hub.metric(unrecorded).await?.is_none() {
        admin
            .chat(&ask("none", "a".to_owned()))
            .await?
            .expect(404)?;
        refusals += 1;
        ensure!(refusals < REFUSALS, "the outbox is never full");
    }
    viewer.delete("/providers/echo").await?.expect(403)?;

    wire.flow();
    until(
        "the refused access is in the audit trail",
        BOUND,
        async || {
            let events = hub.log().await?.events(Stream::Audit).await?;
            let mut names = events.iter().map(Event::name);
            ensure!(names.any(|name| name == "access_refused"), "it is not");
            anyhow::Ok(())
        },
    )
    .await
}
