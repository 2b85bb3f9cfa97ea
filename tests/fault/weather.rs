//! A bad network between any two parts: cut, stalled, slow, half closed, refusing.
//!
//! A proxy stands between clients and a gateway, gateways and provider, gateways and broker,
//! projector and broker, gateways and Redis; the seed says which of them misbehaves when and how.

use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nexus_tests::seed::Seed;
use nexus_tests::{Broker, Chaos, Client, Redis, Upstream, settings};
use tokio::time::{Instant, sleep};

use crate::deployment::{Deployment, Plan};

/// Bad weather of an ordinary run: 15 s.
const SECONDS: u64 = 15;

/// The longest time that a proxy misbehaves: 1.5 s, so that a run sees a dozen troubles.
const TROUBLE: Duration = Duration::from_millis(1_500);

/// A connection that passes 2 kB a second: a chunk takes a fifth of a second.
const SLOW: u32 = 2_000;

/// The proxies.
struct Network {
    to_gateway: Chaos,
    to_provider: Chaos,
    gateway_to_broker: Chaos,
    projector_to_broker: Chaos,
    to_redis: Chaos,
}

impl Network {
    fn all(&self) -> [(&'static str, &Chaos); 5] {
        [
            ("clients and gateway", &self.to_gateway),
            ("gateways and provider", &self.to_provider),
            ("gateways and broker", &self.gateway_to_broker),
            ("projector and broker", &self.projector_to_broker),
            ("gateways and Redis", &self.to_redis),
        ]
    }

    /// Everything passes again.
    fn clear(&self) -> Result<()> {
        for (_, proxy) in self.all() {
            proxy.flow();
            proxy.accept()?;
        }
        Ok(())
    }

    /// One trouble between two parts.
    async fn trouble(&self, seed: &mut Seed) -> Result<String> {
        let proxies = self.all();
        let (between, proxy) = proxies.get(seed.index(proxies.len())).context("a proxy")?;
        let lasting = seed.between(Duration::from_millis(50), TROUBLE);
        let how = match seed.below(5) {
            0 => {
                proxy.cut();
                "cut"
            }
            1 => {
                proxy.stall();
                sleep(lasting).await;
                proxy.flow();
                "stalled"
            }
            2 => {
                proxy.slow(NonZeroU32::new(SLOW).context("a speed")?);
                sleep(lasting).await;
                proxy.flow();
                "slow"
            }
            3 => {
                proxy.half_close();
                sleep(lasting).await;
                // What hangs half closed would hang for the time-outs of the parts.
                proxy.cut();
                "half closed"
            }
            _ => {
                proxy.refuse().await?;
                proxy.cut();
                sleep(lasting).await;
                proxy.accept()?;
                "refused"
            }
        };
        Ok(format!("{between}: {how}"))
    }
}

/// Whatever the network does between any two parts: nothing is lost, nothing counted twice.
#[tokio::test(flavor = "multi_thread")]
async fn bad_weather_between_any_two_parts() -> Result<()> {
    let mut seed = Seed::of("weather")?;
    let broker = Broker::start().await?;
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    let redis_host = redis.url().trim_start_matches("redis://").to_owned();
    let to_broker = || Chaos::start(&broker.host_port());
    let (gateway_to_broker, projector_to_broker) = (to_broker()?, to_broker()?);
    let to_provider = Chaos::start(&upstream.host_port())?;
    let to_redis = Chaos::start(&redis_host)?;
    let deployment = Deployment::of(Plan {
        gateway_nats: format!("nats://{}", gateway_to_broker.url_host_port()),
        projector_nats: format!("nats://{}", projector_to_broker.url_host_port()),
        gateway_redis: format!("redis://{}", to_redis.url_host_port()),
        provider: format!("http://{}/v1", to_provider.url_host_port()),
        settings: Vec::new(),
        redis,
        upstream,
    })
    .await?;
    let gateway = deployment.gateways.first().context("a gateway")?;
    let to_gateway = Chaos::start(gateway.url()?.trim_start_matches("http://"))?;
    let network = Network {
        to_gateway,
        to_provider,
        gateway_to_broker,
        projector_to_broker,
        to_redis,
    };
    let load = deployment.load(&mut seed)?;
    let through = format!("http://{}", network.to_gateway.url_host_port());
    let client = Client::new(&through)?.with_key(gateway.admin_key())?;
    load.door(0, Some(client));
    let seconds = settings::fault_seconds()?.unwrap_or(SECONDS);
    let began = Instant::now();
    let mut troubles = 0;
    while began.elapsed() < Duration::from_secs(seconds) {
        let what = network.trouble(&mut seed).await?;
        println!("{:>6} ms  {what}", began.elapsed().as_millis());
        troubles += 1;
        sleep(seed.between(Duration::ZERO, Duration::from_millis(500))).await;
    }
    network.clear()?;
    let memory = load.stop().await;
    println!("{troubles} troubles, {} requests asked", memory.asked.len());
    ensure!(
        troubles > 3 && memory.asked.len() > 20,
        "there was no storm"
    );
    deployment.settle_and_check(&memory).await?;
    Ok(())
}
