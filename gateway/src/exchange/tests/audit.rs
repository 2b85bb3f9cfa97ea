//! Audits of what providers count: of whole answers only, when the counter is idle, after the end.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{hub::OneEach, *};
use crate::exchange::count::{CountTokens, Counted, Counting, Uncounted};

/// Has no time for audits.
#[derive(Debug)]
struct Busy;

impl CountTokens for Busy {
    fn count(&self, uncounted: Uncounted) -> BoxFuture<'_, Counted> {
        Box::pin(async { OneEach.count(uncounted).await })
    }

    fn count_if_idle(&self, _: Uncounted) -> BoxFuture<'_, Option<Counted>> {
        Box::pin(async { None })
    }
}

async fn hub(script: Vec<Step>, counting: Counting) -> (Hub, Upstream) {
    let (hub, upstream) = Hub::before(script).await;
    (hub.counting(counting), upstream)
}

fn whole() -> Vec<Step> {
    vec![head("200 OK", "application/json"), send(ANSWER)]
}

fn figure(hub: &Hub, line: &str) -> bool {
    let text = String::from_utf8(hub.parts.metrics.encode().unwrap()).unwrap();
    text.lines().any(|one| one == line)
}

#[tokio::test]
async fn what_the_provider_counted_is_audited_after_the_end() {
    let everything = || Counting::new(Arc::new(OneEach)).auditing(100);
    let stream = vec![
        stream_head(),
        chunk(0, "one", Some("stop")),
        send(USAGE),
        send("data: [DONE]\n\n"),
    ];
    for (script, ask) in [(whole(), ASK), (stream, ASK_STREAM)] {
        let (hub, _upstream) = hub(script, everything()).await;
        match hub.chat(ask).await.unwrap().reply.unwrap() {
            Reply::Whole(_) => {}
            Reply::Stream(body) => assert!(read(body).await.1),
        }
        let events = hub.ended().await;
        assert_eq!(terminal(&events)["nexus.usage.source"], "provider");
        let audit = events.last().unwrap();
        assert_eq!(audit.kind, "tokens_counted");
        assert_eq!(audit.data["nexus.tokens.audit"], true);
        assert_eq!(audit.data["gen_ai.usage.input_tokens"], 1);
        assert!(figure(&hub, "nexus_token_audits_total 1"));
    }
}

#[tokio::test]
async fn an_audit_for_which_there_is_no_time_is_dropped_and_told() {
    let (hub, _upstream) = hub(whole(), Counting::new(Arc::new(Busy)).auditing(100)).await;
    assert!(hub.chat(ASK).await.unwrap().reply.is_ok());
    let events = hub.ended().await;
    assert_eq!(kinds(&events).last(), Some(&"completed"));
    assert!(figure(&hub, "nexus_token_audits_dropped_total 1"));
    assert!(figure(&hub, "nexus_token_audits_total 0"));
}

#[tokio::test]
async fn only_whole_answers_that_the_provider_counted_are_audited() {
    let uncounted = vec![
        head("200 OK", "application/json"),
        send(ANSWER.replace("usage", "no_usage")),
    ];
    let broken = vec![stream_head(), chunk(0, "one", None), send(USAGE)];
    for (script, ask) in [(uncounted, ASK), (broken, ASK_STREAM)] {
        let (hub, _upstream) = hub(script, Counting::new(Arc::new(OneEach)).auditing(100)).await;
        match hub.chat(ask).await.unwrap().reply {
            Ok(Reply::Stream(body)) => drop(read(body).await),
            reply => assert!(reply.is_ok()),
        }
        let events = hub.ended().await;
        let is_audit = |event: &Recorded| event.data["nexus.tokens.audit"] == true;
        assert!(!events.iter().any(is_audit), "{:?}", kinds(&events));
    }
}
