//! Conversations: each message stored once, each request put together again equal to what was sent.

mod large;
mod matching;
mod put_together;
mod tools;

use anyhow::{Context, ensure};
use nexus_tests::client::{Answer, Ending};
use nexus_tests::{Client, Result};
use serde_json::{Value, json};

use crate::recorded::Recorded;
use crate::stage::{MODEL, Stage, request_id, shown, shown_request};

/// A client that keeps the history of its conversation, as chat programs do.
struct Talk {
    client: Client,
    messages: Vec<Value>,
}

/// What came of one turn.
struct Turn {
    request_id: String,
    conversation: String,
    /// The body as it was sent.
    sent: Value,
}

impl Talk {
    fn new(client: &Client) -> Self {
        Self {
            client: client.clone(),
            messages: Vec::new(),
        }
    }

    /// Goes on from a history.
    fn from(client: &Client, messages: &[Value]) -> Self {
        Self {
            client: client.clone(),
            messages: messages.to_vec(),
        }
    }

    /// Says something and keeps the answer.
    async fn say(&mut self, text: &str) -> Result<Turn> {
        let sent = self.body(text);
        let answer = self.client.chat(&sent).await?.expect(200)?;
        let message = answer.json["choices"][0]["message"].clone();
        self.messages.push(message);
        Turn::of(&answer, sent)
    }

    /// The same with a stream; the answer is kept as a client puts it together.
    async fn say_streamed(&mut self, text: &str) -> Result<Turn> {
        let sent = self.body(text);
        let mut stream = self.client.chat_stream(&sent).await?;
        let seen = stream.end().await?;
        ensure!(seen.ending() == Ending::Done, "{seen:?}");
        self.messages
            .push(json!({"role": "assistant", "content": seen.text(0)}));
        let mut sent = sent;
        sent["stream"] = json!(true);
        let header = |name| {
            let value = stream.header(name);
            anyhow::Ok(value.with_context(|| format!("no {name}"))?.to_owned())
        };
        Ok(Turn {
            request_id: header("x-request-id")?,
            conversation: header("x-conversation-id")?,
            sent,
        })
    }

    fn body(&mut self, text: &str) -> Value {
        self.messages.push(json!({"role": "user", "content": text}));
        json!({"model": MODEL, "messages": self.messages})
    }
}

impl Turn {
    fn of(answer: &Answer, sent: Value) -> Result<Self> {
        let conversation = answer.header("x-conversation-id");
        Ok(Self {
            request_id: request_id(answer)?,
            conversation: conversation.context("no X-Conversation-Id")?.to_owned(),
            sent,
        })
    }
}

/// The number of messages that a `received` event carries, and whether it names what it follows.
fn carried(recorded: &Recorded) -> (usize, bool) {
    let data = recorded.received.data();
    let messages = data["content"]["messages"].as_array().map_or(0, Vec::len);
    (messages, !data["nexus.message.parent"].is_null())
}

/// The value without null and empty members, at every depth and from the inside out.
fn without_empty(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| (name.clone(), without_empty(member)))
            .filter(|(_, member)| !is_empty(member))
            .collect(),
        Value::Array(items) => items.iter().map(without_empty).collect(),
        other => other.clone(),
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null()
        || value.as_str() == Some("")
        || value.as_array().is_some_and(Vec::is_empty)
        || value.as_object().is_some_and(serde_json::Map::is_empty)
}

/// Fails unless the request can be read back as it was sent, but for null and empty members.
async fn ensure_put_together(stage: &Stage, turn: &Turn) -> Result<()> {
    let shown = shown_request(&stage.client, &turn.request_id).await?;
    ensure!(shown["request_complete"] == true, "{shown}");
    let (found, sent) = (without_empty(&shown["request"]), without_empty(&turn.sent));
    ensure!(found == sent, "sent {sent} and read back {found}");
    ensure!(
        shown["conversation_id"] == turn.conversation,
        "{shown} is not of {}",
        turn.conversation
    );
    Ok(())
}

/// `GET /conversations/{id}` once it has that many messages.
async fn shown_conversation(client: &Client, id: &str, messages: usize) -> Result<Value> {
    shown(
        client,
        &format!("/conversations/{id}"),
        |conversation| match conversation["messages"].as_array().map_or(0, Vec::len) {
            count if count == messages => Ok(()),
            count => Err(format!("{count} messages instead of {messages}")),
        },
    )
    .await
}
