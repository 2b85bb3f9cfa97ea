//! Logs that chance draws up: requests of every fate, configuration, rollups, retention.

use nexus_events::{
    audit_event::{RetentionApplied, UnauthenticatedCalls},
    exchange_event::{
        AttemptEnded, AttemptStarted, Failure, FailureReason, PresumedLost, Rejected, TokensCounted,
    },
    id::{ConversationId, OutboxId, ProviderId, RequestId},
    subject::Stream,
};
use proptest::prelude::*;

use super::closed::{Rollup, rollup};
use super::configured::{ConfigChange, config_change, configure};
use crate::testing::{
    DAY, MemoryLog, TODAY, answer_content, at, completed, conversation, key, read_answer,
    read_request, received, request, request_content, said,
};

/// One request of a generated log.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    /// Day of the request, counted back from today, and milliseconds into it.
    pub(super) drawn: (i64, i64),
    pub(super) conversation: usize,
    pub(super) message: u8,
    pub(super) end: End,
    /// Where each of its events stands among those of all requests.
    pub(super) places: Vec<u16>,
    pub(super) twice: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Open,
    Completed,
    CountedLater,
    Failed,
    Rejected,
    PresumedLost,
}

fn spec() -> impl Strategy<Value = Spec> {
    let end = prop_oneof![
        Just(End::Open),
        Just(End::Completed),
        Just(End::CountedLater),
        Just(End::Failed),
        Just(End::Rejected),
        Just(End::PresumedLost),
    ];
    (
        (0..4_i64, 0..DAY),
        0..3_usize,
        1..6_u8,
        end,
        prop::collection::vec(any::<u16>(), 6),
        any::<bool>(),
    )
        .prop_map(|(drawn, conversation, message, end, places, twice)| Spec {
            drawn,
            conversation,
            message,
            end,
            places,
            twice,
        })
}

/// A log and where to cut it.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) requests: Vec<Spec>,
    /// Where messages that are no events stand among those of all requests.
    pub(super) odd: Vec<u16>,
    pub(super) config: Vec<ConfigChange>,
    /// Days whose rollup is published.
    pub(super) rollups: Vec<Rollup>,
    /// Day of the retention's cutoff, if one is applied.
    pub(super) cutoff: Option<i64>,
    /// Which stream goes on, and by how many events.
    pub(super) cuts: Vec<(usize, usize)>,
    /// Events of `NEXUS_EXCHANGES` that the stream holds a second time, at its end.
    pub(super) echoes: Vec<prop::sample::Index>,
}

pub(super) fn case() -> impl Strategy<Value = Case> {
    (
        prop::collection::vec(spec(), 1..12),
        prop::collection::vec(any::<u16>(), 0..3),
        prop::collection::vec(config_change(), 0..8),
        prop::collection::vec(rollup(), 0..3),
        prop::option::of(0..4_i64),
        prop::collection::vec((0..4_usize, 1..6_usize), 0..40),
        prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    )
        .prop_map(
            |(requests, odd, config, rollups, cutoff, cuts, echoes)| Case {
                requests,
                odd,
                config,
                rollups,
                cutoff,
                cuts,
                echoes,
            },
        )
}

type Write = Box<dyn FnOnce(&mut MemoryLog)>;

/// The conversations: two of today's ids, one without a time of its own.
pub(super) fn conversations() -> [ConversationId; 3] {
    [
        conversation(TODAY - 3 * DAY),
        conversation(TODAY - DAY),
        "4e4d6c5a-0000-4000-8000-000000000001".parse().unwrap(),
    ]
}

/// The events of a request, each with its place in the stream.
fn events(spec: &Spec, conversations: [ConversationId; 3], variant: u32) -> Vec<(u16, Write)> {
    let drawn = TODAY - spec.drawn.0 * DAY + spec.drawn.1;
    let id = request(drawn);
    let conversation = conversations[spec.conversation];
    let mut events: Vec<Write> = Vec::new();
    let message = spec.message;
    if matches!(spec.end, End::Rejected) {
        let rejected = Rejected {
            key: key(),
            route: "/v1/chat/completions".into(),
            status: 400,
            code: "bad".into(),
            message: "bad request".into(),
            model: None,
        };
        events.push(Box::new(move |log| {
            log.exchange_bare(id, drawn, &rejected);
        }));
    } else {
        events.push(begin(id, drawn, conversation, message, variant));
        events.extend(attempt(id, drawn, variant));
    }
    if !matches!(spec.end, End::Rejected | End::Open | End::PresumedLost) {
        events.push(end(id, drawn, (conversation, spec.end), message, variant));
    }
    if spec.twice && matches!(spec.end, End::Completed | End::Failed) {
        events.push(end(
            id,
            drawn,
            (conversation, End::Failed),
            message,
            variant + 1,
        ));
    }
    if matches!(spec.end, End::CountedLater) {
        let counted = TokensCounted {
            input_tokens: 7,
            output_tokens: 9,
            vocabulary: "o200k".into(),
            audit: false,
            conversation: Some(conversation),
            key: key(),
            provider_name: "openai".into(),
            configured_model: "gpt".into(),
        };
        events.push(Box::new(move |log| {
            log.exchange_bare(id, drawn + 500, &counted);
        }));
    }
    if matches!(spec.end, End::PresumedLost) {
        let lost = PresumedLost {
            outbox: OutboxId::draw(&at(drawn)),
        };
        events.push(Box::new(move |log| {
            log.exchange_bare(id, drawn + 60_000, &lost);
        }));
    }
    spec.places.iter().copied().cycle().zip(events).collect()
}

fn begin(
    id: RequestId,
    drawn: i64,
    conversation: ConversationId,
    message: u8,
    variant: u32,
) -> Write {
    Box::new(move |log| {
        let content = request_content(
            &[said("user", message, variant)],
            r#"{"full":[]}"#,
            r#"{"temperature":1}"#,
        );
        let received = received(conversation, None, &[message]);
        log.exchange(id, drawn, &received, Some(&read_request(&content)));
    })
}

fn attempt(id: RequestId, drawn: i64, variant: u32) -> [Write; 2] {
    let provider = ProviderId::from_uuid(key().as_uuid());
    let started = AttemptStarted {
        attempt: 1,
        provider,
        provider_name: "openai".into(),
        model: "gpt".into(),
        upstream_model: None,
    };
    let ended = AttemptEnded {
        attempt: 1,
        provider,
        provider_name: "openai".into(),
        model: "gpt".into(),
        status: Some(200),
        duration_ms: u64::from(variant),
        failure: None,
    };
    [
        Box::new(move |log| {
            log.exchange_bare(id, drawn + 1, &started);
        }),
        Box::new(move |log| {
            log.exchange_bare(id, drawn + 90, &ended);
        }),
    ]
}

fn end(
    id: RequestId,
    drawn: i64,
    (conversation, end): (ConversationId, End),
    message: u8,
    variant: u32,
) -> Write {
    Box::new(move |log| {
        let tokens = match end {
            End::CountedLater => None,
            End::Open | End::Completed | End::Failed | End::Rejected | End::PresumedLost => {
                Some((u64::from(variant) + 1, u64::from(message)))
            }
        };
        let answer = message + 100;
        let mut terminal = completed(conversation, tokens, message, &[answer]);
        terminal.received_ms = drawn;
        if matches!(end, End::Failed) {
            terminal.failure = Some(Failure {
                reason: FailureReason::UpstreamCut,
                message: "cut".into(),
            });
        }
        let content = answer_content(&[said("assistant", answer, variant)]);
        log.exchange(id, drawn + 100, &terminal, Some(&read_answer(&content)));
    })
}

/// A message that is no event.
fn odd() -> Write {
    Box::new(|log| {
        let payload = b"not an event".to_vec();
        log.push(Stream::Exchanges, "nexus.exchange.0.odd._._", payload);
    })
}

/// The whole log of a case; gives back the sequence below which retention may purge exchanges.
pub(super) fn log_of(case: &Case) -> (MemoryLog, u64) {
    let mut log = MemoryLog::new();
    let conversations = conversations();
    let mut events: Vec<(u16, Write)> = case
        .requests
        .iter()
        .enumerate()
        .flat_map(|(number, spec)| events(spec, conversations, u32::try_from(number).unwrap() * 10))
        .collect();
    events.extend(case.odd.iter().map(|place| (*place, odd())));
    events.sort_by_key(|(place, _)| *place);
    for (_, write) in events {
        write(&mut log);
    }
    for change in &case.config {
        configure(&mut log, *change);
    }
    for rollup in &case.rollups {
        rollup.publish(&mut log);
    }
    log.audit(
        TODAY,
        &UnauthenticatedCalls {
            minute_ms: 0,
            count: 3,
        },
    );
    let purgeable = case
        .cutoff
        .map_or(0, |day| purgeable(&log, TODAY - day * DAY));
    if let Some(day) = case.cutoff {
        let retention = |days: i64, sequence: u64| RetentionApplied {
            cutoff_ms: TODAY - days * DAY,
            exchanges_sequence: sequence,
            chunks_sequence: 0,
            audit_sequence: 2,
        };
        log.audit(TODAY, &retention(day, purgeable));
        // One that says less than what was said before changes nothing.
        log.audit(TODAY, &retention(day + 1, 0));
    }
    (log, purgeable)
}

/// The first sequence of an event that retention must keep.
fn purgeable(log: &MemoryLog, cutoff_ms: i64) -> u64 {
    log.of(Stream::Exchanges)
        .iter()
        .filter(|entry| {
            nexus_events::envelope::Envelope::decode(&entry.message.payload)
                .ok()
                .and_then(|envelope| envelope.subject.parse::<RequestId>().ok())
                .is_some_and(|request| request.drawn_at().as_millis() >= cutoff_ms)
        })
        .map(|entry| entry.message.sequence)
        .next()
        .unwrap_or(1)
}
