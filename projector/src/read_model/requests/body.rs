//! The body of a request, put together again from the message tree: the path from
//! the root to the message that it continues, the messages that it added, the
//! system messages at their places, and the parameters.

use nexus_events::{
    exchange_event::{RequestContent, SystemMessages},
    message::{self, PutTogetherError},
    message_id::MessageId,
    raw_object::RawObject,
};
use serde_json::value::RawValue;
use sqlx::{Sqlite, Transaction};

use super::TABLE;
use crate::{
    exchange_row::ExchangeRow,
    read_model::{ReadError, SystemMessage, json, recent},
};

/// Messages on one path that a request is put together from: 10 000, more than any model reads.
const PATH_MAX: u32 = 10_000;

/// The body put together again; `None` where a part of it is not there.
pub(super) async fn put_together(
    snapshot: &mut Transaction<'static, Sqlite>,
    row: &ExchangeRow,
) -> Result<Option<Box<RawValue>>, ReadError> {
    let stored: Option<(Option<String>, Option<String>)> =
        sqlx::query_as("SELECT extras, parameters FROM exchange_content WHERE request_id = ?")
            .bind(&row.request_id)
            .fetch_optional(&mut **snapshot)
            .await?;
    let Some((extras, parameters)) = stored else {
        return Ok(None);
    };
    let inconsistent = ReadError::Inconsistent {
        table: "exchange_content",
        column: "parameters",
    };
    // A request that belongs to no conversation has no messages: its parameters are all of it.
    if row.conversation_id.is_none() {
        let body = parameters.unwrap_or_default();
        return RawValue::from_string(body).map(Some).or(Err(inconsistent));
    }
    let Some(path) = path(snapshot, row).await? else {
        return Ok(None);
    };
    let Some((_, system)) = recent::system_messages(snapshot, &row.request_id).await? else {
        return Ok(None);
    };
    let written = write_body(
        row,
        &path,
        &system,
        (extras.as_deref(), parameters.as_deref()),
    );
    written.map(Some).or(Err(inconsistent))
}

/// The messages from the root to the last one that the request added, system ones left aside.
async fn path(
    snapshot: &mut Transaction<'static, Sqlite>,
    row: &ExchangeRow,
) -> Result<Option<Vec<Box<RawValue>>>, ReadError> {
    let (Some(conversation), Some(ids)) = (&row.conversation_id, &row.message_ids) else {
        return Ok(None);
    };
    let added: Vec<MessageId> = json(TABLE, "message_ids", ids)?;
    let last = match added.last() {
        Some(last) => Some(last.to_string()),
        None => row.parent_id.clone(),
    };
    let Some(last) = last else {
        return Ok(Some(Vec::new()));
    };
    let rows: Vec<(Option<String>, String)> = sqlx::query_as(
        "WITH RECURSIVE path (message_id, parent_id, message, depth) AS (
             SELECT message_id, parent_id, message, 1 FROM chat_messages
             WHERE conversation_id = ?1 AND message_id = ?2
             UNION ALL
             SELECT next.message_id, next.parent_id, next.message, depth + 1
             FROM path JOIN chat_messages AS next
                 ON next.conversation_id = ?1 AND next.message_id = path.parent_id
             WHERE depth < ?3
         )
         SELECT parent_id, message FROM path ORDER BY depth DESC",
    )
    .bind(conversation)
    .bind(last)
    .bind(i64::from(PATH_MAX))
    .fetch_all(&mut **snapshot)
    .await?;
    // The path is whole when it begins at a message without a parent.
    if !matches!(rows.first(), Some((None, _))) {
        return Ok(None);
    }
    rows.iter()
        .map(|(_, message)| json("chat_messages", "message", message))
        .collect::<Result<Vec<_>, _>>()
        .map(Some)
}

/// Writes the JSON of the body: the model, the messages, the other members in their order.
fn write_body(
    row: &ExchangeRow,
    path: &[Box<RawValue>],
    system: &[SystemMessage],
    (extras, parameters): (Option<&str>, Option<&str>),
) -> Result<Box<RawValue>, PutTogetherError> {
    let parameters = RawObject::parse(parameters.unwrap_or("{}").as_bytes())?;
    let content = RequestContent {
        messages: path.iter().map(AsRef::as_ref).collect(),
        system: SystemMessages::Full(Vec::new()),
        extras: RawObject::parse(extras.unwrap_or("{}").as_bytes())?,
        parameters: RawObject::default(),
    };
    let system: Vec<_> = system
        .iter()
        .map(|one| (one.place, &*one.message))
        .collect();
    let messages = message::put_together(&[], &system, &content)?;
    let messages = serde_json::value::to_raw_value(&messages)?;
    let model = serde_json::value::to_raw_value(&row.requested_model)?;
    let mut body = RawObject::default();
    if parameters.get("model").is_none() {
        body.push("model", &model);
    }
    body.push("messages", &messages);
    for (name, value) in parameters.iter() {
        body.push(name.to_owned(), value);
    }
    Ok(serde_json::value::to_raw_value(&body)?)
}
