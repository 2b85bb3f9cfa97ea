//! Configuration through the log: shared by gateways, decided by sequence, kept over an outage.

mod lost_log;

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use futures_util::future::join_all;
use nexus_events::{
    clock::{Clock, SharedClock, SystemClock},
    config_event::{Action, Actor, Provider},
    id::ProviderId,
    log::{Log, LogError, LogSettings},
    seal::MasterKey,
};
use nexus_gateway::configuration::{
    CommandError, Commands, Configuration,
    bootstrap::Bootstrap,
    commands::{Basis, Decision},
    disk::Disk,
    first_key::{FirstKey, FirstKeyFile},
    follow::{FollowError, Follower, Parts},
};
use nexus_tests::{Broker, Result, until};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const BOUND: Duration = Duration::from_secs(20);

/// A gateway's configuration, followed.
struct Gateway {
    configuration: Configuration,
    commands: Commands,
    first_key: Option<FirstKey>,
    task: JoinHandle<Result<(), FollowError>>,
    stop: CancellationToken,
}

async fn log(url: &str) -> Result<Log> {
    let settings = LogSettings {
        url: url.to_owned(),
        name: "test".to_owned(),
        replicas: 1,
        retention: Duration::from_hours(24),
    };
    Ok(Log::connect(settings).await?)
}

fn follower(log: &Log, data_dir: &Path, master: &MasterKey) -> Result<Follower> {
    let clock: SharedClock = Arc::new(SystemClock);
    Ok(Follower::new(Parts {
        log: log.clone(),
        master: master.clone(),
        clock: Arc::clone(&clock),
        disk: Disk::below(data_dir, clock)?,
        bootstrap: Bootstrap {
            admin_key: None,
            first_key: FirstKeyFile::below(data_dir),
        },
    }))
}

impl Gateway {
    async fn start(log: &Log, data_dir: &Path, master: &MasterKey) -> Result<Self> {
        let mut follower = follower(log, data_dir, master)?;
        let first_key = follower.prepare(BOUND).await?;
        let configuration = follower.configuration()?.context("no configuration")?;
        Ok(Self::follow(log, follower, configuration, first_key))
    }

    #[expect(clippy::disallowed_methods, reason = "the test joins the task itself")]
    fn follow(
        log: &Log,
        mut follower: Follower,
        configuration: Configuration,
        first_key: Option<FirstKey>,
    ) -> Self {
        let commands = Commands::new(
            log.clone(),
            configuration.clone(),
            Arc::new(SystemClock),
            "/nexus/test".to_owned(),
        );
        let (stop, its) = (CancellationToken::new(), configuration.clone());
        let stopped = stop.clone();
        let task = tokio::spawn(async move { follower.run(&its, &stopped).await });
        Self {
            configuration,
            commands,
            first_key,
            task,
            stop,
        }
    }

    async fn create(&self, name: &str) -> Result<u64, CommandError> {
        let (provider, actor) = (provider(name), actor());
        let created =
            self.commands
                .create(&actor, &["name"], Basis::Kind, |snapshot| {
                    match snapshot.provider_named(name) {
                        Some(_) => Err(CommandError::Refused {
                            code: "name_taken",
                            message: "taken".into(),
                        }),
                        None => Ok(provider.clone()),
                    }
                });
        created.await.map(|written| written.sequence)
    }

    /// Adds one to the provider's rate limit.
    async fn count(&self, name: &str, if_match: Option<u64>) -> Result<u64, CommandError> {
        let actor = actor();
        let changed = self.commands.change(&actor, if_match, |snapshot| {
            let entry = snapshot
                .provider_named(name)
                .ok_or(CommandError::NotFound("provider"))?;
            let mut provider = entry.resource.resource.clone();
            provider.rate_limit = Some(provider.rate_limit.unwrap_or(0) + 1);
            Ok(Decision {
                action: Action::Updated,
                resource: provider,
                sequence: entry.sequence,
                changed: vec!["rate_limit".to_owned()],
                basis: Basis::Resource,
            })
        });
        changed.await.map(|written| written.sequence)
    }

    fn rate_limit(&self, name: &str) -> Option<u32> {
        let snapshot = self.configuration.current();
        snapshot.provider_named(name)?.resource.resource.rate_limit
    }

    async fn stop(self) -> Result<()> {
        self.stop.cancel();
        self.task.await??;
        Ok(())
    }
}

fn actor() -> Actor {
    Actor {
        key: None,
        name: "test".to_owned(),
    }
}

fn provider(name: &str) -> Provider {
    Provider {
        id: ProviderId::draw(&SystemClock),
        name: name.to_owned(),
        kind: "openai".to_owned(),
        server_url: "http://127.0.0.1:9".to_owned(),
        server_key: None,
        rate_limit: None,
        created_ms: SystemClock.now(),
        updated_ms: SystemClock.now(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_that_start_at_once_share_one_installation() -> Result<()> {
    let broker = Broker::start().await?;
    let (master, dir) = (MasterKey::draw()?, tempfile::tempdir()?);
    let starting = (0..4).map(|n| {
        let (master, dir, url) = (master.clone(), dir.path().join(n.to_string()), broker.url());
        async move {
            std::fs::create_dir(&dir)?;
            Gateway::start(&log(&url).await?, &dir, &master).await
        }
    });
    let gateways: Vec<Gateway> = join_all(starting)
        .await
        .into_iter()
        .collect::<Result<_>>()?;
    let first = gateways[0].configuration.current();
    for gateway in &gateways {
        let snapshot = gateway.configuration.current();
        assert_eq!(snapshot.message_key(), first.message_key());
        assert_eq!(snapshot.providers().count(), 1);
        assert_eq!(snapshot.alternatives("echo").unwrap().list.len(), 1);
        assert_eq!(snapshot.keys().count(), 1);
    }
    let shown = gateways
        .iter()
        .filter(|gateway| gateway.first_key.is_some());
    assert_eq!(
        shown.count(),
        1,
        "the key that was drawn is shown by who drew it"
    );
    for gateway in gateways {
        gateway.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_cannot_overwrite_each_other() -> Result<()> {
    let broker = Broker::start().await?;
    let (master, dirs) = (
        MasterKey::draw()?,
        [tempfile::tempdir()?, tempfile::tempdir()?],
    );
    let one = Gateway::start(&log(&broker.url()).await?, dirs[0].path(), &master).await?;
    let two = Gateway::start(&log(&broker.url()).await?, dirs[1].path(), &master).await?;

    let created = join_all([
        one.create("p"),
        two.create("p"),
        one.create("p"),
        two.create("p"),
    ])
    .await;
    let winners: Vec<u64> = created
        .iter()
        .filter_map(|outcome| outcome.as_ref().ok())
        .copied()
        .collect();
    assert_eq!(winners.len(), 1, "{created:?}");
    for outcome in created {
        if let Err(error) = outcome {
            assert!(
                matches!(
                    error,
                    CommandError::Refused {
                        code: "name_taken",
                        ..
                    }
                ),
                "{error:?}"
            );
        }
    }
    one.stop().await?;
    two.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_in_force_before_the_answer_and_everywhere_soon() -> Result<()> {
    let broker = Broker::start().await?;
    let (master, dirs) = (
        MasterKey::draw()?,
        [tempfile::tempdir()?, tempfile::tempdir()?],
    );
    let one = Gateway::start(&log(&broker.url()).await?, dirs[0].path(), &master).await?;
    let two = Gateway::start(&log(&broker.url()).await?, dirs[1].path(), &master).await?;
    one.create("p").await?;
    assert!(one.configuration.current().provider_named("p").is_some());
    until("both have it", BOUND, async || {
        let has = [&one, &two].map(|gateway| {
            gateway
                .configuration
                .current()
                .provider_named("p")
                .is_some()
        });
        if has == [true, true] {
            Ok(())
        } else {
            Err(format!("{has:?}"))
        }
    })
    .await?;
    for n in 0..5_u32 {
        one.count("p", None).await?;
        assert_eq!(one.rate_limit("p"), Some(2 * n + 1));
        two.count("p", None).await?;
        assert_eq!(two.rate_limit("p"), Some(2 * n + 2));
    }
    let seen = one
        .configuration
        .current()
        .provider_named("p")
        .unwrap()
        .sequence;
    two.count("p", None).await?;
    until("one has seen it", BOUND, async || {
        if one.rate_limit("p") == Some(11) {
            Ok(())
        } else {
            Err("not yet")
        }
    })
    .await?;
    assert!(matches!(
        one.count("p", Some(seen)).await,
        Err(CommandError::Stale)
    ));
    one.stop().await?;
    two.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_starts_and_serves_while_the_broker_is_away() -> Result<()> {
    let mut broker = Broker::start().await?;
    let (master, dir) = (MasterKey::draw()?, tempfile::tempdir()?);
    let before = Gateway::start(&log(&broker.url()).await?, dir.path(), &master).await?;
    before.create("p").await?;
    before.stop().await?;
    broker.kill().await?;

    let log = log(&broker.url()).await?;
    let mut follower = follower(&log, dir.path(), &master)?;
    let away = follower.prepare(Duration::from_millis(300)).await;
    assert!(
        matches!(away, Err(FollowError::Log(LogError::Unreachable { .. }))),
        "{away:?}"
    );
    let configuration = follower.configuration()?.unwrap();
    assert!(configuration.current().provider_named("p").is_some());
    let gateway = Gateway::follow(&log, follower, configuration, None);
    let refused = gateway.create("q").await;
    assert!(
        matches!(refused, Err(CommandError::Unavailable(_))),
        "{refused:?}"
    );

    broker.restart().await?;
    until("changes are taken again", BOUND, async || {
        gateway.create("q").await
    })
    .await?;
    assert!(
        gateway
            .configuration
            .current()
            .provider_named("q")
            .is_some()
    );
    gateway.stop().await
}
