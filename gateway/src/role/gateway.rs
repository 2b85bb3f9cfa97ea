//! The gateway role: client API and management API on one address.
//!
//! Start: the outbox is opened, the configuration read (from the log, or from
//! the local copy while the broker is away), the shipper started; then it
//! serves. Stop: no new connection, answers under way finish within
//! `NEXUS_DRAIN_SECONDS`, then are ended; what the outbox holds is shipped if
//! the broker takes it in time, and else at the next start.

mod adopted;
mod budgets;
mod data_plane;
mod no_room;
mod set_aside;
mod settle;
mod sweep;
mod watch;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use nexus_events::{
    log::Log,
    outbox::{Outbox, OutboxSettings, Shipper},
    seal::MasterKey,
};
use nexus_projector::read_model::ReadModel;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::data_plane::DataPlane;
use super::Process;
use crate::{
    auth::Unauthenticated,
    configuration::{
        Commands, Configuration,
        bootstrap::Bootstrap,
        disk::Disk,
        first_key::{FirstKey, FirstKeyFile},
        follow::{Follower, Parts},
    },
    readiness::{Need, Part},
    router,
    routing::reach::Looks,
    server::Server,
    settings::GatewaySettings,
    standstill::Standstill,
    state::{AppState, State},
};

/// After the hard stop, exchanges get this long to write their terminal events: 5 s.
pub const LAST_WORDS: Duration = Duration::from_secs(5);

/// What is in the outbox at the end is shipped within this time, or at the next start: 10 s.
pub const FLUSH: Duration = Duration::from_secs(10);

/// A start with a local copy of the configuration waits this long for the broker: 3 s.
const BROKER_TIME: Duration = Duration::from_secs(3);

/// One round of waiting for the broker when nothing can be served without it.
const BROKER_ROUND: Duration = Duration::from_secs(5);

/// Pause after a broker that was there and could not do what it was asked: 200 ms.
const BROKER_PAUSE: Duration = Duration::from_millis(200);

/// What the gateway is started with, besides the process.
#[derive(Debug)]
pub struct Start {
    /// How it was set up.
    pub settings: GatewaySettings,
    /// Opens and seals secrets.
    pub master_key: MasterKey,
    /// The log.
    pub log: Log,
}

/// A gateway that is ready to serve.
#[derive(Debug)]
pub struct Gateway {
    process: Process,
    state: State,
    follower: Follower,
    shipper: Shipper,
    watch: watch::Watch,
    lost: adopted::Lost,
    sweeper: sweep::Sweeper,
    set_aside: set_aside::Keeper,
    looks: Looks,
    first_key: Option<FirstKey>,
}

impl Gateway {
    /// Opens the outbox, reads the configuration, and starts shipping.
    ///
    /// Without a local copy of the configuration it waits for the broker as long as it takes.
    ///
    /// # Errors
    /// What waiting does not mend: a broker that will not do, a wrong master key, a full disk.
    pub async fn start(process: &Process, start: Start) -> anyhow::Result<Self> {
        let Start {
            settings,
            master_key,
            log,
        } = start;
        let clock = Arc::clone(&process.clock);
        let watched = watch::Parts::of(&process.readiness, Need::AtStart);
        let (outbox, adopted) = Outbox::open(&outbox_settings(process, &settings), &clock)
            .context("open the outbox")?;
        process.metrics.show_outbox(outbox.clone())?;
        let mut follower = follower(process, &settings, &master_key, &log)?;
        let (configuration, first_key) = configured(process, &mut follower).await?;
        let shipper = Shipper {
            log: log.clone(),
            clock: Arc::clone(&clock),
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        shipper.ship(&outbox);
        adopted::drain(&shipper, &adopted);
        let commands = commands(process, &log, &configuration, &outbox);
        let read_model = ReadModel::open(process.settings.read_model_dir());
        let (tracker, hard_stop) = (TaskTracker::new(), process.life.hard.child_token());
        let standstill = Standstill::default();
        let parts = data_plane::Parts {
            settings: &settings,
            configuration: &configuration,
            outbox: &outbox,
            standstill: &standstill,
            read_model: &read_model,
            tracker: &tracker,
            hard_stop: &hard_stop,
        };
        let data_plane = DataPlane::build(process, parts).await?;
        let state = Arc::new(AppState {
            clock,
            read_model,
            engine: data_plane.engine,
            routing: data_plane.looks.routing.clone(),
            limits: data_plane.limits,
            sessions: data_plane.sessions,
            settings: Arc::new(settings),
            role_settings: Arc::clone(&process.settings),
            master_key,
            configuration,
            commands,
            outbox,
            standstill,
            log,
            unauthenticated: Unauthenticated::default(),
            metrics: Arc::clone(&process.metrics),
            tracker,
            soft_stop: process.life.soft.clone(),
            hard_stop,
        });
        let settler = settle::Settler::new(State::clone(&state), data_plane.counting);
        Ok(Self {
            process: process.clone(),
            watch: watch::Watch::new(State::clone(&state), watched),
            lost: adopted::Lost::new(&settler, &process.readiness, (adopted, shipper.clone())),
            sweeper: sweep::Sweeper::new(settler),
            set_aside: set_aside::Keeper::new(process, &state),
            looks: data_plane.looks,
            state,
            follower,
            shipper,
            first_key,
        })
    }

    /// The admin key that was drawn at the first start, if nobody was told yet.
    pub const fn first_key(&self) -> Option<&FirstKey> {
        self.first_key.as_ref()
    }

    /// Serves until the soft stop, then drains.
    ///
    /// # Errors
    /// None; a part that fails says so in `/readyz` and traffic goes on.
    pub async fn run(self, listener: TcpListener) -> anyhow::Result<()> {
        let Self {
            process,
            state,
            follower,
            shipper,
            watch,
            lost,
            sweeper,
            set_aside,
            looks,
            ..
        } = self;
        let background = TaskTracker::new();
        let over = CancellationToken::new();
        background.spawn(follow(follower, State::clone(&state), over.clone()));
        let sessions = process.readiness.part("sessions", Need::AtStart);
        background.spawn(seed(State::clone(&state), sessions, over.clone()));
        background.spawn(keep_limits(State::clone(&state), over.clone()));
        background.spawn(budgets::seed(State::clone(&state), over.clone()));
        background.spawn(watch.run(over.clone()));
        background.spawn(looks.run(over.clone()));
        background.spawn(set_aside.run(over.clone()));
        background.spawn(lost.settle());
        background.spawn(sweeper.run());
        let server = Server {
            connections_max: state.settings.connections_max,
            connections: state.metrics.connections.clone(),
            tracker: state.tracker.clone(),
            soft_stop: state.soft_stop.clone(),
            hard_stop: state.hard_stop.clone(),
        };
        server.serve(listener, router::router(&state)).await;
        drain(&process, &state).await;
        // Health looks and the minute's calls are appended as well: before the last flush, or never.
        over.cancel();
        background.close();
        if timeout(LAST_WORDS, background.wait()).await.is_err() {
            tracing::warn!("what runs in the background takes long to stop");
        }
        if let Some(minute) = state.unauthenticated.rest() {
            state.tell_unauthenticated(minute);
        }
        flush(&process, &state.outbox).await;
        shipper.stop.cancel();
        shipper.tracker.close();
        shipper.tracker.wait().await;
        if state.outbox.retire() {
            shipper.tell_ended(state.outbox.id()).await;
        } else {
            tracing::warn!(
                "the outbox is kept; the next start ships and closes what is open in it"
            );
        }
        background.wait().await;
        Ok(())
    }
}

fn outbox_dir(process: &Process) -> PathBuf {
    process.data.root().join("outbox")
}

fn outbox_settings(process: &Process, settings: &GatewaySettings) -> OutboxSettings {
    OutboxSettings {
        dir: outbox_dir(process),
        bytes_max: settings.outbox_max_bytes,
        sync: settings.outbox_sync,
        release: settings.release,
    }
}

fn commands(
    process: &Process,
    log: &Log,
    configuration: &Configuration,
    outbox: &Outbox,
) -> Commands {
    let source = format!("/nexus/gateway/{}", outbox.id());
    let clock = Arc::clone(&process.clock);
    Commands::new(log.clone(), configuration.clone(), clock, source)
}

fn follower(
    process: &Process,
    settings: &GatewaySettings,
    master_key: &MasterKey,
    log: &Log,
) -> anyhow::Result<Follower> {
    Ok(Follower::new(Parts {
        log: log.clone(),
        master: master_key.clone(),
        clock: Arc::clone(&process.clock),
        disk: Disk::below(process.data.root(), Arc::clone(&process.clock))?,
        bootstrap: Bootstrap {
            admin_key: settings.admin_key()?,
            first_key: FirstKeyFile::below(process.data.root()),
        },
    }))
}

/// The configuration to begin with: the newest one, or the local copy while the broker is away.
async fn configured(
    process: &Process,
    follower: &mut Follower,
) -> anyhow::Result<(Configuration, Option<FirstKey>)> {
    let copy = follower
        .configuration()
        .context("open the configuration's local copy")?;
    let round = copy.as_ref().map_or(BROKER_ROUND, |_| BROKER_TIME);
    loop {
        let prepared = tokio::select! {
            prepared = follower.prepare(round) => prepared,
            () = process.life.soft.cancelled() => anyhow::bail!("stopped before there was a configuration"),
        };
        match (prepared, &copy) {
            (Ok(first_key), _) => {
                let configuration = follower
                    .configuration()?
                    .context("the log holds no message key")?;
                return Ok((configuration, first_key));
            }
            (Err(error), Some(copy)) if error.leaves_copy() => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "starting with the local copy of the configuration"
                );
                return Ok((copy.clone(), None));
            }
            (Err(error), None) if error.is_passing() => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "waiting for the broker: there is no configuration yet"
                );
                tokio::time::sleep(BROKER_PAUSE).await;
            }
            (Err(error), _) => return Err(error).context("read the configuration"),
        }
    }
}

/// Keeps the configuration up to date; when that cannot go on, traffic does.
async fn follow(mut follower: Follower, state: State, over: CancellationToken) {
    let Err(error) = Box::pin(follower.run(&state.configuration, &over)).await else {
        return;
    };
    tracing::error!(
        error = &error as &dyn std::error::Error,
        "the configuration is not followed any more"
    );
    state.commands.halt(error.to_string());
    follower.heed_revocations(&state.configuration, &over).await;
}

/// Finds the conversations that were under way before this start.
async fn seed(state: State, part: Part, over: CancellationToken) {
    let (sessions, read_model) = (state.sessions.clone(), state.read_model.clone());
    let seeding = data_plane::seed(sessions, read_model, Arc::clone(&state.clock), part);
    over.run_until_cancelled(seeding).await;
}

/// Keeps what requests hold of the limits.
async fn keep_limits(state: State, over: CancellationToken) {
    state.limits.keep_up(state.outbox.id(), &over).await;
}

/// Waits for the answers under way, then ends them.
async fn drain(process: &Process, state: &State) {
    let open = state.tracker.len();
    state.tracker.close();
    tracing::info!(tasks = open, "draining");
    let drained = tokio::select! {
        () = state.tracker.wait() => true,
        () = tokio::time::sleep(process.settings.drain) => false,
        () = state.hard_stop.cancelled() => false,
    };
    if drained {
        return;
    }
    tracing::warn!(tasks = state.tracker.len(), "ending what is under way");
    state.hard_stop.cancel();
    if timeout(LAST_WORDS, state.tracker.wait()).await.is_err() {
        tracing::error!(
            tasks = state.tracker.len(),
            "exchanges did not end; the next start closes them"
        );
    }
}

/// Waits until the broker has everything, if it takes it.
async fn flush(process: &Process, outbox: &Outbox) {
    let shipped = async {
        while !outbox.is_shipped() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = shipped => {}
        () = tokio::time::sleep(FLUSH) => {}
        () = process.life.hard.cancelled() => {}
    }
}
