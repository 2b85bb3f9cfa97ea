//! An installation as operators run it: every role a process of its own, two gateways.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nexus_tests::account::{Accounting, Figures, Memory};
use nexus_tests::hub::HubBuilder;
use nexus_tests::seed::Seed;
use nexus_tests::{Client, Cluster, Hub, Redis, Upstream};

use crate::load::{self, Load, MODEL};

/// Clients of the load: enough that several streams are open at any moment.
const CLIENTS: usize = 6;

/// Everything but the broker, which scenarios have in several forms.
pub(crate) struct Deployment {
    // Before the parts that they talk to: a role must be gone first.
    pub(crate) gateways: Vec<Hub>,
    pub(crate) projector: Hub,
    pub(crate) archiver: Hub,
    pub(crate) upstream: Upstream,
    pub(crate) redis: Redis,
    backups: PathBuf,
}

/// Where the parts find each other.
pub(crate) struct Plan {
    pub(crate) redis: Redis,
    pub(crate) upstream: Upstream,
    /// Addresses of the broker, as gateways and projector are told them.
    pub(crate) gateway_nats: String,
    pub(crate) projector_nats: String,
    /// The address of Redis, as gateways are told it.
    pub(crate) gateway_redis: String,
    /// The address of the provider, as it is configured.
    pub(crate) provider: String,
    /// Settings that every role gets.
    pub(crate) settings: Vec<(&'static str, String)>,
}

impl Plan {
    /// Everything finds everything directly.
    pub(crate) async fn direct(nats_url: &str) -> Result<Self> {
        let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
        Ok(Self {
            gateway_nats: nats_url.to_owned(),
            projector_nats: nats_url.to_owned(),
            gateway_redis: redis.url(),
            provider: upstream.url(),
            settings: Vec::new(),
            redis,
            upstream,
        })
    }

    /// The same with a setting for every role.
    #[must_use]
    pub(crate) fn set(mut self, name: &'static str, value: &str) -> Self {
        self.settings.push((name, value.to_owned()));
        self
    }
}

impl Deployment {
    /// Starts it on a broker of the scenario's own.
    pub(crate) async fn start(nats_url: &str) -> Result<Self> {
        Self::of(Plan::direct(nats_url).await?).await
    }

    /// Starts what was planned.
    pub(crate) async fn of(plan: Plan) -> Result<Self> {
        load::play(&plan.upstream);
        let cluster = Cluster::at(&plan.gateway_nats, &plan.redis.url())?;
        let with_settings = |mut role: HubBuilder| {
            for (name, value) in &plan.settings {
                role = role.env(name, value);
            }
            role
        };
        let mut gateways = Vec::new();
        for _ in 0..2 {
            let gateway = with_settings(cluster.gateway());
            let gateway = gateway.env("NEXUS_REDIS_URL", &plan.gateway_redis);
            gateways.push(gateway.start().await?);
        }
        let projector = with_settings(cluster.projector());
        let projector = projector.env("NEXUS_NATS_URL", &plan.projector_nats);
        let deployment = Self {
            gateways,
            projector: projector.start().await?,
            archiver: with_settings(cluster.archiver()).start().await?,
            upstream: plan.upstream,
            redis: plan.redis,
            backups: cluster.backups(),
        };
        let client = deployment.client(0)?;
        client.serve_model(MODEL, &plan.provider).await?;
        Ok(deployment)
    }

    /// The folder of the backups.
    pub(crate) fn backups(&self) -> &Path {
        &self.backups
    }

    /// A client of one gateway, with the admin key.
    pub(crate) fn client(&self, gateway: usize) -> Result<Client> {
        let gateway = self.gateways.get(gateway).context("no such gateway")?;
        gateway.client()
    }

    /// Clients that ask both gateways from now on.
    pub(crate) fn load(&self, seed: &mut Seed) -> Result<Load> {
        let doors = (0..self.gateways.len()).map(|number| self.client(number));
        Load::start(CLIENTS, seed, doors.collect::<Result<_>>()?)
    }

    /// Kills a gateway, and lets no client ask it any more.
    pub(crate) async fn kill(&mut self, gateway: usize, load: &Load) -> Result<()> {
        load.door(gateway, None);
        self.gateway(gateway)?.kill().await
    }

    /// Starts a killed gateway again and waits until it can be asked, ready or not.
    pub(crate) async fn launch(&mut self, gateway: usize, load: &Load) -> Result<()> {
        let started = self.gateway(gateway)?;
        started.launch_again()?;
        started.answers().await?;
        load.door(gateway, Some(started.client()?));
        Ok(())
    }

    /// Waits until every gateway is ready.
    pub(crate) async fn ready(&mut self) -> Result<()> {
        for gateway in &mut self.gateways {
            gateway.ready().await?;
        }
        Ok(())
    }

    fn gateway(&mut self, number: usize) -> Result<&mut Hub> {
        let gateway = self.gateways.get_mut(number);
        gateway.context("no such gateway")
    }

    /// Waits until all is settled, and takes everything to account.
    pub(crate) async fn settle_and_check(&self, memory: &Memory) -> Result<Figures> {
        let accounting = Accounting {
            gateways: self.gateways.iter().collect(),
            upstream: &self.upstream,
            memory,
        };
        let figures = accounting.settle_and_check().await?;
        println!("{figures:?}");
        Ok(figures)
    }
}
