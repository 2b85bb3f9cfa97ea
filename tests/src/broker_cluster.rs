//! Three `nats-server` nodes that form one JetStream cluster, each of which can be killed alone.
//!
//! Every node is a [`Broker`] of its own, with its own store and ports.
//! They find each other by routes on ports that were free a moment ago; a cluster that does not
//! form because somebody took one of them is tried again with others.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::{self, stream};

use crate::broker::{self, Broker};
use crate::ports;
use crate::wait::until;

/// Nodes: three, the least that outlives the loss of one.
pub const NODES: usize = 3;

/// Electing a leader takes a few seconds; a busy two-core machine needs several times that.
const FORM_BOUND: Duration = Duration::from_mins(1);

/// So many sets of ports are tried.
const TRIES: usize = 3;

/// A running cluster.
#[derive(Debug)]
pub struct BrokerCluster {
    nodes: Vec<Broker>,
}

impl BrokerCluster {
    /// Starts three nodes and waits until streams with three replicas can be made.
    ///
    /// # Errors
    ///
    /// When there is no `nats-server`, or no cluster forms; with what was seen last.
    pub async fn start() -> Result<Self> {
        let mut last = None;
        for _ in 0..TRIES {
            match Self::form().await {
                Ok(cluster) => return Ok(cluster),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no cluster was tried")?)
    }

    async fn form() -> Result<Self> {
        let mut routes = Vec::new();
        for _ in 0..NODES {
            routes.push(ports::free()?);
        }
        let all: Vec<String> = routes
            .iter()
            .map(|port| format!("\"nats://127.0.0.1:{port}\""))
            .collect();
        let mut nodes = Vec::new();
        for (number, port) in routes.iter().enumerate() {
            let config = format!(
                "server_name: node-{number}\n\
                 cluster {{\n  name: nexus\n  listen: \"127.0.0.1:{port}\"\n  routes: [{}]\n}}",
                all.join(", ")
            );
            nodes.push(Broker::start_with(&config).await?);
        }
        let cluster = Self { nodes };
        cluster.formed().await?;
        Ok(cluster)
    }

    /// Waits until the cluster makes streams with three replicas (again).
    ///
    /// # Errors
    ///
    /// When it does not.
    pub async fn formed(&self) -> Result<()> {
        let client = broker::connect(&self.url()).await?;
        let context = jetstream::new(client);
        until("the cluster has a leader", FORM_BOUND, async || {
            let probe = stream::Config {
                name: "PROBE".to_owned(),
                num_replicas: NODES,
                ..Default::default()
            };
            context.create_stream(probe).await?;
            context.delete_stream("PROBE").await?;
            anyhow::Ok(())
        })
        .await
    }

    /// The addresses of all nodes, separated by commas, as the hub takes them.
    pub fn url(&self) -> String {
        let urls: Vec<String> = self.nodes.iter().map(Broker::url).collect();
        urls.join(",")
    }

    /// The node that leads a stream at present, by its number.
    ///
    /// # Errors
    ///
    /// When no node knows of one.
    pub async fn leader_of(&self, stream: &str) -> Result<usize> {
        let context = jetstream::new(broker::connect(&self.url()).await?);
        let what = format!("{stream} has a leader");
        let name = until(&what, FORM_BOUND, async || {
            let stream = context.get_stream(stream).await?;
            let cluster = stream.cached_info().cluster.clone();
            cluster
                .and_then(|cluster| cluster.leader)
                .context("no leader is known")
        })
        .await?;
        let number = name.strip_prefix("node-").and_then(|n| n.parse().ok());
        let number: usize = number.with_context(|| format!("a strange node: {name}"))?;
        ensure!(number < self.nodes.len(), "a strange node: {name}");
        Ok(number)
    }

    /// One node, to be killed, frozen and brought back.
    ///
    /// # Errors
    ///
    /// When there is no such node.
    pub fn node(&mut self, number: usize) -> Result<&mut Broker> {
        self.nodes.get_mut(number).context("there is no such node")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_outlives_its_leader() {
        let mut cluster = BrokerCluster::start().await.unwrap();
        let context = jetstream::new(broker::connect(&cluster.url()).await.unwrap());
        let config = stream::Config {
            name: "KEPT".to_owned(),
            subjects: vec!["kept".to_owned()],
            num_replicas: NODES,
            ..Default::default()
        };
        context.create_stream(config).await.unwrap();
        let leader = cluster.leader_of("KEPT").await.unwrap();
        cluster.node(leader).unwrap().kill().await.unwrap();
        let stored = until("another node leads", FORM_BOUND, async || {
            let ack = context.publish("kept", "still".into()).await?.await?;
            anyhow::Ok(ack.sequence)
        })
        .await
        .unwrap();
        assert_eq!(stored, 1);
        assert_ne!(cluster.leader_of("KEPT").await.unwrap(), leader);
        cluster.node(leader).unwrap().restart().await.unwrap();
        cluster.formed().await.unwrap();
    }
}
