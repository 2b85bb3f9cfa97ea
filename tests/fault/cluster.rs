//! A cluster of three brokers with streams of three replicas loses its leader, and its quorum.

use std::time::Duration;

use anyhow::{Result, ensure};
use nexus_tests::BrokerCluster;
use nexus_tests::broker_cluster::NODES;
use nexus_tests::seed::Seed;
use tokio::time::sleep;

use crate::deployment::{Deployment, Plan};

async fn deployed(cluster: &BrokerCluster) -> Result<Deployment> {
    let plan = Plan::direct(&cluster.url()).await?;
    Deployment::of(plan.set("NEXUS_STREAM_REPLICAS", "3")).await
}

/// The leader of the exchanges dies again and again: clients notice nothing, nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_loses_its_leader() -> Result<()> {
    let mut seed = Seed::of("lost leader")?;
    let mut cluster = BrokerCluster::start().await?;
    let deployment = deployed(&cluster).await?;
    let load = deployment.load(&mut seed)?;
    for _ in 0..3 {
        load.goes_on(20).await?;
        let leader = cluster.leader_of("NEXUS_EXCHANGES").await?;
        cluster.node(leader)?.kill().await?;
        load.goes_on(20).await?;
        sleep(seed.between(Duration::ZERO, Duration::from_secs(2))).await;
        cluster.node(leader)?.restart().await?;
        cluster.formed().await?;
    }
    let memory = load.stop().await;
    ensure!(
        memory.refused.is_empty(),
        "a client noticed: {:?}",
        memory.refused
    );
    deployment.settle_and_check(&memory).await?;
    Ok(())
}

/// Two of three are gone, nothing is stored, and traffic goes on; they come back and all is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_loses_its_quorum_and_gets_it_back() -> Result<()> {
    let mut seed = Seed::of("lost quorum")?;
    let mut cluster = BrokerCluster::start().await?;
    let deployment = deployed(&cluster).await?;
    let load = deployment.load(&mut seed)?;
    load.goes_on(20).await?;
    let stays = seed.index(NODES);
    let gone: Vec<usize> = (0..NODES).filter(|node| *node != stays).collect();
    for node in &gone {
        cluster.node(*node)?.kill().await?;
    }
    load.goes_on(60).await?;
    for node in &gone {
        cluster.node(*node)?.restart().await?;
    }
    cluster.formed().await?;
    load.goes_on(20).await?;
    let memory = load.stop().await;
    ensure!(
        memory.refused.is_empty(),
        "a client noticed: {:?}",
        memory.refused
    );
    deployment.settle_and_check(&memory).await?;
    Ok(())
}
