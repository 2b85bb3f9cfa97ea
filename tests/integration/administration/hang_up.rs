//! A client that hangs up half-way takes nothing of what it did out of the audit trail.

use std::time::Duration;

use anyhow::ensure;
use nexus_tests::account::{BOUND, shipped};
use nexus_tests::log::{Event, Stream};
use nexus_tests::{Broker, Chaos, Hub, Result, until};
use serde_json::json;

/// What a call needs to get to the point where it waits for the broker: some milliseconds.
const UNDER_WAY: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_audited_although_its_client_hung_up() -> Result<()> {
    let broker = Broker::start().await?;
    let wire = Chaos::start(&broker.host_port())?;
    let hub = Hub::standalone()
        .env("NEXUS_NATS_URL", format!("nats://{}", wire.url_host_port()))
        .start()
        .await?;
    let (admin, impatient) = (hub.client()?, hub.client()?);
    let connections = async || hub.metric("nexus_connections").await;
    let before = connections().await?;

    wire.stall();
    let body = json!({"name": "late", "server_url": "http://127.0.0.1:9"});
    tokio::select! {
        answer = impatient.post("/providers", &body) => {
            anyhow::bail!("answered before anything was stored: {answer:?}")
        }
        () = tokio::time::sleep(UNDER_WAY) => {}
    }
    until(
        "the hub has seen that its client is gone",
        BOUND,
        async || {
            let open = connections().await?;
            ensure!(open <= before, "{open:?} are open, {before:?} were");
            anyhow::Ok(())
        },
    )
    .await?;

    wire.flow();
    until("the change is in force", BOUND, async || {
        admin.get("/providers/late").await?.expect(200).map(drop)
    })
    .await?;
    shipped(&hub).await?;
    until("the change is in the audit trail", BOUND, async || {
        let events = hub.log().await?.events(Stream::Audit).await?;
        let calls = events
            .iter()
            .filter(|event| event.name() == "management_call");
        let of_it: Vec<_> = calls
            .map(Event::data)
            .filter(|call| call["url.path"] == "/providers")
            .map(|call| call["http.response.status_code"].clone())
            .collect();
        ensure!(of_it == [json!(201)], "{of_it:?}");
        anyhow::Ok(())
    })
    .await
}
