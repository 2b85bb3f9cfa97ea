//! Lost gateways: who is lost, what is to be done about it, and when. Pure.
//!
//! # What it is for
//! A gateway that dies leaves requests open. When it comes back, or when
//! another one adopts its outbox, they are closed with what the outbox holds
//! ([`super::lost`]). One that stays away leaves them open, and nobody else may
//! know better: a gateway that is merely cut off from the broker still serves
//! its clients, and has everything that they see in its outbox. So the others
//!
//! 1. *presume* it lost after a minute: `presumed_lost` for each of its open
//!    requests, which is shown to people and counts for nothing;
//! 2. *settle* for it after a day ([`NEXUS_LOST_SETTLE_SECONDS`]): a terminal
//!    event, `failed` with `gateway_lost` and the answer as far as the log has
//!    it, and the token counts that are missing. That is final: what the lost
//!    gateway still has to say is recorded when it comes, and never counted.
//!
//! # Who is lost
//! Each lane of a living outbox renews its cursor every 15 s. An outbox is
//! heard of when the cursor of its lane `exchanges` is stored. Two things must
//! be true of one that is lost:
//!
//! * it was not heard of for 60 s by the broker's clock. "Now" is when the
//!   sweeper's own cursor was stored: the same stream dates both, and no clock
//!   of another machine takes part;
//! * the sweeper itself has seen the cursor stand still for 30 s, two
//!   heartbeats, in looks without a hole. For after an outage of the broker, or
//!   when its clock was set forward, all cursors are old at once, and everybody
//!   must have time to say that he lives.
//!
//! # When it is settled
//! A day after it was last heard of, and a day after `presumed_lost` was
//! stored. Both: people had a day to find out what is the matter with it, and
//! a gateway that was away for a minute, once, long ago, is as alive as any.
//!
//! [`NEXUS_LOST_SETTLE_SECONDS`]: crate::settings::GatewaySettings::lost_settle

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use nexus_events::{
    clock::UnixMillis,
    envelope::{Envelope, NO_CONTENT, Record, Stamp},
    exchange_event::{self, About, ExchangeEvent, PresumedLost},
    id::{OutboxId, RequestId},
    log::Message,
    stillness::{Look, Stillness},
    subject,
};
use nexus_projector::read_model::UnsettledRequest;

/// Time between two sweeps: 15 s, so that what is lost is marked within two minutes.
pub const SWEEP_EVERY: Duration = Duration::from_secs(15);

/// An outbox that was not heard of for so long is lost: a minute, four heartbeats.
pub const LOST_AFTER: Duration = Duration::from_mins(1);

/// The sweeper must have seen its cursor stand still for so long itself: 30 s, two heartbeats.
pub const SEEN_STILL: Duration = Duration::from_secs(30);

/// Two looks that are further apart say nothing of the time between: 30 s.
///
/// With the heartbeat before it that is 45 s; a broker that was away for so
/// long, unnoticed, does not make anybody lost.
pub const LOOK_GAP_MAX: Duration = Duration::from_secs(30);

/// What is to be thought of the gateway of an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It lives, or nobody can say otherwise yet.
    Alive,
    /// It is presumed lost.
    Lost,
    /// It was lost for so long that others settle for it.
    GivenUp,
}

/// Judges by when an outbox was last heard of, by the same clock as `now`, and by how long the
/// sweeper has seen it silent.
pub fn judge(
    now: UnixMillis,
    heard: UnixMillis,
    still: Duration,
    settle_after: Duration,
) -> Verdict {
    let silent = since(heard, now);
    if silent < LOST_AFTER || still < SEEN_STILL {
        Verdict::Alive
    } else if silent < settle_after {
        Verdict::Lost
    } else {
        Verdict::GivenUp
    }
}

/// Whether a request that was presumed lost then is to be settled now, when its gateway is given up.
pub fn is_due(now: UnixMillis, presumed_lost: UnixMillis, settle_after: Duration) -> bool {
    since(presumed_lost, now) >= settle_after
}

/// From one moment to a later one of the same clock; zero when it is none.
fn since(then: UnixMillis, now: UnixMillis) -> Duration {
    let millis = now.as_millis().saturating_sub(then.as_millis());
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// What the sweeper has seen of the cursors of other outboxes.
#[derive(Debug, Default)]
pub struct Watch(HashMap<OutboxId, Stillness>);

impl Watch {
    /// Takes a look at the cursor of an outbox; gives how long it was seen to stand still.
    pub fn look(&mut self, outbox: OutboxId, look: Look) -> Duration {
        let stillness = self
            .0
            .entry(outbox)
            .or_insert_with(|| Stillness::begin(look));
        stillness.look(look, LOOK_GAP_MAX)
    }

    /// Forgets everything: a look failed, or the lease is another's.
    pub fn forget(&mut self) {
        self.0.clear();
    }

    /// Forgets the outboxes that nothing is open of any more.
    pub fn keep_only(&mut self, outboxes: &[OutboxId]) {
        let outboxes: HashSet<&OutboxId> = outboxes.iter().collect();
        self.0.retain(|outbox, _| outboxes.contains(outbox));
    }
}

/// What the log says of some requests behind the read model's back.
#[derive(Debug)]
pub struct News {
    of: HashSet<RequestId>,
    ended: HashSet<RequestId>,
    presumed_lost: HashSet<RequestId>,
    counted: HashSet<RequestId>,
}

impl News {
    /// Nothing yet, of these requests.
    pub fn of(requests: &[UnsettledRequest]) -> Self {
        Self {
            of: requests.iter().map(|one| one.request).collect(),
            ended: HashSet::new(),
            presumed_lost: HashSet::new(),
            counted: HashSet::new(),
        }
    }

    /// Takes an event that the read model has not read.
    ///
    /// Goes by the subject where that will do, so that an end is an end in whatever version of
    /// the event a newer gateway wrote it.
    pub fn see(&mut self, message: &Message) {
        let Some(name) = subject::exchange_event(&message.subject) else {
            return;
        };
        let set = match name {
            "completed" | "failed" => &mut self.ended,
            "presumed_lost" => &mut self.presumed_lost,
            "tokens_counted" => &mut self.counted,
            _ => return,
        };
        let Ok(envelope) = Envelope::decode(&message.payload) else {
            return;
        };
        let request = envelope.subject.parse().ok();
        let Some(request) = request.filter(|request| self.of.contains(request)) else {
            return;
        };
        if let Ok(Some(ExchangeEvent::TokensCounted(counted))) = ExchangeEvent::decode(&envelope)
            && counted.audit
        {
            return;
        }
        set.insert(request);
    }

    /// Whether a request is still open and still not presumed lost.
    pub fn leaves_unmarked(&self, request: &UnsettledRequest) -> bool {
        let id = &request.request;
        !self.ended.contains(id) && !self.presumed_lost.contains(id)
    }

    /// Whether a request is still as unfinished as the read model has it.
    pub fn leaves_unfinished(&self, request: &UnsettledRequest) -> bool {
        let id = &request.request;
        !self.ended.contains(id) && !self.counted.contains(id)
    }
}

/// Whether a message is the `received` of a request, come through an outbox.
pub fn is_received(message: &Message, request: RequestId, outbox: OutboxId) -> bool {
    let Ok(envelope) = Envelope::decode(&message.payload) else {
        return false;
    };
    subject::exchange_event(&message.subject) == Some("received")
        && envelope.outbox == Some(outbox)
        && envelope.subject.parse().ok() == Some(request)
}

/// `presumed_lost` of a request whose gateway had that outbox.
///
/// # Errors
/// It cannot be written as JSON.
pub fn presumed_lost(
    request: RequestId,
    outbox: OutboxId,
    source: &str,
    stamp: Stamp,
) -> Result<Record, nexus_events::envelope::EncodeError> {
    let about = About {
        source,
        request,
        traceparent: None,
    };
    let data = PresumedLost { outbox };
    exchange_event::record(about, stamp, ("_", "_"), &data, NO_CONTENT)
}

#[cfg(test)]
mod tests;
