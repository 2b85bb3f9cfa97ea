//! Chat over a WebSocket: many requests on one connection, each with its own id.
//!
//! *What it is.* A second door to the same engine: what comes through it passes
//! the same limits, is recorded by the same events and gets the same errors as
//! over HTTP. Frames are JSON texts, see [`frame`].
//!
//! *What it promises.* Frames of one request come in order, and its last one is
//! `done` or `error`. `cancel` ends a request at its provider, whatever the key
//! says about clients that hang up; a connection that breaks is a client that
//! hung up from all its requests. A key that is revoked asks for nothing more,
//! and its connection is closed. A client that reads slowly slows its own requests down; one that
//! reads nothing, or says nothing and answers no ping, is let go.
//!
//! *What bounds it.* Connections, requests under way on each, the size of a
//! frame, and the frames that wait for a client, by their number and by their
//! bytes (`queue`).

mod connection;
pub mod frame;
mod queue;
mod request;
mod told;

use std::time::Duration;

use nexus_events::id::KeyId;

use crate::{provider::hops::Hops, settings::BODY_BYTES_MAX};

/// Requests under way on one connection: 64, more than a person or an agent has in the air.
pub const REQUESTS_MAX: usize = 64;

/// Bytes of a frame: a request's body of 32 MiB and what is around it.
pub const FRAME_BYTES_MAX: usize = BODY_BYTES_MAX + 64 * 1024;

/// Frames that wait for a client: 64, some seconds of an answer.
const WAITING_MAX: usize = 64;

/// Bytes of the frames that wait for a client: 256 KiB, 64 chunks of 4 KiB, which are large ones.
///
/// So 4 096 connections whose clients do not read hold 1 GiB at most, whatever they asked for. A
/// larger frame waits until it is alone.
const WAITING_BYTES_MAX: usize = 256 * 1024;

/// A client that takes no frame for so long is gone: two minutes, as for a stream over HTTP.
const STALL_MAX: Duration = Duration::from_mins(2);

/// How often a client that says nothing is pinged: 20 s, below what proxies cut off.
const PING_EVERY: Duration = Duration::from_secs(20);

/// A client that answers no ping for so long is gone: a minute.
const SILENCE_MAX: Duration = Duration::from_mins(1);

/// The subprotocol, which browsers must name to send a key beside it.
pub const PROTOCOL: &str = "nexus.v1";

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The key that it came with; what that may do is looked up for each request.
    pub key: KeyId,
    /// Trace context that it came with.
    pub traceparent: Option<Box<str>>,
    /// The hubs that it came through.
    pub hops: Hops,
}

pub use connection::serve;
