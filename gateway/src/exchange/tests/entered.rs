//! Requests that are let in before their body is translated.

use std::borrow::Cow;

use super::*;
use crate::{exchange::Outline, limits::estimate::Estimate};

fn outline(model: &str) -> Outline<'_> {
    Outline {
        model: Cow::Borrowed(model),
        estimate: Estimate {
            input: 1,
            output: 1,
        },
        wants_room: false,
    }
}

#[tokio::test]
async fn a_request_goes_on_with_what_its_body_became() {
    let (hub, upstream) = Hub::before(vec![head("200 OK", "application/json"), send(ANSWER)]).await;
    let mut ask = hub.ask("another form");
    let entry = hub.engine.enter(&ask, &outline("m")).await.unwrap();
    ask.body = ASK.into();
    let served = hub.engine.begin_entered(ask, entry).await.unwrap();
    assert!(matches!(served.reply, Ok(Reply::Whole(body)) if body == ANSWER));
    assert_eq!(upstream.bodies.lock().len(), 1);
    let events = hub.ended().await;
    assert_eq!(
        events[0].data["http.request.body.size"],
        "another form".len()
    );
    terminal(&events);
}

#[tokio::test]
async fn only_those_who_can_carry_it_are_left() {
    let (hub, first) = Hub::before(vec![head("200 OK", "application/json"), send(ANSWER)]).await;
    drop(hub);
    let steps = vec![head("200 OK", "application/json"), send(ANSWER)];
    let second = Upstream::start(&TaskTracker::new(), steps).await;
    let hub = Hub::new(&[("p", "openai", first.url()), ("q", "openai", second.url())]);
    for (name, asked) in [("q", &second), ("p", &first)] {
        let mut ask = hub.ask("another form");
        let mut entry = hub.engine.enter(&ask, &outline("m")).await.unwrap();
        assert_eq!(entry.candidates().count(), 2);
        assert!(entry.narrow(|one| one.provider.resource.name == name));
        let before = asked.bodies.lock().len();
        ask.body = ASK.into();
        let served = hub.engine.begin_entered(ask, entry).await.unwrap();
        served.reply.unwrap();
        assert_eq!(asked.bodies.lock().len(), before + 1, "{name}");
    }
    let ask = hub.ask("another form");
    let mut entry = hub.engine.enter(&ask, &outline("m")).await.unwrap();
    assert!(!entry.narrow(|_| false));
    entry.refuse(ApiError::internal("x")).await;
    hub.ended().await;
}

#[tokio::test]
async fn what_is_refused_after_it_was_let_in_leaves_nothing() {
    let (hub, upstream) = Hub::before(Vec::new()).await;
    let ask = hub.ask("another form");
    let entry = hub.engine.enter(&ask, &outline("m")).await.unwrap();
    assert!(hub.parts.outbox.usage().reserved_bytes > 0);
    let refused = entry.refuse(ApiError::invalid_request(None, "no")).await;
    assert_eq!(refused.model.as_deref(), Some("m"));
    let entry = hub.engine.enter(&ask, &outline("m")).await.unwrap();
    let begun = hub.engine.begin_entered(ask, entry).await;
    assert_eq!(begun.unwrap_err().error.status.as_u16(), 400);
    assert!(upstream.bodies.lock().is_empty());
    assert!(hub.ended().await.is_empty());
}

/// The body is none that anybody could translate: nobody gets to see it.
#[tokio::test]
async fn who_has_no_room_is_refused_before_the_body_is_looked_at() {
    let upstream = Upstream::start(&TaskTracker::new(), Vec::new()).await;
    let hub = Hub::with(
        &[("p", "openai", upstream.url())],
        OnDisconnect::Finish,
        1024,
    );
    let ask = hub.ask("another form");
    let refused = hub.engine.enter(&ask, &outline("m")).await.unwrap_err();
    assert_eq!(refused.error.code.as_deref(), Some("outbox_full"));
    let refused = hub.engine.enter(&ask, &outline("x")).await.unwrap_err();
    assert_eq!(refused.error.status.as_u16(), 404);
}
