mod hub;

use nexus_events::clock::Clock;
use serde_json::json;

use super::*;
use crate::shared::WINDOW;
use hub::{Hub, assistant, made_up, raw, system, user};

#[tokio::test]
async fn a_conversation_goes_on_and_stores_each_message_once() {
    let mut hub = Hub::start();
    let first = hub.ask(&[user("a")], &assistant("b")).await;
    assert!(first.is_new);
    let mut history = vec![user("a"), assistant("b"), user("c")];
    let second = hub.ask(&history, &assistant("d")).await;
    assert!(!second.is_new);
    assert_eq!(second.conversation, first.conversation);
    assert_eq!(second.carried, 1);

    // An agent's turn: the answer is a tool call, the next message its result.
    history.extend([assistant("d"), user("what time is it?")]);
    let call = json!({"id": "c1", "type": "function",
                      "function": {"name": "now", "arguments": "{}"}});
    let call = json!({"role": "assistant", "content": null, "tool_calls": [call]});
    let third = hub.ask(&history, &call).await;
    assert_eq!(third.carried, 1);
    history.extend([
        call,
        json!({"role": "tool", "tool_call_id": "c1", "content": "noon"}),
    ]);
    let fourth = hub.ask(&history, &assistant("It is noon.")).await;
    assert_eq!(fourth.conversation, first.conversation);
    assert_eq!(fourth.carried, 1);
    // Four questions or results, four answers: no message is in the log twice.
    assert_eq!(hub.messages.len(), 8);
}

#[tokio::test]
async fn an_edited_turn_is_a_branch_of_the_same_conversation() {
    let mut hub = Hub::start();
    let first = hub.ask(&[user("a")], &assistant("b")).await;
    hub.ask(&[user("a"), assistant("b"), user("c")], &assistant("d"))
        .await;
    let edited = hub
        .ask(&[user("a"), assistant("b"), user("e")], &assistant("f"))
        .await;
    assert_eq!(edited.conversation, first.conversation);
    assert_eq!(edited.carried, 1);
    // Both branches go on.
    for (question, answer) in [("c", "d"), ("e", "f")] {
        let history = [
            user("a"),
            assistant("b"),
            user(question),
            assistant(answer),
            user("more"),
        ];
        let next = hub.ask(&history, &assistant("!")).await;
        assert_eq!(next.conversation, first.conversation);
        assert_eq!(next.carried, 1);
    }
}

#[tokio::test]
async fn the_same_opening_is_not_the_same_conversation() {
    let mut hub = Hub::start();
    let one = hub.ask(&[system("s"), user("hi")], &assistant("b")).await;
    let other = hub.ask(&[system("s"), user("hi")], &assistant("b")).await;
    assert!(other.is_new);
    assert_ne!(one.conversation, other.conversation);
}

#[tokio::test]
async fn another_key_or_user_does_not_join() {
    let mut hub = Hub::start();
    let (mine, other) = (hub.key, KeyId::draw(&*hub.clock));
    let ann = hub.scope(Some("ann"));
    let history = [user("a"), assistant("b"), user("c")];
    hub.ask_as(ann, None, &[user("a")], &assistant("b")).await;
    for (key, user) in [(other, Some("ann")), (mine, Some("bob")), (mine, None)] {
        let turn = hub
            .ask_as(Scope { key, user }, None, &history, &assistant("d"))
            .await;
        assert!(turn.is_new, "{key} {user:?}");
        assert_eq!(turn.carried, 3);
    }
    let turn = hub.ask_as(ann, None, &history, &assistant("d")).await;
    assert!(!turn.is_new);
}

#[tokio::test]
async fn the_window_slides_with_each_turn_and_then_ends() {
    let mut hub = Hub::start();
    let almost = WINDOW.checked_sub(Duration::from_millis(1)).unwrap();
    let first = hub.ask(&[user("a")], &assistant("b")).await;
    let mut history = vec![user("a"), assistant("b"), user("c")];
    for turn in 0..3 {
        hub.clock.advance(almost);
        let next = hub.ask(&history, &assistant(&turn.to_string())).await;
        assert_eq!(next.conversation, first.conversation, "turn {turn}");
        history.extend([assistant(&turn.to_string()), user("more")]);
    }
    // The oldest prefix was kept alive by the later turns: an early turn can be edited.
    let edited = hub
        .ask(&[user("a"), assistant("b"), user("z")], &assistant("y"))
        .await;
    assert_eq!(edited.conversation, first.conversation);

    hub.clock.advance(WINDOW);
    let late = hub.ask(&history, &assistant("x")).await;
    assert!(late.is_new);
    assert_eq!(late.carried, history.len());
}

#[tokio::test]
async fn a_named_conversation_wins_over_the_prefix() {
    let mut hub = Hub::start();
    let first = hub.ask(&[user("a")], &assistant("b")).await;
    let history = [user("a"), assistant("b"), user("c")];
    let given = made_up("6b1f2a34-8f43-4c55-9a52-0c1a9d3b7e11");
    let named = hub.ask_in(given, &history, &assistant("d")).await;
    assert_eq!(named.conversation, given);
    assert!(named.is_new);
    assert_eq!(
        named.carried, 3,
        "a prefix of another conversation must not count"
    );

    // Both hold the same words; each goes on in itself.
    let history = [
        user("a"),
        assistant("b"),
        user("c"),
        assistant("d"),
        user("e"),
    ];
    let named = hub.ask_in(given, &history, &assistant("f")).await;
    assert_eq!((named.conversation, named.carried), (given, 1));
    assert!(!named.is_new);
    let own = hub
        .ask_in(
            first.conversation,
            &[user("a"), assistant("b"), user("x")],
            &assistant("y"),
        )
        .await;
    assert_eq!((own.conversation, own.carried), (first.conversation, 1));
}

#[tokio::test]
async fn no_key_gets_into_another_keys_conversation() {
    let mut hub = Hub::start();
    let intruder = Scope {
        key: KeyId::draw(&*hub.clock),
        user: None,
    };
    let own = hub.ask(&[user("a")], &assistant("b")).await.conversation;
    let held = made_up("6b1f2a34-8f43-4c55-9a52-0c1a9d3b7e11");
    hub.ask_in(held, &[user("a")], &assistant("b")).await;
    // Held by the first key only in the read model: long ago, or on another gateway.
    let long_ago = made_up("0d3c8f52-3f57-4be0-8d0b-5a8a2f6d1c42");
    hub.owners.0.lock().unwrap().insert(long_ago, hub.key);

    for given in [own, held, long_ago] {
        let history = [user("a"), assistant("b"), user("c")];
        let turn = hub
            .ask_as(intruder, Some(given), &history, &assistant("d"))
            .await;
        assert_ne!(turn.conversation, given);
        assert_eq!(turn.carried, 3);
        // Whoever goes on naming it stays in one conversation, by either name.
        let history = [
            user("a"),
            assistant("b"),
            user("c"),
            assistant("d"),
            user("e"),
        ];
        for name in [given, turn.conversation] {
            let next = hub
                .ask_as(intruder, Some(name), &history, &assistant("f"))
                .await;
            assert_eq!(next.conversation, turn.conversation);
            assert_eq!(next.carried, 1);
        }
        // And the owner is still the owner.
        let mine = hub.ask_in(given, &[user("a")], &assistant("b")).await;
        assert_eq!(mine.conversation, given);
    }
}

#[tokio::test]
async fn system_messages_are_referred_to_while_they_are_fresh_and_the_same() {
    let mut hub = Hub::start();
    let rules = || system("be kind");
    let first = hub.ask(&[rules(), user("a")], &assistant("0")).await;
    assert_eq!(first.same_system_as, None);
    let mut history = vec![rules(), user("a")];
    let mut reference = Some(first.request);
    // 51 turns of 29 minutes are more than a day.
    for turn in 0..51_u64 {
        hub.clock.advance(Duration::from_mins(29));
        history.extend([assistant(&turn.to_string()), user("more")]);
        let next = hub.ask(&history, &assistant(&(turn + 1).to_string())).await;
        if next.same_system_as.is_none() {
            assert_eq!(
                turn + 1,
                50,
                "stored again when a day has passed: 50 × 29 minutes"
            );
            reference = Some(next.request);
        } else {
            assert_eq!(next.same_system_as, reference, "turn {turn}");
        }
    }
    assert_ne!(reference, Some(first.request), "never stored again");
    // Other words, another place, or none: not the same.
    history.extend([assistant("51"), user("last")]);
    let mut changed = history.clone();
    changed[0] = system("be rude");
    let mut moved = history.clone();
    let first_message = moved.remove(0);
    moved.insert(2, first_message);
    let none = history[1..].to_vec();
    for other in [changed, moved, none] {
        let turn = hub.ask(&other, &assistant("!")).await;
        assert_eq!(turn.same_system_as, None);
        assert_eq!(turn.carried, 1);
    }
}

#[tokio::test]
async fn extras_are_kept_for_the_request_that_sends_them() {
    let mut hub = Hub::start();
    hub.ask(&[user("a")], &assistant("b")).await;
    // `ask` compares what is put together with what was sent, extras included.
    let mut marked = user("c");
    marked["content"] =
        json!([{"type": "text", "text": "c", "cache_control": {"type": "ephemeral"}}]);
    let mut thought = assistant("b");
    thought["reasoning_content"] = json!("something else than was said");
    let turn = hub
        .ask(&[user("a"), thought, marked.clone()], &assistant("d"))
        .await;
    assert_eq!(turn.carried, 1);
    // The mark has wandered on.
    marked["content"][0]
        .as_object_mut()
        .unwrap()
        .remove("cache_control");
    let turn = hub
        .ask(
            &[user("a"), assistant("b"), marked, assistant("d"), user("e")],
            &assistant("f"),
        )
        .await;
    assert_eq!(turn.carried, 1);
}

#[tokio::test]
async fn what_was_seeded_is_found_after_a_restart() {
    let mut hub = Hub::start();
    let first = hub.ask(&[system("s"), user("a")], &assistant("b")).await;
    let history = [system("s"), user("a"), assistant("b"), user("c")];
    let answers: Vec<MessageId> = hub
        .messages
        .iter()
        .filter(|(_, (_, message))| message.get().contains("assistant"))
        .map(|(id, _)| *id)
        .collect();

    hub.sessions = Hub::sessions(&hub.clock, &hub.owners);
    let stored = hub.systems[&first.request].clone();
    let stored = stored.iter().map(|(place, message)| (*place, &**message));
    let recent = RecentEnd {
        key: hub.key,
        user: None,
        conversation: first.conversation,
        answers,
        system: hub.sessions.stored_before(first.request, stored),
        age: Duration::from_mins(29),
    };
    hub.sessions.seed(&recent).await;
    hub.clock.advance(Duration::from_secs(59));
    let next = hub.ask(&history, &assistant("d")).await;
    assert_eq!(next.conversation, first.conversation);
    assert_eq!(next.carried, 1);
    assert_eq!(next.same_system_as, Some(first.request));

    hub.sessions = Hub::sessions(&hub.clock, &hub.owners);
    hub.sessions.seed(&recent).await;
    hub.clock.advance(Duration::from_mins(1));
    assert!(hub.ask(&history, &assistant("d")).await.is_new);
}

#[tokio::test]
async fn every_choice_of_an_answer_can_be_gone_on_with() {
    let mut hub = Hub::start();
    let question = raw(&user("a"));
    let messages = [&*question];
    let asked = Asked {
        request: RequestId::draw(&*hub.clock),
        scope: Scope {
            key: hub.key,
            user: None,
        },
        messages: &messages,
        conversation: None,
    };
    let matched = hub.sessions.match_request(asked).await;
    hub.record(asked.request, &matched);
    let mut ids = Vec::new();
    for text in ["b1", "b2"] {
        let answer = raw(&assistant(text));
        let id = hub.sessions.answer_id(matched.last_id, &answer);
        hub.messages.insert(id, (matched.last_id, answer));
        ids.push(id);
    }
    hub.sessions.answered(&matched.thread(), &ids).await;
    let conversation = matched.conversation;
    for text in ["b1", "b2"] {
        let history = [user("a"), assistant(text), user("c")];
        let turn = hub.ask(&history, &assistant("d")).await;
        assert_eq!((turn.conversation, turn.carried), (conversation, 1));
    }
}

#[tokio::test]
async fn a_request_of_system_messages_only_is_a_conversation_too() {
    let mut hub = Hub::start();
    let turn = hub.ask(&[system("say hello")], &assistant("hello")).await;
    assert!(turn.is_new);
    let next = hub
        .ask(
            &[system("say hello"), assistant("hello"), user("a")],
            &assistant("b"),
        )
        .await;
    assert_eq!((next.conversation, next.carried), (turn.conversation, 1));
    assert_eq!(next.same_system_as, Some(turn.request));
    assert!(hub.clock.now() > turn.request.drawn_at().minus(Duration::from_millis(1)));
}
