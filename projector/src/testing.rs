//! What the tests of this crate share: a log in memory, and databases to apply it to.

use std::collections::BTreeMap;

use bytes::Bytes;
use nexus_events::{
    audit_event,
    clock::{ManualClock, UnixMillis},
    config_event::{Action, Actor, Changed, Resource},
    envelope::{EventData, NO_CONTENT, Record, Stamp},
    exchange_event::{self, About, AnswerContent, Received, RequestContent, Terminal},
    id::{ConversationId, KeyId, OutboxId, ProviderId, RequestId},
    log::Message,
    message_id::MessageId,
    rollup_event::{self, DayClosed},
    subject::Stream,
    usage::UsageSource,
};
use serde::Serialize;
use tempfile::TempDir;

use crate::{
    apply::{Applied, Entry, Origin, Writer},
    dump,
};
use futures_util::TryStreamExt;

/// 2026-11-24T00:00:00Z.
pub(crate) const TODAY: i64 = 1_795_478_400_000;

/// A day in milliseconds.
pub(crate) const DAY: i64 = 24 * 60 * 60 * 1000;

/// A day as rollups name it.
pub(crate) fn day_name(ms: i64) -> String {
    rollup_event::day_name(UnixMillis::from_millis(ms))
}

/// A clock that stands at a moment.
pub(crate) fn at(ms: i64) -> ManualClock {
    ManualClock::at(UnixMillis::from_millis(ms))
}

/// A request id that was drawn at a moment.
pub(crate) fn request(ms: i64) -> RequestId {
    RequestId::draw(&at(ms))
}

/// A log in memory: what the broker would hand out.
#[derive(Debug)]
pub(crate) struct MemoryLog {
    pub(crate) streams: BTreeMap<Stream, Vec<Entry>>,
    outbox: OutboxId,
    positions: BTreeMap<Stream, u64>,
}

impl MemoryLog {
    pub(crate) fn new() -> Self {
        Self {
            streams: BTreeMap::new(),
            outbox: OutboxId::draw(&at(TODAY - 300 * DAY)),
            positions: BTreeMap::new(),
        }
    }

    /// The outbox that everything comes through.
    pub(crate) const fn outbox(&self) -> OutboxId {
        self.outbox
    }

    pub(crate) fn push(&mut self, stream: Stream, subject: &str, payload: Vec<u8>) -> u64 {
        let messages = self.streams.entry(stream).or_default();
        // Every third sequence is taken by a cursor, as in a real stream.
        let sequence = messages.last().map_or(1, |last| last.message.sequence + 1);
        let sequence = sequence + u64::from(sequence.is_multiple_of(3));
        messages.push(Entry::from(Message {
            sequence,
            time: UnixMillis::from_millis(TODAY),
            stored_ns: TODAY * 1_000_000,
            subject: subject.to_owned(),
            payload: Bytes::from(payload),
            pending: 0,
        }));
        sequence
    }

    pub(crate) fn record(&mut self, record: &Record) -> u64 {
        let stream = record.lane.stream();
        let position = self.positions.entry(stream).or_default();
        *position += 1;
        let payload = record.shipped(self.outbox, *position).payload;
        self.push(stream, &record.subject, payload)
    }

    pub(crate) fn exchange<D: EventData, C: Serialize>(
        &mut self,
        request: RequestId,
        at_ms: i64,
        data: &D,
        content: Option<&C>,
    ) -> u64 {
        let about = About {
            source: "/nexus/test",
            request,
            traceparent: None,
        };
        let stamp = Stamp::draw(&at(at_ms));
        let record = exchange_event::record(about, stamp, ("_", "_"), data, content).unwrap();
        self.record(&record)
    }

    pub(crate) fn exchange_bare<D: EventData>(
        &mut self,
        request: RequestId,
        at_ms: i64,
        data: &D,
    ) -> u64 {
        self.exchange(request, at_ms, data, NO_CONTENT)
    }

    pub(crate) fn audit<D: EventData>(&mut self, at_ms: i64, data: &D) -> u64 {
        let stamp = Stamp::draw(&at(at_ms));
        let (subject, payload) = audit_event::direct("/nexus/test", stamp, "test", data).unwrap();
        self.push(Stream::Audit, &subject, payload)
    }

    pub(crate) fn config<R: Resource>(&mut self, action: Action, resource: R) -> u64 {
        let change = Changed {
            action,
            changed: Vec::new(),
            actor: Actor {
                key: None,
                name: "hub".into(),
            },
            resource,
        };
        let payload = change
            .encode(Stamp::draw(&at(TODAY)), "/nexus/test")
            .unwrap();
        self.push(Stream::Config, &change.subject(), payload)
    }

    pub(crate) fn rollup(&mut self, rollup: &DayClosed) -> u64 {
        let (subject, payload) = rollup
            .encode(Stamp::draw(&at(TODAY)), "/nexus/test")
            .unwrap();
        self.push(Stream::Rollups, &subject, payload)
    }

    pub(crate) fn of(&self, stream: Stream) -> &[Entry] {
        self.streams.get(&stream).map_or(&[], Vec::as_slice)
    }
}

/// A database in a folder of its own.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) writer: Writer,
    pub(crate) dir: TempDir,
}

impl Database {
    pub(crate) async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let writer = Writer::open(&dir.path().join("read_model.db"))
            .await
            .unwrap();
        crate::database::point_to(dir.path(), "read_model.db").unwrap();
        Self { writer, dir }
    }

    pub(crate) async fn apply(&mut self, stream: Stream, entries: &[Entry]) -> Applied {
        let created_ns = 7;
        self.writer
            .apply(Origin { stream, created_ns }, entries)
            .await
            .unwrap()
    }

    /// As after the death of the writer: only what the file holds is known.
    pub(crate) async fn reopen(&mut self) {
        self.writer = Writer::open(&self.dir.path().join("read_model.db"))
            .await
            .unwrap();
    }

    /// Applies a whole log, stream by stream, in one batch each.
    pub(crate) async fn apply_all(&mut self, log: &MemoryLog) {
        for stream in crate::position::STREAMS {
            self.apply(stream, log.of(stream)).await;
        }
    }

    pub(crate) async fn of(log: &MemoryLog) -> Self {
        let mut database = Self::new().await;
        database.apply_all(log).await;
        database
    }

    pub(crate) fn read_model(&self) -> crate::ReadModel {
        crate::ReadModel::open(self.dir.path())
    }

    /// The ordered dump of every table but the checkpoint, one line for each row.
    pub(crate) async fn dump(&mut self) -> Vec<String> {
        let connection = self.writer.connection();
        let mut dump = Vec::new();
        for table in dump::tables(connection).await.unwrap() {
            let rows: Vec<String> = dump::rows(connection, &table).try_collect().await.unwrap();
            dump.extend(rows.into_iter().map(|row| format!("{}: {row}", table.name)));
        }
        dump
    }

    /// How SQLite would answer a query, in its own words.
    pub(crate) async fn plan(&mut self, query: &'static str) -> String {
        let rows: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {query}")))
                .fetch_all(self.writer.connection())
                .await
                .unwrap();
        rows.into_iter().map(|(.., detail)| detail + "\n").collect()
    }

    pub(crate) async fn number(&mut self, statement: &'static str) -> i64 {
        sqlx::query_scalar(statement)
            .fetch_one(self.writer.connection())
            .await
            .unwrap()
    }
}

/// A key that asks in tests.
pub(crate) fn key() -> KeyId {
    "0199c0de-0000-7000-8000-00000000aaaa".parse().unwrap()
}

/// A conversation that began at a moment.
pub(crate) fn conversation(ms: i64) -> ConversationId {
    ConversationId::draw(&at(ms))
}

/// A message id that a number stands for.
pub(crate) fn message_id(number: u8) -> MessageId {
    MessageId::from_bytes([number; 16])
}

/// A request of a conversation; its messages are given by number.
pub(crate) fn received(
    conversation: impl Into<Option<ConversationId>>,
    parent: Option<u8>,
    messages: &[u8],
) -> Received {
    Received {
        operation: "chat".into(),
        conversation: conversation.into(),
        model: "gpt".into(),
        key: key(),
        user: None,
        stream: true,
        route: "/v1/chat/completions".into(),
        body_bytes: 100,
        config_sequence: 1,
        parent: parent.map(message_id),
        messages: messages.iter().copied().map(message_id).collect(),
    }
}

/// The end of an exchange with tokens from the provider.
pub(crate) fn completed(
    conversation: impl Into<Option<ConversationId>>,
    tokens: Option<(u64, u64)>,
    parent: u8,
    answer: &[u8],
) -> Terminal {
    Terminal {
        operation: "chat".into(),
        conversation: conversation.into(),
        model: "gpt".into(),
        key: key(),
        user: None,
        provider: Some(ProviderId::from_uuid(key().as_uuid())),
        provider_name: "openai".into(),
        configured_model: "gpt".into(),
        response_model: None,
        response_id: None,
        finish_reasons: answer.iter().map(|_| "stop".to_owned()).collect(),
        input_tokens: tokens.map(|(input, _)| input),
        output_tokens: tokens.map(|(_, output)| output),
        usage_source: tokens.map(|_| UsageSource::Provider),
        usage_raw: None,
        attempts: 1,
        status: 200,
        received_ms: TODAY,
        time_to_first_token_ms: Some(10),
        duration_ms: 100,
        chunks: 3,
        client_gone: false,
        parent: Some(message_id(parent)),
        messages: answer.iter().copied().map(message_id).collect(),
        failure: None,
    }
}

/// Content of a request as JSON text, to be read as [`RequestContent`].
pub(crate) fn request_content(messages: &[String], system: &str, parameters: &str) -> String {
    let messages = messages.join(",");
    format!(r#"{{"messages":[{messages}],"system":{system},"parameters":{parameters}}}"#)
}

pub(crate) fn read_request(content: &str) -> RequestContent<'_> {
    serde_json::from_str(content).unwrap()
}

/// Content of an answer as JSON text, one choice for each message.
pub(crate) fn answer_content(messages: &[String]) -> String {
    let choices: Vec<String> = messages
        .iter()
        .enumerate()
        .map(|(index, message)| {
            format!(r#"{{"index":{index},"finish_reason":"stop","message":{message}}}"#)
        })
        .collect();
    format!(r#"{{"choices":[{}]}}"#, choices.join(","))
}

pub(crate) fn read_answer(content: &str) -> AnswerContent<'_> {
    serde_json::from_str(content).unwrap()
}

/// What a message says, by its number and a variant.
pub(crate) fn said(role: &str, number: u8, variant: u32) -> String {
    format!(r#"{{"role":"{role}","content":"message {number} by {variant}"}}"#)
}
