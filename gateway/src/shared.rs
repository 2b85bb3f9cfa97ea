//! What the gateways of one hub share: short-lived state that can be lost.
//!
//! *What it is.* Where conversations ended lately, who holds a conversation id,
//! rate-limit buckets, and answers that may be given again. [`memory`] keeps it in process, for one gateway;
//! [`redis`] keeps it in Redis, for several, and serves from memory while Redis
//! is away. `NEXUS_REDIS_URL` decides.
//!
//! *What it promises.* No call fails and none waits longer than
//! [`redis::ANSWER_TIMEOUT`], or, to be let in at all, than
//! [`redis::ADMISSION_TIMEOUT`]: what cannot be shared now is kept here meanwhile.
//! Everything has a bound and an end.
//!
//! *What it never does.* It holds no fact. A lost prefix costs a conversation
//! that goes on under a new id, a lost bucket some requests above the limit;
//! nothing that was recorded.

mod answers;
mod expiring;
pub mod memory;
pub mod quota;
pub mod redis;

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use nexus_events::{
    clock::SharedClock,
    id::{ConversationId, KeyId, RequestId},
    message_id::MessageId,
};

pub use self::{
    answers::{Answerer, KeptAnswer},
    memory::MemoryState,
    quota::Quotas,
    redis::RedisState,
};
use crate::{metrics::Metrics, settings::Secret};

/// How long a conversation may stand still and still be found by its messages: 30 minutes.
///
/// Each turn begins the time again. The design's figure.
pub const WINDOW: Duration = Duration::from_mins(30);

/// Conversations remembered for one message id: 4.
///
/// The same words can end several conversations of one key: a greeting, tests
/// against a deterministic model. The latest ones are the likely ones.
pub const CONVERSATIONS_MAX: usize = 4;

/// Whose conversations are looked at: a hash of a key and the `user` of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScopeId([u8; 16]);

impl ScopeId {
    /// The scope with those bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for ScopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// What tells one list of system messages from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemDigest([u8; 16]);

impl SystemDigest {
    /// The digest with those bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// The system messages of an exchange, and where they are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredSystem {
    /// What they say.
    pub digest: SystemDigest,
    /// The request whose `received` event carries them in full.
    pub full_in: RequestId,
}

/// An exchange that ended with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangeEnd {
    /// The conversation that it belongs to.
    pub conversation: ConversationId,
    /// Its system messages; `None` when it had none, or they are not known any more.
    pub system: Option<StoredSystem>,
}

/// The longest prefix that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Its place in the list of ids that were asked for.
    pub index: usize,
    /// The exchange that ended with it.
    pub end: ExchangeEnd,
}

/// Ids to look for, the longest prefix first.
#[derive(Clone, Copy, Debug)]
pub struct PrefixQuery<'a> {
    /// Whose conversations.
    pub scope: ScopeId,
    /// Ids of answers in the message list, the last one first.
    pub ids: &'a [MessageId],
    /// Only exchanges of that conversation.
    pub conversation: Option<ConversationId>,
}

/// How long ago what is remembered happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remembered {
    /// Just now: it is the latest.
    Now,
    /// So long ago, read back after a restart: it gives way to what is known already.
    Ago(Duration),
}

/// What tells one request with an answer that is kept from all others: a SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AnswerKey([u8; 32]);

impl AnswerKey {
    /// The key with those bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for AnswerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A limit on how often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// So many times …
    pub limit: u32,
    /// … in that time: whole milliseconds, from one to half an hour.
    pub window: Duration,
}

impl Rate {
    /// `window` in milliseconds.
    ///
    /// Half an hour is the most: times a limit of 32 bits it stays below 2^53,
    /// which is what Lua's numbers hold exactly.
    fn window_ms(self) -> u64 {
        u64::try_from(self.window.as_millis().clamp(1, 1_800_000)).unwrap_or(1)
    }
}

/// Whether something may happen now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may.
    pub allowed: bool,
    /// How many more times at once.
    pub remaining: u32,
    /// When it may, at the earliest; zero when it may now.
    pub retry_after: Duration,
    /// When the whole limit is free again.
    pub reset_after: Duration,
}

impl Decision {
    /// What follows from the parts of a token bucket that are left.
    ///
    /// Buckets count in whole numbers: one use is as many parts as the window
    /// has milliseconds, and each millisecond brings `limit` parts, so nothing
    /// is ever rounded.
    fn of(rate: Rate, allowed: bool, parts: u64) -> Self {
        let (limit, one) = (u64::from(rate.limit), rate.window_ms());
        let until = |wanted: u64| {
            Duration::from_millis(wanted.saturating_sub(parts).div_ceil(limit.max(1)))
        };
        Self {
            allowed,
            remaining: u32::try_from(parts / one).unwrap_or(u32::MAX),
            retry_after: if allowed { Duration::ZERO } else { until(one) },
            reset_after: until(limit * one),
        }
    }
}

/// The shared state that the settings ask for: in Redis, or in process without one.
///
/// # Errors
/// `redis_url` is no address. A Redis that is away is no error.
pub async fn connect(
    redis_url: Option<&Secret>,
    clock: SharedClock,
    metrics: &Metrics,
) -> Result<Arc<dyn SharedState>, ::redis::RedisError> {
    let local = MemoryState::new(clock, WINDOW);
    Ok(match redis_url {
        None => Arc::new(local),
        Some(url) => Arc::new(RedisState::connect(url, WINDOW, local, metrics).await?),
    })
}

/// State that gateways share. Object-safe, so that the choice is made at the start.
pub trait SharedState: Quotas {
    /// The longest of the prefixes that an exchange ended with, if any.
    ///
    /// Begins the window again for it and for the shorter ones.
    fn find_prefix<'a>(&'a self, query: PrefixQuery<'a>) -> BoxFuture<'a, Option<Prefix>>;

    /// Keeps that an exchange ended with one of those messages (one for each choice).
    fn remember<'a>(
        &'a self,
        scope: ScopeId,
        ids: &'a [MessageId],
        end: ExchangeEnd,
        at: Remembered,
    ) -> BoxFuture<'a, ()>;

    /// The key that holds a conversation id; given to `claimant` where nobody holds it.
    ///
    /// Held for [`WINDOW`] after the last call.
    fn holder(
        &self,
        conversation: ConversationId,
        claimant: Option<KeyId>,
    ) -> BoxFuture<'_, Option<KeyId>>;

    /// An answer that was kept and has not ended.
    fn answer(&self, key: AnswerKey) -> BoxFuture<'_, Option<KeptAnswer>>;

    /// Keeps an answer for that time, if there is room.
    fn keep_answer(&self, key: AnswerKey, answer: KeptAnswer, ttl: Duration) -> BoxFuture<'_, ()>;
}
