//! One exchange: its row as a fold of its events.
//!
//! Each event fills columns of its own, so events of one request may come in
//! any order (those of an adopted outbox do). The first terminal event of the
//! stream counts; later ones are counted as such and change nothing else.

use nexus_events::{
    exchange_event::{
        AttemptEnded, AttemptStarted, ExchangeEvent, Received, Rejected, Terminal, TokensCounted,
    },
    id::{ConversationId, KeyId, RequestId},
    usage::UsageSource,
};

use super::entry::{Content, ExchangeEntry};
use crate::exchange_row::{ChoiceRow, ExchangeRow};

/// Largest count that is stored: 2⁴⁰, so that sums over millions of absurd counts still fit.
const COUNT_MAX: u64 = 1 << 40;

/// An attempt, as far as this batch knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AttemptRow {
    pub(super) provider_id: String,
    pub(super) provider_name: String,
    pub(super) model: String,
    pub(super) started_ms: Option<i64>,
    pub(super) ended: Option<AttemptEnd>,
}

/// How an attempt ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AttemptEnd {
    pub(super) ended_ms: Option<i64>,
    pub(super) status: Option<i64>,
    pub(super) duration_ms: Option<i64>,
    pub(super) failure: Option<(&'static str, String)>,
}

/// What of an event belongs into other tables than `exchanges`.
#[derive(Debug)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// The request's content is to be stored.
    Request,
    /// The answer's messages are to be stored.
    Answer,
    /// An attempt began or ended.
    Attempt(u32, AttemptRow),
}

/// The row of a request that no event was seen of.
pub(super) fn new_row(request: RequestId) -> ExchangeRow {
    ExchangeRow {
        request_id: request.to_string(),
        state: "open".to_owned(),
        drawn_ms: request.drawn_at().as_millis(),
        ..ExchangeRow::default()
    }
}

/// Applies one event to its row.
pub(super) fn apply(row: &mut ExchangeRow, entry: &ExchangeEntry<'_>) -> Effect {
    // In the stream's order, so what is not after the last one was applied before.
    if entry.sequence <= row.last_sequence {
        return Effect::None;
    }
    if row.first_sequence == 0 {
        row.first_sequence = entry.sequence;
    }
    row.last_sequence = entry.sequence;
    match &entry.event {
        ExchangeEvent::Received(event) => received(row, event, entry),
        ExchangeEvent::AttemptStarted(event) => attempt_started(event, entry.at_ms),
        ExchangeEvent::AttemptEnded(event) => attempt_ended(event, entry.at_ms),
        ExchangeEvent::Terminal(event) => terminal(row, event, entry),
        ExchangeEvent::Rejected(event) => rejected(row, event, entry.at_ms),
        ExchangeEvent::PresumedLost(_) => presumed_lost(row, entry),
        ExchangeEvent::TokensCounted(event) => tokens_counted(row, event),
        ExchangeEvent::Unshippable(_) => Effect::None,
    }
}

fn received(row: &mut ExchangeRow, event: &Received, entry: &ExchangeEntry<'_>) -> Effect {
    if row.is_received {
        return Effect::None;
    }
    row.is_received = true;
    if row.terminal_sequence.is_none() {
        "received".clone_into(&mut row.state);
    }
    row.operation.get_or_insert_with(|| event.operation.clone());
    row.requested_model
        .get_or_insert_with(|| event.model.clone());
    belongs_to(row, event.conversation, event.key, event.user.as_ref());
    row.received_at_ms = Some(entry.at_ms);
    row.outbox_id = entry.outbox.map(|outbox| outbox.to_string());
    row.stream = Some(event.stream);
    row.route = Some(event.route.clone());
    row.body_bytes = Some(counted(event.body_bytes));
    row.config_sequence = Some(counted(event.config_sequence));
    row.parent_id = event.parent.map(|parent| parent.to_string());
    row.message_ids = Some(json(&event.messages));
    Effect::Request
}

/// `received` and the terminal event say the same; whichever comes first is taken.
fn belongs_to(
    row: &mut ExchangeRow,
    conversation: Option<ConversationId>,
    key: KeyId,
    user: Option<&String>,
) {
    if row.conversation_id.is_none() {
        row.conversation_id = conversation.map(|conversation| conversation.to_string());
        row.key_id = Some(key.to_string());
        row.user = user.cloned();
    }
}

fn attempt_started(event: &AttemptStarted, at_ms: i64) -> Effect {
    let row = AttemptRow {
        provider_id: event.provider.to_string(),
        provider_name: event.provider_name.clone(),
        model: event.model.clone(),
        started_ms: Some(at_ms),
        ended: None,
    };
    Effect::Attempt(event.attempt, row)
}

fn attempt_ended(event: &AttemptEnded, at_ms: i64) -> Effect {
    let failure = event.failure.as_ref();
    let row = AttemptRow {
        provider_id: event.provider.to_string(),
        provider_name: event.provider_name.clone(),
        model: event.model.clone(),
        started_ms: None,
        ended: Some(AttemptEnd {
            ended_ms: Some(at_ms),
            status: event.status.map(i64::from),
            duration_ms: Some(counted(event.duration_ms)),
            failure: failure.map(|failure| (failure.reason.as_str(), failure.message.clone())),
        }),
    };
    Effect::Attempt(event.attempt, row)
}

fn terminal(row: &mut ExchangeRow, event: &Terminal, entry: &ExchangeEntry<'_>) -> Effect {
    if row.terminal_sequence.is_some() {
        row.later_terminals += 1;
        return Effect::None;
    }
    let state = if event.failure.is_some() {
        "failed"
    } else {
        "completed"
    };
    state.clone_into(&mut row.state);
    row.terminal_sequence = Some(entry.sequence);
    row.operation.get_or_insert_with(|| event.operation.clone());
    row.requested_model
        .get_or_insert_with(|| event.model.clone());
    belongs_to(row, event.conversation, event.key, event.user.as_ref());
    row.ended_ms = Some(entry.at_ms);
    row.provider_id = event.provider.map(|provider| provider.to_string());
    row.provider_name = Some(event.provider_name.clone());
    row.model = Some(event.configured_model.clone());
    row.response_model.clone_from(&event.response_model);
    row.response_id.clone_from(&event.response_id);
    row.input_tokens = event.input_tokens.map(counted);
    row.output_tokens = event.output_tokens.map(counted);
    row.usage_source = event.usage_source.map(|source| match source {
        UsageSource::Provider => "provider".to_owned(),
        UsageSource::Gateway => "gateway".to_owned(),
        UsageSource::Cache => "cache".to_owned(),
    });
    row.usage_raw = event.usage_raw.as_ref().map(ToString::to_string);
    row.attempts = Some(i64::from(event.attempts));
    row.status = Some(i64::from(event.status));
    row.received_ms = Some(event.received_ms);
    row.time_to_first_token_ms = event.time_to_first_token_ms.map(counted);
    row.duration_ms = Some(counted(event.duration_ms));
    row.chunks = Some(i64::from(event.chunks));
    row.client_gone = Some(event.client_gone);
    row.last_message_id = event.parent.map(|parent| parent.to_string());
    row.choices = choices(event, &entry.content);
    if let Some(failure) = &event.failure {
        row.failure_reason = Some(failure.reason.as_str().to_owned());
        row.failure_message = Some(failure.message.clone());
    }
    Effect::Answer
}

/// The choices of an answer: their ids with what the content says, or with their place where
/// there is no content; `None` for an answer without any.
fn choices(event: &Terminal, content: &Content<'_>) -> Option<String> {
    let stored: Vec<ChoiceRow> = event
        .messages
        .iter()
        .enumerate()
        .map(|(place, id)| {
            let choice = match content {
                Content::Answer(answer) => answer.choices.get(place),
                Content::None | Content::Request(_) | Content::Unreadable(_) => None,
            };
            let reason = event.finish_reasons.get(place).cloned();
            ChoiceRow {
                index: choice.map_or(u32::try_from(place).unwrap_or(u32::MAX), |choice| {
                    choice.index
                }),
                finish_reason: match choice {
                    Some(choice) => choice
                        .finish_reason
                        .as_deref()
                        .map(str::to_owned)
                        .or(reason),
                    None => reason,
                },
                message_id: Some(*id),
            }
        })
        .collect();
    (!stored.is_empty()).then(|| json(&stored))
}

fn rejected(row: &mut ExchangeRow, event: &Rejected, at_ms: i64) -> Effect {
    if row.state == "open" {
        "rejected".clone_into(&mut row.state);
        row.key_id = Some(event.key.to_string());
        row.route = Some(event.route.clone());
        row.requested_model.clone_from(&event.model);
        row.received_at_ms = Some(at_ms);
        row.ended_ms = Some(at_ms);
        row.status = Some(i64::from(event.status));
        row.failure_reason = Some(event.code.clone());
        row.failure_message = Some(event.message.clone());
    }
    Effect::None
}

/// The first one is taken.
fn presumed_lost(row: &mut ExchangeRow, entry: &ExchangeEntry<'_>) -> Effect {
    row.presumed_lost_ms.get_or_insert(entry.at_ms);
    row.presumed_lost_sequence.get_or_insert(entry.sequence);
    Effect::None
}

/// The first count fills in, the first audit is kept beside the provider's count.
fn tokens_counted(row: &mut ExchangeRow, event: &TokensCounted) -> Effect {
    let (input, output, vocabulary) = if event.audit {
        (
            &mut row.audited_input_tokens,
            &mut row.audited_output_tokens,
            &mut row.audited_vocabulary,
        )
    } else {
        (
            &mut row.counted_input_tokens,
            &mut row.counted_output_tokens,
            &mut row.counted_vocabulary,
        )
    };
    if input.is_none() {
        *input = Some(counted(event.input_tokens));
        *output = Some(counted(event.output_tokens));
        *vocabulary = Some(event.vocabulary.clone());
    }
    Effect::None
}

/// A count as it is stored: at most [`COUNT_MAX`].
fn counted(value: u64) -> i64 {
    i64::try_from(value.min(COUNT_MAX)).unwrap_or(i64::MAX)
}

/// JSON of what cannot fail to be written: ids, numbers, texts.
fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
