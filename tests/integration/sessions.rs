//! Sessions end to end: conversations found, named and shared between gateways; limits; counts.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected stops there"
)]

use nexus_tests::{Broker, Client, Cluster, Hub, Redis, Result, Script, Upstream, until};
use serde_json::{Value, json};
use std::time::Duration;

/// The read model follows within a second; a busy machine may need longer.
const READ_BOUND: Duration = Duration::from_secs(30);

/// A client that sends its whole history each time, as chat clients do.
struct Chat {
    client: Client,
    messages: Vec<Value>,
}

/// What one turn came to.
struct Turn {
    request: String,
    conversation: String,
    sent: Value,
}

impl Chat {
    fn new(client: &Client, rules: &str) -> Self {
        Self {
            client: client.clone(),
            messages: vec![json!({"role": "system", "content": rules})],
        }
    }

    async fn ask(&mut self, question: Value) -> Result<Turn> {
        self.messages.push(question);
        let sent = json!({
            "model": "gpt-test", "user": "ann", "temperature": 0.5, "messages": self.messages,
        });
        let answer = self.client.chat(&sent).await?.expect(200)?;
        // Sent back with every null and empty member, as clients do that write out objects whole.
        let mut message = answer.json["choices"][0]["message"].clone();
        message["function_call"] = Value::Null;
        message["annotations"] = json!([]);
        self.messages.push(message);
        Ok(Turn {
            request: answer.header("x-request-id").unwrap().to_owned(),
            conversation: answer.header("x-conversation-id").unwrap().to_owned(),
            sent,
        })
    }
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

/// A question with a prompt-cache mark, which the next turn no longer has.
fn marked(text: &str) -> Value {
    json!({"role": "user", "content": [
        {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}},
    ]})
}

/// The value without null and empty members.
fn pruned(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (name.clone(), pruned(value)))
            .filter(|(_, value)| {
                !matches!(value.to_string().as_str(), "null" | "\"\"" | "[]" | "{}")
            })
            .collect(),
        Value::Array(items) => items.iter().map(pruned).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// Waits until the request can be read, and compares it with what was sent.
async fn reads_back(client: &Client, turn: &Turn) -> Result<()> {
    let path = format!("/requests/{}", turn.request);
    let read = until("the request can be read", READ_BOUND, async || {
        let answer = client.get(&path).await?;
        anyhow::ensure!(answer.status == 200, "{}", answer.text());
        anyhow::ensure!(answer.json["request_complete"] == true, "{}", answer.text());
        Ok::<_, anyhow::Error>(answer.json)
    })
    .await?;
    assert_eq!(pruned(&read["request"]), pruned(&turn.sent));
    Ok(())
}

#[tokio::test]
async fn each_message_is_stored_once_and_every_request_reads_back_as_it_was_sent() -> Result<()> {
    let upstream = Upstream::start().await?;
    let mut hub = Hub::standalone().start().await?;
    hub.client()?
        .serve_model("gpt-test", &upstream.url())
        .await?;
    let mut chat = Chat::new(&hub.client()?, "be kind");

    let mut turns = vec![chat.ask(user("one")).await?, chat.ask(marked("two")).await?];
    chat.messages[3]["content"][0]
        .as_object_mut()
        .unwrap()
        .remove("cache_control");
    turns.push(chat.ask(user("three")).await?);
    for turn in &turns {
        reads_back(&chat.client, turn).await?;
    }

    // A killed gateway finds the conversation again in the read model.
    hub.kill().await?;
    hub.start_again().await?;
    chat.client = hub.client()?;
    let mut probe = Chat::new(&chat.client, "probe");
    until(
        "the gateway has read the ends of conversations",
        READ_BOUND,
        async || {
            probe.messages.clone_from(&chat.messages);
            let turn = probe.ask(user("probe")).await?;
            anyhow::ensure!(
                turn.conversation == turns[0].conversation,
                "a new conversation"
            );
            Ok(())
        },
    )
    .await?;
    turns.push(chat.ask(user("four")).await?);
    reads_back(&chat.client, &turns[3]).await?;

    let conversation = &turns[0].conversation;
    assert!(turns.iter().all(|turn| turn.conversation == *conversation));
    let read_model = hub.read_model();
    // Four questions and four answers; the probe's own are a branch.
    let stored = format!(
        "SELECT count(*) FROM chat_messages WHERE conversation_id = '{conversation}'
         AND message NOT LIKE '%probe%'"
    );
    read_model.until_number(&stored, 8).await?;
    // The system message is in the log once, after the restart too.
    let in_full = format!(
        "SELECT count(*) FROM exchange_content JOIN exchanges USING (request_id)
         WHERE system IS NOT NULL AND conversation_id = '{conversation}'"
    );
    assert_eq!(read_model.number(&in_full).await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_client_may_name_its_conversation_and_no_other_key_gets_in() -> Result<()> {
    let upstream = Upstream::start().await?;
    let hub = Hub::standalone().start().await?;
    let admin = hub.client()?;
    admin.serve_model("gpt-test", &upstream.url()).await?;
    let intruder = admin.with_new_key("intruder", "member").await?;

    let made_up = "6b1f2a34-8f43-4c55-9a52-0c1a9d3b7e11";
    let drawn = Chat::new(&admin, "x").ask(user("one")).await?.conversation;
    for name in [made_up, &drawn] {
        let mine = admin.with_header("x-conversation-id", name)?;
        let theirs = intruder.with_header("x-conversation-id", name)?;
        let first = Chat::new(&mine, "x").ask(user("one")).await?;
        assert_eq!(first.conversation, name);
        let joined = Chat::new(&theirs, "x").ask(user("one")).await?.conversation;
        assert_ne!(joined, name);
        let again = Chat::new(&theirs, "x").ask(user("two")).await?.conversation;
        assert_eq!(again, joined, "a name stays one conversation");
    }
    Ok(())
}

#[tokio::test]
async fn a_conversation_goes_on_at_any_gateway() -> Result<()> {
    let upstream = Upstream::start().await?;
    let (broker, redis) = (Broker::start().await?, Redis::start().await?);
    let cluster = Cluster::new(&broker, &redis)?;
    let one = cluster.gateway().start().await?;
    let other = cluster.gateway().start().await?;
    one.client()?
        .serve_model("gpt-test", &upstream.url())
        .await?;
    until(
        "the other gateway knows the model",
        READ_BOUND,
        async || {
            let models = other.client()?.get("/v1/models").await?;
            anyhow::ensure!(models.text().contains("gpt-test"), "{}", models.text());
            Ok::<_, anyhow::Error>(())
        },
    )
    .await?;

    let mut chat = Chat::new(&one.client()?, "be kind");
    let first = chat.ask(user("one")).await?;
    for gateway in [&other, &one, &other] {
        chat.client = gateway.client()?;
        assert_eq!(
            chat.ask(user("more")).await?.conversation,
            first.conversation
        );
    }
    Ok(())
}

#[tokio::test]
async fn above_the_limit_a_client_is_told_when_to_come_back() -> Result<()> {
    let hub = Hub::standalone()
        .env("NEXUS_RATE_LIMIT_RPS", 2)
        .start()
        .await?;
    let client = hub.client()?;
    let asked = json!({"model": "echo", "messages": [user("hello")]});
    let refused = until("the limit holds", READ_BOUND, async || {
        let answer = client.chat(&asked).await?;
        anyhow::ensure!(
            answer.header("x-ratelimit-limit-requests") == Some("2"),
            "no limit told"
        );
        anyhow::ensure!(answer.status == 429, "answered {}", answer.status);
        Ok(answer)
    })
    .await?;
    assert_eq!(refused.error_code(), "rate_limit_exceeded");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.header("x-ratelimit-remaining-requests"), Some("0"));
    Ok(())
}

#[tokio::test]
async fn tokens_are_counted_where_the_provider_counts_none() -> Result<()> {
    let upstream = Upstream::start().await?;
    upstream.always(Script::answer().saying(["hello", " world"]).without_usage());
    let hub = Hub::standalone().start().await?;
    let client = hub.client()?;
    client.serve_model("gpt-4o", &upstream.url()).await?;
    let asked = json!({"model": "gpt-4o", "messages": [user("hello world")]});
    let answer = client.chat(&asked).await?.expect(200)?;
    let path = format!("/requests/{}", answer.header("x-request-id").unwrap());
    let read = until("the tokens are counted", READ_BOUND, async || {
        let answer = client.get(&path).await?;
        anyhow::ensure!(
            answer.json["usage_source"] == "gateway",
            "{}",
            answer.text()
        );
        Ok::<_, anyhow::Error>(answer.json)
    })
    .await?;
    // Two words, three tokens around the message, one for its role, three for the reply.
    let expected = json!({"prompt": 9, "completion": 2, "total": 11});
    assert_eq!(read["tokens_usage"], expected);
    Ok(())
}
