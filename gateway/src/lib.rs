//! The gateway of NexusAI Hub: client API, management API and the `nexus` executable.
//!
//! *What it is.* Clients speak the `OpenAI` API to it; it authenticates them,
//! finds the conversation, asks a provider, streams the answer back and writes
//! each step to the outbox before anyone outside can see it. Configuration is
//! a fold of the log; what people read comes from the projector's read model.
//!
//! *What it never does.* It writes no read model, waits for no broker and no
//! database on the way of a request, and gives out no byte that is not recorded.

pub mod admin;
pub mod apply;
pub mod auth;
pub mod cache;
pub mod cli;
pub mod command;
pub mod configuration;
pub mod data_dir;
pub mod dialect;
pub mod endpoint;
pub mod error;
pub mod exchange;
pub mod lifecycle;
pub mod limits;
pub mod metrics;
pub mod middleware;
pub mod nats_server;
pub mod protocol;
pub mod provider;
pub mod readiness;
pub mod resume;
pub mod role;
pub mod router;
pub mod routing;
pub mod server;
pub mod session;
pub mod settings;
pub mod shared;
pub mod standalone;
pub mod standstill;
pub mod state;
pub mod stream;
pub mod telemetry;
pub mod tokens;
pub mod ws;
