//! The test harness of NexusAI Hub: real parts, started and broken on command.
//!
//! A test is a few verbs: start the parts, do one thing, see what came of it.
//!
//! ```no_run
//! # async fn example() -> nexus_tests::Result<()> {
//! use nexus_tests::{Hub, Upstream};
//! use serde_json::json;
//!
//! let upstream = Upstream::start().await?;
//! let hub = Hub::standalone().start().await?;
//! let client = hub.client()?;
//! client.serve_model("gpt-test", &upstream.url()).await?;
//!
//! let answer = client.chat(&json!({
//!     "model": "gpt-test",
//!     "messages": [{"role": "user", "content": "tell me about rivers, req-1"}],
//! })).await?;
//! assert_eq!(answer.status, 200);
//! # Ok(())
//! # }
//! ```
//!
//! What the harness promises:
//!
//! - Every part is real (`nats-server`, `valkey-server`, the `nexus` executable, the official
//!   clients) except the provider, which is our own [`Upstream`], because it must break at an
//!   exact byte.
//! - Every part has its own temporary folder and its own port, so tests run side by side.
//! - Nothing waits for a duration: [`until`] waits for a state, with a bound, and on time-out
//!   tells what it saw last.
//! - Nothing outlives its test: a part is killed when its handle is dropped, and dies with the test
//!   process where the system allows it.
//! - A part that dies unasked fails the test, with its last words.
//!
//! A failure is a [`Result`]: tests return it and use `?`.

pub mod account;
pub mod broker;
pub mod broker_cluster;
pub mod chaos;
pub mod client;
pub mod clock;
pub mod gate;
pub mod held;
pub mod hub;
pub mod log;
pub mod lossy;
pub mod ports;
pub mod process;
pub mod process_table;
pub mod programs;
pub mod read_model;
pub mod redis;
pub mod seed;
pub mod settings;
pub mod sse;
pub mod upstream;
pub mod wait;

pub use anyhow::Result;
pub use broker::Broker;
pub use broker_cluster::BrokerCluster;
pub use chaos::Chaos;
pub use client::Client;
pub use clock::MovedClock;
pub use gate::Gate;

pub use hub::{Cluster, Hub};
pub use log::Log;
pub use redis::Redis;
pub use upstream::{Script, Upstream};
pub use wait::until;
