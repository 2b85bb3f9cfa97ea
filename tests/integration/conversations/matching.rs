//! Which conversation a request belongs to.

use anyhow::ensure;
use nexus_tests::{Result, Script};
use serde_json::{Value, json};

use super::{Talk, carried, ensure_put_together, shown_conversation};
use crate::recorded::Recorded;
use crate::stage::{MODEL, Stage, ask, ensure_error, shown, shown_request};

#[tokio::test]
async fn four_turns_are_one_conversation_and_each_message_is_stored_once() -> Result<()> {
    let stage = Stage::set().await?;
    let mut talk = Talk::new(&stage.client);
    talk.messages
        .push(json!({"role": "system", "content": "You are terse."}));
    let turns = [
        talk.say("first").await?,
        talk.say_streamed("second").await?,
        talk.say("third").await?,
        talk.say_streamed("fourth").await?,
    ];
    let conversation = turns[0].conversation.clone();
    for (number, turn) in turns.iter().enumerate() {
        ensure!(turn.conversation == conversation, "turn {number} is apart");
        let recorded = Recorded::wait(&stage.log, &turn.request_id).await?;
        ensure!(
            carried(&recorded) == (1, number > 0),
            "turn {number} carries more than its own message: {}",
            recorded.received.json
        );
        let system = &recorded.received.data()["content"]["system"];
        let in_full = system.get("full").is_some();
        ensure!(in_full == (number == 0), "turn {number}: {system}");
        ensure_put_together(&stage, turn).await?;
    }

    let shown = shown_conversation(&stage.client, &conversation, 8).await?;
    let roles: Vec<_> = messages(&shown)
        .iter()
        .map(|message| message["role"].clone())
        .collect();
    ensure!(roles == ["user", "assistant"].repeat(4), "{shown}");
    let said: Vec<_> = messages(&shown)
        .iter()
        .map(|message| &message["message"]["content"])
        .collect();
    let sent: Vec<_> = talk
        .messages
        .iter()
        .skip(1)
        .map(|m| &m["content"])
        .collect();
    ensure!(said == sent, "{shown}");
    chained(&shown)?;
    let rows = stage.hub.read_model();
    rows.until_number("SELECT count(*) FROM chat_messages", 8)
        .await?;
    let path = format!("/stats/conversations/{conversation}");
    let stats = stage.client.get(&path).await?.expect(200)?;
    ensure!(stats.json["requests"] == 4, "{}", stats.text());
    stage.strike().await
}

fn messages(conversation: &Value) -> &[Value] {
    let messages = conversation["messages"].as_array();
    messages.map(Vec::as_slice).unwrap_or_default()
}

/// Fails unless each message follows the one before.
fn chained(conversation: &Value) -> Result<()> {
    let mut before = &Value::Null;
    for message in messages(conversation) {
        ensure!(message["parent_id"] == *before, "{conversation}");
        before = &message["message_id"];
    }
    Ok(())
}

#[tokio::test]
async fn a_conversation_that_the_client_names_is_that_one() -> Result<()> {
    let stage = Stage::set().await?;
    let name = "6b1f2a34-8f43-4c55-9a52-0c1a9d3b7e11";
    let named = stage.client.with_header("x-conversation-id", name)?;
    // Two requests that have nothing in common but the name.
    let first = Talk::new(&named).say("about rivers").await?;
    let second = Talk::new(&named).say("about mountains").await?;
    ensure!(first.conversation == name && second.conversation == name);
    shown_conversation(&stage.client, name, 4).await?;

    // An id that the hub gave out works the same way.
    let begun = Talk::new(&stage.client).say("about seas").await?;
    let again = stage
        .client
        .with_header("x-conversation-id", &begun.conversation)?;
    let added = Talk::new(&again).say("about lakes").await?;
    ensure!(added.conversation == begun.conversation);
    shown_conversation(&stage.client, &begun.conversation, 4).await?;
    for turn in [first, second, begun, added] {
        ensure_put_together(&stage, &turn).await?;
    }

    let nonsense = stage.client.with_header("x-conversation-id", "rivers")?;
    ensure_error(&nonsense.chat(&ask("nonsense")).await?, 400)?;
    stage.strike().await
}

#[tokio::test]
async fn an_edited_or_repeated_turn_is_a_branch_of_the_same_conversation() -> Result<()> {
    let stage = Stage::set().await?;
    let mut talk = Talk::new(&stage.client);
    let first = talk.say("first").await?;
    let after_first = talk.messages.clone();
    let second = talk.say("second").await?;

    // The second turn, worded in another way.
    let edited = Talk::from(&stage.client, &after_first)
        .say("second, but shorter")
        .await?;
    // The same question once more, with another answer.
    stage
        .upstream
        .once(Script::answer().saying(["Another answer."]));
    let again = Talk::from(&stage.client, &after_first)
        .say("second")
        .await?;
    for (name, turn) in [("second", &second), ("edited", &edited), ("again", &again)] {
        ensure!(turn.conversation == first.conversation, "{name} is apart");
        ensure_put_together(&stage, turn).await?;
    }
    // first, its answer; second with two answers; the edited second with one.
    let shown = shown_conversation(&stage.client, &first.conversation, 7).await?;
    let children = |parent: &Value| {
        let of_parent = messages(&shown)
            .iter()
            .filter(|message| message["parent_id"] == *parent);
        of_parent.collect::<Vec<_>>()
    };
    let [question] = children(&Value::Null)[..] else {
        anyhow::bail!("not one beginning: {shown}");
    };
    let [answer] = children(&question["message_id"])[..] else {
        anyhow::bail!("not one first answer: {shown}");
    };
    let branches = children(&answer["message_id"]);
    let mut answers: Vec<usize> = branches
        .iter()
        .map(|branch| children(&branch["message_id"]).len())
        .collect();
    answers.sort_unstable();
    ensure!(answers == [1, 2], "{shown}");

    // Going on from either branch stays in the conversation and carries only what is new.
    let on = talk.say("third").await?;
    ensure!(on.conversation == first.conversation);
    let recorded = Recorded::wait(&stage.log, &on.request_id).await?;
    ensure!(
        carried(&recorded) == (1, true),
        "{}",
        recorded.received.json
    );
    stage.strike().await
}

#[tokio::test]
async fn what_different_people_say_never_merges() -> Result<()> {
    let stage = Stage::set().await?;
    // Every answer is the same, so that only the keys tell the conversations apart.
    stage
        .upstream
        .always(Script::answer().saying(["Good day."]));
    let anna = stage.client.with_new_key("anna", "member").await?;
    let bert = stage.client.with_new_key("bert", "member").await?;

    let (mut of_anna, mut of_bert) = (Talk::new(&anna), Talk::new(&bert));
    let a1 = of_anna.say("hello").await?;
    let b1 = of_bert.say("hello").await?;
    let a2 = of_anna.say("how are you?").await?;
    let b2 = of_bert.say("how are you?").await?;
    ensure!(a1.conversation == a2.conversation && b1.conversation == b2.conversation);
    ensure!(a1.conversation != b1.conversation, "two keys merged");

    // The same key with the same opening, but no answer yet: two conversations.
    let other = Talk::new(&anna).say("hello").await?;
    ensure!(
        other.conversation != a1.conversation,
        "two openings of one key merged"
    );
    // The same key for two end users.
    let of_user = |user: &str, text: &str, history: &[Value]| {
        let mut messages = history.to_vec();
        messages.push(json!({"role": "user", "content": text}));
        json!({"model": MODEL, "user": user, "messages": messages})
    };
    let history = of_anna.messages.clone();
    let for_carl = anna.chat(&of_user("carl", "go on", &history)).await?;
    let for_carl = for_carl.expect(200)?;
    ensure!(for_carl.header("x-conversation-id") != Some(a1.conversation.as_str()));

    // Naming another's conversation neither joins it nor shows it.
    let intruder = bert.with_header("x-conversation-id", &a1.conversation)?;
    let apart = Talk::from(&intruder, &history).say("let me in").await?;
    ensure!(
        apart.conversation != a1.conversation,
        "another key's conversation was joined"
    );
    shown_conversation(&anna, &a1.conversation, 4).await?;
    for path in [
        format!("/conversations/{}", a1.conversation),
        format!("/stats/conversations/{}", a1.conversation),
        format!("/requests/{}", a1.request_id),
    ] {
        ensure_error(&bert.get(&path).await?, 404)?;
        anna.get(&path).await?.expect(200)?;
    }
    let listed = shown(&bert, "/conversations", |page| {
        match page["data"].as_array().map_or(0, Vec::len) {
            2 => Ok(()),
            count => Err(count),
        }
    })
    .await?;
    ensure!(!listed.to_string().contains(&a1.conversation), "{listed}");
    stage.strike().await
}

#[tokio::test]
async fn a_conversation_goes_on_when_the_hub_was_restarted_or_killed() -> Result<()> {
    let mut stage = Stage::set().await?;
    let mut talk = Talk::new(&stage.client);
    talk.messages
        .push(json!({"role": "system", "content": "You are terse."}));
    let first = talk.say("first").await?;
    shown_request(&stage.client, &first.request_id).await?;

    ensure!(stage.hub.stop().await?.success());
    stage.hub.start_again().await?;
    stage.client = stage.hub.client()?;
    talk.client = stage.client.clone();
    let second = talk.say_streamed("second").await?;
    ensure!(
        second.conversation == first.conversation,
        "a restart parted them"
    );
    shown_request(&stage.client, &second.request_id).await?;

    stage.hub.kill().await?;
    stage.hub.start_again().await?;
    stage.client = stage.hub.client()?;
    talk.client = stage.client.clone();
    let third = talk.say("third").await?;
    ensure!(
        third.conversation == first.conversation,
        "a crash parted them"
    );

    for turn in [&first, &second, &third] {
        let recorded = Recorded::wait(&stage.log, &turn.request_id).await?;
        ensure!(carried(&recorded).0 == 1, "{}", recorded.received.json);
        ensure_put_together(&stage, turn).await?;
    }
    let shown = shown_conversation(&stage.client, &first.conversation, 6).await?;
    chained(&shown)?;
    stage.strike().await
}

#[tokio::test]
async fn a_client_may_go_on_from_an_answer_that_broke_off() -> Result<()> {
    let stage = Stage::set().await?;
    stage.upstream.once(Script::answer().cut_after(2));
    let mut talk = Talk::new(&stage.client);
    let body = talk.body("tell me");
    let mut stream = stage.client.chat_stream(&body).await?;
    let seen = stream.end().await?;
    let conversation = stream.header("x-conversation-id").unwrap_or_default();
    talk.messages
        .push(json!({"role": "assistant", "content": seen.text(0)}));
    let on = talk.say("go on").await?;
    ensure!(
        on.conversation == conversation,
        "the partial answer was forgotten"
    );
    let recorded = Recorded::wait(&stage.log, &on.request_id).await?;
    ensure!(
        carried(&recorded) == (1, true),
        "{}",
        recorded.received.json
    );
    ensure_put_together(&stage, &on).await?;
    stage.strike().await
}
