//! The orderly stop, step by step: answers end, then what runs in the background, then the last
//! events are appended, then all of it is shipped, then the shipper stops and the outbox goes.

use anyhow::{Context, ensure};
use nexus_tests::account::{Account, BOUND, shipped};
use nexus_tests::client::Ending;
use nexus_tests::log::Stream;
use nexus_tests::{Broker, Chaos, Gate, Hub, Log, Result, Script, Upstream, programs, until};

use super::{MODEL, ask, outboxes, refuses_new_work};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_appended_last_is_shipped_before_the_outbox_goes() -> Result<()> {
    let (broker, upstream, gate) = (
        Broker::start().await?,
        Upstream::start().await?,
        Gate::closed(),
    );
    upstream.always(Script::answer().wait_after(2, &gate));
    let wire = Chaos::start(&broker.host_port())?;
    let through_wire = format!("nats://{}", wire.url_host_port());
    let hub = Hub::standalone().env("NEXUS_NATS_URL", through_wire);
    let mut hub = hub.start().await?;
    let client = hub.client()?;
    client.serve_model(MODEL, &upstream.url()).await?;
    let mut stream = client.chat_stream(&ask(MODEL, "slowly")).await?;
    stream.chunks(3).await?;
    // Counted, and told at the end of its minute or of the process.
    hub.anonymous()?.get("/providers").await?.expect(401)?;
    shipped(&hub).await?;

    hub.interrupt()?;
    refuses_new_work(&hub).await?;
    // The answer is under way, so everything that it may need goes on: the configuration, too.
    let sequence = async || {
        hub.metric("nexus_config_sequence")
            .await?
            .context("no sequence")
    };
    let before = sequence().await?;
    let mut create = hub.command(["keys", "create", "late"]);
    create.env("NEXUS_NATS_URL", broker.url());
    programs::run(&create, BOUND).await?.succeeded()?;
    until("the configuration is followed", BOUND, async || {
        let now = sequence().await?;
        ensure!(now > before, "it stands at {now}");
        anyhow::Ok(())
    })
    .await?;

    // From here on nothing is shipped until the last event is in the outbox.
    wire.stall();
    gate.open();
    let seen = stream.end().await?;
    ensure!(seen.ending == Some(Ending::Done), "{seen:?}");
    until("the calls without a key are told", BOUND, async || {
        let waiting = hub
            .metric("nexus_outbox_lag_events{lane=\"audit\"}")
            .await?;
        ensure!(waiting > Some(0.0), "{waiting:?} wait");
        anyhow::Ok(())
    })
    .await?;
    hub.ensure_running()?;
    wire.flow();
    let status = hub.ended().await?;
    ensure!(status.success(), "{status}: {}", hub.stderr());
    ensure!(outboxes(&hub)?.is_empty(), "left: {:?}", outboxes(&hub)?);

    let log = Log::connect(&broker.url()).await?;
    let account = Account::take(&log).await?;
    account.assert_one_end_each()?;
    let [request] = account.received()[..] else {
        anyhow::bail!("not received once")
    };
    ensure!(account.terminal(request)?.name() == "completed");
    let audit = log.events(Stream::Audit).await?;
    let told = audit
        .iter()
        .filter(|event| event.name().starts_with("unauthenticated"));
    ensure!(told.count() == 1, "{audit:#?}");
    Ok(())
}
