//! Puts the data plane together: shared state, limits, conversations, the exchange engine.

use std::{collections::BTreeMap, error::Error, sync::Arc, time::Duration};

use anyhow::Context;
use futures_util::future::BoxFuture;
use nexus_events::{
    clock::SharedClock,
    id::{ConversationId, KeyId, RequestId},
    outbox::Outbox,
};
use nexus_projector::read_model::{ReadModel, SystemMessage};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Process;
use crate::{
    configuration::Configuration,
    exchange::{self, Engine, count::Counting},
    limits::Limits,
    provider::{
        hops,
        transport::{Transport, TransportSettings},
    },
    readiness::Part,
    routing::{Routing, chance::Chance, reach::Looks},
    session::{ConversationOwners, RecentEnd, Sessions},
    settings::GatewaySettings,
    shared::{self, SharedState, StoredSystem, WINDOW},
    standstill::Standstill,
    tokens::TokenCounter,
};

/// Pause between two looks for the read model at the start: 1 s.
const SEED_PAUSE: Duration = Duration::from_secs(1);

/// Looks for the read model at the start: 60; a conversation that goes on later than that is found
/// by what happened since.
const SEED_TRIES: u32 = 60;

/// What answers clients.
#[derive(Debug)]
pub(super) struct DataPlane {
    pub(super) engine: Engine,
    pub(super) looks: Looks,
    pub(super) limits: Limits,
    pub(super) sessions: Sessions,
    pub(super) counting: Counting,
}

/// What the data plane is built from, besides the process.
pub(super) struct Parts<'a> {
    pub(super) settings: &'a GatewaySettings,
    pub(super) configuration: &'a Configuration,
    pub(super) outbox: &'a Outbox,
    pub(super) standstill: &'a Standstill,
    pub(super) read_model: &'a ReadModel,
    pub(super) tracker: &'a TaskTracker,
    pub(super) hard_stop: &'a CancellationToken,
}

impl DataPlane {
    /// Builds it.
    ///
    /// # Errors
    /// The address of Redis is none, or this machine lacks what TLS needs.
    pub(super) async fn build(process: &Process, parts: Parts<'_>) -> anyhow::Result<Self> {
        let Parts { settings, .. } = parts;
        let clock = Arc::clone(&process.clock);
        let redis_url = process.settings.redis_url();
        let shared = shared::connect(redis_url, Arc::clone(&clock), &process.metrics)
            .await
            .context("read the address of Redis")?;
        let snapshot = parts.configuration.current();
        let owners = Arc::new(Owners {
            read_model: parts.read_model.clone(),
            clock: Arc::clone(&clock),
        });
        let sessions = Sessions::new(
            snapshot.message_key().as_bytes(),
            Arc::clone(&shared),
            owners,
            Arc::clone(&clock),
        );
        let bounds = TransportSettings {
            connect: settings.upstream_connect,
            first_byte: settings.upstream_first_byte,
            idle: settings.upstream_idle,
            ..TransportSettings::default()
        };
        let transport = Transport::new(bounds, &settings.upstream_roots()?)?
            .marked(hops::id(snapshot.message_key()));
        let counting = Counting::new(Arc::new(TokenCounter::new(parts.tracker.clone())))
            .auditing(settings.token_audit_percent);
        let limits = Limits::new(
            Arc::<dyn SharedState>::clone(&shared),
            settings.rate_limit_rps,
        );
        let routing = Routing::new(
            parts.outbox.clone(),
            Arc::clone(&clock),
            Arc::clone(&process.metrics),
            Chance::of_system(),
        );
        let engine = Engine::new(exchange::Parts {
            routing: routing.clone(),
            transport: transport.clone(),
            outbox: parts.outbox.clone(),
            standstill: parts.standstill.clone(),
            limits: limits.clone(),
            sessions: sessions.clone(),
            shared,
            counting: counting.clone(),
            clock,
            metrics: Arc::clone(&process.metrics),
            tracker: parts.tracker.clone(),
            hard_stop: parts.hard_stop.clone(),
        });
        Ok(Self {
            engine,
            looks: Looks {
                interval: settings.health_interval,
                routing,
                transport,
                configuration: parts.configuration.clone(),
            },
            limits,
            sessions,
            counting,
        })
    }
}

/// Tells the sessions where the conversations of the last half hour ended.
///
/// What is in Redis still, or happened since the start, stays as it is. `part` is ready when that
/// is done, so that a client who comes right after a restart stays in its conversation; or when
/// there is no read model, because requests do not wait for one.
pub(super) async fn seed(
    sessions: Sessions,
    read_model: ReadModel,
    clock: SharedClock,
    part: Part,
) {
    for _ in 0..SEED_TRIES {
        let now = clock.now();
        let recent = match read_model.recent_exchange_ends(now.minus(WINDOW)).await {
            Ok(recent) => recent,
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn Error,
                    "no read model to seed from yet"
                );
                part.ready_but("no read model to find earlier conversations in yet");
                tokio::time::sleep(SEED_PAUSE).await;
                continue;
            }
        };
        let systems = stored_systems(&sessions, &recent.systems);
        for end in recent.ends {
            let age = now.as_millis().saturating_sub(end.ended_ms);
            let recent = RecentEnd {
                key: end.key_id,
                user: end.user,
                conversation: end.conversation_id,
                answers: end.messages,
                system: end
                    .system
                    .and_then(|in_full| systems.get(&in_full).copied()),
                age: Duration::from_millis(u64::try_from(age).unwrap_or(0)),
            };
            sessions.seed(&recent).await;
            // Without Redis nothing above ever waits, and requests are being served.
            tokio::task::yield_now().await;
        }
        part.ready();
        return;
    }
    tracing::warn!("there was no read model to find earlier conversations in");
}

/// What tells the system messages of recent requests from others, by the request that has them.
fn stored_systems(
    sessions: &Sessions,
    systems: &BTreeMap<RequestId, Vec<SystemMessage>>,
) -> BTreeMap<RequestId, StoredSystem> {
    let stored = systems.iter().filter_map(|(in_full, messages)| {
        let messages = messages.iter().map(|one| (one.place, &*one.message));
        Some((*in_full, sessions.stored_before(*in_full, messages)?))
    });
    stored.collect()
}

/// Owners of conversations, by the read model.
#[derive(Debug)]
struct Owners {
    read_model: ReadModel,
    clock: SharedClock,
}

impl ConversationOwners for Owners {
    fn owner(&self, conversation: ConversationId) -> BoxFuture<'_, Option<KeyId>> {
        Box::pin(async move {
            let now = self.clock.now();
            let stats = self.read_model.conversation_stats(conversation, now).await;
            // While the read model is away nobody can tell.
            stats.ok().flatten().map(|stats| stats.key_id)
        })
    }
}
