//! Shared state of several gateways: in Redis, one round trip for each call.
//!
//! Each call is one Lua script, so that what it reads and writes is one step
//! for all gateways. The keys of a call carry one hash tag (`nexus:{…}:…`), so
//! they lie in one slot of a Redis Cluster. Everything there expires.
//!
//! A gateway keeps what it writes in its own [`MemoryState`] too. While Redis
//! is away or slow that serves alone (`health` decides), and afterwards it
//! still answers for what Redis missed: no conversation breaks off because
//! Redis was restarted.

mod health;
mod kept;
mod limits;
mod quota;
mod record;
mod scripts;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt};
use nexus_events::{
    id::{ConversationId, KeyId},
    message_id::MessageId,
};
use prometheus::IntGauge;
use redis::{
    Client, FromRedisValue, ScriptInvocation,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::time::{Instant, error::Elapsed, timeout};

use self::{
    health::{Health, Outcome},
    quota::QuotaScripts,
    scripts::Scripts,
};
use super::{
    AnswerKey, Decision, ExchangeEnd, KeptAnswer, MemoryState, Prefix, PrefixQuery, Rate,
    Remembered, ScopeId, SharedState,
};
use crate::{metrics::Metrics, settings::Secret};

/// How long a call waits for Redis: 50 ms.
///
/// A hundred times what it takes in one data centre, and still small beside the
/// first token of a model. Shorter would turn a busy moment into a conversation
/// that is not found; longer would hold up every request when Redis hangs.
pub const ANSWER_TIMEOUT: Duration = Duration::from_millis(50);

/// How long an admission waits for Redis: 500 ms.
///
/// Whoever does not wait counts by itself, and lets through what others have let
/// through as well. So a busy moment is waited for; a Redis that hangs costs this
/// three times, until it is known to be away.
pub const ADMISSION_TIMEOUT: Duration = Duration::from_millis(500);

/// How long one attempt to connect may take: 1 s. Requests wait [`ANSWER_TIMEOUT`] at most.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Shared state in Redis, with this gateway's own memory behind it.
#[derive(Debug)]
pub struct RedisState {
    connection: Connection,
    scripts: Scripts,
    quotas: QuotaScripts,
    health: Health,
    window: Duration,
    local: MemoryState,
    /// Gateways that were last seen living, this one among them.
    gateways: AtomicU32,
    gateways_shown: IntGauge,
}

/// The connection; its own `Debug` would show the address with its password.
struct Connection(ConnectionManager);

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection(..)")
    }
}

/// A call that Redis did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unanswered {
    /// There was no connection to send it on: it did nothing.
    Refused,
    /// It may have been carried out.
    Unknown,
}

impl Unanswered {
    fn of(error: &redis::RedisError) -> Self {
        if error.is_connection_refusal() {
            Self::Refused
        } else {
            Self::Unknown
        }
    }
}

impl RedisState {
    /// Shared state at that address; `local` serves while Redis does not.
    ///
    /// Waits for Redis for a second at most: a gateway starts without it too.
    ///
    /// # Errors
    /// The address is none.
    pub async fn connect(
        url: &Secret,
        window: Duration,
        local: MemoryState,
        metrics: &Metrics,
    ) -> Result<Self, redis::RedisError> {
        // No attempts in a row: the next call is the next attempt.
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(CONNECT_TIMEOUT));
        let client = Client::open(url.expose())?;
        let connection = ConnectionManager::new_lazy_with_config(client, config)?;
        let state = Self {
            connection: Connection(connection),
            scripts: Scripts::new(),
            quotas: QuotaScripts::new(),
            health: Health::new(metrics),
            window,
            local,
            gateways: AtomicU32::new(1),
            gateways_shown: metrics.gateways.clone(),
        };
        let ping = redis::cmd("PING");
        let mut connection = state.connection.0.clone();
        let answer = ping.exec_async(&mut connection);
        let _answered = state.noted(timeout(CONNECT_TIMEOUT, answer).await).is_ok();
        Ok(state)
    }

    /// Whether Redis answers.
    pub fn is_up(&self) -> bool {
        self.health.is_up()
    }

    /// What Redis says; `None` while it is away.
    async fn ask<T: FromRedisValue>(&self, call: &ScriptInvocation<'_>) -> Option<T> {
        if !self.health.may_ask(Instant::now()) {
            return None;
        }
        self.invoke(call, ANSWER_TIMEOUT).await
    }

    /// What Redis says; `None` when it does not answer.
    async fn invoke<T: FromRedisValue>(
        &self,
        call: &ScriptInvocation<'_>,
        bound: Duration,
    ) -> Option<T> {
        self.tried(call, bound).await.ok()
    }

    /// The same, with what is known of a call that was not answered.
    async fn tried<T: FromRedisValue>(
        &self,
        call: &ScriptInvocation<'_>,
        bound: Duration,
    ) -> Result<T, Unanswered> {
        let mut connection = self.connection.0.clone();
        let answer = call.invoke_async(&mut connection);
        self.noted(timeout(bound, answer).await)
    }

    /// Notes what came of a call.
    fn noted<T>(
        &self,
        answer: Result<Result<T, redis::RedisError>, Elapsed>,
    ) -> Result<T, Unanswered> {
        let (value, outcome) = match answer {
            Ok(Ok(value)) => (Ok(value), Outcome::Answered),
            Ok(Err(error)) => (Err(Unanswered::of(&error)), Outcome::Failed(error)),
            Err(_elapsed) => (Err(Unanswered::Unknown), Outcome::Late),
        };
        self.health.note(Instant::now(), &outcome);
        value
    }

    async fn find(&self, query: PrefixQuery<'_>) -> Option<Prefix> {
        let call = self.scripts.find(query, self.window);
        let found: Option<Option<(usize, Vec<u8>)>> = self.ask(&call).await;
        let shared = found.flatten().and_then(|(place, end)| {
            // Lua counts from one.
            Some(Prefix {
                index: place.checked_sub(1)?,
                end: record::read(&end)?,
            })
        });
        let own = self.local.find(query);
        match (shared, own) {
            (Some(shared), Some(own)) if own.index < shared.index => Some(own),
            (shared, own) => shared.or(own),
        }
    }

    async fn keep(&self, scope: ScopeId, ids: &[MessageId], end: ExchangeEnd, at: Remembered) {
        self.local.keep(scope, ids, end, at);
        if let Some(call) = self.scripts.remember(scope, ids, end, (at, self.window)) {
            self.ask::<()>(&call).await;
        }
    }

    async fn hold(&self, conversation: ConversationId, claimant: Option<KeyId>) -> Option<KeyId> {
        let call = self.scripts.holder(conversation, claimant, self.window);
        let held: Option<Option<String>> = self.ask(&call).await;
        match held.flatten().and_then(|key| key.parse().ok()) {
            Some(holder) => {
                self.local.hold(conversation, Some(holder));
                Some(holder)
            }
            None => self.local.hold(conversation, claimant),
        }
    }

    async fn known_answer(&self, key: AnswerKey) -> Option<KeptAnswer> {
        let call = self.scripts.answer(key);
        let known: Option<Option<Vec<u8>>> = self.ask(&call).await;
        match known {
            Some(known) => known.and_then(|value| kept::read(value.into())),
            None => self.local.known_answer(key),
        }
    }

    async fn keep_one(&self, key: AnswerKey, answer: KeptAnswer, ttl: Duration) {
        let call = self.scripts.keep_answer(key, &answer, ttl);
        self.ask::<()>(&call).await;
        self.local.keep_one(key, answer, ttl);
    }

    async fn take_one(&self, bucket: &str, rate: Rate) -> Decision {
        let call = self.scripts.take(bucket, rate);
        if let Some((allowed, parts)) = self.ask::<(bool, u64)>(&call).await {
            return Decision::of(rate, allowed, parts);
        }
        self.local.take_one(bucket, self.share(rate))
    }

    async fn peek_one(&self, bucket: &str, rate: Rate) -> Decision {
        let call = self.scripts.peek(bucket, rate);
        if let Some((allowed, parts)) = self.ask::<(bool, u64)>(&call).await {
            return Decision::of(rate, allowed, parts);
        }
        self.local.peek_one(bucket, self.share(rate))
    }

    /// This gateway's part of a limit, while each counts by itself.
    fn share(&self, rate: Rate) -> Rate {
        rate.share_of(self.gateways.load(Ordering::Relaxed))
    }
}

impl SharedState for RedisState {
    fn find_prefix<'a>(&'a self, query: PrefixQuery<'a>) -> BoxFuture<'a, Option<Prefix>> {
        self.find(query).boxed()
    }

    fn remember<'a>(
        &'a self,
        scope: ScopeId,
        ids: &'a [MessageId],
        end: ExchangeEnd,
        at: Remembered,
    ) -> BoxFuture<'a, ()> {
        self.keep(scope, ids, end, at).boxed()
    }

    fn holder(
        &self,
        conversation: ConversationId,
        claimant: Option<KeyId>,
    ) -> BoxFuture<'_, Option<KeyId>> {
        self.hold(conversation, claimant).boxed()
    }

    fn answer(&self, key: AnswerKey) -> BoxFuture<'_, Option<KeptAnswer>> {
        self.known_answer(key).boxed()
    }

    fn keep_answer(&self, key: AnswerKey, answer: KeptAnswer, ttl: Duration) -> BoxFuture<'_, ()> {
        self.keep_one(key, answer, ttl).boxed()
    }
}
