//! SIGKILL of every role and of the broker, alone and together, under load, again and again.
//!
//! A storm lasts `FAULT_SECONDS`: some seconds in an ordinary run, as long as you like in a soak
//! (`make soak`).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nexus_tests::seed::Seed;
use nexus_tests::{Broker, settings};
use tokio::time::{Instant, sleep};

use crate::deployment::Deployment;
use crate::load::Load;

/// A storm of an ordinary run: 15 s, some ten rounds of kills.
const SECONDS: u64 = 15;

/// What can be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Gateway(usize),
    Projector,
    Archiver,
    Broker,
}

const VICTIMS: [Victim; 5] = [
    Victim::Gateway(0),
    Victim::Gateway(1),
    Victim::Projector,
    Victim::Archiver,
    Victim::Broker,
];

/// A storm over one installation.
struct Storm {
    broker: Broker,
    deployment: Deployment,
    load: Load,
    seed: Seed,
    kills: usize,
}

impl Storm {
    async fn gather(mut seed: Seed) -> Result<Self> {
        let broker = Broker::start().await?;
        let deployment = Deployment::start(&broker.url()).await?;
        let load = deployment.load(&mut seed)?;
        Ok(Self {
            broker,
            deployment,
            load,
            seed,
            kills: 0,
        })
    }

    /// Kills some, and brings them back in any order.
    async fn strike(&mut self, among: &[Victim]) -> Result<()> {
        let calm = (Duration::from_millis(100), Duration::from_millis(1_500));
        sleep(self.seed.between(calm.0, calm.1)).await;
        let mut victims = self.some_of(among);
        for victim in &victims {
            self.kill(*victim).await?;
        }
        self.kills += victims.len();
        sleep(
            self.seed
                .between(Duration::ZERO, Duration::from_millis(700)),
        )
        .await;
        while !victims.is_empty() {
            let next = victims.swap_remove(self.seed.index(victims.len()));
            self.launch(next).await?;
        }
        // Often enough the next stroke comes while they are still starting.
        if self.seed.one_in(3) {
            return Ok(());
        }
        self.all_ready().await
    }

    /// One of them mostly, sometimes several, sometimes all.
    fn some_of(&mut self, among: &[Victim]) -> Vec<Victim> {
        if self.seed.one_in(6) {
            return among.to_vec();
        }
        let mut chosen = Vec::new();
        let count = if self.seed.one_in(3) { 2 } else { 1 };
        while chosen.len() < count.min(among.len()) {
            let place = self.seed.index(among.len());
            if let Some(victim) = among.get(place).filter(|victim| !chosen.contains(*victim)) {
                chosen.push(*victim);
            }
        }
        chosen
    }

    async fn kill(&mut self, victim: Victim) -> Result<()> {
        match victim {
            Victim::Gateway(number) => {
                self.load.door(number, None);
                let gateway = self.deployment.gateways.get_mut(number);
                gateway.context("no such gateway")?.kill().await
            }
            Victim::Projector => self.deployment.projector.kill().await,
            Victim::Archiver => self.deployment.archiver.kill().await,
            Victim::Broker => self.broker.kill().await,
        }
    }

    async fn launch(&mut self, victim: Victim) -> Result<()> {
        match victim {
            Victim::Gateway(number) => {
                let gateway = self.deployment.gateways.get_mut(number);
                gateway.context("no such gateway")?.launch_again()
            }
            Victim::Projector => self.deployment.projector.launch_again(),
            Victim::Archiver => self.deployment.archiver.launch_again(),
            Victim::Broker => self.broker.restart().await,
        }
    }

    /// Waits until every role is ready, and opens the gateways' doors at their new addresses.
    async fn all_ready(&mut self) -> Result<()> {
        for (number, gateway) in self.deployment.gateways.iter_mut().enumerate() {
            gateway.ready().await?;
            self.load.door(number, Some(gateway.client()?));
        }
        self.deployment.projector.ready().await?;
        self.deployment.archiver.ready().await
    }

    async fn rage(mut self, among: &[Victim], lasting: Duration) -> Result<()> {
        let began = Instant::now();
        let mut strokes = 0;
        while began.elapsed() < lasting {
            self.strike(among)
                .await
                .with_context(|| format!("stroke {strokes}"))?;
            strokes += 1;
        }
        self.all_ready().await?;
        let memory = self.load.stop().await;
        ensure!(!memory.asked.is_empty(), "there was no load");
        println!(
            "{strokes} strokes, {} kills in {:?}; {} requests asked",
            self.kills,
            began.elapsed(),
            memory.asked.len()
        );
        self.deployment.settle_and_check(&memory).await?;
        Ok(())
    }
}

fn lasting() -> Result<Duration> {
    Ok(Duration::from_secs(
        settings::fault_seconds()?.unwrap_or(SECONDS),
    ))
}

/// Whatever dies whenever: what clients and provider saw is in the log, once, and ends once.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_killed_nothing_is_lost_and_nothing_counted_twice() -> Result<()> {
    let storm = Storm::gather(Seed::of("storm")?).await?;
    storm.rage(&VICTIMS, lasting()?).await
}

/// A gateway that dies again while it repairs what it left repairs it once.
#[tokio::test(flavor = "multi_thread")]
async fn gateways_killed_again_and_again_close_each_request_once() -> Result<()> {
    let storm = Storm::gather(Seed::of("storm of gateways")?).await?;
    let gateways = [Victim::Gateway(0), Victim::Gateway(1)];
    storm.rage(&gateways, lasting()?).await
}
