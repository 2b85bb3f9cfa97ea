//! The harness against the real executable: what every other test takes for granted.

use nexus_tests::client::Ending;
use nexus_tests::log::{Stream, assert_no_duplicates, assert_no_gaps, terminals_by_request};
use nexus_tests::upstream::content;
use nexus_tests::{Broker, Cluster, Hub, Redis, Result, Upstream};
use serde_json::{Value, json};

fn asking(tag: &str) -> Value {
    json!({"model": "gpt-test", "messages": [{"role": "user", "content": format!("about {tag}")}]})
}

#[tokio::test]
async fn a_hub_answers_records_projects_and_stops() -> Result<()> {
    let upstream = Upstream::start().await?;
    let mut hub = Hub::standalone().start().await?;
    let client = hub.client()?;
    client.serve_model("gpt-test", &upstream.url()).await?;

    let answer = client.chat(&asking("whole")).await?.expect(200)?;
    assert_eq!(answer.content(), content::text("whole", 0, 5));
    let mut stream = client.chat_stream(&asking("stream")).await?;
    let seen = stream.end().await?;
    assert_eq!(seen.ending(), Ending::Done);
    assert_eq!(seen.text(0), content::text("stream", 0, 5));

    let log = hub.log().await?;
    let ids = [answer.header("x-request-id"), stream.header("x-request-id")].map(Option::unwrap);
    log.until_terminal(ids).await?;
    hub.read_model()
        .until_number("SELECT count(*) FROM exchanges", 2)
        .await?;

    hub.kill().await?;
    hub.start_again().await?;
    let log = hub.log().await?;
    let mut events = Vec::new();
    for stream in Stream::SHIPPED {
        events.extend(log.events(stream).await?);
    }
    assert_no_duplicates(&events)?;
    assert_no_gaps(&events)?;
    let terminals = terminals_by_request(&events);
    assert_eq!(terminals.len(), 2, "{terminals:?}");
    assert!(
        terminals.values().all(|ends| ends.len() == 1),
        "{terminals:?}"
    );
    assert_eq!(hub.stop().await?.code(), Some(0));
    Ok(())
}

#[tokio::test]
async fn the_roles_share_one_installation() -> Result<()> {
    let upstream = Upstream::start().await?;
    let broker = Broker::start().await?;
    let redis = Redis::start().await?;
    let cluster = Cluster::new(&broker, &redis)?;
    let mut gateway = cluster.gateway().start().await?;
    let mut projector = cluster.projector().start().await?;

    let client = gateway.client()?;
    client.serve_model("gpt-test", &upstream.url()).await?;
    client.chat(&asking("shared")).await?.expect(200)?;
    cluster
        .read_model()
        .until_number("SELECT count(*) FROM exchanges", 1)
        .await?;

    assert_eq!(gateway.stop().await?.code(), Some(0));
    assert_eq!(projector.stop().await?.code(), Some(0));
    Ok(())
}
