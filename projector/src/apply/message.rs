//! `chat_messages`: each node of the message tree once.
//!
//! A message is carried by the request that adds it, by the answer that says
//! it, and again by every later request that repeats it outside the matched
//! prefix. The row is that of the latest request, by the time at which its id
//! was drawn: so the row is the same whether or not earlier carriers have
//! expired.

use std::{collections::BTreeMap, sync::LazyLock};

use nexus_events::{
    exchange_event::{AnswerContent, ExchangeEvent, RequestContent},
    message_id::MessageId,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use sqlx::SqliteConnection;

use super::{entry::ExchangeEntry, upsert::Upsert};
use crate::exchange_row::ExchangeRow;

/// Messages that a batch carries, by conversation and id.
#[derive(Debug, Default)]
pub(super) struct Messages(BTreeMap<(String, MessageId), MessageRow>);

#[derive(Debug)]
struct MessageRow {
    parent: Option<MessageId>,
    message: String,
    choice: i64,
    request_id: String,
    carried_ms: i64,
}

impl Messages {
    /// Notes the messages that a request adds: each follows the one before.
    pub(super) fn carry_request(
        &mut self,
        row: &ExchangeRow,
        entry: &ExchangeEntry<'_>,
        content: &RequestContent<'_>,
    ) {
        let ExchangeEvent::Received(event) = &entry.event else {
            return;
        };
        let mut parent = event.parent;
        for (id, message) in event.messages.iter().zip(&content.messages) {
            self.carry(row, *id, (parent, 0, message));
            parent = Some(*id);
        }
    }

    /// Notes the choices of an answer: each follows the last message of the request.
    pub(super) fn carry_answer(
        &mut self,
        row: &ExchangeRow,
        entry: &ExchangeEntry<'_>,
        content: &AnswerContent<'_>,
    ) {
        let ExchangeEvent::Terminal(event) = &entry.event else {
            return;
        };
        for (id, choice) in event.messages.iter().zip(&content.choices) {
            let index = i64::from(choice.index);
            self.carry(row, *id, (event.parent, index, choice.message));
        }
    }

    fn carry(
        &mut self,
        row: &ExchangeRow,
        id: MessageId,
        (parent, choice, message): (Option<MessageId>, i64, &RawValue),
    ) {
        let Some(conversation) = &row.conversation_id else {
            return;
        };
        let carried = MessageRow {
            parent,
            message: message.get().to_owned(),
            choice,
            request_id: row.request_id.clone(),
            carried_ms: row.drawn_ms,
        };
        let key = (conversation.clone(), id);
        match self.0.get(&key) {
            Some(known) if known.request_id >= carried.request_id => {}
            _ => {
                self.0.insert(key, carried);
            }
        }
    }
}

/// A row that a later request carried stays.
static CHAT_MESSAGES: LazyLock<Upsert<8>> = LazyLock::new(|| {
    Upsert::new(
        "chat_messages",
        [
            "conversation_id",
            "message_id",
            "parent_id",
            "role",
            "message",
            "choice",
            "request_id",
            "carried_ms",
        ],
        "DO UPDATE SET parent_id = excluded.parent_id, role = excluded.role,
             message = excluded.message, choice = excluded.choice,
             request_id = excluded.request_id, carried_ms = excluded.carried_ms
         WHERE excluded.request_id > request_id",
    )
});

/// Writes the messages.
pub(super) async fn store(
    connection: &mut SqliteConnection,
    messages: Messages,
) -> Result<(), sqlx::Error> {
    let rows = messages
        .0
        .into_iter()
        .map(|((conversation, id), row)| {
            [
                conversation.into(),
                id.to_string().into(),
                row.parent.map(|parent| parent.to_string()).into(),
                role(&row.message).into(),
                row.message.into(),
                row.choice.into(),
                row.request_id.into(),
                row.carried_ms.into(),
            ]
        })
        .collect();
    CHAT_MESSAGES.write(connection, rows).await
}

/// Who speaks; empty where the message does not say.
fn role(message: &str) -> String {
    #[derive(Deserialize)]
    struct Role {
        #[serde(default)]
        role: String,
    }
    serde_json::from_str(message).map_or_else(|_| String::new(), |Role { role }| role)
}
