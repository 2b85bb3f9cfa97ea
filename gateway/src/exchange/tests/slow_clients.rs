//! Clients that do not read what they asked for.

use nexus_events::audit_event::BreakerState;

use super::*;

/// More than lies between a provider and a client that does not read.
const CHUNKS: usize = 1_000;

fn long_stream() -> Vec<Step> {
    let words = "x".repeat(16 * 1024);
    let chunks = (0..CHUNKS).map(|_| chunk(0, &words, None));
    let end = [chunk(0, "", Some("stop")), send("data: [DONE]\n\n")];
    std::iter::once(stream_head())
        .chain(chunks)
        .chain(end)
        .collect()
}

/// The provider's idle time-out is below a second here; the client stands still for a minute.
#[tokio::test]
async fn a_client_that_does_not_read_costs_its_provider_nothing() {
    let (hub, _upstream) = Hub::before(long_stream()).await;
    let mut body = body(hub.chat(ASK_STREAM).await);
    body.frame().await.unwrap().unwrap();
    let stands_still = async {
        while hub.seen("p").in_flight > 0 {
            tokio::task::yield_now().await;
        }
    };
    let bound = Duration::from_secs(30);
    let waited = tokio::time::timeout(bound, stands_still).await;
    waited.expect("what waits for the client is not under way at the provider");
    tokio::time::pause();
    tokio::time::advance(Duration::from_mins(1)).await;
    tokio::time::resume();
    let (text, ended) = read(body).await;
    assert!(ended && text.ends_with("data: [DONE]\n\n"));
    let events = hub.ended().await;
    assert_eq!(kinds(&events).last(), Some(&"tokens_counted"));
    assert_eq!(terminal(&events)["nexus.chunks"], CHUNKS + 1);
    let seen = hub.seen("p");
    assert!(seen.latency.unwrap() < Duration::from_secs(20), "{seen:?}");
    assert_eq!(seen.breaker, BreakerState::Closed);
    assert!(seen.last_failure.is_none() && seen.in_flight == 0);
    let spent = hub.parts.metrics.upstream_seconds.get_sample_sum();
    assert!(spent < 40.0, "an attempt of {spent} s");
}
